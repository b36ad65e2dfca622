package audit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec"
)

// checkMACsec looks at the link's device, and for other ones beside it.
func (i *inspection) checkMACsec() {
	device, parent := i.link.Local.Secure, i.parent.Name
	if i.secysErr != nil && !unsupported(i.secysErr) {
		i.note(CheckDevice, Unknown, "see what the message says; MACsec devices are read by generic netlink, which needs no privilege",
			"the MACsec devices cannot be read: %v", i.secysErr)
		return
	}
	var own *macsec.SecY
	var others []string
	for n := range i.secys {
		switch s := &i.secys[n]; {
		case s.Name == device:
			own = s
		case i.onParent(s):
			others = append(others, fmt.Sprintf("%s (%s, encrypt %s)", s.Name, s.CipherSuite, onOff(s.Encrypt)))
		}
	}
	const absent = "run lever agent, which makes it; until then nothing encrypted passes, and the fence alone keeps plain frames off"
	switch {
	case own == nil && unsupported(i.secysErr):
		i.note(CheckDevice, Fail, "load or install the module (modprobe macsec), or run a kernel that has it; then run lever agent", "this kernel has no MACsec, and so there is no %s", device)
	case own == nil && i.isInterface(device):
		i.note(CheckDevice, Fail, "remove it, or give the link another name with secure: in the inventory", "%s is there, and is no MACsec device", device)
	case own == nil:
		i.note(CheckDevice, Fail, absent, "there is no %s", device)
	case !i.onParent(own):
		i.note(CheckDevice, Fail, fmt.Sprintf("remove it (ip link del %s) if nothing uses it, or give the link another name with secure: in the inventory", device),
			"%s sits on %s, not on %s", device, i.name(i.lower(own)), parent)
	default:
		i.expect(CheckDevice, own.Up, Warn, "the agent sets it up when the link is secured: lever status says what it waits for",
			"%s, SCI %s, sits on %s and is %s%s", device, own.SCI, parent, map[bool]string{true: "up", false: "down"}[own.Up], offloaded(own))
		i.checkConfig(own)
		i.checkSAs(own)
	}
	i.expect(CheckForeignMACsec, len(others) == 0, Fail,
		"remove it (ip link del NAME) if nothing uses it: the fence passes MACsec frames whoever sends them, and encryption may be off in these",
		"%s", either(strings.Join(others, ", "), "no other MACsec device sits on "+parent))
}

// lower is what a device sits on, zero when that is in another namespace, where
// its index says nothing here.
func (i *inspection) lower(s *macsec.SecY) int {
	if at := slices.IndexFunc(i.interfaces, func(x Interface) bool { return x.Index == s.Index }); at >= 0 {
		return i.interfaces[at].Lower
	}
	return s.Parent
}

func (i *inspection) onParent(s *macsec.SecY) bool { return i.lower(s) == i.parent.Index }

func (i *inspection) isInterface(name string) bool {
	return slices.ContainsFunc(i.interfaces, func(x Interface) bool { return x.Name == name })
}

func offloaded(s *macsec.SecY) string {
	if s.Offload == macsec.Off {
		return ""
	}
	return fmt.Sprintf(", with the cryptography in hardware (%s)", s.Offload)
}

// checkConfig compares the device with what the agent makes.
func (i *inspection) checkConfig(s *macsec.SecY) {
	const repair = "the agent puts it right when it runs; find out what else changes the device (ip macsec, systemd-networkd, NetworkManager) and keep it away"
	want := suite(i.link.Cipher)
	i.expect(CheckCipher, s.CipherSuite == want, Fail, "restart the agent, which makes the device anew: its cipher suite is fixed when it is made",
		"%s; the inventory says %s", s.CipherSuite, want)
	i.expect(CheckEncrypt, s.Encrypt, Fail, repair, "encrypt %s%s", onOff(s.Encrypt),
		map[bool]string{false: ": frames are authenticated, and anybody can read them"}[s.Encrypt])
	i.expect(CheckProtect, s.Protect, Fail, repair, "protect %s%s", onOff(s.Protect),
		map[bool]string{false: ": what is sent through the device leaves without MACsec"}[s.Protect])
	i.expect(CheckValidate, s.Validate == macsec.Strict, Fail, repair, "validate %s%s", s.Validate,
		map[bool]string{false: ": frames that nobody protected are taken in"}[s.Validate == macsec.Strict])
	window := i.link.MKA.ReplayWindow
	i.expect(CheckReplay, s.ReplayProtect && s.ReplayWindow <= window, Warn, repair,
		"replay protection %s, window %d; the inventory says on, %d", onOff(s.ReplayProtect), s.ReplayWindow, window)
	i.expect(CheckSCI, s.IncludeSCI && !s.EndStation && !s.SCB, Warn, repair, "SCI in each frame %s, end station %s, single copy broadcast %s",
		onOff(s.IncludeSCI), onOff(s.EndStation), onOff(s.SCB))
}

// checkSAs looks for the keys. Without one the device drops all that it is
// given: no traffic, and no leak.
func (i *inspection) checkSAs(s *macsec.SecY) {
	const wait = "lever status says what the link waits for; until then the device drops everything"
	var active []string
	for n := range s.TxSC.SAs {
		if sa := &s.TxSC.SAs[n]; sa.Active {
			active = append(active, fmt.Sprintf("AN %d, key %s, next packet number %d", sa.AN, sa.KeyID, sa.NextPN))
		}
	}
	encoding := s.TxSC.SA(s.EncodingAN)
	switch {
	case len(active) == 0:
		i.note(CheckTransmitSA, Warn, wait, "no transmit SA is active")
	case encoding == nil || !encoding.Active:
		i.note(CheckTransmitSA, Warn, wait, "the encoding SA is AN %d, which is not active; active are %s", s.EncodingAN, strings.Join(active, "; "))
	default:
		i.note(CheckTransmitSA, Pass, "", "AN %d encodes; active: %s", s.EncodingAN, strings.Join(active, "; "))
	}
	var peers []string
	receiving := false
	for n := range s.RxSCs {
		sc := &s.RxSCs[n]
		keys := []string{}
		for m := range sc.SAs {
			if sa := &sc.SAs[m]; sa.Active {
				keys = append(keys, fmt.Sprintf("AN %d key %s", sa.AN, sa.KeyID))
				receiving = true
			}
		}
		peers = append(peers, fmt.Sprintf("from %s with %s", sc.SCI, either(strings.Join(keys, ", "), "no active SA")))
	}
	i.expect(CheckReceiveSA, receiving, Warn, wait, "%s", either(strings.Join(peers, "; "), "there is no receive SC"))
}

// suite is the cipher suite of the inventory by its name in macsec.
func suite(c inventory.Cipher) macsec.CipherSuite {
	switch c {
	case inventory.GCMAES128:
		return macsec.GCMAES128
	case inventory.GCMAES256:
		return macsec.GCMAES256
	case inventory.GCMAESXPN128:
		return macsec.GCMAESXPN128
	case inventory.GCMAESXPN256:
	}
	return macsec.GCMAESXPN256
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

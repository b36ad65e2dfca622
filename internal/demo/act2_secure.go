package demo

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/lever-link/lever/macsec"
)

// secureWithin bounds how long securing may take on the slowest machine.
const secureWithin = 15 * time.Second

// secure is act 2: both agents start, and the link is secured.
func (d *demo) secure(ctx context.Context) error {
	d.tell.say("Two agents start, each with its inventory and two directories of key material.")
	first, second := d.routers[0], d.routers[1]
	var macs [2]net.HardwareAddr
	for i, r := range d.routers {
		var err error
		if macs[i], err = r.ns.mac(d.ends[i].Interface); err != nil {
			return err
		}
	}
	// The second agent starts when the first one waits for it.
	if err := first.start(); err != nil {
		return err
	}
	err := d.await(ctx, secureWithin, "the first MKPDU of "+first.name, func() (heard bool, seen string) {
		d.wire.look(func(c *wireCount) { _, heard = c.first(macs[0], etherTypeEAPOL) })
		return heard, count(0, "frame")
	})
	if err != nil {
		return err
	}
	started := time.Now()
	if err := second.start(); err != nil {
		return err
	}
	key, err := d.awaitKey(ctx, secureWithin, "both kernels to use one key", macsec.KeyID{})
	if err != nil {
		return err
	}
	both, err := d.bothStatus(ctx, secureWithin, "both agents to say secured", func(l linkStatus) bool { return l.State == stateSecured })
	if err != nil {
		return err
	}
	since := both[0].SecuredSince
	if both[1].SecuredSince.After(since) {
		since = both[1].SecuredSince
	}
	var spoke time.Time
	d.wire.look(func(c *wireCount) { spoke, _ = c.first(macs[1], etherTypeEAPOL) })

	d.tell.claim(since.After(started), "both ends secured", "%d ms after %s's agent was started", since.Sub(started).Milliseconds(), second.name)
	d.tell.claim(!spoke.IsZero() && since.After(spoke), "", "%d ms after its first MKPDU on the wire", since.Sub(spoke).Milliseconds())
	return d.tellSecured(both, key)
}

// tellSecured says what was agreed, as both agents and both kernels see it.
func (d *demo) tellSecured(both [2]linkStatus, key kernelKey) error {
	a, z := both[0], both[1]
	var views [2]*macsec.SecY
	held := true
	for i, r := range d.routers {
		var err error
		if views[i], err = r.secy(d.ends[i].Secure); err != nil {
			return err
		}
		v := views[i]
		held = held && v.CipherSuite == macsec.GCMAESXPN256 && v.Encrypt && v.Protect && v.Validate == macsec.Strict &&
			strings.EqualFold(both[i].Cipher, v.CipherSuite.String())
	}
	d.tell.claim(held, "cipher", "%s, encryption on, validation strict, at both ends", views[0].CipherSuite)
	d.tell.claim(a.CKN != "" && a.CKN == z.CKN, "CKN", "%s at both ends, of epoch %s", abbreviated(a.CKN), epochText(a))
	d.tell.claim(a.KeyServer != "" && a.KeyServer == z.KeyServer && d.keyServer(both) >= 0, "key server",
		"%s, which is %s; both ends agree", a.KeyServer, d.keyServerName(both))
	d.tell.claim(a.AN == z.AN && a.KN == z.KN && a.KN == keyNumber(key.id), "SAK", "%s, in both agents and both kernels", key)
	for i, r := range d.routers {
		d.tell.fact(r.name, "%s", describeSecY(views[i]))
	}
	return nil
}

// keyServer is the index of the router that is key server, or -1.
func (d *demo) keyServer(both [2]linkStatus) int {
	for i, l := range both {
		if l.LocalSCI != "" && l.LocalSCI == l.KeyServer {
			return i
		}
	}
	return -1
}

func (d *demo) keyServerName(both [2]linkStatus) string {
	if i := d.keyServer(both); i >= 0 {
		return d.routers[i].name
	}
	return "neither of them"
}

// epochText is the epoch, whether the status writes a number or a string.
func epochText(l linkStatus) string { return strings.Trim(string(l.Epoch), `"`) }

// describeSecY is what the kernel says, in the words of `ip macsec show`.
func describeSecY(s *macsec.SecY) string {
	text := fmt.Sprintf("%s: protect %s, encrypt %s, validate %s; TXSC %s on SA %d",
		s.Name, onOff(s.Protect), onOff(s.Encrypt), s.Validate, s.SCI, s.EncodingAN)
	for _, rx := range s.RxSCs {
		text += fmt.Sprintf("; RXSC %s", rx.SCI)
	}
	return text
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

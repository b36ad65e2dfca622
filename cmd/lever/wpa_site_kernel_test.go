//go:build kernel

package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/macsec"
)

// A mixed site is one segment with routers of Lever's and of others on it. Its
// routers are Lever's alone; parties are all.
type mixed struct {
	*site
	parties []*party
}

// noKey is what a kernel without keys uses.
var noKey macsec.KeyID

// A party is one end: Lever, or wpa_supplicant.
type party struct {
	name  string
	space *lab.Netspace
	addr  netip.Addr // on the secured device
	lever *lab.Router
	wpa   *lab.Supplicant
	on    bool
}

// A partySpec says what runs at an end, with which keys.
type partySpec struct {
	lever    bool
	cak, ckn []byte
	priority int
	cipher   string           // Lever's; empty is the policy's
	mac      net.HardwareAddr // nil is the kernel's choice
}

// newMixed makes the segment: a wire for two, a bridge for more. Nothing runs
// yet. If the test fails it leaves the wire's capture and all logs.
func newMixed(t *testing.T, specs ...partySpec) *mixed {
	t.Helper()
	m := &mixed{site: &site{T: t, dir: t.TempDir()}}
	program, err := leverFile()
	m.must(err)
	siteNames.Lock()
	siteNames.n++
	prefix := fmt.Sprintf("wpa%d-", siteNames.n)
	siteNames.Unlock()
	space := func(name string) *lab.Netspace {
		ns, err := lab.NewNetspace(prefix + name)
		m.must(err)
		t.Cleanup(func() { m.mustNot(ns.Close(true)) })
		return ns
	}
	var spaces []*lab.Netspace
	for i, spec := range specs {
		p := &party{name: fmt.Sprintf("w%d", i+1), addr: inner(i)}
		if spec.lever {
			p.name = fmt.Sprintf("r%d", i+1)
		}
		p.space = space(p.name)
		m.parties, spaces = append(m.parties, p), append(spaces, p.space)
	}
	if len(spaces) == 2 {
		m.must(lab.Wire(spaces[0], theParent, spaces[1], theParent))
	} else {
		m.must(lab.Bridge(space("switch"), spaces, theParent))
	}
	for i, spec := range specs {
		m.equip(m.parties[i], spec, program)
	}
	m.record()
	return m
}

// equip gives a party its software and its keys.
func (m *mixed) equip(p *party, spec partySpec, program string) {
	m.Helper()
	if spec.mac != nil {
		l, err := p.space.Links.LinkByName(theParent)
		m.must(err)
		m.must(p.space.Links.LinkSetHardwareAddr(l, spec.mac))
	}
	dir, err := filepath.Join(m.dir, p.name), error(nil)
	if !spec.lever {
		p.wpa, err = lab.NewSupplicant(p.name, dir, p.space, theParent, lab.SupplicantConfig{CAK: spec.cak, CKN: spec.ckn, Priority: spec.priority})
		m.must(err)
		m.Cleanup(func() { m.mustNot(p.wpa.Close()) })
		return
	}
	cipher := ""
	if spec.cipher != "" {
		cipher = "\n    cipher: " + spec.cipher
	}
	inv := inventoryOf("", fmt.Sprintf(`
  - id: %s
    a: {node: %s, interface: %s, addresses: [%s/24]}
    z: external
    psk: [{ckn: "%x", cak_file: keys/psk.cak}]
    mka: {priority: %d}%s
`, theLink, p.name, theParent, p.addr, spec.ckn, spec.priority, cipher))
	p.lever, err = lab.NewRouter(p.name, dir, program, []byte(inv), p.space)
	m.must(err)
	m.Cleanup(func() { m.mustNot(p.lever.Close(false)) })
	m.routers = append(m.routers, p.lever)
	m.must(os.MkdirAll(p.lever.Path("keys"), 0o700))
	m.must(os.WriteFile(p.lever.Path("keys/psk.cak"), []byte(hex.EncodeToString(spec.cak)+"\n"), 0o600))
}

// askOften makes ARP on a device ask every 20 ms for as long as it takes, so
// that data passes as soon as the keys let it, and no entry is given up on a busy
// machine.
func askOften(ns *lab.Netspace, device string) error {
	return ns.Do(func() error {
		var errs []error
		for name, value := range map[string]string{"retrans_time_ms": "20", "mcast_solicit": "1000", "ucast_solicit": "1000"} {
			errs = append(errs, os.WriteFile(filepath.Join("/proc/sys/net/ipv4/neigh", device, name), []byte(value), 0))
		}
		return errors.Join(errs...)
	})
}

// record captures the first party's wire. In the end nothing plain must have
// been on it; of a test that failed, it is kept with the logs.
func (m *mixed) record() {
	m.Helper()
	file, err := os.Create(filepath.Join(m.dir, "wire.pcap"))
	m.must(err)
	m.wire, err = lab.StartCapture(m.parties[0].space, theParent, file)
	m.must(err)
	m.Cleanup(func() {
		m.mustNot(errors.Join(m.wire.Stop(), file.Close()))
		m.wire.Look(func(c *lab.WireCount) {
			if c.Plain() > 0 || c.Readable > 0 {
				m.Errorf("on the wire in plain: %q; %d frames can be read", c.PlainKinds(), c.Readable)
			}
		})
		if m.Failed() {
			m.keepEvidence()
		}
	})
}

// keepEvidence brings capture and logs to where go test -artifacts keeps them.
func (m *mixed) keepEvidence() {
	m.Helper()
	to := m.ArtifactDir()
	m.Logf("capture and logs are in %s (kept only with go test -artifacts)", to)
	m.mustNot(filepath.WalkDir(m.dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !slices.Contains([]string{".pcap", ".log", ".json"}, filepath.Ext(path)) {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil {
			rel, _ := filepath.Rel(m.dir, path)
			err = os.WriteFile(filepath.Join(to, strings.ReplaceAll(rel, "/", "-")), b, 0o644)
		}
		return err
	}))
	for _, p := range m.parties {
		lines := func(n int) []string { return p.wpa.LastLines(n) }
		if p.lever != nil {
			lines = p.lever.LastLines
		}
		m.Logf("the last lines of %s:\n%s", p.name, strings.Join(lines(40), "\n"))
	}
}

// turnOn starts a party. A supplicant's device gets its address.
func (m *mixed) turnOn(i int) {
	m.Helper()
	p := m.parties[i]
	p.on = true
	if p.lever != nil {
		m.must(p.lever.Start())
		return
	}
	m.must(p.wpa.Start())
	m.must(p.wpa.SetUp(m.ctx(), &net.IPNet{IP: p.addr.AsSlice(), Mask: net.CIDRMask(24, 32)}, patience))
	m.must(askOften(p.space, lab.SupplicantDevice))
}

// turnOff ends a party with a signal.
func (m *mixed) turnOff(i int, sig syscall.Signal) {
	m.Helper()
	if p := m.parties[i]; p.lever != nil {
		m.must(p.lever.End(sig, patience))
	} else {
		m.must(p.wpa.End(sig, patience))
	}
}

// spokeAt waits for a party's first MKPDU and returns when it was on the wire.
func (m *mixed) spokeAt(i int) (at time.Time) {
	m.Helper()
	mac, err := m.parties[i].space.MAC(theParent)
	m.must(err)
	m.must(lab.Await(m.ctx(), patience, "the first MKPDU of "+m.parties[i].name, func() (heard bool, seen string) {
		m.wire.Look(func(c *lab.WireCount) { at, heard = c.First(mac, lab.EtherTypeEAPOL) })
		return heard, "no frame"
	}))
	return at
}

// secure starts the parties in the order given, each when the one before has
// spoken, and waits until data passes between all that run by then. It returns
// how long that was after the last one's first MKPDU.
func (m *mixed) secure(order ...int) time.Duration {
	m.Helper()
	var since time.Time
	for _, i := range order {
		m.turnOn(i)
		since = m.spokeAt(i)
	}
	took := m.dataPasses().Sub(since)
	m.oneKey(noKey)
	return took
}

// running are the parties that have been turned on.
func (m *mixed) running() (on []*party) {
	for _, p := range m.parties {
		if p.on {
			on = append(on, p)
		}
	}
	return on
}

// dataPasses waits until a ping between each two of the parties that run is
// answered, and returns when that was so.
func (m *mixed) dataPasses() time.Time {
	m.Helper()
	on := m.running()
	for i := range on {
		for j := range i {
			// From the end whose device was up first: Lever's is when it is secured.
			from, to := on[i], on[j]
			m.must(lab.Await(m.ctx(), patience, fmt.Sprintf("a ping from %s to %s", from.name, to.name), func() (bool, string) {
				n, err := lab.Ping(m.ctx(), from.space, from.addr, to.addr, 1, 50*time.Millisecond)
				return n == 1, fmt.Sprintf("no answer, %v; %s", err, m.describe())
			}))
		}
	}
	return time.Now()
}

// talks waits until a party says another hello.
func (m *mixed) talks(i int) {
	m.Helper()
	mac, err := m.parties[i].space.MAC(theParent)
	m.must(err)
	heard := func() (n int) {
		m.wire.Look(func(c *lab.WireCount) { n = c.From(mac, lab.EtherTypeEAPOL) })
		return n
	}
	before := heard()
	m.must(lab.Await(m.ctx(), patience, "another MKPDU of "+m.parties[i].name, func() (bool, string) { return heard() > before, "none" }))
}

// describe is what the kernels have, for errors.
func (m *mixed) describe() string {
	var seen []string
	for _, p := range m.running() {
		v, err := p.secY()
		if err != nil {
			seen = append(seen, fmt.Sprintf("%s: %v", p.name, err))
			continue
		}
		key, an, both := lab.KeyInUse(v)
		seen = append(seen, fmt.Sprintf("%s: %s, KN %d, AN %d, receives with it: %v, %d receive SCs", p.name, v.CipherSuite, lab.KeyNumber(key), an, both, len(v.RxSCs)))
	}
	return strings.Join(seen, "; ")
}

// secY is the device as a party's kernel has it.
func (p *party) secY() (*macsec.SecY, error) {
	if p.lever != nil {
		return p.lever.SecY(theDevice)
	}
	return p.wpa.SecY()
}

// oneKey waits until the kernels of all parties transmit and receive with one
// SAK that is not old, and Lever says so. Nothing may be at fault but what was
// asked for: a cipher below the policy's.
func (m *mixed) oneKey(old macsec.KeyID) macsec.KeyID {
	m.Helper()
	var one macsec.KeyID
	m.must(lab.AwaitAlive(m.ctx(), m.routers, patience, "all ends to use one key without a fault", func() (held bool, seen string) {
		one, seen = m.keyOfKernels()
		if one == noKey || one == old {
			return false, seen
		}
		var agents []*lab.Router
		for _, p := range m.running() {
			if p.lever != nil {
				agents = append(agents, p.lever)
			}
		}
		// Their word must be of the same key, so both are looked at anew each time.
		_, err := lab.AwaitStatus(m.ctx(), agents, theLink, time.Millisecond, "Lever to say so", func(all []lab.LinkStatus) bool {
			for _, l := range all {
				_, below := l.Fault(string(health.BelowPolicyCipher))
				if !isSecured(l) || l.KN != lab.KeyNumber(one) || !below || len(l.Faults) != 1 {
					return false
				}
			}
			return true
		})
		return err == nil, fmt.Sprintf("%s; %v", seen, err)
	}))
	return one
}

// keyOfKernels is the SAK that all kernels transmit and receive with, or noKey.
func (m *mixed) keyOfKernels() (one macsec.KeyID, seen string) {
	m.Helper()
	on := m.running()
	for i, p := range on {
		v, err := p.secY()
		if err != nil {
			return noKey, fmt.Sprintf("%s: %v", p.name, err)
		}
		key, _, both := lab.KeyInUse(v)
		if !both || i > 0 && key != one || len(v.RxSCs) < len(on)-1 {
			return noKey, m.describe()
		}
		if v.CipherSuite != macsec.GCMAES128 || !v.Encrypt || !v.Protect || v.Validate != macsec.Strict {
			m.Fatalf("%s: %s, encrypt %v, protect %v, validate %v", p.name, v.CipherSuite, v.Encrypt, v.Protect, v.Validate)
		}
		one = key
	}
	return one, m.describe()
}

// sci is a party's SCI in words. Both programs use port 1.
func (m *mixed) sci(i int) string {
	m.Helper()
	mac, err := m.parties[i].space.MAC(theParent)
	m.must(err)
	return macsec.NewSCI(mac, 1).String()
}

// serves expects the key server to be a party.
func (m *mixed) serves(i int) {
	m.Helper()
	want := m.sci(i)
	m.await("the key server to be "+m.parties[i].name, func(l lab.LinkStatus) bool { return l.KeyServer == want })
}

// endpoint is where a party's streams start and end.
func (m *mixed) endpoint(i int) lab.Endpoint {
	p := m.parties[i]
	return lab.Endpoint{Name: p.name, Space: p.space, Addr: p.addr}
}

// streams sends numbered packets both ways between two parties until as many
// have arrived, and expects each of them once and in order.
func (m *mixed) streams(i, j, packets int) {
	m.Helper()
	m.underStreamOf(m.endpoint(i), m.endpoint(j), besides, func(s *lab.Stream) { m.arrive(s, packets) })
}

// arrive waits until as many more packets of a stream have arrived at each end.
func (m *mixed) arrive(s *lab.Stream, packets int) {
	m.Helper()
	until := [2]int{s.Ends[0].Got() + packets, s.Ends[1].Got() + packets}
	m.must(lab.Await(m.ctx(), patience, fmt.Sprintf("%d packets to arrive", packets), func() (bool, string) {
		got := [2]int{s.Ends[0].Got(), s.Ends[1].Got()}
		return got[0] >= until[0] && got[1] >= until[1], fmt.Sprintf("%d of them are there, wanted %d", got, until)
	}))
}

// pingsBetween is how many of three pings are answered before patience is out.
func (m *mixed) pingsBetween(i, j int, patience time.Duration) int {
	m.Helper()
	from, to := m.parties[i], m.parties[j]
	n, err := lab.Ping(m.ctx(), from.space, from.addr, to.addr, 3, patience)
	m.must(err)
	return n
}

// wpaSays waits until the log of a supplicant has a line with those words.
func (m *mixed) wpaSays(i int, words string) {
	m.Helper()
	m.must(lab.Await(m.ctx(), patience, fmt.Sprintf("%s to log %q", m.parties[i].name, words), func() (bool, string) {
		return m.wpaLines(i, words) > 0, "no such line"
	}))
}

// wpaLines is how many lines with those words the log of a supplicant has.
func (m *mixed) wpaLines(i int, words string) int {
	m.Helper()
	b, err := os.ReadFile(m.parties[i].wpa.Path(lab.SupplicantLogFile))
	m.must(err)
	return bytes.Count(b, []byte(words))
}

// octets are as many random ones.
func octets(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

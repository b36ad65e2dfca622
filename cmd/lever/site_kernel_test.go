//go:build kernel

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/macsec"
)

// The acceptance tests have one link of this name, on an interface of this name
// at every router.
const (
	theLink   = "link-1"
	theParent = "up0"
	theDevice = theParent + "-sec"
)

// patience bounds every wait. It is for a busy machine; no test measures it.
const patience = time.Minute

// refusedPatience is how long answers are waited for that should not come; those
// that do take less than a millisecond.
const refusedPatience = 200 * time.Millisecond

// A site is some routers on one untrusted link: for two a wire, for more a
// bridge that nobody trusts either.
type site struct {
	*testing.T
	dir     string
	routers []*lab.Router
	ends    []lab.SecuredEnd
	wire    *lab.Capture // of the first router's parent
	secrets [][]byte     // all that was delivered
	ledger  *lab.Ledger  // of what was spent on the wire, if somebody asked for one
	// plainAllowed is for tests that themselves send something plain.
	plainAllowed bool
	excused      excused
}

// excused are the frames of the present capture that a test has accounted for.
type excused struct{ plain, readable int }

// siteNames are taken by the sites of this process.
var siteNames struct {
	sync.Mutex
	n int
}

// leverFile is this program on the guest's tmpfs under the name of lever, from
// where it starts faster than from the host's file system.
var leverFile = sync.OnceValues(func() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "lever-binary-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "lever")
	return path, lab.CopyExecutable(path, self)
})

// pairInventory is two routers and the link between them.
func pairInventory(policy string) string {
	return inventoryOf(policy, `
  - id: link-1
    a: {node: r1, interface: up0, addresses: [10.0.17.1/24]}
    z: {node: r2, interface: up0, addresses: [10.0.17.2/24]}
    segments: [{custody: leased-wave}]
`)
}

func inventoryOf(policy, links string) string {
	return `apiVersion: lever/v1
policy: {` + policy + `}
channels:
  a: {type: dir, path: keys/a}
  b: {type: dir, path: keys/b}
sites:
  s1: {custody: controlled-building}
nodes:
  r1: {site: s1}
  r2: {site: s1}
  r3: {site: s1}
links:` + links
}

// newPair is a site with two routers.
func newPair(t *testing.T) *site {
	t.Helper()
	return newSite(t, pairInventory(""), pairInventory(""))
}

// newSite makes a router r1, r2, … for each inventory. No agent runs yet.
func newSite(t *testing.T, inventories ...string) *site {
	t.Helper()
	siteNames.Lock()
	siteNames.n++
	prefix := fmt.Sprintf("acc%d-", siteNames.n)
	siteNames.Unlock()
	s := &site{T: t, dir: t.TempDir()}
	program, err := leverFile()
	s.must(err)
	var spaces []*lab.Netspace
	space := func(name string) *lab.Netspace {
		ns, err := lab.NewNetspace(prefix + name)
		s.must(err)
		t.Cleanup(func() { s.mustNot(ns.Close(true)) })
		return ns
	}
	for i := range inventories {
		spaces = append(spaces, space(fmt.Sprintf("r%d", i+1)))
	}
	if len(spaces) == 2 {
		s.must(lab.Wire(spaces[0], theParent, spaces[1], theParent))
	} else {
		s.must(lab.Bridge(space("switch"), spaces, theParent))
	}
	for i, text := range inventories {
		name := fmt.Sprintf("r%d", i+1)
		r, err := lab.NewRouter(name, filepath.Join(s.dir, name), program, []byte(text), spaces[i])
		s.must(err)
		s.routers = append(s.routers, r)
		s.ends = append(s.ends, lab.SecuredEnd{Router: r, Device: theDevice})
		t.Cleanup(func() {
			s.mustNot(r.Close(false))
			if t.Failed() {
				t.Logf("the last lines of %s:\n%s", name, strings.Join(r.LastLines(25), "\n"))
			}
		})
	}
	for i := range spaces {
		for j := range spaces {
			if i != j {
				s.address(i, j)
			}
		}
	}
	s.capture(nil)
	t.Cleanup(func() {
		s.mustNot(s.wire.Stop())
		s.nothingPlain()
	})
	return s
}

// nothingPlain expects that of the capture that has ended.
func (s *site) nothingPlain() {
	s.Helper()
	s.wire.Look(func(c *lab.WireCount) {
		if c.Plain() > s.excused.plain && !s.plainAllowed {
			s.Errorf("on the wire in plain: %s", c.PlainKinds())
		}
		if c.Readable > s.excused.readable && !s.plainAllowed {
			s.Errorf("%d frames can be read on the wire", c.Readable)
		}
	})
}

// bare is a router's address on the parent, below the encryption.
func bare(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}) }

// inner is its address on the secured device.
func inner(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 17, byte(i + 1)}) }

// address gives the parent of router i its bare address, with which j has to be
// asked for nothing.
func (s *site) address(i, j int) {
	s.Helper()
	from, to := s.routers[i].Space, s.routers[j].Space
	mac, err := to.MAC(theParent)
	s.must(err)
	l, err := from.Links.LinkByName(theParent)
	s.must(err)
	addrs, err := from.Links.AddrList(l, netlink.FAMILY_V4)
	s.must(err)
	if len(addrs) == 0 {
		addr := &net.IPNet{IP: bare(i).AsSlice(), Mask: net.CIDRMask(24, 32)}
		s.must(from.Address(theParent, addr, bare(j).AsSlice(), mac))
		return
	}
	s.must(from.Neighbour(theParent, bare(j).AsSlice(), mac))
}

// capture starts a new capture, which writes to pcap unless that is nil.
func (s *site) capture(pcap io.Writer) {
	s.Helper()
	if s.wire != nil {
		s.must(s.wire.Stop())
		s.nothingPlain()
		s.excused = excused{}
	}
	var observers []func([]byte, time.Time)
	if s.ledger != nil {
		observers = append(observers, s.ledger.Note)
	}
	var err error
	s.wire, err = lab.StartCapture(s.routers[0].Space, theParent, pcap, observers...)
	s.must(err)
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *site) mustNot(err error) {
	s.Helper()
	if err != nil {
		s.Error(err)
	}
}

// ctx outlives no cleanup and so is not T.Context, which ends before them.
func (s *site) ctx() context.Context { return s.T.Context() }

// material is 32 random octets, remembered for the search for secrets.
func (s *site) material() []byte {
	m := make([]byte, 32)
	rand.Read(m)
	s.secrets = append(s.secrets, m)
	return m
}

// keyPath is where a channel has an epoch of the link at a router.
func (s *site) keyPath(i int, channel string, epoch int) string {
	return s.routers[i].Path(filepath.Join("keys", channel, theLink, fmt.Sprintf("%d.0.key", epoch)))
}

// put delivers material over one channel to one router, by a rename.
func (s *site) put(i int, channel string, epoch int, material []byte, mode os.FileMode) {
	s.Helper()
	path := s.keyPath(i, channel, epoch)
	s.must(os.MkdirAll(filepath.Dir(path), 0o700))
	tmp := filepath.Join(filepath.Dir(path), ".incoming")
	s.must(os.WriteFile(tmp, []byte(hex.EncodeToString(material)+"\n"), mode))
	s.must(os.Rename(tmp, path))
}

// deliver brings new material for an epoch over the channels named, such as
// "ab", to every router.
func (s *site) deliver(epoch int, channels string) {
	s.Helper()
	for _, c := range channels {
		m := s.material()
		for i := range s.routers {
			s.put(i, string(c), epoch, m, 0o600)
		}
	}
}

// start starts the agents of the routers named, or of all.
func (s *site) start(which ...int) {
	s.Helper()
	for _, r := range s.pick(which) {
		s.must(r.Start())
	}
}

// stop ends agents as an operator does.
func (s *site) stop(which ...int) {
	s.Helper()
	for _, r := range s.pick(which) {
		s.must(r.End(syscall.SIGTERM, patience))
	}
}

// kill ends agents as a crash does.
func (s *site) kill(which ...int) {
	s.Helper()
	for _, r := range s.pick(which) {
		s.must(r.Kill())
	}
}

func (s *site) pick(which []int) []*lab.Router {
	if len(which) == 0 {
		return s.routers
	}
	var routers []*lab.Router
	for _, i := range which {
		routers = append(routers, s.routers[i])
	}
	return routers
}

// await waits until the status of the routers named, or of all, is good.
func (s *site) await(what string, good func(lab.LinkStatus) bool, which ...int) []lab.LinkStatus {
	s.Helper()
	all, err := lab.AwaitStatus(s.ctx(), s.pick(which), theLink, patience, what, func(all []lab.LinkStatus) bool {
		for _, l := range all {
			if !good(l) {
				return false
			}
		}
		return true
	})
	s.must(err)
	return all
}

func isSecured(l lab.LinkStatus) bool { return l.State == lab.StateSecured }

// secured waits until agents and kernels of all routers are at one.
func (s *site) secured() lab.KernelKey {
	s.Helper()
	s.await("all agents to say secured", isSecured)
	key, err := lab.AwaitKey(s.ctx(), s.ends, patience, "all kernels to use one key", macsec.KeyID{})
	s.must(err)
	return key
}

// securedAnew is secured with another key than before.
func (s *site) securedAnew(old lab.KernelKey) lab.KernelKey {
	s.Helper()
	key, err := lab.AwaitKey(s.ctx(), s.ends, patience, "all kernels to use a new key", old.ID)
	s.must(err)
	s.await("all agents to say secured with the new key", func(l lab.LinkStatus) bool {
		return isSecured(l) && l.KN == lab.KeyNumber(key.ID)
	})
	return key
}

// fault waits until a router reports a fault whose text and next step contain
// all of words.
func (s *site) fault(i int, code health.Code, words ...string) {
	s.Helper()
	s.await(fmt.Sprintf("r%d to raise %s with %q", i+1, code, words), func(l lab.LinkStatus) bool {
		f, raised := l.Fault(string(code))
		for _, w := range words {
			raised = raised && strings.Contains(f.Text+" | "+f.Next, w)
		}
		return raised && f.Next != ""
	}, i)
}

// noFault waits until a router no longer reports a fault.
func (s *site) noFault(i int, code health.Code) {
	s.Helper()
	s.await(fmt.Sprintf("%s to be gone at r%d", code, i+1), func(l lab.LinkStatus) bool {
		_, raised := l.Fault(string(code))
		return !raised
	}, i)
}

// lever runs a verb on a router.
func (s *site) lever(i int, args ...string) string {
	s.Helper()
	out, err := s.routers[i].Lever(s.ctx(), args...)
	s.must(err)
	return string(out)
}

// plainPings is how many of three plain pings on the parent are answered.
func (s *site) plainPings(i, j int) int {
	s.Helper()
	n, err := lab.Ping(s.ctx(), s.routers[i].Space, bare(i), bare(j), 3, refusedPatience)
	s.must(err)
	return n
}

// pings expects an answer to each of three pings over the secured device.
func (s *site) pings(i, j int) {
	s.Helper()
	n, err := lab.Ping(s.ctx(), s.routers[i].Space, inner(i), inner(j), 3, patience)
	s.must(err)
	if n != 3 {
		s.Errorf("%d of 3 pings from r%d to r%d were answered over %s", n, i+1, j+1, theDevice)
	}
}

// besides is the rate of streams of tests that run at the same time as others:
// enough to see a gap of ten milliseconds, and not all of the guest's processor.
const besides = 100

// underStream runs play while numbered packets go both ways between routers i
// and j, and expects each of them to arrive once and in order.
func (s *site) underStream(i, j, rate int, play func()) {
	s.Helper()
	at := func(i int) lab.Endpoint {
		return lab.Endpoint{Name: s.routers[i].Name, Space: s.routers[i].Space, Addr: inner(i)}
	}
	s.underStreamOf(at(i), at(j), rate, func(*lab.Stream) { play() })
}

// underStreamOf is underStream between any two ends.
func (s *site) underStreamOf(a, z lab.Endpoint, rate int, play func(*lab.Stream)) {
	s.Helper()
	stream, err := lab.StartStream(s.ctx(), a, z, rate)
	s.must(err)
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		reports, err := stream.Stop(s.ctx())
		s.mustNot(err)
		for _, r := range reports {
			s.Logf("%s to %s: %s; %.0f a second, the longest silence was %v", r.From, r.To, r,
				float64(r.Sent)/stream.Ran.Seconds(), r.Longest.Round(time.Millisecond))
			if !r.Clean() {
				s.Errorf("%s to %s: %s", r.From, r.To, r)
			}
		}
	}
	defer stop() // also when play ends the test
	s.must(stream.Flowing(s.ctx()))
	play(stream)
	stop()
}

// passes waits until n more frames have been seen on the wire that count says:
// what should not happen has then had its time, measured in what goes on.
func (s *site) passes(n int, count func(*lab.WireCount) int) {
	s.Helper()
	now := func() (c int) {
		s.wire.Look(func(w *lab.WireCount) { c = count(w) })
		return c
	}
	until := now() + n
	s.must(lab.Await(s.ctx(), patience, fmt.Sprintf("%d more frames on the wire", n), func() (bool, string) {
		return now() >= until, fmt.Sprintf("%d frames are missing", until-now())
	}))
}

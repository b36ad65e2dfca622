//go:build kernel

package fence

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// An end is one end of a veth link, in a network namespace of its own, whose
// goroutine runs what has to run there.
type end struct {
	t     *testing.T
	calls chan func()
	ns    netns.NsHandle
	index int
	mac   net.HardwareAddr
}

func newEnd(t *testing.T) *end {
	e := &end{t: t, calls: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends in there
		var err error
		e.ns, err = netns.New()
		ready <- err
		for f := range e.calls {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(e.calls); e.ns.Close() })
	return e
}

// do runs f in the namespace.
func (e *end) do(f func() error) {
	e.t.Helper()
	if err := e.try(f); err != nil {
		e.t.Fatal(err)
	}
}

func (e *end) try(f func() error) error {
	result := make(chan error)
	e.calls <- func() { result <- f() }
	return <-result
}

func newLink(t *testing.T) (a, b *end) {
	t.Helper()
	a, b = newEnd(t), newEnd(t)
	a.do(func() error {
		// So that the ends do not have the same index: linkwatch takes up to a
		// second for an interface that is its own peer by number.
		if err := netlink.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "spare"}}); err != nil {
			return err
		}
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(b.ns),
		})
	})
	for _, e := range []*end{a, b} {
		e.do(func() error {
			// The stack's own chatter would be counted.
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0); err != nil {
				return err
			}
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			e.index, e.mac = l.Attrs().Index, l.Attrs().HardwareAddr
			return netlink.LinkSetUp(l)
		})
	}
	for _, e := range []*end{a, b} {
		e.do(e.awaitUp)
	}
	return a, b
}

// awaitUp waits until the interface can send: between carrier and linkwatch's
// dev_activate, frames vanish in noop_qdisc without an error.
func (e *end) awaitUp() error {
	updates, done := make(chan netlink.LinkUpdate, 16), make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{ListExisting: true}); err != nil {
		return err
	}
	for u := range updates {
		if u.Attrs().Index == e.index && u.Attrs().OperState == netlink.OperUp {
			return nil
		}
	}
	return errors.New("no more link updates")
}

// socket opens a packet socket that receives one protocol; ETH_P_ALL shows the
// wire, any other what the fence has let in.
func (e *end) socket(protocol uint16) int {
	e.t.Helper()
	fd := -1
	e.do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return err
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
			return err
		}
		// Frames with a VLAN tag come in without it, but for this.
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: e.index})
	})
	e.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

var marker = []byte("the last frame")

// frame builds one to the other end, with the EtherTypes in a row (VLAN tags
// take four octets, of which the last is the next EtherType).
func frame(from, to *end, payload string, types ...uint16) []byte {
	b := slices.Concat(to.mac, from.mac)
	for i, typ := range types {
		b = binary.BigEndian.AppendUint16(b, typ)
		if i < len(types)-1 {
			b = binary.BigEndian.AppendUint16(b, 7) // VLAN 7
		}
	}
	b = append(b, payload...)
	return append(b, make([]byte, max(0, 60-len(b)))...)
}

// transmit sends on the socket of the end. A frame that the fence stops may be
// reported as ENOBUFS.
func transmit(t *testing.T, e *end, fd int, f []byte) {
	t.Helper()
	err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: e.index})
	if err != nil && !errors.Is(err, unix.ENOBUFS) {
		t.Fatalf("send: %v", err)
	}
}

// received reads what came before the marker, as payloads.
func received(t *testing.T, fd int) []string {
	t.Helper()
	var got []string
	buf := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			t.Fatalf("receive, after %q: %v", got, err)
		}
		if bytes.Contains(buf[:n], marker) {
			return got
		}
		if _, name, ok := bytes.Cut(buf[:n], []byte("name:")); ok {
			got = append(got, string(bytes.TrimRight(name, "\x00")))
		}
	}
}

// frames are what is sent, and which of them may pass.
var frames = []struct {
	name  string
	types []uint16
	pass  bool
	after string // the EtherType
}{
	{name: "IPv4", types: []uint16{0x0800}},
	{name: "IPv6", types: []uint16{0x86dd}},
	{name: "ARP", types: []uint16{0x0806}},
	{name: "LLDP", types: []uint16{0x88cc}},
	{name: "802.3 length", types: []uint16{0x0026}},
	{name: "VLAN IPv4", types: []uint16{0x8100, 0x0800}},
	{name: "VLAN MACsec", types: []uint16{0x8100, 0x88e5}, after: secTAG},
	{name: "VLAN MKA", types: []uint16{0x8100, 0x888e}, after: mkpdu},
	{name: "service VLAN MKA", types: []uint16{0x88a8, 0x888e}, after: mkpdu},
	{name: "another MKA EtherType", types: []uint16{0x876f}, after: mkpdu},
	{name: "MACsec", types: []uint16{0x88e5}, pass: true, after: secTAG},
	{name: "MKA", types: []uint16{0x888e}, pass: true, after: mkpdu},
}

// The first octets after an EtherType: a SecTAG with E, C and SC, and the head of
// an EAPOL packet of type 5.
const (
	secTAG = "\x2c\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x00\x01"
	mkpdu  = "\x03\x05\x00\x2c"
)

// exchange sends all frames from one end to the other and returns what was on
// the wire and what got behind the other's ingress hook.
func exchange(t *testing.T, from, to *end) (wire, behind []string) {
	t.Helper()
	out := from.socket(0)
	all := to.socket(unix.ETH_P_ALL)
	single := map[uint16]int{}
	for _, f := range frames {
		if p := f.types[0]; p >= 0x600 && single[p] == 0 {
			single[p] = to.socket(p)
		}
	}
	for _, f := range frames {
		transmit(t, from, out, frame(from, to, f.after+"name:"+f.name, f.types...))
	}
	// The marker is MACsec, which passes every fence and comes last.
	transmit(t, from, out, frame(from, to, secTAG+string(marker), 0x88e5))
	wire = received(t, all)
	behind = received(t, single[0x88e5])
	// By now the others have what they will ever get.
	for p, fd := range single {
		if p == 0x88e5 {
			continue
		}
		buf := make([]byte, 2048)
		for {
			n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
			if err != nil {
				break
			}
			if _, name, ok := bytes.Cut(buf[:n], []byte("name:")); ok {
				behind = append(behind, string(bytes.TrimRight(name, "\x00")))
			}
		}
	}
	slices.Sort(wire)
	slices.Sort(behind)
	return wire, slices.Compact(behind)
}

func names(passing bool) []string {
	var n []string
	for _, f := range frames {
		if f.pass || !passing {
			n = append(n, f.name)
		}
	}
	slices.Sort(n)
	return n
}

func stopped() uint64 { return uint64(len(names(false)) - len(names(true))) }

func (e *end) close(o Options) {
	e.t.Helper()
	e.do(func() error { _, err := Close(e.index, o); return err })
}

func (e *end) inspect(o Options) State {
	e.t.Helper()
	var st State
	e.do(func() (err error) { st, err = Inspect(e.index, o); return err })
	return st
}

func TestFenceStopsBothDirections(t *testing.T) {
	a, b := newLink(t)
	if wire, behind := exchange(t, a, b); !slices.Equal(wire, names(false)) || len(behind) <= len(names(true)) {
		t.Fatalf("without a fence: on the wire %q, behind %q", wire, behind)
	}

	a.close(Options{})
	if wire, _ := exchange(t, a, b); !slices.Equal(wire, names(true)) {
		t.Errorf("egress: on the wire %q, want %q", wire, names(true))
	}
	if st := a.inspect(Options{}); !st.Closed || len(st.Findings) > 0 || st.DroppedEgress.Frames != stopped() || st.DroppedIngress.Frames != 0 {
		t.Errorf("egress: %+v, want %d dropped", st, stopped())
	}
	wire, behind := exchange(t, b, a)
	if !slices.Equal(wire, names(false)) || !slices.Equal(behind, names(true)) {
		t.Errorf("ingress: on the wire %q, behind the fence %q, want %q", wire, behind, names(true))
	}
	if st := a.inspect(Options{}); st.DroppedIngress.Frames != stopped() || st.DroppedIngress.Octets == 0 || st.DroppedEgress.Frames != stopped() {
		t.Errorf("ingress: %+v, want %d dropped", st, stopped())
	}

	a.do(func() error { return Open(a.index) })
	if wire, _ := exchange(t, a, b); !slices.Equal(wire, names(false)) {
		t.Errorf("opened: on the wire %q, want all", wire)
	}
	if _, behind := exchange(t, b, a); len(behind) <= len(names(true)) {
		t.Errorf("opened: behind %q, want more", behind)
	}
}

func TestFencePassesTheLinksEtherType(t *testing.T) {
	a, b := newLink(t)
	a.close(Options{})
	a.close(Options{EtherType: 0x876f}) // and no longer 888E
	wire, _ := exchange(t, a, b)
	if want := []string{"MACsec", "another MKA EtherType"}; !slices.Equal(wire, want) {
		t.Errorf("on the wire %q, want %q", wire, want)
	}
	if st := a.inspect(Options{EtherType: 0x876f}); !st.Closed || !st.InPlace {
		t.Errorf("not closed: %+v", st)
	}
	st := a.inspect(Options{})
	if st.Closed || st.InPlace || len(st.Findings) != 2 || st.Findings[0].Problem != Altered {
		t.Errorf("as seen with another EtherType: %+v", st)
	}
}

// TestVLANDevice sends from a device that hands the tag over beside the frame,
// whose EtherType is then the inner one, which would pass.
func TestVLANDevice(t *testing.T) {
	a, b := newLink(t)
	tagged := *a
	a.do(func() error {
		if err := netlink.LinkAdd(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "eth0.7", ParentIndex: a.index}, VlanId: 7}); err != nil {
			return err
		}
		l, err := netlink.LinkByName("eth0.7")
		if err != nil {
			return err
		}
		tagged.index = l.Attrs().Index
		return netlink.LinkSetUp(l)
	})
	a.do(tagged.awaitUp)
	send := func() []string {
		wire, vlan, out := b.socket(unix.ETH_P_ALL), tagged.socket(0), a.socket(0)
		transmit(t, &tagged, vlan, frame(a, b, secTAG+"name:MACsec", 0x88e5))
		transmit(t, &tagged, vlan, frame(a, b, mkpdu+"name:MKA", 0x888e))
		transmit(t, a, out, frame(a, b, secTAG+string(marker), 0x88e5))
		return received(t, wire)
	}
	if got := send(); len(got) != 2 {
		t.Fatalf("without a fence: %q, want both", got)
	}
	a.close(Options{})
	if got := send(); len(got) != 0 {
		t.Errorf("through the fence: %q", got)
	}
	if st := a.inspect(Options{}); st.DroppedEgress.Frames != 2 {
		t.Errorf("%+v, want 2 dropped", st)
	}
}

// TestPriorityTag: a tag with VLAN 0 only gives a priority. IEEE 802.1X has EAPOL received
// with it (internal/pae does), and some equipment sends so; nothing leaves with a tag.
func TestPriorityTag(t *testing.T) {
	a, b := newLink(t)
	priority := func(from, to *end, f, name string, types ...uint16) []byte {
		b := frame(from, to, f+"name:"+name, types...)
		b[14], b[15] = 0xe0, 0 // priority 7, VLAN 0
		return b
	}
	tagged := func(from, to *end) [][]byte {
		return [][]byte{
			priority(from, to, mkpdu, "MKA", 0x8100, 0x888e), priority(from, to, secTAG, "MACsec", 0x8100, 0x88e5),
			priority(from, to, "", "IPv4", 0x8100, 0x0800), priority(from, to, mkpdu, "MKA of a VLAN", 0x8100, 0x8100, 0x888e),
		}
	}
	a.close(Options{})
	out, mka, data, plain := b.socket(0), a.socket(0x888e), a.socket(0x88e5), a.socket(0x0800)
	for _, f := range tagged(b, a) {
		transmit(t, b, out, f)
	}
	transmit(t, b, out, frame(b, a, mkpdu+string(marker), 0x888e))
	transmit(t, b, out, frame(b, a, secTAG+string(marker), 0x88e5))
	for want, fd := range map[string]int{"MKA": mka, "MACsec": data} {
		if got := received(t, fd); !slices.Equal(got, []string{want}) {
			t.Errorf("behind the fence %q, want %s", got, want)
		}
	}
	if n, _, err := unix.Recvfrom(plain, make([]byte, 128), unix.MSG_DONTWAIT); err == nil {
		t.Errorf("plain frames behind the fence: one of %d octets", n)
	}
	wire, out := b.socket(unix.ETH_P_ALL), a.socket(0)
	for _, f := range tagged(a, b) {
		transmit(t, a, out, f)
	}
	transmit(t, a, out, frame(a, b, secTAG+string(marker), 0x88e5))
	if got := received(t, wire); len(got) > 0 {
		t.Errorf("left with a tag: %q", got)
	}
}

// TestPlainTraffic goes through the IP stacks, as users do.
func TestPlainTraffic(t *testing.T) {
	a, b := newLink(t)
	for i, e := range []*end{a, b} {
		e.do(func() error {
			l, err := netlink.LinkByIndex(e.index)
			if err != nil {
				return err
			}
			addr, err := netlink.ParseAddr(fmt.Sprintf("10.0.0.%d/24", i+1))
			if err != nil {
				return err
			}
			return netlink.AddrAdd(l, addr)
		})
	}
	var receiver, sender *net.UDPConn
	b.do(func() (err error) {
		receiver, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 7})
		return err
	})
	defer receiver.Close()
	a.do(func() (err error) {
		sender, err = net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 7})
		return err
	})
	defer sender.Close()
	say := func(s string) {
		if _, err := sender.Write([]byte(s)); err != nil && !errors.Is(err, unix.ENOBUFS) {
			t.Fatalf("send %q: %v", s, err)
		}
	}
	hear := func(want string) {
		t.Helper()
		buf := make([]byte, 100)
		n, _, err := receiver.ReadFromUDP(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("received %q, %v, want %q", buf[:n], err, want)
		}
	}
	say("before") // after which both know each other's MAC address
	hear("before")
	b.close(Options{})
	say("during")
	if st := b.inspect(Options{}); st.DroppedIngress.Frames == 0 {
		t.Error("a datagram was not counted as dropped")
	}
	b.do(func() error { return Open(b.index) })
	say("after")
	hear("after") // and "during" never came
}

func TestCloseTwiceChangesNothing(t *testing.T) {
	a, b := newLink(t)
	a.close(Options{})
	exchange(t, a, b)
	before := a.inspect(Options{})
	a.close(Options{})
	if after := a.inspect(Options{}); after.DroppedEgress != before.DroppedEgress || !after.Closed || before.DroppedEgress.Frames == 0 {
		t.Errorf("after the second Close %+v, before it %+v: counters start anew, so filters were replaced", after, before)
	}
}

func qdiscs(e *end) []string {
	e.t.Helper()
	var kinds []string
	e.do(func() error {
		all, err := netlink.QdiscList(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: e.index}})
		for _, q := range all {
			kinds = append(kinds, q.Type())
		}
		return err
	})
	return kinds
}

func TestHooks(t *testing.T) {
	t.Run("made by the fence, go with it", func(t *testing.T) {
		a, _ := newLink(t)
		a.close(Options{})
		a.do(func() error { return Open(a.index) })
		if q := qdiscs(a); slices.Contains(q, "clsact") {
			t.Errorf("qdiscs %q, want no clsact", q)
		}
		a.do(func() error { return Open(a.index) }) // nothing to do
	})
	t.Run("made by others, stay", func(t *testing.T) {
		a, _ := newLink(t)
		a.do(func() error { return netlink.QdiscAdd((&tc{index: a.index}).hooks()) })
		a.close(Options{})
		a.do(func() error { return Open(a.index) })
		if q := qdiscs(a); !slices.Contains(q, "clsact") {
			t.Errorf("qdiscs %q, want clsact", q)
		}
	})
	t.Run("used by others meanwhile, stay", func(t *testing.T) {
		a, _ := newLink(t)
		a.close(Options{})
		a.do(func() error { return a.matchall(Ingress, 100, netlink.TC_ACT_OK) })
		a.do(func() error { return Open(a.index) })
		if q := qdiscs(a); !slices.Contains(q, "clsact") {
			t.Errorf("qdiscs %q, want clsact", q)
		}
	})
	t.Run("ingress in the way", func(t *testing.T) {
		a, _ := newLink(t)
		a.do(func() error {
			return netlink.QdiscAdd(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: a.index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}})
		})
		err := a.try(func() error { _, err := Close(a.index, Options{}); return err })
		if err == nil || !strings.Contains(err.Error(), "ingress qdisc") {
			t.Errorf("error %v, want one that names the ingress qdisc", err)
		}
	})
}

func TestNoSuchInterface(t *testing.T) {
	a, _ := newLink(t)
	var gone netlink.LinkNotFoundError
	for name, f := range map[string]func() error{
		"Close":   func() error { _, err := Close(9999, Options{}); return err },
		"Open":    func() error { return Open(9999) },
		"Inspect": func() error { _, err := Inspect(9999, Options{}); return err },
	} {
		if err := a.try(f); !errors.As(err, &gone) || !strings.Contains(err.Error(), "9999") {
			t.Errorf("%s: error %v, want a LinkNotFoundError that names the interface", name, err)
		}
	}
}

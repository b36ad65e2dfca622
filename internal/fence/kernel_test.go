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
}{
	{"IPv4", []uint16{0x0800}, false},
	{"IPv6", []uint16{0x86dd}, false},
	{"ARP", []uint16{0x0806}, false},
	{"LLDP", []uint16{0x88cc}, false},
	{"802.3 length", []uint16{0x0026}, false},
	{"VLAN IPv4", []uint16{0x8100, 0x0800}, false},
	{"VLAN MACsec", []uint16{0x8100, 0x88e5}, false},
	{"VLAN EAPOL", []uint16{0x8100, 0x888e}, false},
	{"service VLAN EAPOL", []uint16{0x88a8, 0x888e}, false},
	{"another MKA EtherType", []uint16{0x876f}, false},
	{"MACsec", []uint16{0x88e5}, true},
	{"EAPOL", []uint16{0x888e}, true},
}

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
		transmit(t, from, out, frame(from, to, "name:"+f.name, f.types...))
	}
	// The marker is MACsec, which passes every fence and comes last.
	transmit(t, from, out, frame(from, to, string(marker), 0x88e5))
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

func stopped() uint32 { return uint32(len(names(false)) - len(names(true))) }

func (e *end) close(o Options) {
	e.t.Helper()
	e.do(func() error { return Close(e.index, o) })
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
	if st := a.inspect(Options{EtherType: 0x876f}); !st.Closed {
		t.Errorf("not closed: %+v", st)
	}
	st := a.inspect(Options{})
	if st.Closed || len(st.Findings) != 2 || st.Findings[0].Problem != Altered || st.Findings[0].Priority != mkaPriority {
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
		transmit(t, &tagged, vlan, frame(a, b, "name:MACsec", 0x88e5))
		transmit(t, &tagged, vlan, frame(a, b, "name:EAPOL", 0x888e))
		transmit(t, a, out, frame(a, b, string(marker), 0x88e5))
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

func TestCloseRepairs(t *testing.T) {
	for _, d := range directions() {
		for _, priority := range []uint16{macsecPriority, mkaPriority, dropPriority} {
			for _, how := range []Problem{Missing, Altered} {
				t.Run(fmt.Sprintf("%s %d %s", d, priority, how), func(t *testing.T) {
					a, b := newLink(t)
					a.close(Options{})
					a.do(func() error { return sabotage(a.index, d, priority, how) })
					st := a.inspect(Options{})
					if st.Closed || len(st.Findings) != 1 || st.Findings[0].Direction != d || st.Findings[0].Priority != priority || st.Findings[0].Problem != how {
						t.Fatalf("after sabotage: %+v", st)
					}
					a.close(Options{})
					if st := a.inspect(Options{}); !st.Closed || len(st.Findings) > 0 {
						t.Errorf("after repair: %+v", st)
					}
					if wire, _ := exchange(t, a, b); !slices.Equal(wire, names(true)) {
						t.Errorf("egress after repair: %q", wire)
					}
					if _, behind := exchange(t, b, a); !slices.Equal(behind, names(true)) {
						t.Errorf("ingress after repair: %q", behind)
					}
					a.do(func() error { return Open(a.index) })
					if q := qdiscs(a); slices.Contains(q, "clsact") {
						t.Errorf("qdiscs %q after Open: the repair forgot that the fence had made clsact", q)
					}
				})
			}
		}
	}
}

// sabotage removes a filter of the fence, or turns it into its opposite.
func sabotage(ifindex int, d Direction, priority uint16, how Problem) error {
	filters, err := list(ifindex, d)
	if err != nil {
		return err
	}
	for _, f := range filters {
		if f.attrs.Priority != priority {
			continue
		}
		if err := f.remove(); err != nil || how == Missing {
			return err
		}
		m := f.is.(*netlink.MatchAll)
		verdict := netlink.TC_ACT_SHOT
		if priority == dropPriority {
			verdict = netlink.TC_ACT_OK
		}
		m.Actions = []netlink.Action{&netlink.GenericAction{ActionAttrs: netlink.ActionAttrs{Action: verdict}}}
		return netlink.FilterAdd(m)
	}
	return fmt.Errorf("no filter %s %d among %v", d, priority, filters)
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

// foreign adds somebody else's filter, which passes everything.
func foreign(ifindex int, d Direction, priority uint16) error {
	return netlink.FilterAdd(&netlink.MatchAll{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: ifindex, Parent: d.parent(), Handle: 1, Priority: priority, Protocol: unix.ETH_P_ALL},
		Actions:     []netlink.Action{&netlink.GenericAction{ActionAttrs: netlink.ActionAttrs{Action: netlink.TC_ACT_OK}}},
	})
}

func TestForeignFilters(t *testing.T) {
	tests := []struct {
		priority uint16
		closed   bool
		problem  []Problem
	}{
		{1, true, []Problem{Foreign}},
		{macsecPriority, false, []Problem{Occupied}},
		{mkaPriority, false, []Problem{Occupied}},
		{dropPriority, false, []Problem{Occupied}},
		{6, true, nil},
		{49152, true, nil},
	}
	for _, d := range directions() {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s %d", d, tt.priority), func(t *testing.T) {
				a, _ := newLink(t)
				a.do(func() error {
					if err := netlink.QdiscAdd(hooks(a.index)); err != nil {
						return err
					}
					return foreign(a.index, d, tt.priority)
				})
				err := a.try(func() error { return Close(a.index, Options{}) })
				var occupied *OccupiedError
				if got := errors.As(err, &occupied); got == tt.closed || err != nil && !got {
					t.Errorf("Close: %v", err)
				}
				st := a.inspect(Options{})
				var problems []Problem
				for _, f := range st.Findings {
					problems = append(problems, f.Problem)
					if f.Direction != d || f.Priority != tt.priority {
						t.Errorf("finding %v, want %s %d", f, d, tt.priority)
					}
				}
				if st.Closed != tt.closed || !slices.Equal(problems, tt.problem) {
					t.Errorf("state %+v, want closed %t and %v", st, tt.closed, tt.problem)
				}
				a.do(func() error { return Open(a.index) })
				a.do(func() error {
					left, err := list(a.index, d)
					if len(left) != 1 || left[0].ours() {
						t.Errorf("filters after Open: %v, want the foreign one", left)
					}
					return err
				})
				if q := qdiscs(a); !slices.Contains(q, "clsact") {
					t.Errorf("qdiscs after Open: %q, want the clsact of others", q)
				}
			})
		}
	}
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
		a.do(func() error { return netlink.QdiscAdd(hooks(a.index)) })
		a.close(Options{})
		a.do(func() error { return Open(a.index) })
		if q := qdiscs(a); !slices.Contains(q, "clsact") {
			t.Errorf("qdiscs %q, want clsact", q)
		}
	})
	t.Run("used by others meanwhile, stay", func(t *testing.T) {
		a, _ := newLink(t)
		a.close(Options{})
		a.do(func() error { return foreign(a.index, Ingress, 100) })
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
		err := a.try(func() error { return Close(a.index, Options{}) })
		if err == nil || !strings.Contains(err.Error(), "ingress qdisc") {
			t.Errorf("error %v, want one that names the ingress qdisc", err)
		}
	})
}

func TestNoSuchInterface(t *testing.T) {
	a, _ := newLink(t)
	var gone netlink.LinkNotFoundError
	for name, f := range map[string]func() error{
		"Close":   func() error { return Close(9999, Options{}) },
		"Open":    func() error { return Open(9999) },
		"Inspect": func() error { _, err := Inspect(9999, Options{}); return err },
	} {
		if err := a.try(f); !errors.As(err, &gone) || !strings.Contains(err.Error(), "9999") {
			t.Errorf("%s: error %v, want a LinkNotFoundError that names the interface", name, err)
		}
	}
}

//go:build kernel

package pae

import (
	"bytes"
	"errors"
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A link is a veth pair in a network namespace of the test's thread.
type link struct{ a, b *netlink.Veth }

func newLink(t *testing.T) link {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a"}, PeerName: "b"}); err != nil {
		t.Fatal(err)
	}
	find := func(name string) *netlink.Veth {
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		v := l.(*netlink.Veth)
		must(t, netlink.LinkSetMTU(v, 9000))
		must(t, netlink.LinkSetUp(v))
		return v
	}
	l := link{find("a"), find("b")}
	awaitUp(t, l.a)
	awaitUp(t, l.b)
	return l
}

// awaitUp waits until the interface can send: between carrier and linkwatch's
// dev_activate, frames vanish in noop_qdisc without an error.
func awaitUp(t *testing.T, l netlink.Link) {
	t.Helper()
	updates, done := make(chan netlink.LinkUpdate, 16), make(chan struct{})
	defer close(done)
	must(t, netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{ListExisting: true}))
	for u := range updates {
		if u.Attrs().Index == l.Attrs().Index && u.Attrs().OperState == netlink.OperUp {
			return
		}
	}
	t.Fatal("no more link updates")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, l *netlink.Veth, opts Options) *Conn {
	t.Helper()
	c, err := Open(l.Attrs().Index, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// raw opens a socket that sends anything.
func raw(t *testing.T, l *netlink.Veth) func(frame []byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return func(frame []byte) {
		t.Helper()
		must(t, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index}))
	}
}

// read returns the next frame to a Conn without a Focus, to whom all are
// strangers.
func read(t *testing.T, c *Conn) []byte {
	t.Helper()
	return readLane(t, c, Strangers)
}

// waiting are frames that were read with others and not asked for yet.
var waiting = map[*socket][][]byte{}

// readLane returns the next frame of a lane.
func readLane(t *testing.T, c *Conn, l Lane) []byte {
	t.Helper()
	s := c.lanes[l]
	if len(waiting[s]) == 0 {
		b := NewBatch(4)
		must(t, c.ReadFrames(l, b))
		for i := range b.Len() {
			waiting[s] = append(waiting[s], b.Frame(i))
		}
	}
	f := waiting[s][0]
	waiting[s] = waiting[s][1:]
	return f
}

// last is a frame that passes, to know that no earlier one is on its way.
func last() []byte {
	return under(frame(0x888e, 5, 110), "the last one")
}

func TestFramesOverALink(t *testing.T) {
	l := newLink(t)
	a, b := open(t, l.a, Options{}), open(t, l.b, Options{})
	ping, pong := frame(0x888e, 5, 100), frame(0x888e, 5, 300)
	for i := 50; i < len(pong); i++ {
		pong[i] = byte(i)
	}
	must(t, a.WriteFrame(ping))
	if got := read(t, b); !bytes.Equal(got, ping) {
		t.Errorf("b received %x, want %x", got, ping)
	}
	must(t, b.WriteFrame(pong))
	// Its own ping is not what a receives.
	if got := read(t, a); !bytes.Equal(got, pong) {
		t.Errorf("a received %x, want %x", got, pong)
	}
}

func TestOnlyMKPDUsAreReceived(t *testing.T) {
	l := newLink(t)
	b, send := open(t, l.b, Options{}), raw(t, l.a)
	want := [][]byte{}
	for _, f := range frames {
		send(f.b)
		if f.pass {
			want = append(want, f.b)
		}
	}
	send(frame(0x888e, 5, MaxFrame+1))
	send(last())
	for _, w := range append(want, last()) {
		if got := read(t, b); !bytes.Equal(got, w) {
			t.Fatalf("received %x, want %x", got, w)
		}
	}
}

// TestFramesForOthersAreNotReceived sends those of VLANs in both ways in which a
// kernel handles tags: in the frame, and beside it by way of a VLAN device.
func TestFramesForOthersAreNotReceived(t *testing.T) {
	l := newLink(t)
	b, send := open(t, l.b, Options{}), raw(t, l.a)
	plain := frame(0x888e, 5, 100)
	for _, tpid := range []byte{0x81, 0x88} {
		tag := map[byte][]byte{0x81: {0x81, 0x00, 0, 7}, 0x88: {0x88, 0xa8, 0, 7}}[tpid]
		send(append(append(append([]byte{}, plain[:12]...), tag...), plain[12:]...))
	}
	must(t, netlink.LinkAdd(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "a.7", ParentIndex: l.a.Index}, VlanId: 7}))
	vlan, err := netlink.LinkByName("a.7")
	must(t, err)
	must(t, netlink.LinkSetUp(vlan))
	awaitUp(t, vlan)
	sendTagged := open(t, &netlink.Veth{LinkAttrs: *vlan.Attrs()}, Options{})
	must(t, sendTagged.WriteFrame(plain))
	// To another station, as a promiscuous interface hears it.
	must(t, netlink.SetPromiscOn(l.b))
	other := frame(0x888e, 5, 100)
	copy(other, []byte{0x02, 9, 9, 9, 9, 9})
	send(other)
	// Priority tagged: a tag for VLAN 0, which is no VLAN.
	last := last()
	send(append(append(append([]byte{}, last[:12]...), 0x81, 0, 0xe0, 0), last[12:]...))
	if got := read(t, b); !bytes.Equal(got, last) {
		t.Errorf("received %x, want the one that is priority tagged", got)
	}
}

// TestLanesOfTheKernel sends a frame of each kind, and then floods all lanes but
// one, which takes in its frame all the same.
func TestLanesOfTheKernel(t *testing.T) {
	l := newLink(t)
	b, send := open(t, l.b, Options{}), raw(t, l.a)
	hello := frame(0x888e, 5, 110)
	from2 := change(hello, 6, mac2[:]...)
	must(t, b.Focus(Focus{CKNs: []string{"old"}, Peers: [][6]byte{mac2}}))
	must(t, b.Focus(Focus{CKNs: []string{"ckn", "another"}, Peers: [][6]byte{mac1}}))
	of := [Lanes][]byte{Peers: under(hello, "ckn"), Known: under(from2, "another"), Strangers: under(hello, "old")}
	for _, f := range of {
		send(f)
	}
	for l, f := range of {
		if got := readLane(t, b, Lane(l)); !bytes.Equal(got, f) {
			t.Errorf("%v received %x, want %x", Lane(l), got, f)
		}
	}
	const flood = 5000
	for range flood {
		send(of[Known])
		send(of[Strangers])
	}
	send(of[Peers])
	for l, limit := range [Lanes]int{Peers: 1, Known: flood, Strangers: 40} {
		batch := NewBatch(flood + 1)
		must(t, b.ReadFrames(Lane(l), batch))
		if batch.Len() < 1 || batch.Len() > limit || !bytes.Equal(batch.Frame(batch.Len()-1), of[l]) {
			t.Errorf("%v has %d frames waiting, want 1 to %d", Lane(l), batch.Len(), limit)
		}
		t.Logf("%v: %d frames waited", Lane(l), batch.Len())
	}
}

// TestReadAllocatesNothing holds the way in from the kernel to its buffers.
func TestReadAllocatesNothing(t *testing.T) {
	l := newLink(t)
	b, send := open(t, l.b, Options{}), raw(t, l.a)
	must(t, b.Focus(Focus{CKNs: []string{"ckn"}, Peers: [][6]byte{mac1}}))
	const runs = 100
	for range 3 * runs {
		send(under(frame(0x888e, 5, 110), "ckn"))
	}
	batch := NewBatch(1)
	if n := testing.AllocsPerRun(runs, func() { must(t, b.ReadFrames(Peers, batch)) }); n != 0 {
		t.Errorf("%v allocations for a batch of %d frames", n, batch.Len())
	}
	if err := b.lanes[Peers].rearm(); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(runs, func() { must(t, b.lanes[Peers].wait()) }); n != 0 {
		t.Errorf("%v allocations for a wait that ends at once", n)
	}
}

func TestOtherEtherTypeAndGroups(t *testing.T) {
	l := newLink(t)
	group := [6]byte{0x01, 0x80, 0xc2, 0, 0, 0x0e}
	opts := Options{EtherType: 0x876f, Groups: [][6]byte{group}}
	a, b := open(t, l.a, opts), open(t, l.b, opts)
	raw(t, l.a)(frame(0x888e, 5, 100))
	f := frame(0x876f, 5, 100)
	copy(f, group[:])
	must(t, a.WriteFrame(f))
	if got := read(t, b); !bytes.Equal(got, f) {
		t.Errorf("received %x, want %x", got, f)
	}
}

// TestGroups asks the kernel what the interface listens to, since a veth hands
// over every multicast frame anyway.
func TestGroups(t *testing.T) {
	l := newLink(t)
	member := func(want ...string) {
		t.Helper()
		for _, w := range want {
			if !bytes.Contains(multicast(t, l.a.Name), []byte(w)) {
				t.Errorf("no group %s in %s", w, multicast(t, l.a.Name))
			}
		}
	}
	c := open(t, l.a, Options{})
	member("0180c2000003")
	must(t, c.Close())
	if bytes.Contains(multicast(t, l.a.Name), []byte("0180c2000003")) {
		t.Error("still in the group after Close")
	}
	open(t, l.a, Options{Groups: [][6]byte{{1, 0x80, 0xc2, 0, 0, 0}, {1, 0x80, 0xc2, 0, 0, 0x0e}}})
	member("0180c2000000", "0180c200000e")
}

// multicast is the namespace's list of link-layer groups of an interface.
func multicast(t *testing.T, name string) []byte {
	t.Helper()
	all, err := os.ReadFile("/proc/thread-self/net/dev_mcast")
	must(t, err)
	var lines []byte
	for line := range bytes.Lines(all) {
		if f := bytes.Fields(line); len(f) == 5 && string(f[1]) == name {
			lines = append(lines, line...)
		}
	}
	return lines
}

func TestWriteRefusesOtherFrames(t *testing.T) {
	l := newLink(t)
	a := open(t, l.a, Options{})
	for name, f := range map[string][]byte{
		"empty":    nil,
		"short":    frame(0x888e, 5, 13),
		"long":     frame(0x888e, 5, MaxFrame+1),
		"IPv4":     frame(0x0800, 5, 100),
		"MACsec":   frame(0x88e5, 5, 100),
		"VLAN tag": frame(0x8100, 5, 100),
	} {
		if err := a.WriteFrame(f); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: error %v, want ErrFrame", name, err)
		}
	}
}

func TestDownAndUpAgain(t *testing.T) {
	l := newLink(t)
	a, b := open(t, l.a, Options{}), open(t, l.b, Options{})
	must(t, netlink.LinkSetDown(l.a))
	if err := a.ReadFrames(Strangers, NewBatch(1)); !errors.Is(err, ErrDown) || !errors.Is(err, unix.ENETDOWN) || errors.Is(err, ErrGone) {
		t.Errorf("read: %v, want ErrDown", err)
	}
	if err := a.WriteFrame(last()); !errors.Is(err, ErrDown) {
		t.Errorf("write: %v, want ErrDown", err)
	}
	must(t, netlink.LinkSetUp(l.a))
	awaitUp(t, l.a)
	awaitUp(t, l.b)
	must(t, a.WriteFrame(last()))
	if got := read(t, b); !bytes.Equal(got, last()) {
		t.Errorf("received %x", got)
	}
	must(t, b.WriteFrame(frame(0x888e, 5, 200)))
	if got := read(t, a); len(got) != 200 {
		t.Errorf("received %x", got)
	}
}

func TestOpenWhileDown(t *testing.T) {
	l := newLink(t)
	must(t, netlink.LinkSetDown(l.a))
	a := open(t, l.a, Options{})
	if err := a.ReadFrames(Strangers, NewBatch(1)); !errors.Is(err, ErrDown) {
		t.Errorf("read: %v, want ErrDown", err)
	}
	must(t, netlink.LinkSetUp(l.a))
	awaitUp(t, l.b)
	must(t, open(t, l.b, Options{}).WriteFrame(last()))
	if got := read(t, a); !bytes.Equal(got, last()) {
		t.Errorf("received %x", got)
	}
}

func TestGone(t *testing.T) {
	l := newLink(t)
	a := open(t, l.a, Options{})
	must(t, netlink.LinkDel(l.a))
	buf := NewBatch(1)
	err := a.ReadFrames(Known, buf)
	if errors.Is(err, ErrDown) { // the first half of the removal
		err = a.ReadFrames(Known, buf)
	}
	if !errors.Is(err, ErrGone) {
		t.Errorf("read: %v, want ErrGone", err)
	}
	if err := a.WriteFrame(last()); !errors.Is(err, ErrGone) {
		t.Errorf("write: %v, want ErrGone", err)
	}
	if _, err := Open(l.a.Index, Options{}); !errors.Is(err, ErrGone) {
		t.Errorf("open: %v, want ErrGone", err)
	}
}

// TestGoneLater removes an interface that was known to be down.
func TestGoneLater(t *testing.T) {
	l := newLink(t)
	a := open(t, l.a, Options{})
	must(t, netlink.LinkSetDown(l.a))
	buf := NewBatch(1)
	if err := a.ReadFrames(Known, buf); !errors.Is(err, ErrDown) {
		t.Fatalf("read: %v, want ErrDown", err)
	}
	must(t, netlink.LinkDel(l.a))
	if err := a.ReadFrames(Known, buf); !errors.Is(err, ErrGone) {
		t.Errorf("read: %v, want ErrGone", err)
	}
}

func TestCloseUnblocks(t *testing.T) {
	l := newLink(t)
	a := open(t, l.a, Options{})
	result := make(chan error)
	go func() {
		err := a.ReadFrames(Known, NewBatch(1))
		result <- err
	}()
	must(t, a.Close())
	if err := <-result; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v, want net.ErrClosed", err)
	}
	if err := a.WriteFrame(last()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write: %v, want net.ErrClosed", err)
	}
}

func openAnnouncements(t *testing.T, l *netlink.Veth, source [6]byte) *Announcements {
	t.Helper()
	a, err := OpenAnnouncements(l.Attrs().Index, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// TestAnnouncementsOverALink sends what is an announcement and what is none, and
// one MKPDU, which goes its own way.
func TestAnnouncementsOverALink(t *testing.T) {
	l := newLink(t)
	a, b, peer := openAnnouncements(t, l.a, mac1), openAnnouncements(t, l.b, mac2), open(t, l.b, Options{})
	send := raw(t, l.a)
	var want []string
	for _, x := range announcements(t) {
		send(x.frame)
		if x.want != "" {
			want = append(want, x.want)
		}
	}
	must(t, a.Send([]byte("the last one")))
	batch := NewBatch(4)
	for _, w := range append(want, "the last one") {
		if batch.Len() == 0 {
			must(t, b.Read(batch))
		}
		if message, ok := Announced(batch.Frame(0)); !ok || string(message) != w {
			t.Errorf("received %x, want %q", batch.Frame(0), w)
		}
		rest := NewBatch(4)
		for i := 1; i < batch.Len(); i++ {
			rest.Add(batch.Frame(i))
		}
		batch = rest
	}
	if got := read(t, peer); !bytes.Equal(got, frame(0x888e, 5, 110)) {
		t.Errorf("MKA received %x, want the MKPDU", got)
	}
}

// TestFloodOfAnnouncements fills the queue of announcements, and no other: each
// MKPDU that is sent meanwhile comes in.
func TestFloodOfAnnouncements(t *testing.T) {
	l := newLink(t)
	b, peer, send := openAnnouncements(t, l.b, mac2), open(t, l.b, Options{}), raw(t, l.a)
	must(t, peer.Focus(Focus{CKNs: []string{"ckn"}, Peers: [][6]byte{mac1}}))
	const hellos = 50
	flood := announce(t, bytes.Repeat([]byte{'x'}, MaxAnnouncement))
	for range hellos {
		for range 100 {
			send(flood)
		}
		send(under(frame(0x888e, 5, 110), "ckn"))
	}
	got := NewBatch(hellos + 1)
	must(t, peer.ReadFrames(Peers, got))
	if got.Len() != hellos || peer.Dropped() != [Lanes]uint64{} {
		t.Errorf("%d hellos of %d came in, %v were dropped", got.Len(), hellos, peer.Dropped())
	}
	waited := NewBatch(200)
	must(t, b.Read(waited))
	if waited.Len() < 1 || waited.Len() > 40 {
		t.Errorf("%d announcements wait, want some ten", waited.Len())
	}
}

func TestAnnouncementsEnd(t *testing.T) {
	l := newLink(t)
	a := openAnnouncements(t, l.a, mac1)
	must(t, netlink.LinkSetDown(l.a))
	if err := a.Read(NewBatch(1)); !errors.Is(err, ErrDown) {
		t.Errorf("read while down: %v, want ErrDown", err)
	}
	if err := a.Send([]byte("x")); !errors.Is(err, ErrDown) {
		t.Errorf("send while down: %v, want ErrDown", err)
	}
	result := make(chan error)
	go func() { result <- a.Read(NewBatch(1)) }()
	must(t, a.Close())
	if err := <-result; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Close: %v, want net.ErrClosed", err)
	}
	must(t, netlink.LinkDel(l.a))
	if _, err := OpenAnnouncements(l.a.Index, mac1); !errors.Is(err, ErrGone) {
		t.Errorf("open: %v, want ErrGone", err)
	}
}

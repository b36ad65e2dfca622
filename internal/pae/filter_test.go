package pae

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/lever-link/lever/mka"
)

var (
	group = [6]byte{0x01, 0x80, 0xc2, 0, 0, 3}
	mac1  = [6]byte{0x02, 0, 0, 0, 0, 1}
	mac2  = [6]byte{0x02, 0, 0, 0, 0, 2}
)

// frame builds one to the group from mac1, of the size given, whose lengths are
// as they must be and whose CKN is 32 octets of 0.
func frame(etherType uint16, eapolType byte, size int) []byte {
	b := make([]byte, max(size, 22))
	copy(b, group[:])
	copy(b[6:], mac1[:])
	binary.BigEndian.PutUint16(b[12:], etherType)
	b[14], b[15] = 3, eapolType
	binary.BigEndian.PutUint16(b[16:], uint16(max(0, size-18)&^3))
	b[21] = 28 + 32
	return b[:size]
}

// under gives a frame another CKN.
func under(frame []byte, ckn string) []byte {
	b := slices.Clone(frame)
	b[21] = byte(28 + len(ckn))
	copy(b[50:], ckn)
	return b
}

func change(frame []byte, at int, octets ...byte) []byte {
	b := slices.Clone(frame)
	copy(b[at:], octets)
	return b
}

// frames are what is sent, also through the kernel, to a socket for 888E.
var frames = []struct {
	name string
	b    []byte
	pass bool
}{
	{"MKPDU", frame(0x888e, 5, 110), true},
	{"the shortest", under(frame(0x888e, 5, 70), "c"), true},
	{"the longest", frame(0x888e, 5, MaxFrame), true},
	{"padded by Ethernet", change(frame(0x888e, 5, 120), 16, 0, 84), true},
	{"no room for a CKN of 32", frame(0x888e, 5, 97), false},
	{"no room for the ICV", under(frame(0x888e, 5, 69), "c"), false},
	{"no room for a body", frame(0x888e, 5, 49), false},
	{"a body that is not all there", change(frame(0x888e, 5, 110), 16, 0, 96), false},
	{"a body of no whole words", change(frame(0x888e, 5, 120), 16, 0, 97), false},
	{"a body too short", change(frame(0x888e, 5, 120), 16, 0, 28), false},
	{"no CKN", change(frame(0x888e, 5, 120), 20, 0, 28), false},
	{"a CKN too long", change(frame(0x888e, 5, 120), 20, 0, 61), false},
	{"a Basic set of 4 KiB", change(frame(0x888e, 5, 120), 20, 0xff, 0xff), false},
	{"flags of the Basic set", change(frame(0x888e, 5, 120), 20, 0xf0), true},
	{"to another group", change(frame(0x888e, 5, 110), 5, 0x0e), false},
	{"to a station", change(frame(0x888e, 5, 110), 0, 2, 0, 0, 0, 0, 2), false},
	{"EAP packet", frame(0x888e, 0, 110), false},
	{"EAPOL-Start", frame(0x888e, 1, 60), false},
	{"EAPOL-Key", frame(0x888e, 3, 110), false},
	{"announcement", frame(0x888e, 7, 110), false},
	{"another EtherType", frame(0x876f, 5, 110), false},
	{"MACsec", frame(0x88e5, 5, 110), false},
	{"VLAN tag inside", frame(0x8100, 5, 110), false},
	{"a header alone", frame(0x888e, 5, 14), false},
}

// kernelOf is what a Conn's filters do with a frame: the lanes that take it.
func kernelOf(t testing.TB, opts Options, f Focus) func(frame []byte) []Lane {
	t.Helper()
	opts = opts.orDefaults()
	c := &Conn{etherType: opts.EtherType, groups: opts.Groups}
	var vms [Lanes]*bpf.VM
	for l := range vms {
		// What the VM has no word for is left out, and assembled all the same.
		if _, err := bpf.Assemble(c.program(Lane(l), f.bounded())); err != nil {
			t.Fatalf("%v: %v", Lane(l), err)
		}
		vm, err := bpf.NewVM(c.classify(Lane(l), f.bounded()))
		if err != nil {
			t.Fatalf("%v: %v", Lane(l), err)
		}
		vms[l] = vm
	}
	return func(frame []byte) (lanes []Lane) {
		for l, vm := range vms {
			n, err := vm.Run(frame)
			if err != nil {
				t.Fatalf("%v: %v for %x", Lane(l), err, frame)
			}
			switch n {
			case 0:
			case MaxFrame:
				lanes = append(lanes, Lane(l))
			default:
				t.Errorf("%v cuts a frame of %d octets to %d", Lane(l), len(frame), n)
			}
		}
		return lanes
	}
}

func TestFilter(t *testing.T) {
	lanes := kernelOf(t, Options{}, Focus{})
	cases := append(slices.Clip(frames), struct {
		name string
		b    []byte
		pass bool
	}{"too long", frame(0x888e, 5, MaxFrame+1), false})
	for _, f := range cases {
		var want []Lane
		if f.pass {
			want = []Lane{Strangers} // nobody is known yet
		}
		if got := lanes(f.b); !slices.Equal(got, want) {
			t.Errorf("%s of %d octets: goes to %v, want %v", f.name, len(f.b), got, want)
		}
	}
}

func TestLanes(t *testing.T) {
	long := "a CKN of thirty-two octets, long"
	hello := frame(0x888e, 5, 110)
	from2 := change(hello, 6, mac2[:]...)
	for _, tt := range []struct {
		name  string
		focus Focus
		frame []byte
		want  Lane
	}{
		{"peer", Focus{CKNs: []string{long}, Peers: [][6]byte{mac1}}, under(hello, long), Peers},
		{"second peer", Focus{CKNs: []string{long}, Peers: [][6]byte{mac1, mac2}}, under(from2, long), Peers},
		{"peer under the second CKN", Focus{CKNs: []string{"x", long}, Peers: [][6]byte{mac1}}, under(hello, long), Peers},
		{"newcomer", Focus{CKNs: []string{long}, Peers: [][6]byte{mac1}}, under(from2, long), Known},
		{"no peers yet", Focus{CKNs: []string{long}}, under(hello, long), Known},
		{"peer under another CKN", Focus{CKNs: []string{long}, Peers: [][6]byte{mac1}}, under(hello, "x"), Strangers},
		{"one octet of 32 differs", Focus{CKNs: []string{long}}, under(hello, long[:31]+"x"), Strangers},
		{"the start of a CKN", Focus{CKNs: []string{long}}, under(hello, long[:31]), Strangers},
		{"more than a CKN", Focus{CKNs: []string{long[:31]}}, under(hello, long), Strangers},
		{"one octet", Focus{CKNs: []string{"c"}}, under(hello, "c"), Known},
		{"two octets", Focus{CKNs: []string{"ck"}}, under(hello, "ck"), Known},
		{"three octets", Focus{CKNs: []string{"ckn"}}, under(hello, "ckn"), Known},
		{"another of three octets", Focus{CKNs: []string{"ckm"}}, under(hello, "ckn"), Strangers},
		{"seven octets", Focus{CKNs: []string{"abcdefg"}}, under(hello, "abcdefg"), Known},
		{"a CKN that none can have", Focus{CKNs: []string{"", long + "x", "c"}}, under(hello, "c"), Known},
		{"the last that fits", Focus{CKNs: many(maxCKNs), Peers: macs(maxPeers)}, under(change(hello, 6, 2, 0, 0, 0, 1, maxPeers-1), many(maxCKNs)[maxCKNs-1]), Peers},
		{"the first of as many", Focus{CKNs: many(maxCKNs), Peers: macs(maxPeers)}, under(change(hello, 6, 2, 0, 0, 0, 1, 0), many(maxCKNs)[0]), Peers},
		{"a peer too many", Focus{CKNs: many(1), Peers: macs(maxPeers + 1)}, under(change(hello, 6, 2, 0, 0, 0, 1, maxPeers), many(1)[0]), Known},
	} {
		got := kernelOf(t, Options{}, tt.focus)(tt.frame)
		if !slices.Equal(got, []Lane{tt.want}) {
			t.Errorf("%s: goes to %v, want %v", tt.name, got, tt.want)
		}
		if l, ok := tt.focus.Lane(tt.frame, Options{}); !ok || l != tt.want {
			t.Errorf("%s: Lane says %v (%t), want %v", tt.name, l, ok, tt.want)
		}
	}
}

func many(n int) (ckns []string) {
	for i := range n {
		ckns = append(ckns, string(append(bytes.Repeat([]byte{'c'}, 31), byte(i))))
	}
	return ckns
}

func macs(n int) (addresses [][6]byte) {
	for i := range n {
		addresses = append(addresses, [6]byte{2, 0, 0, 0, 1, byte(i)})
	}
	return addresses
}

func TestManyGroups(t *testing.T) {
	opts := Options{EtherType: 0x876f}
	for i := range maxGroups {
		opts.Groups = append(opts.Groups, [6]byte{0x01, 0x80, 0xc2, 0, 0, byte(i)})
	}
	lanes := kernelOf(t, opts, Focus{})
	for i := range maxGroups + 1 {
		f := change(frame(0x876f, 5, 110), 5, byte(i))
		if got, want := len(lanes(f)) == 1, i < maxGroups; got != want {
			t.Errorf("group %d: %t, want %t", i, got, want)
		}
	}
}

// TestFocusChangesLoseNothing looks at the filters in the midst of a change:
// each frame that had a lane before and has one after has one all the time.
func TestFocusChangesLoseNothing(t *testing.T) {
	foci := []Focus{
		{},
		{CKNs: []string{"a"}},
		{CKNs: []string{"a"}, Peers: [][6]byte{mac1}},
		{CKNs: []string{"a", "b"}, Peers: [][6]byte{mac1, mac2}},
		{CKNs: []string{"b"}, Peers: [][6]byte{mac2}},
	}
	hello := frame(0x888e, 5, 110)
	var all [][]byte
	for _, ckn := range []string{"a", "b", "x"} {
		for _, src := range [][6]byte{mac1, mac2, {2, 9}} {
			all = append(all, under(change(hello, 6, src[:]...), ckn))
		}
	}
	kernels := map[string]func([]byte) []Lane{}
	taken := func(now [Lanes]Focus, f []byte) bool {
		for l, focus := range now {
			key := fmt.Sprint(focus)
			if kernels[key] == nil {
				kernels[key] = kernelOf(t, Options{}, focus)
			}
			if slices.Contains(kernels[key](f), Lane(l)) {
				return true
			}
		}
		return false
	}
	for i, from := range foci {
		for j, to := range foci {
			var now [Lanes]Focus
			for l := range now {
				now[l] = from
			}
			var after [][Lanes]Focus // each step, of which the next may be refused
			for _, s := range steps(from, to) {
				after = append(after, now)
				now[s.lane] = s.focus
				for _, f := range all {
					if !taken(now, f) {
						t.Fatalf("from focus %d to %d, step %d: no lane for a frame under %q from %x", i, j, len(after)-1, f[50], f[6:12])
					}
				}
			}
			for l := range now {
				if !now[l].Equal(to) {
					t.Errorf("from focus %d to %d: %v ends with %v", i, j, Lane(l), now[l])
				}
			}
			for step, now := range after {
				for k, next := range foci {
					now := now
					for _, s := range steps(from.common(to), next) {
						now[s.lane] = s.focus
						for _, f := range all {
							if !taken(now, f) {
								t.Fatalf("from focus %d to %d, refused at step %d, and to %d: no lane for a frame under %q from %x", i, j, step, k, f[50], f[6:12])
							}
						}
					}
				}
			}
		}
	}
}

// FuzzFilter holds the kernel's program to what it is to mean, and to the codec:
// it lets through what mka.Open accepts, neither more nor less, and calls
// nobody a stranger who has a CKN in use.
func FuzzFilter(f *testing.F) {
	for _, x := range frames {
		f.Add(x.b)
	}
	f.Add(under(frame(0x888e, 5, 110), "ckn"))
	f.Add(under(change(frame(0x888e, 5, 110), 6, mac2[:]...), "a CKN of thirty-two octets, long"))
	focus := Focus{CKNs: []string{"ckn", "a CKN of thirty-two octets, long"}, Peers: [][6]byte{mac1}}
	lanes := kernelOf(f, Options{}, focus)
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) == 0 || len(frame) > MaxFrame {
			return // the VM has no word for none, and the codec no limit
		}
		var want []Lane
		if env, err := mka.Open(frame, mka.OpenParams{}); err == nil {
			l := Strangers
			if slices.Contains(focus.CKNs, string(env.CKN)) {
				l = Known
				if env.Source == mac1 {
					l = Peers
				}
			}
			want = []Lane{l}
		}
		if got := lanes(frame); !slices.Equal(got, want) {
			t.Errorf("the kernel puts it into %v, by the codec it belongs into %v: %x", got, want, frame)
		}
		l, ok := focus.Lane(frame, Options{})
		if ok != (len(want) == 1) || ok && l != want[0] {
			t.Errorf("Lane puts it into %v (%t), by the codec it belongs into %v: %x", l, ok, want, frame)
		}
	})
}

package pae

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
)

// frame builds one to the group, of the size given, with an EAPOL header.
func frame(etherType uint16, eapolType byte, size int) []byte {
	b := make([]byte, max(size, 18))
	copy(b, []byte{0x01, 0x80, 0xc2, 0, 0, 3, 0x02, 0, 0, 0, 0, 1})
	binary.BigEndian.PutUint16(b[12:], etherType)
	b[14], b[15] = 3, eapolType
	return b[:size]
}

// frames are what is sent, also through the kernel, to a socket for 888E.
var frames = []struct {
	name string
	b    []byte
	pass bool
}{
	{"MKPDU", frame(0x888e, 5, 110), true},
	{"the shortest", frame(0x888e, 5, 50), true},
	{"the longest", frame(0x888e, 5, MaxFrame), true},
	{"no room for a body", frame(0x888e, 5, 49), false},
	{"EAP packet", frame(0x888e, 0, 110), false},
	{"EAPOL-Start", frame(0x888e, 1, 60), false},
	{"EAPOL-Key", frame(0x888e, 3, 110), false},
	{"announcement", frame(0x888e, 7, 110), false},
	{"another EtherType", frame(0x876f, 5, 110), false},
	{"MACsec", frame(0x88e5, 5, 110), false},
	{"VLAN tag inside", frame(0x8100, 5, 110), false},
	{"a header alone", frame(0x888e, 5, 14), false},
}

func TestFilter(t *testing.T) {
	vm, err := bpf.NewVM(mkpdu(0x888e))
	if err != nil {
		t.Fatal(err)
	}
	cases := append(slices.Clip(frames), struct {
		name string
		b    []byte
		pass bool
	}{"too long", frame(0x888e, 5, MaxFrame+1), false})
	for _, f := range cases {
		n, err := vm.Run(f.b)
		if err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
		if f.pass && n < len(f.b) || !f.pass && n != 0 {
			t.Errorf("%s of %d octets: passes %d", f.name, len(f.b), n)
		}
	}
}

func TestFilterAssembles(t *testing.T) {
	if _, err := bpf.Assemble(append(ours(), mkpdu(0x876f)...)); err != nil {
		t.Error(err)
	}
}

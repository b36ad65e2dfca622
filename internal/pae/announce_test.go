package pae

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/lever-link/lever/mka"
)

func announce(t testing.TB, message []byte) []byte {
	t.Helper()
	f, err := Announcement(mac1, message)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// announcements are what is sent, also through the kernel, to the socket for them.
func announcements(t testing.TB) []struct {
	name  string
	frame []byte
	want  string
} {
	one := announce(t, []byte("a key id"))
	return []struct {
		name  string
		frame []byte
		want  string
	}{
		{"ours", one, "a key id"},
		{"padded by Ethernet", append(bytes.Clone(one), make([]byte, 60-len(one))...), "a key id"},
		{"the shortest", announce(t, []byte{7}), "\a"},
		{"the longest", announce(t, bytes.Repeat([]byte{'x'}, MaxAnnouncement)), string(bytes.Repeat([]byte{'x'}, MaxAnnouncement))},
		{"an octet too long", change(append(bytes.Clone(one), make([]byte, 900)...), 16, 0x01, 0x97, 0xff, 0x95), ""},
		{"nothing in it", change(one, 16, 0, 6, 0xfe, 4), ""},
		{"cut off", one[:len(one)-1], ""},
		{"a header alone", one[:18], ""},
		{"another organization", change(one, 20, 0x00, 0x80, 0xc2), ""},
		{"another subtype", change(one, 23, 2), ""},
		{"another TLV", change(one, 18, 113<<1), ""},
		{"something after the TLV", change(append(bytes.Clone(one), 0, 0), 17, one[17]+2), ""},
		{"a TLV that is longer", change(one, 19, one[19]+1), ""},
		{"to a station", change(one, 0, mac2[:]...), ""},
		{"to another group", change(one, 5, 0x0e), ""},
		{"specific", change(one, 15, 7), ""},
		{"an MKPDU", frame(0x888e, 5, 110), ""},
		{"another EtherType", change(one, 12, 0x08, 0x00), ""},
	}
}

func TestAnnouncement(t *testing.T) {
	const want = "0180c2000003" + "020000000001" + "888e" + "0306" + "0008" + "fe06" + "4a4c56" + "01" + "6869"
	if got := hex.EncodeToString(announce(t, []byte("hi"))); got != want {
		t.Errorf("the frame is %s, want %s", got, want)
	}
	for _, n := range []int{0, MaxAnnouncement + 1} {
		if _, err := Announcement(mac1, make([]byte, n)); !errors.Is(err, ErrFrame) {
			t.Errorf("%d octets to carry: %v, want ErrFrame", n, err)
		}
	}
}

// kernelTakes is what the filter of the socket for announcements does.
func kernelTakes(t testing.TB) func(frame []byte) bool {
	t.Helper()
	// What the VM has no word for is left out, and assembled all the same.
	if _, err := bpf.Assemble(append(ours(), announcement()...)); err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(announcement())
	if err != nil {
		t.Fatal(err)
	}
	return func(frame []byte) bool {
		n, err := vm.Run(frame)
		if err != nil {
			t.Fatalf("%v for %x", err, frame)
		}
		return n > 0
	}
}

// TestAnnounced holds Announced and the kernel's filter to a table, and the filters
// of MKA to leave announcements alone.
func TestAnnounced(t *testing.T) {
	takes, lanes := kernelTakes(t), kernelOf(t, Options{}, Focus{})
	for _, tt := range announcements(t) {
		message, ok := Announced(tt.frame)
		if ok != (tt.want != "") || string(message) != tt.want {
			t.Errorf("%s: carries %q (%t), want %q", tt.name, message, ok, tt.want)
		}
		if got := takes(tt.frame); got != ok {
			t.Errorf("%s: the kernel's filter says %t", tt.name, got)
		}
		if ok && len(lanes(tt.frame)) > 0 {
			t.Errorf("%s: comes in as an MKPDU, too", tt.name)
		}
	}
}

// FuzzAnnounced holds the kernel's filter to Announced, and both to be disjoint with
// what is MKA's.
func FuzzAnnounced(f *testing.F) {
	for _, a := range announcements(f) {
		f.Add(a.frame)
	}
	takes := kernelTakes(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) == 0 || len(frame) > MaxFrame {
			return // the VM has no word for none
		}
		message, ok := Announced(frame)
		if got := takes(frame); got != ok {
			t.Errorf("the kernel says %t, Announced %t: %x", got, ok, frame)
		}
		if !ok {
			return
		}
		if _, err := mka.Open(frame, mka.OpenParams{}); err == nil {
			t.Errorf("it is an MKPDU, too: %x", frame)
		}
		again, err := Announcement([6]byte(frame[6:]), message)
		if err != nil {
			t.Fatal(err)
		}
		again[14] = frame[14] // any version of EAPOL is taken
		if !bytes.Equal(again, frame[:len(again)]) {
			t.Errorf("made again it is %x, it was %x", again, frame)
		}
	})
}

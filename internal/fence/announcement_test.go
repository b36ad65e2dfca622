package fence

import (
	"bytes"
	"testing"

	"golang.org/x/net/bpf"

	port "github.com/lever-link/lever/internal/pae"
)

// TestAnnouncementsPass holds the fence to what the socket for announcements sends:
// all of that may leave, whatever its length.
func TestAnnouncementsPass(t *testing.T) {
	ps, err := Options{}.passes(Egress)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(body(ps))
	if err != nil {
		t.Fatal(err)
	}
	for n := range port.MaxAnnouncement {
		frame, err := port.Announcement([6]byte{2, 0, 0, 0, 0, 1}, bytes.Repeat([]byte{0xff}, n+1))
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := vm.Run(frame); err != nil || uint32(answer) != mayPass {
			t.Errorf("an announcement of %d octets does not leave: %#x, %v", n+1, answer, err)
		}
	}
}

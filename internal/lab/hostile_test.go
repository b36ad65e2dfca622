//go:build !kernel

package lab

import (
	"bytes"
	"testing"

	"github.com/lever-link/lever/internal/pae"
	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/mka"
)

// TestHostileIsWhatItSays holds the attacker's frames to their names, so that a
// flood of them is a flood of all that there is.
func TestHostileIsWhatItSays(t *testing.T) {
	ckn := "a CKN of thirty-two octets, long"
	icv, err := mka.DeriveICK(secret.New(bytes.Repeat([]byte{1}, 32)), mka.CKN(ckn))
	if err != nil {
		t.Fatal(err)
	}
	ick, err := mka.NewICK(icv)
	if err != nil {
		t.Fatal(err)
	}
	peer := mka.MAC{2, 0, 0, 0, 0, 1}
	m := mka.MKPDU{Source: peer, Basic: mka.Basic{Version: 3, SCI: mka.NewSCI(peer, 1), MI: mka.MI{1}, MN: 1, CKN: mka.CKN(ckn)}}
	m.Live = mka.PeerList{Present: true, Entries: []mka.PeerEntry{{MI: mka.MI{2}, MN: 1}}}
	heard, err := m.Append(nil, ick)
	if err != nil {
		t.Fatal(err)
	}
	h := NewHostile(1, [][]byte{heard})
	focus := pae.Focus{CKNs: []string{ckn}, Peers: [][6]byte{peer}}
	for range 1000 {
		for _, tt := range []struct {
			kind  HostileKind
			lane  pae.Lane
			valid bool
		}{
			{Garbage, -1, false}, {UnknownCKN, pae.Strangers, false}, {BadICV, pae.Known, false},
			{Spoofed, pae.Peers, false}, {Replayed, pae.Peers, true}, {Truncated, -1, false}, {Oversize, pae.Peers, false},
		} {
			f := h.Make(tt.kind)
			lane, passes := focus.Lane(f, pae.Options{})
			if tt.kind == Garbage && passes && lane == pae.Strangers {
				continue // which can look like anything
			}
			if passes != (tt.lane >= 0) || passes && lane != tt.lane {
				t.Fatalf("kind %d goes to %v (%t): %x", tt.kind, lane, passes, f)
			}
			env, err := mka.Open(f, mka.OpenParams{})
			if valid := err == nil && env.Verify(ick); valid != tt.valid {
				t.Fatalf("kind %d verifies: %t: %x", tt.kind, valid, f)
			}
		}
	}
}

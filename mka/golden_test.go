package mka

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestGoldenFrames reads every frame of the vectors and the captures with keys
// derived from its CAK, unwraps the SAKs in them, and writes them again to the
// octet.
func TestGoldenFrames(t *testing.T) {
	saks := 0
	for i, g := range goldenFrames(t) {
		t.Run(fmt.Sprintf("%d %s", i, g.name), func(t *testing.T) {
			kek, err := DeriveKEK(g.cak, g.ckn)
			if err != nil || !kek.Equal(g.kek) {
				t.Fatalf("the KEK differs: %v", err)
			}
			key, err := DeriveICK(g.cak, g.ckn)
			if err != nil || !key.Equal(g.ick) {
				t.Fatalf("the ICK differs: %v", err)
			}
			ick, err := NewICK(key)
			if err != nil {
				t.Fatal(err)
			}
			e, err := Open(g.frame, OpenParams{})
			if err != nil {
				t.Fatal(err)
			}
			if CKN(e.CKN) != g.ckn {
				t.Errorf("CKN %x, want %s", e.CKN, g.ckn)
			}
			if !e.Verify(ick) {
				t.Fatal("the ICV does not hold")
			}
			var m MKPDU
			if err := m.Decode(&e); err != nil {
				t.Fatal(err)
			}
			if m.DistributedSAK.Present && g.wrapped != nil {
				saks++
				if !bytes.Equal(m.DistributedSAK.Wrapped, g.wrapped) {
					t.Errorf("wrapped SAK %x, want %x", m.DistributedSAK.Wrapped, g.wrapped)
				}
				sak, err := UnwrapSAK(kek, m.DistributedSAK.Wrapped)
				if err != nil || !sak.Equal(g.sak) {
					t.Errorf("the SAK differs: %v", err)
				}
			}
			m.Basic.CKN = CKN(e.CKN)
			again, err := m.Append(nil, ick)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again, g.frame) {
				t.Errorf("encoded again\n got %x\nwant %x", again, g.frame)
			}
		})
	}
	if saks != 5 {
		t.Errorf("%d SAKs unwrapped, want 5", saks)
	}
}

// TestGoldenValues holds the decoder to values read off the frames by hand.
func TestGoldenValues(t *testing.T) {
	frames := vectorFrames(t)
	a, b := MI(unhex(t, "cd421cf86ba457938657675b")), MI(unhex(t, "01020304050607080d1f36cf"))
	basic := func(who byte, mi MI, mn uint32) Basic {
		return Basic{
			Version: 3, Priority: 16 * who, KeyServer: who == 1, MACsecDesired: true, Capability: 2,
			SCI: NewSCI(MAC{2, 0, 0, 0, 0, who}, 1), MI: mi, MN: mn,
		}
	}
	headers := func(who byte) MKPDU {
		return MKPDU{Destination: GroupAddress, Source: MAC{2, 0, 0, 0, 0, who}, EtherType: EtherType, EAPOLVersion: 3}
	}
	want := make([]MKPDU, 5)
	want[0] = headers(1)
	want[0].Basic = basic(1, a, 1)
	want[1] = headers(2)
	want[1].Basic = basic(2, b, 1)
	want[1].Basic.KeyServer = true
	want[1].Potential = PeerList{Present: true, Entries: []PeerEntry{{MI: a, MN: 1}}}
	want[2] = headers(1)
	want[2].Basic = basic(1, a, 2)
	want[2].Live = PeerList{Present: true, KeyServerSSCI: 2, Entries: []PeerEntry{{MI: b, MN: 1}}}
	want[2].SAKUse = SAKUse{Present: true, LatestRx: true, Latest: KI{MI: a, KN: 1}, LatestLPN: 1, OldLPN: 1}
	want[2].DistributedSAK = DistributedSAK{
		Present: true, ConfidentialityOffset: Confidentiality0, KN: 1, Suite: GCMAESXPN256, Wrapped: frames[2].wrapped,
	}
	want[2].XPN = XPN{Present: true}
	want[3] = headers(2)
	want[3].Basic = basic(2, b, 2)
	want[3].Live = PeerList{Present: true, Entries: []PeerEntry{{MI: a, MN: 2}}}
	want[3].SAKUse = want[2].SAKUse
	want[3].XPN = XPN{Present: true}
	want[4] = headers(1)
	want[4].Basic = basic(1, a, 7)
	want[4].Basic.Version, want[4].Basic.Capability = 1, 3
	want[4].Live = PeerList{Present: true, Entries: []PeerEntry{{MI: b, MN: 6}}}
	want[4].DistributedSAK = DistributedSAK{
		Present: true, AN: 1, ConfidentialityOffset: Confidentiality0, KN: 2, Suite: GCMAES128,
		Wrapped: unhex(t, "b7c6ee7dc3ef387d796ec4527d8a89431d651c8e50463515"),
	}
	for i, g := range frames {
		ick, err := NewICK(g.ick)
		if err != nil {
			t.Fatal(err)
		}
		got := mustRead(t, g.frame, ick)
		if diff := cmp.Diff(want[i], got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", g.name, diff)
		}
	}
}

// TestSAKUseOnTheWire follows one exchange of two wpa_supplicants, where the
// key moves from latest to old while it stays in use.
func TestSAKUseOnTheWire(t *testing.T) {
	var seen []string
	for _, g := range capturedFrames(t) {
		if g.name != "wpa210-wpa210-gcm128-cak128" {
			continue
		}
		ick, err := NewICK(g.ick)
		if err != nil {
			t.Fatal(err)
		}
		m := mustRead(t, g.frame, ick)
		if u := m.SAKUse; u.Present {
			seen = append(seen, fmt.Sprintf("%02x latest %v %v %d %d old %v %v %d %d", m.Source[5],
				u.LatestTx, u.LatestRx, u.Latest.KN, u.LatestLPN, u.OldTx, u.OldRx, u.Old.KN, u.OldLPN))
		}
	}
	want := []string{
		"0a latest true true 1 1 old false false 0 1",
		"0b latest false true 1 1 old false false 0 1",
		"0b latest true true 1 1 old false false 0 1",
		"0b latest false false 0 1 old true true 1 1",
		"0a latest false false 0 1 old true true 1 1",
		"0b latest false false 0 1 old true true 1 35",
		"0a latest false false 0 1 old true true 1 191",
		"0b latest false false 0 1 old true true 1 154",
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

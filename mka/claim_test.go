package mka

import (
	"bytes"
	"crypto/rand"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/secret"
)

// A SAK that was found, and that was not in use, may lack receive SAs. Whether its
// key server speaks of it in SAK Use or just distributes it again, as some do in
// their first MKPDU: we do not say that we receive with it.
func TestFoundSAKIsNotVouchedFor(t *testing.T) {
	ours, theirs := MAC{2, 0, 0, 0, 0, 1}, MAC{2, 0, 0, 0, 0, 2}
	server := MI{7}
	inUse, begun := KI{MI: server, KN: 1}, KI{MI: server, KN: 2}
	for _, c := range []struct {
		name string
		use  SAKUse
	}{
		{"in SAK Use", SAKUse{Present: true, Latest: begun, LatestAN: 1, LatestRx: true, Old: inUse, OldTx: true, OldRx: true}},
		{"distributed alone", SAKUse{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := NewPort(Config{
				SCI: NewSCI(ours, 1), Address: ours, Priority: 32, Suite: GCMAES256, Rand: rand.Reader,
				Adopted: []AdoptedKey{
					{KI: inUse, AN: 0, Suite: GCMAES256, Transmit: true, Encoding: true, NextPN: 9, Receive: []SCI{NewSCI(theirs, 1)}},
					{KI: begun, AN: 1, Suite: GCMAES256, Transmit: true, NextPN: 1, Receive: []SCI{NewSCI(theirs, 1)}},
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			now := time.Unix(1000, 0)
			cak := bytes.Repeat([]byte{1}, 32)
			p.Step(now, Event{Kind: EventAddCAK, CKN: "ckn", CAK: secret.Clone(cak), Rank: 1})
			pa := p.participants[0]
			icv, err := DeriveICK(secret.Clone(cak), "ckn")
			if err != nil {
				t.Fatal(err)
			}
			ick, err := NewICK(icv)
			if err != nil {
				t.Fatal(err)
			}
			m := MKPDU{
				Source: theirs,
				Basic: Basic{
					Version: 1, Priority: 16, KeyServer: true, MACsecDesired: true, Capability: CapabilityConfidentiality,
					SCI: NewSCI(theirs, 1), MI: server, MN: 1, CKN: "ckn",
				},
				Live:   PeerList{Present: true, Entries: []PeerEntry{{MI: pa.mi, MN: pa.mn}}},
				SAKUse: c.use,
				DistributedSAK: DistributedSAK{
					Present: true, AN: 1, ConfidentialityOffset: Confidentiality0, KN: begun.KN, Suite: GCMAES256, Wrapped: make([]byte, 40),
				},
			}
			frame, err := m.Append(nil, ick)
			if err != nil {
				t.Fatal(err)
			}
			p.Step(now.Add(time.Millisecond), Event{Kind: EventFrame, Frame: frame})
			for k := range p.cp.keys {
				if k.ki == begun && (k.owner != pa || k.saidRx) {
					t.Errorf("claimed %v, said to be received with %v", k.owner == pa, k.saidRx)
				}
			}
			if !p.holds(begun) {
				t.Error("it is not held any more")
			}
		})
	}
}

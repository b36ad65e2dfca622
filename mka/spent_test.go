package mka

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/secret"
)

// serve is a key server of another make that tells the Port p.
func serve(t *testing.T, p *Port, now time.Time, mi MI, mn, kn uint32, frames int) (ops []Op) {
	t.Helper()
	theirs := MAC{2, 0, 0, 0, 0, 2}
	cak := secret.Clone(bytes.Repeat([]byte{1}, 32))
	key, err := DeriveICK(cak, "ckn")
	if err != nil {
		t.Fatal(err)
	}
	ick, _ := NewICK(key)
	kek, _ := DeriveKEK(cak, "ckn")
	wrapped, err := WrapSAK(kek, secret.Clone(bytes.Repeat([]byte{5}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	pa := p.participants[0]
	for i := range uint32(frames) {
		m := MKPDU{
			Source: theirs,
			Basic: Basic{Version: 1, Priority: 1, KeyServer: true, MACsecDesired: true, Capability: CapabilityConfidentiality,
				SCI: NewSCI(theirs, 1), MI: mi, MN: mn + i, CKN: "ckn"},
			Live:           PeerList{Present: true, Entries: []PeerEntry{{MI: pa.mi, MN: pa.mn}}},
			DistributedSAK: DistributedSAK{Present: true, AN: 1, ConfidentialityOffset: Confidentiality0, KN: kn, Suite: GCMAES256, Wrapped: wrapped},
		}
		f, err := m.Append(nil, ick)
		if err != nil {
			t.Fatal(err)
		}
		out := p.Step(now.Add(time.Duration(i)*2*time.Second), Event{Kind: EventFrame, Frame: f})
		ops = append(ops, out.Ops...)
	}
	return ops
}

func lonePort(t *testing.T, change func(*Config)) *Port {
	t.Helper()
	ours := MAC{2, 0, 0, 0, 0, 1}
	cfg := Config{SCI: NewSCI(ours, 1), Address: ours, Priority: 32, Suite: GCMAES256, Rand: rand.Reader, External: true}
	change(&cfg)
	p, err := NewPort(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A SAK that protected our frames before a restart, and whose SAs are gone, is not
// installed again: its packet numbers would begin at 1.
func TestUsedSAKIsNotInstalledAgain(t *testing.T) {
	server := MI{7}
	p := lonePort(t, func(c *Config) {
		c.Resume = &Record{
			Participants: []ParticipantRecord{{CKN: "ckn", MI: MI{9}, MN: 1024}},
			Latest:       &KeyRecord{CKN: "ckn", MI: server, KN: 3, AN: 1, Tx: true},
			Spent:        []SpentRecord{{MI: server, KN: 3}},
		}
	})
	now := time.Unix(1000, 0)
	p.Step(now, Event{Kind: EventAddCAK, CKN: "ckn", CAK: secret.Clone(bytes.Repeat([]byte{1}, 32)), Rank: 1})
	for _, op := range serve(t, p, now.Add(time.Second), server, 500, 3, 1) {
		if op.Kind == OpAddTransmitSA {
			t.Errorf("%v of %v, which was in use before the restart", op.Kind, op.KI)
		}
	}
}

// A key server that counts from zero, and one SA that could not be made.
func TestKeyNumberZero(t *testing.T) {
	server := MI{7}
	p := lonePort(t, func(*Config) {})
	now := time.Unix(1000, 0)
	p.Step(now, Event{Kind: EventAddCAK, CKN: "ckn", CAK: secret.Clone(bytes.Repeat([]byte{1}, 32)), Rank: 1})
	now = now.Add(time.Second)
	ops := serve(t, p, now, server, 1, 0, 1)
	if len(ops) == 0 {
		t.Fatal("a SAK with key number 0 is refused")
	}
	for _, op := range ops {
		p.Step(now, Event{Kind: EventOpDone, OpID: op.ID, Err: errors.New("no memory")})
	}
	for p.operating() {
		p.Step(now, Event{Kind: EventOpDone, OpID: p.doneOp + 1})
	}
	if got := serve(t, p, now.Add(4*time.Second), server, 10, 1, 3); len(got) == 0 {
		t.Errorf("key number 1 of a server is refused as used: %+v", p.Status().Conditions)
	}
}

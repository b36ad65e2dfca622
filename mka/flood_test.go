package mka_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/mka"
)

// hostile makes frames of somebody on the segment, and of a former member who
// kept the CAK, for the first of two Ports.
type hostile struct {
	t    *testing.T
	rand *rand.Rand
	d    *duo
	ick  *mka.ICK
	m    mka.MKPDU
	buf  []byte
	old  [][]byte
}

func newHostile(t *testing.T, d *duo) *hostile {
	t.Helper()
	key, err := mka.DeriveICK(secret.New(bytes.Repeat([]byte{1}, 32)), epoch1.CKN)
	if err != nil {
		t.Fatal(err)
	}
	ick, err := mka.NewICK(key)
	if err != nil {
		t.Fatal(err)
	}
	return &hostile{t: t, rand: rand.New(rand.NewPCG(1, 1)), d: d, ick: ick}
}

func (h *hostile) fill(b []byte) []byte {
	for i := range b {
		b[i] = byte(h.rand.Uint32())
	}
	return b
}

// outsider makes a frame without a key.
func (h *hostile) outsider() []byte {
	const source, ckn, icv = 6, 50, 16
	f := append(h.buf[:0], h.d.last[1]...)
	switch h.rand.IntN(6) {
	case 0: // unknown CKN
		h.fill(f[ckn : ckn+8])
	case 1: // from anywhere
		h.fill(f[source : source+6])
	case 2: // in the peer's name
		h.fill(f[len(f)-icv:])
	case 3: // replayed
		if len(h.old) < 64 {
			h.old = append(h.old, bytes.Clone(f))
		}
		f = append(f[:0], h.old[h.rand.IntN(len(h.old))]...)
	case 4: // cut off
		f = f[:h.rand.IntN(len(f))]
	case 5: // anything
		f = h.fill(f)
	}
	h.buf = f
	return f
}

// insider makes one that verifies: of a member that nobody has heard of, whose
// lists are as long as they can be.
func (h *hostile) insider() []byte {
	h.m.Reset()
	h.fill(h.m.Source[:])
	h.m.Basic = mka.Basic{Version: 3, Priority: uint8(100 + h.rand.IntN(155)), MACsecDesired: true, Capability: mka.CapabilityConfidentiality, MN: h.rand.Uint32(), CKN: epoch1.CKN}
	h.fill(h.m.Basic.MI[:])
	h.fill(h.m.Basic.SCI[:])
	if n := h.rand.IntN(4); n < 2 { // that of the victim, or of its peer
		h.m.Basic.SCI = mka.NewSCI(mka.MAC{2, 0, 0, 0, 0, byte(n + 1)}, 1)
	}
	lists := []*mka.PeerList{&h.m.Live, &h.m.Potential}
	for _, l := range lists[:1+h.rand.IntN(2)] {
		l.Present = true
		for range h.rand.IntN(40) {
			var e mka.PeerEntry
			h.fill(e.MI[:])
			l.Entries = append(l.Entries, e)
		}
	}
	f, err := h.m.Append(h.buf[:0], h.ick)
	if err != nil {
		h.t.Fatal(err)
	}
	h.buf = f
	return f
}

// TestAMillionHostileFrames keeps what strangers and former members can make a
// Port remember within bounds, and the session that they are jealous of up: 5000
// frames a second for more than three minutes.
func TestAMillionHostileFrames(t *testing.T) {
	for _, tt := range []struct {
		name   string
		frames int
		make   func(*hostile) []byte
		sent   int // by the victim, at most
	}{
		// With no key, nobody gets an answer: it is the hellos that are sent.
		{"outsiders", 800_000, (*hostile).outsider, 160/2 + 5},
		// A member that is new is answered, from a bucket of ten tokens a second.
		{"insiders", 200_000, (*hostile).insider, 40*10 + 16 + 40/2 + 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDuo(t)
			h := newHostile(t, d)
			d.pass(4 * time.Second)
			before, sent := heap(), d.sent[0]
			d.longest = [2]time.Duration{}
			const rate, turn = 5000, 10 * time.Millisecond
			const atOnce = rate * int(turn) / int(time.Second)
			for range tt.frames / atOnce {
				for range atOnce {
					d.step(0, mka.Event{Kind: mka.EventFrame, Frame: tt.make(h)})
				}
				for i := range d.ports {
					d.step(i, mka.Event{Kind: mka.EventTick})
				}
				d.now = d.now.Add(turn)
			}
			for i, p := range d.ports {
				st := p.Status()
				if !st.Secured {
					t.Errorf("port %d is not secured any more: %+v", i, st)
				}
				if d.longest[i] > mka.DefaultHello+turn {
					t.Errorf("port %d sent nothing for %v", i, d.longest[i])
				}
			}
			st := d.ports[0].Status()
			if n := len(st.Participants[0].Peers); n > 64 {
				t.Errorf("%d peers", n)
			}
			if n := len(st.Conditions); n > 16 {
				t.Errorf("%d conditions", n)
			}
			if n := d.sent[0] - sent; n > tt.sent {
				t.Errorf("the Port sent %d frames, want at most %d", n, tt.sent)
			}
			if n := len(d.last[0]); n > 1514 {
				t.Errorf("its MKPDU has %d octets, more than a frame", n)
			}
			if n := int(heap()) - int(before); n > 256<<10 {
				t.Errorf("%d octets of memory more than before", n)
			}
			d.ports[0].Step(d.now, mka.Event{Kind: mka.EventAddCAK, CKN: "another", CAK: secret.New(bytes.Repeat([]byte{9}, 32))})
			out := d.ports[0].Step(d.now, mka.Event{Kind: mka.EventRemoveCAK, CKN: "another"})
			if b, err := json.Marshal(out.Persist); err != nil || len(b) > 32<<10 || out.Persist == nil {
				t.Errorf("a record of %d octets: %v", len(b), err)
			}
			t.Logf("%+v", st.Counters)
		})
	}
}

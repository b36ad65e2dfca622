package sim

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/lever-link/lever/mka"
)

// The attacker is a station that hears everything and may send anything, and holds
// CAKs that were in use once. None of it may have any effect but counters, bounded
// conditions, and at worst a life time for which a replayed stranger is waited for.

// sendSoon has the attacker send, some time in the next two seconds.
func (h *Hour) sendSoon(frame []byte) {
	h.later(h.upTo(2*time.Second), func() { h.attacker.Send(frame) })
}

// some yields up to n frames that were heard, half of them lately.
func (h *Hour) some(n int) [][]byte {
	r := h.Net.Rand()
	var frames [][]byte
	for i := range n {
		if len(h.heard) == 0 {
			return nil
		}
		if lately := min(len(h.heard), 32); i%2 == 0 {
			frames = append(frames, h.heard[len(h.heard)-1-r.IntN(lately)])
			continue
		}
		frames = append(frames, h.heard[r.IntN(len(h.heard))])
	}
	return frames
}

// replay sends what was sent before, once more.
func (h *Hour) replay() bool {
	frames := h.some(100)
	h.Note("%d old frames again", len(frames))
	for _, f := range frames {
		h.sendSoon(f)
	}
	return len(frames) > 0
}

// forge sends frames with something changed, under an ICV that does not fit.
func (h *Hour) forge() bool {
	r := h.Net.Rand()
	frames := h.some(40)
	h.Note("%d forged frames", len(frames))
	for _, was := range frames {
		f := slices.Clone(was)
		if r.IntN(2) == 0 && len(f) > mnOffset+4+icvLen { // what an attacker wants to say most: a later message
			binary.BigEndian.PutUint32(f[mnOffset:], binary.BigEndian.Uint32(f[mnOffset:])+uint32(1+r.IntN(1000)))
		} else {
			for range 1 + r.IntN(4) {
				f[r.IntN(len(f))] ^= 1 << r.IntN(8)
			}
		}
		h.forged[string(f)] = !bytes.Equal(f, was)
		h.sendSoon(f)
	}
	return len(frames) > 0
}

// damage sends frames that are too short or too long, or say so.
func (h *Hour) damage() bool {
	r := h.Net.Rand()
	frames := h.some(40)
	h.Note("%d truncated or oversized frames", len(frames))
	for _, f := range frames {
		f = slices.Clone(f)
		switch r.IntN(4) {
		case 0:
			f = f[:r.IntN(len(f))]
		case 1:
			f = append(f, make([]byte, 1+r.IntN(1500))...)
		case 2:
			if len(f) > 18 {
				binary.BigEndian.PutUint16(f[16:], uint16(r.Uint32()))
			}
		case 3: // a set that claims another length
			if len(f) > 60 {
				binary.BigEndian.PutUint16(f[52+4*r.IntN((len(f)-56)/4):], uint16(r.Uint32()))
			}
		}
		h.sendSoon(f)
	}
	return len(frames) > 0
}

// strange floods the segment with MKPDUs of CAs that nobody knows, each another.
func (h *Hour) strange() {
	h.Note("a flood of unknown CKNs")
	for i := range 200 {
		c := CAK{CKN: mka.CKN(binary.BigEndian.AppendUint64([]byte("nobody's"), h.Net.Rand().Uint64())), Octet: byte(i)}
		m := h.speech(c, h.ghost())
		if i%8 != 0 { // most without the cost of an ICV: it is not looked at
			m.Basic.CKN = c.CKN
		}
		h.sendSpeech(m, c)
	}
}

// ghost is an identity of the attacker's.
func (h *Hour) ghost() mka.SCI {
	return mka.NewSCI(mka.MAC{2, 0, 0, 0, 0xff, byte(h.Net.Rand().IntN(4))}, 1)
}

// speech is what a member of the CA would say who wants to be its key server: he
// hears all members and is heard by them.
func (h *Hour) speech(c CAK, sci mka.SCI) *mka.MKPDU {
	r := h.Net.Rand()
	m := &mka.MKPDU{Source: mka.MAC(sci[:6])}
	m.Basic = mka.Basic{
		Version: 3, Priority: 0, KeyServer: true, MACsecDesired: true, Capability: mka.CapabilityConfidentiality,
		SCI: sci, CKN: c.CKN, MN: 1 + uint32(r.IntN(1000)),
	}
	binary.BigEndian.PutUint64(m.Basic.MI[:], r.Uint64())
	for _, o := range h.Members {
		if o.Port == nil || o.Config.SCI == sci {
			continue
		}
		for _, pa := range o.Port.Status().Participants {
			if mn := h.check.spoken[speaker{pa.MI, o.Config.SCI}]; mn > 0 {
				m.Live.Present = true
				m.Live.Entries = append(m.Live.Entries, mka.PeerEntry{MI: pa.MI, MN: mn})
				break
			}
		}
	}
	return m
}

// sendSpeech signs with c, whatever CKN the speech has, and sends it.
func (h *Hour) sendSpeech(m *mka.MKPDU, c CAK) {
	key, err := mka.DeriveICK(c.Key(), c.CKN)
	if err != nil {
		h.fail("attacker: %v", err)
		return
	}
	ick, err := mka.NewICK(key)
	if err != nil {
		h.fail("attacker: %v", err)
		return
	}
	f, err := m.Append(nil, ick)
	if err != nil {
		h.fail("attacker: %v", err)
		return
	}
	h.forged[string(f)] = true
	h.sendSoon(f)
}

// haunt speaks validly under a CAK that everybody gave up, as himself or under the
// SCI of a member, distributes a SAK under it, and says the same under a CKN in use.
func (h *Hour) haunt() bool {
	old, ok := h.former()
	if !ok {
		return false
	}
	r := h.Net.Rand()
	h.Note("somebody speaks under %q, which nobody has any more", string(old.CKN))
	for range 20 {
		sci := h.ghost()
		if r.IntN(2) == 0 {
			sci = h.someone().Config.SCI
		}
		m := h.speech(old, sci)
		if r.IntN(2) == 0 {
			h.distribute(m, old)
		}
		if best := h.bestCommon(); best.Rank != 0 && r.IntN(2) == 0 {
			m.Basic.CKN = best.CKN
		}
		h.sendSpeech(m, old)
	}
	return true
}

// distribute adds a SAK to a speech.
func (h *Hour) distribute(m *mka.MKPDU, c CAK) {
	kek, err := mka.DeriveKEK(c.Key(), c.CKN)
	if err != nil {
		h.fail("attacker: %v", err)
		return
	}
	suite := h.Members[0].Config.Suite
	sak := CAK{Octet: 0xbd, Length: suite.KeyLen()}.Key()
	wrapped, err := mka.WrapSAK(kek, sak)
	if err != nil {
		h.fail("attacker: %v", err)
		return
	}
	ki := mka.KI{MI: m.Basic.MI, KN: 1}
	m.SAKUse = mka.SAKUse{Present: true, Latest: ki, LatestTx: true, LatestRx: true, LatestLPN: 1}
	m.DistributedSAK = mka.DistributedSAK{Present: true, ConfidentialityOffset: mka.Confidentiality0, KN: 1, Suite: suite, Wrapped: wrapped}
	if suite.XPN() {
		m.Live.KeyServerSSCI = 1
		m.XPN = mka.XPN{Present: true}
	}
}

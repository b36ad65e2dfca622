package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// checks remember what happened, to see that it does not happen twice or in two
// ways. They hold at all times, whatever is wrong with the segment:
//
//   - No nonce, that is SAK, SCI and packet number, is used twice (macsectest).
//   - A SAK whose transmit SA was enabled gets no second one: packet numbers would
//     start again.
//   - No message number is sent twice under a member identifier.
//   - A KI names one SAK, wherever it is distributed and installed, with one SSCI a
//     member.
//   - An operation means the SA that is there: a kernel goes by AN.
//   - No SAK is installed after it was erased.
type checks struct {
	spoken  map[speaker]uint32           // the last MN that it sent
	saks    map[mka.KI]sak               // as installed
	wrapped map[mka.KI][sha256.Size]byte // as distributed
	sscis   map[holding]uint32
	enabled map[holding]bool
	traffic traffic
}

type sak struct {
	key   [sha256.Size]byte
	suite mka.CipherSuite
	salt  [12]byte
}

// speaker is a member under one of its identifiers: two may draw the same by chance.
type speaker struct {
	mi  mka.MI
	sci mka.SCI
}

type holding struct {
	ki  mka.KI
	sci mka.SCI
}

func newChecks() checks {
	return checks{
		spoken: map[speaker]uint32{}, saks: map[mka.KI]sak{}, wrapped: map[mka.KI][sha256.Size]byte{},
		sscis: map[holding]uint32{}, enabled: map[holding]bool{},
		traffic: traffic{sent: map[mka.SCI][]sealed{}, highest: map[delivery]uint32{}},
	}
}

// Where things are in an MKPDU, from the Ethernet header: Basic's member identifier
// and message number, and the first parameter set.
const (
	miOffset   = 18 + 12
	mnOffset   = 18 + 24
	setsOffset = 18
	icvLen     = 16
)

// numbered looks at a frame that m sends.
func (c *checks) numbered(m *Member, frame []byte) {
	mi, mn := mka.MI(frame[miOffset:mnOffset]), binary.BigEndian.Uint32(frame[mnOffset:])
	who := speaker{mi, m.Config.SCI}
	if last := c.spoken[who]; mn <= last && !m.sim.Lenient {
		m.sim.fail("%s: sends MN %d after %d under MI %v", m.Name, mn, last, mi)
	}
	c.spoken[who] = mn
	for at := setsOffset; at+4 <= len(frame)-icvLen; {
		n := int(binary.BigEndian.Uint16(frame[at+2:]) & 0xfff)
		if at > setsOffset && frame[at] == byte(mka.SetDistributedSAK) && n >= 28 {
			ki := mka.KI{MI: mi, KN: binary.BigEndian.Uint32(frame[at+4:])}
			// The AN may differ: whoever has the SAK goes on with his.
			sum := sha256.Sum256(frame[at+4 : at+4+n])
			if was, known := c.wrapped[ki]; known && was != sum {
				m.sim.fail("%s: distributes two SAKs as %v", m.Name, ki)
			}
			c.wrapped[ki] = sum
		}
		at += 4 + (n+3)&^3
	}
}

// before looks at an operation that the kernel is about to be asked for.
func (c *checks) before(m *Member, op mka.Op) {
	switch op.Kind {
	case mka.OpAddReceiveSA:
		if m.SAs.channel(op.SCI) == nil && !m.refused {
			m.sim.fail("%s: receive SC %v is not there", m.Name, op.SCI)
		}
		c.sameSAK(m, op)
	case mka.OpAddTransmitSA:
		if c.enabled[holding{op.KI, m.Config.SCI}] {
			m.sim.fail("%s: a second transmit SA for %v, after one was enabled: packet numbers start again under one SAK", m.Name, op.KI)
		}
		c.sameSAK(m, op)
	case mka.OpDeleteReceiveSA:
		if ki := m.SAs.Receive(op.SCI, op.AN); ki != (mka.KI{}) && ki != op.KI {
			m.sim.fail("%s: means %v and would delete %v: the kernel goes by AN", m.Name, op.KI, ki)
		}
	case mka.OpDeleteTransmitSA:
		if ki := m.SAs.Transmit[op.AN]; ki != (mka.KI{}) && ki != op.KI {
			m.sim.fail("%s: means %v and would delete %v: the kernel goes by AN", m.Name, op.KI, ki)
		}
	case mka.OpEnableTransmitSA:
		if m.SAs.Transmit[op.AN] != op.KI {
			m.sim.fail("%s: enables transmit SA %d of %v, which is not there", m.Name, op.AN, op.KI)
		}
		c.enabled[holding{op.KI, m.Config.SCI}] = true
	default:
	}
}

// after looks at what the kernel answered.
func (c *checks) after(m *Member, op mka.Op, err error) {
	switch {
	case errors.Is(err, macsec.ErrBusy):
		m.sim.fail("%s: %v %d of %v: the AN is taken: %v", m.Name, op.Kind, op.AN, op.KI, err)
	case errors.Is(err, macsec.ErrPNReuse):
		m.sim.fail("%s: %v %d of %v: only the kernel's guard prevents a nonce from being used twice: %v", m.Name, op.Kind, op.AN, op.KI, err)
	case err != nil && !m.refused:
		m.sim.fail("%s: %v %d of %v: %v", m.Name, op.Kind, op.AN, op.KI, err)
	}
}

// sameSAK sees that a KI names one SAK at all members, and that SSCIs agree.
func (c *checks) sameSAK(m *Member, op mka.Op) {
	if op.SAK.IsZero() {
		m.sim.fail("%s: %v of the erased SAK %v", m.Name, op.Kind, op.KI)
		return
	}
	now := sak{sha256.Sum256(op.SAK.Bytes()), op.Suite, op.Salt}
	if was, known := c.saks[op.KI]; known && was != now && !m.sim.Lenient {
		m.sim.fail("%s: %v is not the SAK that another member has under this KI", m.Name, op.KI)
	}
	c.saks[op.KI] = now
	if !op.Suite.XPN() {
		return
	}
	h := holding{op.KI, op.SCI}
	if was, known := c.sscis[h]; known && was != op.SSCI && !m.sim.Lenient {
		m.sim.fail("%s: SSCI of %v under %v is %d, and %d at another member", m.Name, op.SCI, op.KI, op.SSCI, was)
	}
	c.sscis[h] = op.SSCI
}

// SSCI is what a member was given under a SAK, zero if none was.
func (s *Sim) SSCI(ki mka.KI, sci mka.SCI) uint32 { return s.check.sscis[holding{ki, sci}] }

// CheckNonces reports every nonce that was used twice.
func (s *Sim) CheckNonces() {
	for _, n := range s.Nonces.Reused() {
		s.fail("a nonce was used twice: %v", n)
	}
}

package sim

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/macsec/macsectest"
	"github.com/lever-link/lever/mka"
)

// DefaultDelay is how long a frame travels unless a test says otherwise.
const DefaultDelay = 50 * time.Microsecond

// Sim is a segment with members, in virtual time.
type Sim struct {
	Net     *simlink.Net
	Segment *simlink.Segment
	Members []*Member
	// Nonces is what every kernel of the segment ever used.
	Nonces *macsectest.NonceLog

	// Fail takes what must not be; nil collects it in Failures.
	Fail     func(format string, args ...any)
	Failures []string
	// Trace, if set, is told everything that happens, in order.
	Trace func(Entry)
	// Stepped, if set, is called after each step of a Port, and Operated after
	// each operation on a SecY and before its result is reported.
	Stepped  func(m *Member, out *mka.Output)
	Operated func(m *Member, op mka.Op, err error)
	// Forged, if set, says of an MKPDU that no member ever sent it: no Port may
	// take it in.
	Forged func(frame []byte) bool
	// Lenient: message and key numbers may repeat, because a test has two members
	// draw one MI, or equipment count from the beginning again; and equipment may have
	// one SCI in a list twice.
	Lenient bool

	check checks
	caks  map[mka.CKN]*material
	seed  uint64
}

// New makes a segment without members.
func New(seed uint64) *Sim {
	s := &Sim{
		Net: simlink.New(seed), Nonces: &macsectest.NonceLog{},
		check: newChecks(), caks: map[mka.CKN]*material{}, seed: seed,
	}
	s.Segment = s.Net.Segment(DefaultDelay)
	return s
}

// Since is how much virtual time has passed.
func (s *Sim) Since() time.Duration { return s.Net.Since() }

// fail reports what must not be.
func (s *Sim) fail(format string, args ...any) {
	text := fmt.Sprintf("%v: ", s.Since()) + fmt.Sprintf(format, args...)
	s.trace(Entry{Kind: TraceFailure, Text: text})
	if s.Fail != nil {
		s.Fail("%s", text)
		return
	}
	s.Failures = append(s.Failures, text)
}

// Failed says whether something was that must not be.
func (s *Sim) Failed() bool { return len(s.Failures) > 0 }

// Random is a source of random octets that comes from a seed.
func Random(seed uint64) *rand.ChaCha8 {
	var b [32]byte
	copy(b[:], "lever simulation")
	binary.BigEndian.PutUint64(b[24:], seed)
	return rand.NewChaCha8(b)
}

// CAK is a CAK by its name. Its octets are all Octet, Length of them.
type CAK struct {
	CKN    mka.CKN
	Octet  byte
	Rank   uint64
	Length int // zero: 32
}

// Key is the CAK itself.
func (c CAK) Key() mka.Key {
	n := c.Length
	if n == 0 {
		n = 32
	}
	return secret.New(bytes.Repeat([]byte{c.Octet}, n))
}

// material is what follows from a CAK, for whoever reads or forges frames.
type material struct {
	ick *mka.ICK
	kek mka.Key
}

// learn remembers a CAK that somebody was given, so that frames under it can be
// read.
func (s *Sim) learn(c CAK) *material {
	if m := s.caks[c.CKN]; m != nil {
		return m
	}
	m := &material{}
	s.caks[c.CKN] = m
	var err error
	if m.kek, err = mka.DeriveKEK(c.Key(), c.CKN); err != nil {
		return m // the Port says so, too
	}
	if key, err := mka.DeriveICK(c.Key(), c.CKN); err == nil {
		m.ick, _ = mka.NewICK(key)
	}
	return m
}

// Decode reads an MKPDU under any CAK that a member was given.
func (s *Sim) Decode(frame []byte) (*mka.MKPDU, error) {
	env, err := mka.Open(frame, mka.OpenParams{})
	if err != nil {
		return nil, err
	}
	c := s.caks[mka.CKN(env.CKN)]
	if c == nil || c.ick == nil {
		return nil, fmt.Errorf("decode an MKPDU: no member has CKN %x", env.CKN)
	}
	if !env.Verify(c.ick) {
		return nil, mka.ErrICV
	}
	m := &mka.MKPDU{}
	if err := m.Decode(&env); err != nil {
		return nil, err
	}
	m.Basic.CKN = mka.CKN(env.CKN)
	return m, nil
}

// Carries says whether a frame that from sends now can be received by to.
func (s *Sim) Carries(from, to *Member) bool {
	ki, ok := from.SAs.Encoding()
	return ok && to.SAs.Receive(from.Config.SCI, from.SAs.EncodingAN) == ki
}

// Secured says whether the members, all if none are named, are secured on one SAK
// and can talk to each other.
func (s *Sim) Secured(members ...*Member) bool {
	if len(members) == 0 {
		members = s.Members
	}
	var ki mka.KI
	for i, m := range members {
		st := m.Status()
		if i == 0 {
			ki = st.KI
		}
		if m.Port == nil || !st.Secured || st.KI != ki {
			return false
		}
		for _, o := range members {
			if o != m && !s.Carries(m, o) {
				return false
			}
		}
	}
	return true
}

// UntilSecured runs until Secured, for limit at most.
func (s *Sim) UntilSecured(limit time.Duration, members ...*Member) (time.Duration, bool) {
	return s.Net.RunUntil(limit, func() bool { return s.Secured(members...) })
}

// Member finds one by its SCI; nil if it is nobody's.
func (s *Sim) Member(sci mka.SCI) *Member {
	for _, m := range s.Members {
		if m.Config.SCI == sci {
			return m
		}
	}
	return nil
}

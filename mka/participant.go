package mka

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// Strides in which message and key numbers are reserved ahead in the record,
// so that storing it is rare and a restart never repeats one.
const (
	mnStride = 1024
	knStride = 16
)

// Bucket against storms: each MKPDU out of turn takes one token.
const (
	sendTokens  = 16
	tokenPeriod = 100 * time.Millisecond
)

// participant is the MKA instance of one CAK (802.1X-2020 9.3): the KaY keeps
// one for each, so that a CAK can be replaced while its predecessor works.
type participant struct {
	ckn      CKN
	cak, kek Key
	ick      *ICK
	rank     uint64

	mi, formerMI     MI
	mn, mnCeiling    uint32
	kn, knCeiling    uint32
	mark, markBefore uint32 // recent message numbers of ours, see recent
	markAt           time.Time
	peers            []*peer
	displaced        []displacedMI
	gone             []goneMI
	server           *peer // the elected key server; nil when it is us or nobody
	serving          bool  // we are the elected key server and have a live peer
	dist             *distribution
	potentialUntil   time.Time // potential peers hold up a new SAK no longer than this
	inUse            bool      // this CAK's SAK was once in use at every live peer
	quiet            time.Time // resumed beside an external end: listen first, until then
	refusedUntil     time.Time // a SAK that was used before is refused that long, see refuseKI
	lostAt           time.Time // when a live peer's life time last ended
	strandUntil      time.Time // a SAK that is not for all is refused that long
	sendNow          bool
	lastSent         time.Time
	ramp             time.Duration
	tokens           int
	tokensAt         time.Time
	peerSendsXPN     bool
	peerAnnounces    bool
	suspendedMN      uint32 // the first MKPDU that announced our suspension
	announcedServer  SCI    // what NoticeKeyServer last said
}

func (p *Port) newParticipant(ckn CKN, cak Key, rank uint64) (*participant, error) {
	if len(ckn) < 1 || len(ckn) > 32 {
		return nil, fmt.Errorf("a CKN has 1 to 32 octets, this one %d", len(ckn))
	}
	if cak.IsZero() { // everybody knows it: it was erased before it came here
		return nil, errors.New("a CAK of zeros is no key")
	}
	kek, err := DeriveKEK(cak, ckn)
	if err != nil {
		return nil, err
	}
	icv, err := DeriveICK(cak, ckn)
	if err != nil {
		kek.Erase()
		return nil, err
	}
	ick, err := NewICK(icv)
	icv.Erase() // from here on it is there as an expanded key only
	if err != nil {
		kek.Erase()
		return nil, err
	}
	pa := &participant{
		ckn: ckn, cak: cak, kek: kek, ick: ick, rank: rank,
		ramp: firstRamp, sendNow: true, tokens: sendTokens, tokensAt: p.now,
	}
	if !p.resumeParticipant(pa) {
		if err := p.freshMI(pa); err != nil {
			pa.erase()
			return nil, err
		}
	}
	return pa, nil
}

// freshMI gives pa a new member identifier, and with it new number spaces.
func (p *Port) freshMI(pa *participant) error {
	pa.formerMI = pa.mi
	if _, err := io.ReadFull(p.cfg.Rand, pa.mi[:]); err != nil {
		return fmt.Errorf("draw a member identifier: %w", err)
	}
	pa.mn, pa.mnCeiling, pa.kn, pa.knCeiling = 0, 0, 0, 0
	pa.mark, pa.markBefore, pa.markAt, pa.gone = 1, 1, p.now, nil
	pa.suspendedMN = 1 // if we are away, each MKPDU says so
	p.persistDirty = true
	return nil
}

// renewMI makes pa a new member in the eyes of its peers: on a collision of
// MIs, when numbers are used up, or to have the key server make a new SAK.
// Every peer has to prove again that it hears us.
func (p *Port) renewMI(pa *participant) {
	if err := p.freshMI(pa); err != nil {
		p.conditions.raise(p.now, Condition{Kind: ConditionBadCAK, CKN: pa.ckn, Err: err})
		return
	}
	for _, pe := range pa.peers {
		pe.proven, pe.heardMN, pe.expires = false, 0, p.now.Add(p.cfg.Life)
	}
	pa.dist = nil
	pa.ramp, pa.sendNow = firstRamp, true
}

func (pa *participant) erase() {
	pa.cak.Erase()
	pa.kek.Erase()
	pa.ick.Erase()
}

// recent says whether mn is a message number of ours that a peer can have
// learned within about a life time: older ones do not prove that it is alive
// (802.1X-2020 9.4.2 leaves the window to us).
func (pa *participant) recent(mn uint32) bool { return mn >= pa.markBefore && mn <= pa.mn }

// unsettled says whether pa waits for an answer, so that a lost frame should
// be repeated sooner than at the next hello.
func (p *Port) unsettled(pa *participant) bool {
	live := false
	for _, pe := range pa.peers {
		if !pe.live || !pe.proven {
			return true
		}
		live = true
	}
	if !live {
		return true
	}
	if p.now.Before(p.suspended) && !pa.suspensionHeard() {
		return true
	}
	l := p.cp.latest
	return l != nil && l.owner == pa && p.cp.state != cpRetired
}

func (pa *participant) refill(now time.Time) {
	if n := int(now.Sub(pa.tokensAt) / tokenPeriod); n > 0 {
		pa.tokens = min(sendTokens, pa.tokens+n)
		pa.tokensAt = pa.tokensAt.Add(time.Duration(n) * tokenPeriod)
	}
}

// nextSend is when pa sends if nothing else happens.
func (pa *participant) nextSend(now time.Time) time.Time {
	t := pa.lastSent.Add(pa.ramp)
	if pa.sendNow {
		t = now
		if pa.tokens == 0 {
			t = pa.tokensAt.Add(tokenPeriod)
		}
	}
	if pa.quiet.After(t) {
		t = pa.quiet
	}
	return t
}

// transmit sends an MKPDU if one is due: at the hello interval, sooner while
// something is unfinished, and at once after a change.
func (p *Port) transmit(pa *participant) {
	pa.refill(p.now)
	if pa.nextSend(p.now).After(p.now) {
		return
	}
	if pa.mn == math.MaxUint32 {
		p.renewMI(pa) // 802.1X-2020 9.4.2: an MN is never reused under an MI
	}
	if pa.sendNow && pa.tokens > 0 {
		pa.tokens--
	}
	pa.sendNow, pa.quiet = false, time.Time{}
	if p.unsettled(pa) {
		if !pa.lastSent.IsZero() {
			pa.ramp = min(2*pa.ramp, p.hello())
		}
	} else {
		pa.ramp = p.hello()
	}
	pa.lastSent = p.now
	pa.mn++
	if pa.mn > pa.mnCeiling {
		pa.mnCeiling = pa.mn + min(mnStride, math.MaxUint32-pa.mn)
		p.persistDirty = true
	}
	if p.now.Sub(pa.markAt) >= p.cfg.Life {
		pa.markBefore, pa.mark, pa.markAt = pa.mark, pa.mn, p.now
	}
	p.compose(pa)

	i := len(p.out.Frames)
	if i == len(p.buffers) {
		p.buffers = append(p.buffers, make([]byte, 0, 512))
	}
	frame, err := p.tx.Append(p.buffers[i][:0], pa.ick)
	if err != nil { // cannot be encoded: a bug, and silence would hide it
		p.conditions.raise(p.now, Condition{Kind: ConditionBadCAK, CKN: pa.ckn, Err: err})
		return
	}
	p.buffers[i] = frame
	p.out.Frames = append(p.out.Frames, frame)
	p.counters.Sent++
}

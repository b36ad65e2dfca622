package mka

import (
	"math"
	"slices"
	"time"
)

// cpState is a state of the CP state machine (802.1X-2020 12.4) for the latest
// SAK. READY and ABANDON are transitions here: nothing waits in them.
type cpState uint8

const (
	cpInit         cpState = iota // no SAK
	cpReceive                     // receive SAs are being created
	cpReceiving                   // LRX is said; waiting for the others
	cpTransmit                    // the transmit SA is being enabled
	cpTransmitting                // LTX is said; the old SAK still receives
	cpRetired                     // the old SAK is gone
)

// dataKey is a SAK and the SAs that it keys: LatestKI or one that comes before
// it. The standard knows one OldKI; but when a member asks for a fresh SAK while
// another is being taken into use, somebody may still transmit with the one
// before that, and four ANs have room for it.
type dataKey struct {
	ki         KI
	an         AN
	suite      CipherSuite
	sak        Key    // erased as soon as every SA that can need it is there
	wrapped    []byte // as it was distributed to us; nil when we made or found it
	owner      *participant
	ckn        CKN  // of its CAK, also when that is gone; empty if nobody knows
	found      bool // in the SecY at the start, and nobody knows of which CAK it is
	partial    bool // receive SAs may be missing
	lost       bool // somebody took an SA away: a fresh SAK must take its place
	noTransmit bool // ... the transmit SA
	ownSSCI    uint32
	members    []member
	rx, tx     bool // its SAs are installed, and it protects our frames
	saidRx     bool // ... and every member's receive SA is there: LRX, ORX
	inUse      bool // every live peer was seen to transmit with it
	created    time.Time

	// pn is our next transmit PN; lpn is one that was true a hello earlier,
	// which is what SAK Use reports (802.1X-2020 11.11.3).
	pn, lpn   uint64
	lpnSample uint64
	lpnAt     time.Time

	installed       uint64 // the last operation of its installation
	firstOp, lastOp uint64 // the operations that its current state waits for
	refusals        int    // of enabling its transmit SA
	err             error
}

// member is another holder of a SAK, known by MI at first and by SCI as soon
// as it is live here.
type member struct {
	mi    MI
	sci   SCI
	ssci  uint32
	lost  bool      // its life time ended since: it may have given the SAK up
	gone  bool      // somebody took its receive SA away
	keyed bool      // its receive SA was asked for
	heard bool      // frames that it protected with this SAK were received before we started
	op    uint64    // with which operation
	retry time.Time // it was refused: ask again then

	lowestPN uint64 // what delay protection last had it accept
}

type cp struct {
	state      cpState
	latest     *dataKey
	olds       []*dataKey // that latest follows, newest first
	stray      []*dataKey // found in the SecY at the start, of no use
	receiveSCs []SCI
	receiveBy  time.Time // the key server transmits then at the latest
	retireAt   time.Time // the old SAK goes then
	retireBy   time.Time // or then at the latest
	retryAt    time.Time // a failed installation is not repeated before
	// adoptedUntil is until when SAs that were found in the SecY are not
	// replaced without all their members.
	adoptedUntil time.Time
	nextAN       AN // after the last one used (802.1X-2020 9.8: per port)
	heldKI       KI // a distributed SAK on an AN that carries our frames
	heldUntil    time.Time
}

// maxOlds leaves one AN for the latest SAK.
const maxOlds = 3

// keys yields the latest SAK and its predecessors, newest first.
func (c *cp) keys(yield func(*dataKey) bool) {
	if c.latest != nil && !yield(c.latest) {
		return
	}
	for _, k := range c.olds {
		if !yield(k) {
			return
		}
	}
}

// carrying is the predecessor of the latest SAK that protects our frames.
func (c *cp) carrying() *dataKey {
	for _, k := range c.olds {
		if k.tx {
			return k
		}
	}
	return nil
}

func (c *cp) deadlines(life time.Duration, at func(time.Time)) {
	switch c.state {
	case cpReceiving:
		at(c.receiveBy)
		if !c.latest.saidRx {
			at(c.latest.created.Add(life))
		}
	case cpTransmitting:
		at(c.retireAt)
		at(c.retireBy)
	case cpInit, cpReceive, cpTransmit, cpRetired:
	}
	at(c.retryAt)
	at(c.adoptedUntil)
	if l := c.latest; l != nil {
		for i := range l.members {
			at(l.members[i].retry)
		}
	}
}

// lose marks mi as lost in every SAK that it has.
func (c *cp) lose(mi MI) {
	for k := range c.keys {
		for i := range k.members {
			if k.members[i].mi == mi {
				k.members[i].lost = true
			}
		}
	}
}

// advanceCP moves the CP machine by one state if it can.
func (p *Port) advanceCP() bool {
	c := &p.cp
	if len(c.stray) > 0 {
		for _, k := range c.stray {
			p.deleteKey(k)
		}
		c.stray = nil
		p.dropReceiveSCs()
	}
	l := c.latest
	if l == nil {
		return false
	}
	p.keyLateMembers(l)
	if p.mayReport(l) {
		l.saidRx, p.persistDirty = true, true
		if l.owner != nil {
			l.owner.sendNow = true
		}
	}
	if pa := l.owner; pa != nil && pa.dist != nil && pa.dist.ki == l.ki && p.everyLive(l, (*peer).receives) {
		pa.dist = nil // whoever gives it up must not be told again: see madeFor
	}
	if k := p.overtaken(l); k != nil && c.state >= cpReceiving && c.state != cpTransmit {
		p.follow(k)
		return true
	}
	switch c.state {
	case cpReceiving:
		if p.displaced(l) || p.orphaned(l) || p.refused(l) {
			p.goBack(l)
			return true
		}
		if p.mayTransmit(l) {
			p.startTransmit(l)
			return true
		}
	case cpTransmitting:
		p.noteInUse(l)
		if len(c.olds) > 0 && c.retireAt.IsZero() && p.everyLive(l, (*peer).transmits) {
			c.retireAt = p.now.Add(sakRetire)
		}
		if len(c.olds) == 0 || due(p.now, c.retireAt) ||
			due(p.now, c.retireBy) && (l.owner == nil || l.owner.livePeers() > 0) {
			p.retireOld()
			return true
		}
	case cpRetired:
		p.noteInUse(l)
	case cpInit, cpReceive, cpTransmit:
	}
	return false
}

// mayReport says whether it is time to say that we receive with l: we do so from
// every member, or somebody whom the key server hears stays unknown to us.
func (p *Port) mayReport(l *dataKey) bool {
	if !l.rx || l.saidRx || l.partial {
		return false
	}
	return due(p.now, l.created.Add(p.cfg.Life)) ||
		!p.operating() && !slices.ContainsFunc(l.members, func(m member) bool { return !m.keyed })
}

// extendPatience gives a peer of pa, which was not heard for a while, its time to take the
// latest SAK, as if that were made now.
func (p *Port) extendPatience(pa *participant) {
	c := &p.cp
	if c.latest == nil || c.latest.owner != pa || len(c.olds) == 0 {
		return
	}
	switch c.state {
	case cpReceiving:
		c.receiveBy = p.now.Add(patience)
	case cpTransmitting:
		c.retireBy = p.now.Add(patience)
	case cpInit, cpReceive, cpTransmit, cpRetired:
	}
}

func due(now, t time.Time) bool { return !t.IsZero() && !now.Before(t) }

// mayTransmit: the key server transmits when everybody receives, or when it
// has waited long enough; the others when the key server does.
func (p *Port) mayTransmit(l *dataKey) bool {
	switch {
	case l.owner == nil || l.partial || p.now.Before(p.cp.retryAt):
		return false
	case l.owner.serving && p.leaves(l, false):
		return false
	case l.owner.serving:
		return p.everyLive(l, (*peer).receives) || due(p.now, p.cp.receiveBy) && l.owner.dist != nil && l.owner.madeFor(l)
	}
	// Of what an earlier agent has heard the SecY knows more than the record: the key
	// server's next word may come after it has deleted the old SAK.
	server := l.owner.server
	return server != nil && (server.transmits(l.ki) ||
		slices.ContainsFunc(l.members, func(m member) bool { return m.sci == server.sci && m.heard }))
}

// everyLive says whether there are live peers and all of them do ok with l.
func (p *Port) everyLive(l *dataKey, ok func(*peer, KI) bool) bool {
	if l.owner == nil {
		return false
	}
	n := 0
	for _, pe := range l.owner.peers {
		if !pe.live {
			continue
		}
		if !pe.proven || !ok(pe, l.ki) {
			return false
		}
		n++
	}
	return n > 0
}

// received says whether there are live peers and all of them say that they
// receive with k. They need not have proved themselves to our latest MI yet:
// that we took a fresh one does not make their SAs go away.
func (k *dataKey) received() bool {
	if k.owner == nil {
		return false
	}
	n := 0
	for _, pe := range k.owner.peers {
		if pe.live && !pe.receives(k.ki) {
			return false
		}
		if pe.live {
			n++
		}
	}
	return n > 0
}

func (p *Port) noteInUse(l *dataKey) {
	if l.inUse || !p.everyLive(l, (*peer).transmits) {
		return
	}
	l.inUse = true
	if !l.owner.inUse {
		l.owner.inUse = true
		p.notice(Notice{Kind: NoticeInUse, CKN: l.owner.ckn, KI: l.ki, AN: l.an, SCI: l.owner.serverSCI(p)})
	}
}

// noteSecured finds the SAK that carries our frames and is received by every
// live peer. During a rekey that is the old one until the new one transmits.
func (p *Port) noteSecured() {
	p.secured = nil
	for k := range p.cp.keys {
		if k.tx && !k.lost && k.received() && !slices.ContainsFunc(k.owner.peers, p.elsewhere) {
			p.secured = k
			break
		}
	}
	if p.secured == nil {
		p.securedKI = KI{}
		return
	}
	if k := p.secured; k.ki != p.securedKI {
		p.securedKI = k.ki
		p.notice(Notice{Kind: NoticeSecured, CKN: k.owner.ckn, KI: k.ki, AN: k.an, SCI: k.owner.serverSCI(p)})
	}
}

func (p *Port) startTransmit(l *dataKey) {
	p.cp.state = cpTransmit
	l.firstOp = p.nextOp + 1
	l.lastOp = p.op(Op{Kind: OpEnableTransmitSA, SCI: p.cfg.SCI, AN: l.an, KI: l.ki})
}

// retireOld deletes the old SAK: everybody had time to leave it.
func (p *Port) retireOld() {
	c := &p.cp
	c.state = cpRetired
	c.retireAt, c.retireBy = time.Time{}, time.Time{}
	retired := len(c.olds) > 0
	for _, o := range c.olds {
		p.deleteKey(o)
	}
	c.olds = nil
	p.dropReceiveSCs()
	p.persistDirty = true
	if !retired {
		return
	}
	n := Notice{Kind: NoticeRetired, KI: c.latest.ki, AN: c.latest.an}
	if c.latest.owner != nil {
		n.CKN = c.latest.owner.ckn
	}
	p.notice(n)
}

// closeKeysOf deletes what a revoked CAK keyed, or may have keyed: nothing may
// flow under it. One that was revoked while no agent ran has no participant, and
// the record says what it keyed.
func (p *Port) closeKeysOf(ckn CKN) {
	c := &p.cp
	pa := p.participant([]byte(ckn))
	keyed := func(k *dataKey) bool {
		if k.ckn == "" {
			return pa != nil
		}
		return k.ckn == ckn
	}
	c.olds = slices.DeleteFunc(c.olds, func(k *dataKey) bool {
		if keyed(k) {
			p.deleteKey(k)
			p.persistDirty = true
		}
		return keyed(k)
	})
	if c.latest == nil || !keyed(c.latest) {
		return
	}
	p.deleteKey(c.latest)
	c.latest = nil
	p.persistDirty = true
	if c.carrying() == nil || c.state == cpTransmit {
		// The others' transmit SAs were given up for the revoked one's.
		for _, k := range c.olds {
			p.deleteKey(k)
		}
		c.olds = nil
	}
	p.promote()
	p.dropReceiveSCs()
	p.notice(Notice{Kind: NoticeClosed, CKN: ckn})
}

// disownKeysOf leaves the SAs of a CAK that is superseded where they are.
func (p *Port) disownKeysOf(pa *participant) {
	for k := range p.cp.keys {
		if k.owner == pa {
			k.owner = nil
			k.sak.Erase()
		}
	}
}

func (p *Port) observePN(ki KI, next uint64) {
	for k := range p.cp.keys {
		if k.ki != ki {
			continue
		}
		if next == 0 { // it wrapped: all are used
			k.pn = math.MaxUint64
			continue
		}
		k.pn = next
		if p.now.Sub(k.lpnAt) >= p.hello()*7/8 { // tickers are not exact
			k.lpn, k.lpnSample, k.lpnAt = k.lpnSample, next, p.now
		}
	}
}

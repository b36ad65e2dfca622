package mka

import (
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
	ki      KI
	an      AN
	suite   CipherSuite
	sak     Key    // erased as soon as every SA that can need it is there
	wrapped []byte // as it was distributed to us; nil when we made or found it
	owner   *participant
	found   bool // in the SecY at the start, and nobody knows of which CAK it is
	ownSSCI uint32
	members []member
	rx, tx  bool // its SAs are installed, and it protects our frames
	saidRx  bool // ... and every member's receive SA is there: LRX, ORX
	inUse   bool // every live peer was seen to transmit with it
	created time.Time

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
	keyed bool      // its receive SA was asked for
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
	if !l.rx || l.saidRx {
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
	case l.owner == nil || p.now.Before(p.cp.retryAt):
		return false
	case l.owner.serving && p.leaves(l, false):
		return false
	case l.owner.serving:
		return p.everyLive(l, (*peer).receives) || due(p.now, p.cp.receiveBy) && l.owner.dist != nil && l.owner.madeFor(l)
	}
	return l.owner.server != nil && l.owner.server.transmits(l.ki)
}

// displaced says whether l is a SAK of our own making that nobody transmits
// with, and another key server was elected meanwhile: one that had fallen
// silent is back, and its SAK still serves.
func (p *Port) displaced(l *dataKey) bool {
	pa := l.owner
	return pa != nil && !pa.serving && pa.server != nil && l.ki.MI == pa.mi &&
		!l.tx && len(p.cp.olds) > 0 && !p.operating()
}

// orphaned says whether l, which nobody transmits with, is not going to be taken
// into use, while there is one that carries our frames: its key server does not
// speak of it any more, or all who have its CAK are gone, and those of the other
// CAK are there.
func (p *Port) orphaned(l *dataKey) bool {
	old, pa := p.cp.carrying(), l.owner
	if l.tx || pa == nil || old == nil || p.operating() {
		return false
	}
	if slices.ContainsFunc(pa.peers, func(pe *peer) bool { return pe.live && pe.transmits(l.ki) }) {
		return false
	}
	if pa.server != nil {
		return !pa.server.droppedSince.IsZero() && due(p.now, pa.server.droppedSince.Add(2*p.cfg.Hello))
	}
	// Somebody may transmit with l whom we do not hear. Whoever we have heard
	// since under the other CAK tells what he transmits with.
	return pa.livePeers() == 0 && old.owner != nil && old.owner != pa && old.owner.livePeers() > 0 &&
		!slices.ContainsFunc(old.owner.peers, func(pe *peer) bool {
			return pe.live && !(pe.heard.After(pa.lostAt) && pe.transmits(old.ki))
		})
}

// refused says whether l is ours and of another CAK than the SAK that still
// serves somebody who is lost under l's: he has given that CAK up. Or, when it
// is late, somebody whom l is not for: he came back after it was made, and the
// others wait for a SAK that is for all.
func (p *Port) refused(l *dataKey) bool {
	late := due(p.now, p.cp.receiveBy) || due(p.now, l.created.Add(2*p.cfg.Life))
	return l.owner != nil && l.owner.serving && !l.tx && !p.operating() && p.leaves(l, !late)
}

// leaves says whether somebody is served by the SAK that carries our frames, of
// another CAK than l's, whom l would leave behind; of members of l alone, if so
// asked.
func (p *Port) leaves(l *dataKey, members bool) bool {
	old := p.cp.carrying()
	if old == nil || old.owner == nil || old.owner == l.owner {
		return false
	}
	for _, pe := range old.owner.peers {
		if !pe.live {
			continue
		}
		member := slices.ContainsFunc(l.members, func(m member) bool { return m.sci == pe.sci })
		live := slices.ContainsFunc(l.owner.peers, func(o *peer) bool { return o.live && o.sci == pe.sci })
		if member && !live || !member && !members {
			return true
		}
	}
	return false
}

// goBack abandons the latest SAK for the one that still carries traffic.
func (p *Port) goBack(l *dataKey) {
	c := &p.cp
	p.deleteKey(l)
	c.latest, c.receiveBy = nil, time.Time{}
	p.promote()
	p.persistDirty = true
}

// promote makes the SAK with which its key server transmits the latest one
// again, or else the one that carries our frames; the others go when all use it.
func (p *Port) promote() {
	c := &p.cp
	c.latest = c.carrying()
	for _, k := range c.olds {
		if k.owner != nil && k.owner.server != nil && k.owner.server.transmits(k.ki) {
			c.latest = k
			break
		}
	}
	if c.latest == nil && len(c.olds) > 0 {
		c.latest = c.olds[0]
	}
	c.olds = slices.DeleteFunc(c.olds, func(k *dataKey) bool { return k == c.latest })
	c.retireAt, c.retireBy = time.Time{}, time.Time{}
	switch {
	case c.latest == nil:
		c.state = cpInit
	case !c.latest.tx && c.carrying() != nil:
		c.state, c.receiveBy = cpReceiving, p.now.Add(patience)
	case !c.latest.tx:
		c.state, c.receiveBy = cpReceiving, p.now.Add(receiveLimit)
	case len(c.olds) == 0:
		c.state = cpRetired
	default:
		c.state, c.retireBy = cpTransmitting, p.now.Add(patience)
	}
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
		if k.tx && k.received() && !slices.ContainsFunc(k.owner.peers, p.elsewhere) {
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
// flow under it.
func (p *Port) closeKeysOf(pa *participant) {
	c := &p.cp
	keyed := func(k *dataKey) bool { return k.owner == pa || k.found && k.owner == nil }
	c.olds = slices.DeleteFunc(c.olds, func(k *dataKey) bool {
		if keyed(k) {
			p.deleteKey(k)
		}
		return keyed(k)
	})
	if c.latest == nil || !keyed(c.latest) {
		return
	}
	p.deleteKey(c.latest)
	c.latest = nil
	if c.carrying() == nil || c.state == cpTransmit {
		// The others' transmit SAs were given up for the revoked one's.
		for _, k := range c.olds {
			p.deleteKey(k)
		}
		c.olds = nil
	}
	p.promote()
	p.dropReceiveSCs()
	p.notice(Notice{Kind: NoticeClosed, CKN: pa.ckn})
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
		k.pn = next
		if p.now.Sub(k.lpnAt) >= p.hello()*7/8 { // tickers are not exact
			k.lpn, k.lpnSample, k.lpnAt = k.lpnSample, next, p.now
		}
	}
}

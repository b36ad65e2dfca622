package mka

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// distribution is a SAK on its way to the peers: what each MKPDU of the key
// server repeats until everybody has it.
type distribution struct {
	ki      KI
	an      AN
	suite   CipherSuite
	wrapped []byte
	ssci    uint32 // our own
}

// Packet numbers at which a new SAK is due (802.1X-2020 9.8, PendingPNExhaustion).
const (
	pnExhaustion    = 0xC0000000
	pnExhaustionXPN = 0xC000000000000000
)

// serveKeys makes a new SAK if we are key server and one is due.
func (p *Port) serveKeys() bool {
	for _, pa := range p.participants {
		if !pa.serving || !p.mayReplaceLatest(pa) {
			continue
		}
		needed, urgent := p.needsSAK(pa)
		if !needed || !p.mayStartSAK(pa, urgent) {
			continue
		}
		if pa.kn == math.MaxUint32 {
			// No key number is used twice under an MI (802.1X-2020 9.8.1): go on
			// under another as soon as the peers know it.
			p.renewMI(pa)
			p.cp.retryAt = p.now.Add(DefaultHello)
			return false
		}
		if err := p.generateSAK(pa); err != nil {
			p.cp.retryAt = p.now.Add(DefaultHello)
			p.conditions.raise(p.now, Condition{Kind: ConditionInstallFailed, CKN: pa.ckn, Err: err})
			return false
		}
		return true
	}
	return false
}

// mayReplaceLatest says whether pa may take over from the participant whose
// SAK is in use: a better CAK, once everybody who is live under the old one is
// live under it, so that its promotion leaves nobody behind; or any CAK when
// nobody is left under the old one.
func (p *Port) mayReplaceLatest(pa *participant) bool {
	l := p.cp.latest
	if l != nil && l.owner == nil && p.now.Before(p.cp.adoptedUntil) {
		// A restart forgot who is there; those whose SAs were found have a life
		// time to be heard.
		return !slices.ContainsFunc(l.members, func(m member) bool {
			return !slices.ContainsFunc(pa.peers, func(pe *peer) bool { return pe.live && pe.sci == m.sci })
		})
	}
	if l == nil || l.owner == nil || l.owner == pa || l.owner.livePeers() == 0 {
		return true
	}
	if pa.rank <= l.owner.rank {
		return false
	}
	for _, old := range l.owner.peers {
		if old.live && !slices.ContainsFunc(pa.peers, func(pe *peer) bool {
			return pe.live && pe.proven && pe.sci == old.sci
		}) {
			return false
		}
	}
	return true
}

// needsSAK applies 802.1X-2020 9.8. Urgent: somebody cannot take part before.
func (p *Port) needsSAK(pa *participant) (needed, urgent bool) {
	l := p.cp.latest
	switch {
	case l == nil || l.owner == nil:
		return true, true
	case l.owner != pa:
		// One that is not taken into use is not waited for: members may be on
		// different CAKs, and the better one is what all have.
		return true, l.owner.livePeers() == 0 || due(p.now, l.created.Add(p.cfg.Life))
	case l.ki.MI != pa.mi:
		return true, true
	case l.lost, !pa.madeFor(l), p.lacked(pa, l), p.mustMove(l):
		return true, true
	case p.cp.state == cpReceiving && due(p.now, p.cp.receiveBy) && pa.dist == nil:
		return true, true // a restart cost us what we would have to repeat
	case (p.cp.state == cpReceiving || p.cp.state == cpTransmitting) && len(p.cp.olds) > 0 && due(p.now, l.created.Add(2*p.cfg.Life)) &&
		slices.ContainsFunc(pa.peers, func(pe *peer) bool { return pe.live && pe.proven && !pe.receives(l.ki) }):
		return true, true // it was accepted once and lost, so that it is refused now
	case p.rekeyWanted:
		return true, false
	case p.cfg.SAKRekey > 0 && p.now.Sub(l.created) >= p.cfg.SAKRekey:
		return true, false
	}
	return pa.exhausted(l), false
}

// exhausted says whether packet numbers of l run out, here or at a live peer.
func (pa *participant) exhausted(l *dataKey) bool {
	limit := uint64(pnExhaustion)
	if l.suite.XPN() {
		limit = pnExhaustionXPN
	}
	return l.pn >= limit || slices.ContainsFunc(pa.peers, func(pe *peer) bool {
		return pe.live && pe.transmitPN(l.ki) >= limit
	})
}

// lacked says whether a live peer does not use l: it transmits with a SAK that
// is not ours, or it has been without l for so long that it will not take it
// any more, having given it up once.
func (p *Port) lacked(pa *participant, l *dataKey) bool {
	if p.cp.state == cpTransmitting {
		return slices.ContainsFunc(pa.peers, p.elsewhere)
	}
	if p.cp.state != cpRetired {
		return false
	}
	for _, pe := range pa.peers {
		if !pe.live || !pe.proven || pe.transmits(l.ki) {
			continue
		}
		if u := &pe.use; u.Present && u.LatestTx && u.Latest.KN != 0 ||
			!pe.lackingSince.IsZero() && p.now.Sub(pe.lackingSince) >= 2*p.cfg.Hello {
			return true
		}
	}
	return false
}

// collides says whether a live peer uses l's AN for a SAK that we do not have: of
// another key server, while we were cut off, or one of ours that a restart forgot.
// It would have to give that one up to take l.
func (p *Port) collides(l *dataKey) bool {
	used := func(ki KI, rx, tx bool) bool {
		ours := slices.ContainsFunc(p.participants, func(pa *participant) bool { return pa.mi == ki.MI })
		return (tx || rx && !ours) && !p.holds(ki)
	}
	for _, pa := range p.participants {
		for _, pe := range pa.peers {
			u := &pe.use
			if pe.live && u.Present && (u.LatestAN == l.an && used(u.Latest, u.LatestRx, u.LatestTx) ||
				u.OldAN == l.an && used(u.Old, u.OldRx, u.OldTx)) {
				return true
			}
		}
	}
	return false
}

// elsewhere says whether pe transmits with a SAK that we do not have: it took
// another key server's while we were cut off, and gave ours up for good.
func (p *Port) elsewhere(pe *peer) bool {
	u := &pe.use
	return pe.live && pe.proven && u.Present && u.LatestTx && u.Latest.KN != 0 && !p.holds(u.Latest)
}

// mustMove says whether a SAK on another AN would spare our peers that.
func (p *Port) mustMove(l *dataKey) bool {
	if !p.collides(l) {
		return false
	}
	an, free := p.freeAN()
	return free && an != l.an
}

// madeFor says whether the live peers are just those that l was made for. One
// that was lost and is back may have deleted its SAs: told of l again it would
// begin with packet number 1 again.
func (pa *participant) madeFor(l *dataKey) bool {
	n := 0
	for _, pe := range pa.peers {
		if !pe.live {
			continue
		}
		n++
		if !slices.ContainsFunc(l.members, func(m member) bool { return m.mi == pe.mi && !m.lost }) {
			return false
		}
	}
	return n == len(l.members)
}

// mayStartSAK holds a new SAK back while somebody is about to become live, for
// a life time at most, and while the last one is being taken into use.
func (p *Port) mayStartSAK(pa *participant, urgent bool) bool {
	c := &p.cp
	if l := c.latest; p.someoneAway(pa) && (l == nil || !pa.exhausted(l)) {
		return false // it could not take it (802.1X-2020 9.18)
	}
	if _, free := p.freeAN(); !free && c.latest != nil && p.now.Before(c.latest.created.Add(p.cfg.Life)) {
		return false // somebody may still use each of the four
	}
	if l := c.latest; l != nil && l.owner == pa && p.cfg.External && pa.livePeers() > 1 && p.now.Before(l.created.Add(p.cfg.Hello)) {
		// Equipment that speaks once a hello finds the lists of others outdated
		// when it has to speak more often, and starts again under another MI
		// (wpa_supplicant): each a change that asks for another SAK.
		return false
	}
	if pa.hasPotential() && p.now.Before(pa.potentialUntil) || p.now.Before(c.retryAt) || p.operating() {
		return false
	}
	switch c.state {
	case cpInit, cpRetired:
		return true
	case cpReceiving:
		return urgent // ABANDON
	case cpTransmitting:
		// Nobody who still transmits with the old SAK may lose it.
		return urgent && !slices.ContainsFunc(pa.peers, func(pe *peer) bool {
			return pe.live && !pe.transmits(c.latest.ki) &&
				!p.elsewhere(pe) && (pe.receives(c.latest.ki) || pa.dist != nil && p.now.Before(c.latest.created.Add(2*p.cfg.Life))) && slices.ContainsFunc(c.latest.members, func(m member) bool { return m.mi == pe.mi })
		})
	case cpReceive, cpTransmit:
	}
	return false
}

// operating says whether the SecY is still at work for us. A SAK is not
// replaced meanwhile: an operation under way may carry it.
func (p *Port) operating() bool { return p.doneOp != p.nextOp }

func (p *Port) generateSAK(pa *participant) error {
	nonce := make([]byte, p.cfg.Suite.KeyLen())
	if _, err := io.ReadFull(p.cfg.Rand, nonce); err != nil {
		return fmt.Errorf("draw the nonce of a SAK: %w", err)
	}
	pa.kn++
	if pa.kn > pa.knCeiling {
		pa.knCeiling = pa.kn + min(knStride, math.MaxUint32-pa.kn)
	}
	an, _ := p.freeAN()
	k := &dataKey{ki: KI{MI: pa.mi, KN: pa.kn}, suite: p.cfg.Suite, owner: pa, an: an}
	mis := []MI{pa.mi}
	ssci := uint32(1) // 802.1AEbw: by SCI, the greatest first; pa.peers is so
	for _, pe := range pa.peers {
		if !pe.live {
			continue
		}
		if k.ownSSCI == 0 && pe.sci.Less(p.cfg.SCI) {
			k.ownSSCI, ssci = ssci, ssci+1
		}
		mis = append(mis, pe.mi)
		k.members = append(k.members, member{mi: pe.mi, sci: pe.sci, ssci: ssci})
		ssci++
	}
	if k.ownSSCI == 0 {
		k.ownSSCI = ssci
	}
	sak, err := DeriveSAK(pa.cak, nonce, mis, pa.kn, p.cfg.Suite.KeyLen())
	clear(nonce)
	if err != nil {
		return fmt.Errorf("derive a SAK: %w", err)
	}
	wrapped, err := WrapSAK(pa.kek, sak)
	if err != nil {
		sak.Erase()
		return fmt.Errorf("wrap a SAK: %w", err)
	}
	k.sak = sak
	if pa.dist == nil {
		p.cp.receiveBy = time.Time{} // nobody was told of the one before
	}
	pa.dist = &distribution{ki: k.ki, an: k.an, suite: k.suite, wrapped: wrapped, ssci: k.ownSSCI}
	pa.ramp, pa.sendNow = firstRamp, true
	p.rekeyWanted = false
	p.install(k)
	return nil
}

// freeAN is the next association number of the port that neither we nor a peer
// has in use. If there is none, it is one that nobody is known to transmit with.
func (p *Port) freeAN() (an AN, free bool) {
	var held, sending [4]bool
	l := p.cp.latest
	an = p.cp.nextAN
	for k := range p.cp.keys {
		held[k.an] = held[k.an] || !p.idle(k)
		sending[k.an] = sending[k.an] || k.tx
	}
	for _, pa := range p.participants {
		for _, pe := range pa.peers {
			u := &pe.use
			if !pe.live || !u.Present {
				continue
			}
			sending[u.LatestAN%4] = sending[u.LatestAN%4] || u.LatestTx
			sending[u.OldAN%4] = sending[u.OldAN%4] || u.OldTx
			held[u.LatestAN%4] = held[u.LatestAN%4] || u.LatestRx || u.LatestTx
			held[u.OldAN%4] = held[u.OldAN%4] || u.OldRx || u.OldTx
		}
	}
	for range 4 {
		if !held[an] {
			return an, true
		}
		an = (an + 1) % 4
	}
	if l != nil && !l.tx && l.owner != nil && l.owner.mi == l.ki.MI && !p.collides(l) {
		return l.an, true // nobody transmits with it before us, its key server
	}
	for range 4 {
		if !sending[an] {
			return an, false
		}
		an = (an + 1) % 4
	}
	return an, false
}

// idle says whether every member of an old SAK tells us that it transmits with
// another one.
func (p *Port) idle(k *dataKey) bool {
	if k.tx || k == p.cp.latest {
		return false
	}
	return !slices.ContainsFunc(k.members, func(m member) bool {
		for _, pa := range p.participants {
			for _, pe := range pa.peers {
				if u := &pe.use; pe.live && pe.proven && pe.sci == m.sci && !pe.transmits(k.ki) && (u.LatestTx || u.OldTx) {
					return false
				}
			}
		}
		return true
	})
}

package mka

import (
	"slices"
	"time"
)

// When a SAK that was not taken into use is given up for what carries traffic:
// ABANDON of 802.1X-2020 12.4, and what groups and changes of CAK add to it.

// displaced says whether l is a SAK of our own making that nobody transmits
// with, and another key server was elected meanwhile: one that had fallen
// silent is back, and its SAK still serves.
func (p *Port) displaced(l *dataKey) bool {
	pa := l.owner
	return pa != nil && !pa.serving && pa.server != nil && l.ki.MI == pa.mi &&
		!l.tx && len(p.cp.olds) > 0 && !p.operating()
}

// orphaned says whether l, which nobody transmits with, is not going to be taken
// into use, while there is one that carries our frames: who made it does not
// speak of it any more, or all who have its CAK are gone, and those of the other
// CAK are there; or we have no CAK for it.
func (p *Port) orphaned(l *dataKey) bool {
	old, pa := p.cp.carrying(), l.owner
	if l.tx || old == nil || p.operating() || p.used(l) {
		return false
	}
	if pa == nil {
		// Its CAK is gone, or was never known here since the start: those who have it
		// had a life time to be heard.
		return !p.now.Before(p.cp.adoptedUntil)
	}
	if pa.livePeers() > 0 {
		// Another than its maker may know nothing of it. When that one is gone, the
		// key server decides, which goes on with the SAK that carries our frames.
		maker := pa.peer(l.ki.MI)
		if maker == nil && pa.server != nil && pa.server.transmits(old.ki) {
			maker = pa.server
		}
		return maker != nil && maker.live && !maker.droppedSince.IsZero() && p.now.Sub(maker.droppedSince) >= 2*p.cfg.Hello
	}
	// Somebody may transmit with l whom we do not hear. Whoever goes on under the
	// other CAK, and only there, tells what he transmits with.
	return old.owner != nil && old.owner != pa && old.owner.livePeers() > 0 &&
		!slices.ContainsFunc(old.owner.peers, func(pe *peer) bool {
			return pe.live && !(pe.heard.After(pa.lostAt.Add(2*p.cfg.Hello)) && pe.transmits(old.ki))
		})
}

// refused says whether l is ours and of another CAK than the SAK that still
// serves somebody who is lost under l's: he has given that CAK up. Or, when it
// is late, somebody whom l is not for: he came back after it was made, and the
// others wait for a SAK that is for all. But not while a live peer transmits with it.
func (p *Port) refused(l *dataKey) bool {
	late := due(p.now, p.cp.receiveBy) || due(p.now, l.created.Add(2*p.cfg.Life))
	return l.owner != nil && l.owner.serving && !l.tx && !p.operating() && !p.used(l) && p.leaves(l, !late)
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
	p.dropReceiveSCs() // also forgets those that were refused
	p.persistDirty = true
}

// used says whether a live peer transmits with k.
func (p *Port) used(k *dataKey) bool {
	return slices.ContainsFunc(p.participants, func(pa *participant) bool {
		return slices.ContainsFunc(pa.peers, func(pe *peer) bool { return pe.live && pe.transmits(k.ki) })
	})
}

// overtaken is the SAK among the olds that its key server transmits with and that the
// maker of l made after l, or that is of a better CAK and that all receive: we went back
// from it too soon, or past it.
func (p *Port) overtaken(l *dataKey) *dataKey {
	if p.operating() {
		return nil
	}
	for _, k := range p.cp.olds {
		if k.owner == nil || k.owner.server == nil || !k.rx || k.tx ||
			k.owner.server.use.Latest != k.ki || !k.owner.server.use.LatestTx {
			continue
		}
		if k.ki.MI == l.ki.MI && k.ki.KN > l.ki.KN ||
			l.owner != nil && k.owner != l.owner && p.mayReplaceLatest(k.owner) && k.received() {
			return k
		}
	}
	return nil
}

// follow makes k the latest SAK again, to be transmitted with.
func (p *Port) follow(k *dataKey) {
	c := &p.cp
	c.olds = slices.DeleteFunc(c.olds, func(o *dataKey) bool { return o == k })
	c.olds = slices.Insert(c.olds, 0, c.latest)
	c.latest, c.state, c.receiveBy = k, cpReceiving, p.now.Add(patience)
	c.retireAt, c.retireBy = time.Time{}, time.Time{}
	p.persistDirty = true
}

// promote makes the SAK with which its key server transmits, and that all receive, the
// latest one again, or else the one that carries our frames; the others go when all use
// it.
func (p *Port) promote() {
	c := &p.cp
	c.latest = c.carrying()
	for _, k := range c.olds {
		if k.owner != nil && k.owner.server != nil && k.owner.server.transmits(k.ki) && k.received() {
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

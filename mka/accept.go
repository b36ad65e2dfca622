package mka

import (
	"bytes"
	"slices"
)

// acceptSAK takes a Distributed SAK in (802.1X-2020 9.8.4).
func (p *Port) acceptSAK(pa *participant, pe *peer, m *MKPDU) {
	d := &m.DistributedSAK
	if pa.serving || pa.server != pe || !pe.proven {
		return // not our key server, or not proved to be alive
	}
	if _, listed := m.Live.Contains(pa.mi); !listed {
		return // not made for us
	}
	cond := Condition{CKN: pa.ckn, SCI: pe.sci}
	if d.Plain || d.ConfidentialityOffset != Confidentiality0 {
		cond.Kind = ConditionNotConfidential
		p.conditions.raise(p.now, cond)
		return
	}
	ki := KI{MI: pe.mi, KN: d.KN}
	c := &p.cp
	for k := range c.keys {
		if k.ki == ki {
			if k.wrapped != nil && !bytes.Equal(k.wrapped, d.Wrapped) {
				p.refuseKI(pa, cond, ki) // another SAK of the name
				return
			}
			if k.owner == nil {
				p.claim(k, pa)
			}
			return // repeated until everybody says that he has it
		}
	}
	if p.spent.has(ki) {
		p.refuseKI(pa, cond, ki)
		return
	}
	l := c.latest
	stuck := l != nil && !l.tx && due(p.now, l.created.Add(p.cfg.Life)) // its key server gave it up, maybe
	if l != nil && l.owner != nil && !stuck && (!p.mayReplaceLatest(pa) || p.leavesBehind(pa, pe, m)) {
		return // the CAK in use is a better one or serves more members
	}
	if p.operating() || p.now.Before(c.retryAt) || p.strands(pa, pe, m) {
		return // it will be repeated
	}
	for k := range c.keys {
		if k.an == d.AN && !p.cfg.External && k.owner != nil && k.owner.livePeers() > 0 &&
			(k.tx || k == l && k.saidRx || p.used(k)) {
			// It may not know yet what we say of this AN: under another CAK, or while it was away.
			if c.heldKI != ki {
				c.heldKI, c.heldUntil = ki, p.now.Add(DefaultHello)
			}
			if p.now.Before(c.heldUntil) {
				return
			}
		}
	}
	if d.Suite != p.cfg.Suite {
		cond.Kind, cond.Theirs, cond.Ours = ConditionSuiteMismatch, d.Suite, p.cfg.Suite
		p.conditions.raise(p.now, cond)
		return
	}
	k := &dataKey{ki: ki, an: d.AN, suite: d.Suite, owner: pa}
	if !p.assignSSCIs(k, pa, pe, m) {
		return // a member is not known yet; it will be repeated
	}
	sak, err := UnwrapSAK(pa.kek, d.Wrapped)
	if err != nil {
		cond.Kind, cond.Err = ConditionBadSAK, err
		p.conditions.raise(p.now, cond)
		return
	}
	k.sak, k.wrapped = sak, bytes.Clone(d.Wrapped)
	p.spent.add(ki)
	pa.ramp = firstRamp
	p.conditions.clear(ConditionSuiteMismatch, pa.ckn)
	p.conditions.clear(ConditionNotConfidential, pa.ckn)
	p.conditions.clear(ConditionBadSAK, pa.ckn)
	p.conditions.clear(ConditionReplayedKI, pa.ckn)
	p.install(k)
}

// refuseKI reports that ki cannot be installed a second time, and asks for
// another SAK, in the only way that a client has, when the key server keeps to it.
func (p *Port) refuseKI(pa *participant, cond Condition, ki KI) {
	cond.Kind, cond.KI = ConditionReplayedKI, ki
	p.conditions.raise(p.now, cond)
	switch {
	case p.now.After(pa.refusedUntil.Add(p.cfg.Life)): // the first one, or one of long ago
		pa.refusedUntil = p.now.Add(2 * p.cfg.Life)
	case due(p.now, pa.refusedUntil):
		p.renewMI(pa)
		pa.refusedUntil = p.now.Add(4 * p.cfg.Life)
	}
}

// leavesBehind says whether the SAK in m is not for somebody whom the CAK in use
// serves: its key server has not met him yet and will make another.
func (p *Port) leavesBehind(pa *participant, server *peer, m *MKPDU) bool {
	owner := p.cp.latest.owner
	return owner != pa && slices.ContainsFunc(owner.peers, func(old *peer) bool {
		return old.live && old.sci != server.sci && !p.servedBy(pa, m, old)
	})
}

// strands says whether we would leave somebody behind by taking the SAK in m, whom
// its key server does not hear, and with whom we talk under the one in use: that
// is held against it for as long as patience lasts, as the key server may hear him
// again, or until he is back if he has announced to be away (802.1X-2020 9.18).
func (p *Port) strands(pa *participant, server *peer, m *MKPDU) bool {
	l := p.cp.latest
	if l != nil && !l.tx {
		l = p.cp.carrying()
	}
	if l == nil || l.owner == nil {
		return false
	}
	recent, away := p.now.Add(-2*p.cfg.Hello-p.cfg.Hello/2), false
	if !slices.ContainsFunc(l.owner.peers, func(o *peer) bool {
		if !o.live || o.sci == server.sci || !o.transmits(l.ki) || p.servedBy(pa, m, o) {
			return false
		}
		away = away || p.now.Before(o.suspendedUntil)
		return away || o.heard.After(recent)
	}) {
		return false
	}
	if away {
		return true
	}
	if p.now.After(pa.strandUntil.Add(patience)) {
		pa.strandUntil = p.now.Add(patience)
	}
	return p.now.Before(pa.strandUntil)
}

// servedBy says whether the SAK in m is for o as well.
func (p *Port) servedBy(pa *participant, m *MKPDU, o *peer) bool {
	if slices.ContainsFunc(m.Live.Entries, func(e PeerEntry) bool {
		pe := pa.peer(e.MI)
		return pe != nil && pe.sci == o.sci
	}) {
		return true
	}
	_, coming := m.Potential.Contains(o.mi)
	return coming && p.cfg.External // see welcome
}

// assignSSCIs fills k's members from the key server's Live Peer List. Version
// 3 sends the list in SSCI order, with the server's own SSCI; before, SSCIs
// follow from the SCIs alone (mka-version 2, 802.1Xbx).
func (p *Port) assignSSCIs(k *dataKey, pa *participant, server *peer, m *MKPDU) bool {
	own := uint32(m.Live.KeyServerSSCI)
	if own != 0 {
		k.members = append(k.members, member{mi: server.mi, sci: server.sci, ssci: own})
		ssci := uint32(1)
		for _, e := range m.Live.Entries {
			if ssci == own {
				ssci++
			}
			switch e.MI {
			case pa.mi:
				k.ownSSCI = ssci
			case pa.formerMI: // it has an SSCI and nobody who uses it
			default:
				k.members = append(k.members, liveMember(pa, e.MI, ssci))
			}
			ssci++
		}
		return true
	}
	k.members = append(k.members, member{mi: server.mi, sci: server.sci})
	known := true
	for _, e := range m.Live.Entries {
		if e.MI == pa.mi || e.MI == pa.formerMI {
			continue
		}
		mem := liveMember(pa, e.MI, 0)
		known = known && mem.sci != SCI{}
		k.members = append(k.members, mem)
	}
	if !known && k.suite.XPN() {
		return false
	}
	slices.SortFunc(k.members, func(a, b member) int { return bytes.Compare(b.sci[:], a.sci[:]) })
	ssci := uint32(1)
	for i := range k.members {
		if k.ownSSCI == 0 && k.members[i].sci.Less(p.cfg.SCI) {
			k.ownSSCI, ssci = ssci, ssci+1
		}
		k.members[i].ssci = ssci
		ssci++
	}
	if k.ownSSCI == 0 {
		k.ownSSCI = ssci
	}
	return true
}

func liveMember(pa *participant, mi MI, ssci uint32) member {
	mem := member{mi: mi, ssci: ssci}
	if pe := pa.peer(mi); pe != nil && pe.live {
		mem.sci = pe.sci
	}
	return mem
}

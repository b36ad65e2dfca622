package mka

import (
	"slices"
	"time"
)

// install makes k the latest key and asks for its SAs: receive SAs first and
// enabled, the transmit SA there but not enabled. What carries traffic stays:
// a latest key that never transmitted is abandoned, one that did becomes the
// old one.
func (p *Port) install(k *dataKey) {
	c := &p.cp
	if l := c.latest; l != nil {
		if l.tx || p.mayBeUsed(l, k) {
			c.olds = slices.Insert(c.olds, 0, l)
		} else {
			p.deleteKey(l)
		}
	}
	c.olds = slices.DeleteFunc(c.olds, func(o *dataKey) bool {
		if o.an == k.an { // the key server's choice; nothing else can make room
			p.deleteKey(o)
		}
		return o.an == k.an
	})
	if c.state != cpReceiving || c.latest == nil || c.latest.owner != k.owner {
		c.receiveBy = time.Time{} // else this SAK is another try
	}
	c.latest, c.state, c.nextAN = k, cpReceive, (k.an+1)%4
	c.retireAt, c.retireBy, c.retryAt = time.Time{}, time.Time{}, time.Time{}
	k.created, k.ckn = p.now, k.owner.ckn
	for _, pe := range k.owner.peers {
		pe.lackingSince, pe.droppedSince = time.Time{}, time.Time{}
	}
	k.firstOp = p.nextOp + 1
	for i := range k.members {
		p.keyMember(k, &k.members[i])
	}
	k.lastOp = p.op(Op{
		Kind: OpAddTransmitSA, SCI: p.cfg.SCI, AN: k.an, KI: k.ki,
		SAK: k.sak, Suite: k.suite, SSCI: k.ownSSCI, Salt: Salt(k.ki.MI, k.ki.KN),
	})
	k.installed = k.lastOp
	p.persistDirty = true
	p.notice(Notice{Kind: NoticeSAK, CKN: k.owner.ckn, KI: k.ki, AN: k.an, SCI: k.owner.serverSCI(p)})
}

// mayBeUsed says whether somebody may transmit with l, which we receive and have
// not transmitted with, when k takes its place. Nobody does before the key
// server, so if l has the same one, what it says now decides.
func (p *Port) mayBeUsed(l, k *dataKey) bool {
	switch pa := l.owner; {
	case !l.rx || l.ki.MI == k.ki.MI && pa == k.owner && pa.serving:
		return false
	case pa != nil && pa == k.owner && pa.server != nil && pa.server.mi == l.ki.MI:
		return pa.server.transmits(l.ki)
	}
	return true
}

// keyMember asks for the receive SA of one member whose SCI is known.
func (p *Port) keyMember(k *dataKey, m *member) {
	if m.keyed || m.sci == (SCI{}) {
		return
	}
	double := slices.IndexFunc(k.members, func(o member) bool { return o.keyed && o.sci == m.sci })
	m.keyed = true
	if double >= 0 {
		// The key server has it in its list twice, or under its former MI, too, but the
		// receive SC has one SA of an AN. With XPN that goes by the SSCI of the new MI.
		if !k.suite.XPN() || k.members[double].mi == m.mi {
			return
		}
		p.op(Op{Kind: OpDeleteReceiveSA, SCI: m.sci, AN: k.an, KI: k.ki})
	}
	if !slices.Contains(p.cp.receiveSCs, m.sci) {
		p.cp.receiveSCs = append(p.cp.receiveSCs, m.sci)
		p.op(Op{Kind: OpAddReceiveSC, SCI: m.sci})
	}
	m.op = p.op(Op{
		Kind: OpAddReceiveSA, SCI: m.sci, AN: k.an, KI: k.ki,
		SAK: k.sak, Suite: k.suite, SSCI: m.ssci, Salt: Salt(k.ki.MI, k.ki.KN),
	})
}

// keyLateMembers creates receive SAs for members of a group that the key
// server counted as live before we did.
func (p *Port) keyLateMembers(k *dataKey) {
	if k.owner == nil || k.sak.IsZero() {
		return
	}
	for i := range k.members {
		m := &k.members[i]
		if m.keyed || p.now.Before(m.retry) {
			continue
		}
		if pe := k.owner.peer(m.mi); pe != nil && pe.live {
			m.sci = pe.sci
			p.keyMember(k, m)
		}
	}
	p.eraseIfComplete(k)
}

// eraseIfComplete erases the SAK once the kernel has it for every member: the
// repetitions of Distributed SAK need its wrapped form only.
func (p *Port) eraseIfComplete(k *dataKey) {
	if p.cp.state < cpReceiving || p.operating() {
		return
	}
	if !k.suite.XPN() && k.ki.MI != k.owner.mi && p.now.Before(k.created.Add(p.cfg.Life)) {
		return // see welcome
	}
	if !slices.ContainsFunc(k.members, func(m member) bool { return !m.keyed }) {
		k.sak.Erase()
	}
}

// welcome makes pe a member of the SAKs that it says it has. Some key servers
// distribute a SAK also to members that they do not yet count as live, and leave
// it at that when those become so (wpa_supplicant). It cannot be with XPN, whose
// SSCIs follow from the list of those for whom the SAK was made.
func (p *Port) welcome(pa *participant, pe *peer) {
	if pa.serving {
		return
	}
	for k := range p.cp.keys {
		if k.owner != pa || k.suite.XPN() || k.sak.IsZero() || !pe.receives(k.ki) && !pe.transmits(k.ki) ||
			slices.ContainsFunc(k.members, func(m member) bool { return m.sci == pe.sci || m.mi == pe.mi }) {
			continue
		}
		k.members = append(k.members, member{mi: pe.mi, sci: pe.sci})
		p.keyMember(k, &k.members[len(k.members)-1])
		p.persistDirty = true
	}
}

// opDone takes the result of an operation. Only those that the latest key
// waits for matter: deletions are best effort, and what they leave behind is
// found by comparing the SecY with what it should be.
func (p *Port) opDone(id uint64, err error) {
	p.doneOp = id
	l := p.cp.latest
	if l == nil {
		return
	}
	if err != nil && l.lateMemberFailed(id, p.now.Add(DefaultHello)) {
		p.dropReceiveSCs()
	}
	if id < l.firstOp || id > l.lastOp {
		return
	}
	if err != nil && l.err == nil {
		l.err = err
	}
	if id != l.lastOp {
		return
	}
	c := &p.cp
	if l.err != nil {
		if c.state == cpTransmit && l.refusals < maxRefusals {
			p.enableFailed(l)
		} else {
			p.installFailed(l)
		}
		return
	}
	switch c.state {
	case cpReceive:
		l.rx = true
		c.state = cpReceiving
		switch {
		case len(c.olds) == 0 && !l.othersServed():
			c.receiveBy = p.now.Add(receiveLimit)
		case c.receiveBy.IsZero():
			c.receiveBy = p.now.Add(patience)
		case c.receiveBy.Before(p.now.Add(receiveLimit)):
			c.receiveBy = p.now.Add(receiveLimit)
		}
	case cpTransmit:
		l.tx = true
		if l.owner != nil {
			p.conditions.clear(ConditionInstallFailed, l.owner.ckn)
		}
		for _, o := range c.olds {
			o.tx = false
		}
		c.state, c.retireBy = cpTransmitting, p.now.Add(patience)
	case cpInit, cpReceiving, cpTransmitting, cpRetired:
		return
	}
	p.persistDirty = true
	if l.owner != nil {
		l.owner.sendNow = true
	}
}

// lateMemberFailed makes the member whose receive SA was refused, after the SAK
// was installed, ask for it again.
func (k *dataKey) lateMemberFailed(id uint64, retry time.Time) bool {
	i := slices.IndexFunc(k.members, func(m member) bool { return m.op == id })
	if i < 0 || id <= k.installed {
		return false
	}
	k.members[i].keyed, k.members[i].retry = false, retry
	return true
}

// othersServed says whether live peers transmit with another SAK than k: as key
// server without one we would cut them off from each other.
func (k *dataKey) othersServed() bool {
	return k.owner != nil && slices.ContainsFunc(k.owner.peers, func(pe *peer) bool {
		u := &pe.use
		return pe.live && u.Present && (u.LatestTx && u.Latest != k.ki || u.OldTx && u.Old != k.ki)
	})
}

// maxRefusals is how often enabling a transmit SA is asked for.
const maxRefusals = 3

// enableFailed has the transmit SA enabled again, soon: others may transmit with
// this SAK already, and our old one still serves.
func (p *Port) enableFailed(l *dataKey) {
	p.raiseInstallFailed(l)
	l.err = nil
	l.refusals++
	p.cp.state = cpReceiving
	p.cp.retryAt = p.now.Add(firstRamp << l.refusals)
}

func (p *Port) raiseInstallFailed(l *dataKey) {
	cond := Condition{Kind: ConditionInstallFailed, Err: l.err, KI: l.ki}
	if l.owner != nil {
		cond.CKN = l.owner.ckn
	}
	p.conditions.raise(p.now, cond)
}

// installFailed goes back to what worked. The key server tries again with a
// new SAK, a client when the SAK is distributed again.
func (p *Port) installFailed(l *dataKey) {
	c := &p.cp
	p.raiseInstallFailed(l)
	if l.owner != nil {
		l.owner.dist = nil
		p.rekeyWanted = l.owner.serving
	}
	if c.state == cpReceive {
		p.spent.giveBack(l.ki) // else it may have been enabled, and only the answer lost
	}
	p.goBack(l)
	c.retryAt = p.now.Add(DefaultHello)
}

func (p *Port) deleteKey(k *dataKey) {
	if len(p.retired) == maxOlds {
		p.retired = slices.Delete(p.retired, 0, 1)
	}
	p.retired = append(p.retired, k.ki)
	p.op(Op{Kind: OpDeleteTransmitSA, SCI: p.cfg.SCI, AN: k.an, KI: k.ki})
	for _, m := range k.members {
		if m.keyed {
			p.op(Op{Kind: OpDeleteReceiveSA, SCI: m.sci, AN: k.an, KI: k.ki})
		}
	}
	k.sak.Erase()
}

// dropReceiveSCs deletes the receive SCs of members that no SAK names any more.
func (p *Port) dropReceiveSCs() {
	c := &p.cp
	c.receiveSCs = slices.DeleteFunc(c.receiveSCs, func(sci SCI) bool {
		for k := range c.keys {
			if slices.ContainsFunc(k.members, func(m member) bool { return m.keyed && m.sci == sci }) {
				return false
			}
		}
		p.op(Op{Kind: OpDeleteReceiveSC, SCI: sci})
		return true
	})
}

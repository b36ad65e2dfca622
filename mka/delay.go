package mka

import "time"

// Delay protection (802.1X-2020 9.10.1): every member reports, at the bounded
// hello, a packet number that it had passed a hello earlier, and no frame from
// before that is accepted any more. So nobody can hold back a frame for longer
// than about two such hellos and then deliver it.

// delayProtected says whether we ask for delay protection, or the key server of
// the participant that the SAK in use belongs to does.
func (p *Port) delayProtected() bool {
	if p.cfg.DelayProtect {
		return true
	}
	pa := p.principal()
	return pa != nil && pa.server != nil && pa.server.use.DelayProtect
}

// hello is the interval of our MKPDUs when nothing happens.
func (p *Port) hello() time.Duration {
	if p.delayProtected() {
		return min(BoundedHello, p.cfg.Hello)
	}
	return p.cfg.Hello
}

// SampleInterval is how often the driver should report transmit packet numbers
// with EventPN: our LPNs are as old as that.
func (p *Port) SampleInterval() time.Duration { return p.hello() }

// enforceLPN has the receive SAs of pe accept nothing that its LPNs rule out.
// Only a peer that says that it sends them often enough is taken at its word:
// others may report numbers of any age, or their receive side's.
func (p *Port) enforceLPN(pe *peer) {
	if !pe.use.Present || !pe.use.DelayProtect || !p.delayProtected() {
		return
	}
	for k := range p.cp.keys {
		lpn := pe.transmitPN(k.ki)
		if lpn <= 1 || !k.rx {
			continue
		}
		for i := range k.members {
			if m := &k.members[i]; m.sci == pe.sci && m.keyed && lpn > m.lowestPN {
				m.lowestPN = lpn
				p.op(Op{Kind: OpRaiseReceivePN, SCI: m.sci, AN: k.an, KI: k.ki, LowestPN: lpn})
			}
		}
	}
}

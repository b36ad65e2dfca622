package mka

import (
	"errors"
	"slices"
	"time"
)

// receive takes one frame through the checks of 802.1X-2020 11.11.2, cheap
// ones first: nothing is believed, and nothing allocated, before the ICV.
func (p *Port) receive(frame []byte) (believed bool) {
	env, err := Open(frame, OpenParams{EtherType: p.cfg.EtherType, Destination: p.cfg.Destination})
	if err != nil {
		p.counters.Malformed++
		return false
	}
	pa := p.participant(env.CKN)
	if pa == nil {
		p.counters.UnknownCKN++
		p.conditions.raiseFrom(p.now, ConditionUnknownCKN, env.CKN, env.Source)
		return false
	}
	if !env.Verify(pa.ick) {
		if errors.Is(env.refused, ErrAgility) {
			p.counters.Malformed++
			return false
		}
		p.counters.ICVMismatch++
		p.conditions.raiseFrom(p.now, ConditionICVMismatch, env.CKN, env.Source)
		return false
	}
	if err := p.rx.Decode(&env); err != nil {
		p.counters.Malformed++
		return false
	}
	m := &p.rx
	switch {
	case m.Basic.SCI == p.cfg.SCI:
		p.counters.OwnSCI++ // reflected, or a second agent under our SCI
		p.conditions.raiseFrom(p.now, ConditionOwnSCI, env.CKN, env.Source)
		return false
	case m.Basic.MI == pa.mi:
		p.renewMI(pa) // somebody drew the same MI: 802.1X-2020 9.4.2
		return true
	}
	pe := pa.peer(m.Basic.MI)
	if pe != nil && (m.Basic.MN <= pe.mn || m.Basic.SCI != pe.sci) {
		p.counters.Replayed++
		return false
	}
	if pe == nil {
		if pa.wasDisplaced(m.Basic.MI, p.now) {
			p.counters.Replayed++
			return false
		}
		mn, listed := listedAs(m, pa.mi)
		if pe = p.addPeer(pa, m.Basic.MI, m.Basic.SCI, listed && pa.recent(mn)); pe == nil {
			return false
		}
		pa.ramp, pa.sendNow = firstRamp, true
	}
	p.counters.Received++
	p.hear(pa, pe, m)
	return true
}

// hear takes in what a verified, fresh MKPDU of pe says.
func (p *Port) hear(pa *participant, pe *peer, m *MKPDU) {
	skipped := pe.mn != 0 && m.Basic.MN-pe.mn > 8
	pe.mn, pe.heard, pe.address = m.Basic.MN, p.now, m.Source
	pe.priority, pe.version = m.Basic.Priority, m.Basic.Version
	pe.keyServer, pe.desired = m.Basic.KeyServer, m.Basic.MACsecDesired
	if m.XPN.Present {
		pa.peerSendsXPN = true
	}
	p.noteUnmet(pa, pe, m)
	if m.Announcement.Present {
		pa.peerAnnounces = true
		pe.noteSuites(&m.Announcement)
	}

	if !pa.quiet.IsZero() && !slices.ContainsFunc(pa.peers, func(o *peer) bool { return o.live && o.version == 0 }) {
		pa.quiet, pa.sendNow = time.Time{}, true // all were heard
	}

	switch mn, listed := listedAs(m, pa.mi); {
	case listed && pa.recent(mn) && (pe.live || mn > pe.heardMN && !pa.outlived(pe, mn)):
		pe.heardMN = mn
		pe.expires = p.now.Add(p.cfg.Life)
		if !pe.live {
			p.becomeLive(pa, pe)
			p.elect(pa)
		}
		pe.proven = true
		if _, live := m.Live.Contains(pa.mi); !live {
			pa.sendNow = true // it has yet to learn that we hear it
		}
		if skipped {
			pa.sendNow = true // it restarted and resumed: let it prove us soon
		}
	default:
		// It does not hear us, or has not for long. Answer now: it may just
		// have started, or resumed from an old record.
		pa.sendNow = true
	}
	if pe.live {
		p.hearSuspension(pa, pe, m)
	}
	p.conditions.clearFrom(ConditionICVMismatch, pa.ckn, m.Source)

	// What SAK Use says has its effect in settle, after the Distributed SAK, as
	// 802.1X-2020 9.10 demands; but a new SAK must not displace one with which
	// the key server says that it transmits.
	pe.use = m.SAKUse
	if p.cfg.Suite.XPN() { // beside another suite they mean nothing (802.1X-2020 11.11.3)
		pe.lpnHigh.latest, pe.lpnHigh.old = m.XPN.LatestLPNHigh, m.XPN.OldLPNHigh
	}
	p.enforceLPN(pe)
	if pe.live {
		p.attribute(pa, pe)
		p.welcome(pa, pe)
	}
	if m.DistributedSAK.Present {
		p.acceptSAK(pa, pe, m)
	}
	l := p.cp.latest
	since(&pe.lackingSince, p.now, l != nil && l.tx && !pe.transmits(l.ki))
	since(&pe.droppedSince, p.now, l != nil && !pe.mentions(l.ki))
}

// since keeps in t since when is holds, zero while it does not.
func since(t *time.Time, now time.Time, is bool) {
	switch {
	case !is:
		*t = time.Time{}
	case t.IsZero():
		*t = now
	}
}

// noteSuites remembers what pe announces. It allocates only when that changes.
func (pe *peer) noteSuites(a *Announcement) {
	for i := range a.TLVs {
		if a.TLVs[i].Type == TLVCipherSuites && a.TLVs[i].lists(pe.suites) {
			return
		}
	}
	pe.suites = nil
	for _, o := range a.CipherSuites() {
		if len(pe.suites) < maxSuites {
			pe.suites = append(pe.suites, o.Suite)
		}
	}
}

// listedAs finds mi in the peer lists of m.
func listedAs(m *MKPDU, mi MI) (mn uint32, ok bool) {
	if mn, ok := m.Live.Contains(mi); ok {
		return mn, true
	}
	return m.Potential.Contains(mi)
}

func (pe *peer) receives(ki KI) bool {
	u := &pe.use
	return u.Present && (u.Latest == ki && u.LatestRx || u.Old == ki && u.OldRx)
}

// transmits says whether pe transmits with ki. Once a SAK is settled the CP
// machine makes it the old one (RETIRE, 802.1X-2020 12.4), and some peers then
// report it so: wpa_supplicant always, MKAdaemon from the start.
func (pe *peer) transmits(ki KI) bool {
	u := &pe.use
	return u.Present && (u.Latest == ki && u.LatestTx || u.Old == ki && u.OldTx)
}

// mentions says whether pe speaks of ki at all.
func (pe *peer) mentions(ki KI) bool {
	return pe.use.Present && (pe.use.Latest == ki || pe.use.Old == ki)
}

// transmitPN is the peer's own report of its transmit PN under ki.
func (pe *peer) transmitPN(ki KI) uint64 {
	switch u := &pe.use; {
	case u.Present && u.Latest == ki:
		return uint64(pe.lpnHigh.latest)<<32 | uint64(u.LatestLPN)
	case u.Present && u.Old == ki:
		return uint64(pe.lpnHigh.old)<<32 | uint64(u.OldLPN)
	}
	return 0
}

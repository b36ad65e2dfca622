package mka

import (
	"slices"
	"time"
)

// Status is what a Port knows, for people.
type Status struct {
	Secured bool // we transmit, and every live peer receives
	// Carrying: a transmit SA is in use, whatever MKA says at the moment.
	Carrying     bool
	KeyServer    SCI // zero: none elected
	IsKeyServer  bool
	CKN          CKN // of the SAK in use, or of the participant that negotiates
	KI           KI
	AN           AN
	Suite        CipherSuite
	SAKSince     time.Time
	DelayProtect bool // LPNs are exchanged at the bounded hello and enforced
	// Suspension is what came of our own announcement to be away.
	Suspension   Suspension
	Rekeying     bool // a SAK is being taken into use, or its predecessor retired
	Participants []ParticipantStatus
	Conditions   []Condition
	Counters     Counters
}

// ParticipantStatus is one CAK's state.
type ParticipantStatus struct {
	CKN   CKN
	Rank  uint64
	MI    MI
	InUse bool // both ends have used a SAK of this CAK
	Peers []PeerStatus
}

// PeerStatus is one member's state.
type PeerStatus struct {
	SCI      SCI
	MI       MI
	Address  MAC // that its MKPDUs come from; zero when none came yet
	Live     bool
	Priority uint8
	Version  uint8
	Expires  time.Time
	// Suites are what it announces; empty when it announces nothing.
	Suites []CipherSuite
	// SuspendedUntil is until when it has said that it will be silent.
	SuspendedUntil time.Time
	// TransmitPN is what it last said of its next PN under the SAK in use, by
	// now a hello old; zero when it has said nothing.
	TransmitPN uint64
}

// Status is a copy: it stays as it is when the Port moves on.
func (p *Port) Status() Status {
	p.conditions.expire(p.now)
	s := Status{
		Secured:    p.secured != nil,
		Suite:      p.cfg.Suite,
		Conditions: slices.Clone(p.conditions),
		Counters:   p.counters,
	}
	pa := p.principal()
	if p.secured != nil {
		pa = p.secured.owner // until the next SAK carries, what is said is of this one
	}
	if pa != nil {
		s.CKN, s.KeyServer, s.IsKeyServer = pa.ckn, pa.serverSCI(p), pa.serving
	}
	l := p.cp.latest
	if p.secured != nil {
		l = p.secured
	}
	s.DelayProtect = p.delayProtected() && pa != nil && pa.livePeers() > 0 &&
		!slices.ContainsFunc(pa.peers, func(pe *peer) bool { return pe.live && !pe.use.DelayProtect })
	if pa != nil && p.now.Before(p.suspended) {
		s.Suspension = Suspension{Until: p.suspended, Heard: pa.suspensionHeard()}
	}
	if l != nil {
		s.KI, s.AN, s.SAKSince = l.ki, l.an, l.created
		old := p.cp.carrying()
		s.Carrying = l.tx && !l.noTransmit || old != nil && !old.noTransmit
		s.Rekeying = p.cp.state != cpRetired
	}
	for _, pa := range p.participants {
		ps := ParticipantStatus{CKN: pa.ckn, Rank: pa.rank, MI: pa.mi, InUse: pa.inUse}
		for _, pe := range pa.peers {
			x := PeerStatus{
				SCI: pe.sci, MI: pe.mi, Address: pe.address, Live: pe.live, Priority: pe.priority, Version: pe.version, Expires: pe.expires,
				Suites: pe.suites, TransmitPN: pe.transmitPN(s.KI),
			}
			if p.now.Before(pe.suspendedUntil) {
				x.SuspendedUntil = pe.suspendedUntil
			}
			ps.Peers = append(ps.Peers, x)
		}
		s.Participants = append(s.Participants, ps)
	}
	return s
}

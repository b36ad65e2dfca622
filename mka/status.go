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
	Live     bool
	Priority uint8
	Version  uint8
	Expires  time.Time
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
	if l != nil {
		s.KI, s.AN, s.SAKSince = l.ki, l.an, l.created
		s.Carrying = l.tx || p.cp.carrying() != nil
		s.Rekeying = p.cp.state != cpRetired
	}
	for _, pa := range p.participants {
		ps := ParticipantStatus{CKN: pa.ckn, Rank: pa.rank, MI: pa.mi, InUse: pa.inUse}
		for _, pe := range pa.peers {
			ps.Peers = append(ps.Peers, PeerStatus{
				SCI: pe.sci, MI: pe.mi, Live: pe.live, Priority: pe.priority, Version: pe.version, Expires: pe.expires,
			})
		}
		s.Participants = append(s.Participants, ps)
	}
	return s
}

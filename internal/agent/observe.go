package agent

import (
	"maps"
	"time"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/pae"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// Observation is all that an agent knows at a moment: its status, and what it has
// counted on each link. It is a copy: whoever looks at it holds up no link.
type Observation struct {
	Status
	Started time.Time
	Counted map[string]Counters // by link id; links without one have counted nothing yet
}

// Volume is how much there was of a kind of traffic.
type Volume struct{ Frames, Octets uint64 }

// Counters are what has been counted on a link since the agent was started; those
// of the kernel's since the device was made, if that was before. None falls, unless
// the link's task is restarted: then all begin again.
type Counters struct {
	Encrypted Volume            // sent
	Protected Volume            // sent with integrity alone: none, as long as the device is as it must be
	Validated Volume            // received, and their ICV is right
	Rejected  map[string]uint64 // received and not delivered, by one of RejectCauses
	// Frames that went through the device without MACsec: none, as above.
	UntaggedSent, UntaggedReceived uint64
	TooLong                        uint64            // not sent, since they are longer than the MTU
	FenceDrops                     [2]Volume         // by fence.Direction
	Sent                           uint64            // MKPDUs
	Received                       uint64            // MKPDUs that passed every check
	Refused                        map[string]uint64 // MKPDUs that did not, by one of RefuseCauses
	Missed                         map[string]uint64 // MKPDUs that the kernel dropped for want of room, by one of Lanes
	Repairs                        map[string]uint64 // what somebody else changed and was put right, by kind
}

// RejectCauses are why the kernel does not deliver a frame.
func RejectCauses() []string {
	return []string{"bad_tag", "invalid", "late", "no_sci", "no_tag", "not_using_sa", "not_valid", "overrun", "unknown_sci", "unused_sa"}
}

// RefuseCauses are why MKA does not listen to a frame.
func RefuseCauses() []string {
	return []string{"icv_mismatch", "malformed", "own_sci", "replayed", "too_many_peers", "unknown_ckn"}
}

// Lanes are the queues in which MKPDUs wait.
func Lanes() []string {
	return []string{pae.Known.String(), pae.Peers.String(), pae.Strangers.String()}
}

// meter makes counters that do not fall out of those of the kernel and of Ports,
// which begin again with each SA, filter, socket and session. It belongs to its
// task.
type meter struct {
	secy   macsec.Accumulator
	drops  [2]climbing
	mkpdus mka.Counters // of the sessions before
	missed [pae.Lanes]uint64
}

// climbing adds up a counter that may begin again.
type climbing struct{ total, last Volume }

func (c *climbing) add(now Volume) {
	if now.Frames < c.last.Frames || now.Octets < c.last.Octets {
		c.last = Volume{}
	}
	c.total.Frames += now.Frames - c.last.Frames
	c.total.Octets += now.Octets - c.last.Octets
	c.last = now
}

func (m *meter) fence(s fence.State) {
	m.drops[fence.Egress].add(Volume{s.DroppedEgress.Frames, s.DroppedEgress.Octets})
	m.drops[fence.Ingress].add(Volume{s.DroppedIngress.Frames, s.DroppedIngress.Octets})
}

// end keeps what a session has counted.
func (m *meter) end(p *mka.Port, c mkaConn) {
	if p != nil {
		m.mkpdus = sum(m.mkpdus, p.Status().Counters)
	}
	if c != nil {
		for l, n := range c.Dropped() {
			m.missed[l] += n
		}
	}
}

func sum(a, b mka.Counters) mka.Counters {
	return mka.Counters{
		Received: a.Received + b.Received, Malformed: a.Malformed + b.Malformed, UnknownCKN: a.UnknownCKN + b.UnknownCKN,
		ICVMismatch: a.ICVMismatch + b.ICVMismatch, OwnSCI: a.OwnSCI + b.OwnSCI, Replayed: a.Replayed + b.Replayed,
		TooMany: a.TooMany + b.TooMany, Sent: a.Sent + b.Sent,
	}
}

// measure publishes the counters of a link with what was just read of its device.
func (t *task) measure(state *macsec.SecY) {
	m := &t.meter
	m.secy.Add(state)
	totals, mkpdus, missed := m.secy.Totals(), sum(m.mkpdus, t.port.Status().Counters), m.missed
	for l, n := range t.conn.Dropped() {
		missed[l] += n
	}
	c := Counters{
		Encrypted:    Volume{totals.Tx.OutPktsEncrypted, totals.Tx.OutOctetsEncrypted},
		Protected:    Volume{totals.Tx.OutPktsProtected, totals.Tx.OutOctetsProtected},
		UntaggedSent: totals.SecY.OutPktsUntagged, UntaggedReceived: totals.SecY.InPktsUntagged,
		TooLong:    totals.SecY.OutPktsTooLong,
		FenceDrops: [2]Volume{fence.Egress: m.drops[fence.Egress].total, fence.Ingress: m.drops[fence.Ingress].total},
		Sent:       mkpdus.Sent,
		Received:   mkpdus.Received,
		Refused: map[string]uint64{
			"icv_mismatch": mkpdus.ICVMismatch, "malformed": mkpdus.Malformed, "own_sci": mkpdus.OwnSCI,
			"replayed": mkpdus.Replayed, "too_many_peers": mkpdus.TooMany, "unknown_ckn": mkpdus.UnknownCKN,
		},
		Missed:  map[string]uint64{},
		Repairs: maps.Clone(t.repairs),
	}
	for l, n := range missed {
		c.Missed[pae.Lane(l).String()] = n
	}
	var rx macsec.RxSCStats
	for _, peer := range totals.Rx {
		rx.InPktsOK += peer.InPktsOK
		rx.InPktsDelayed += peer.InPktsDelayed
		rx.InOctetsDecrypted += peer.InOctetsDecrypted
		rx.InOctetsValidated += peer.InOctetsValidated
		rx.InPktsInvalid += peer.InPktsInvalid
		rx.InPktsLate += peer.InPktsLate
		rx.InPktsNotValid += peer.InPktsNotValid
		rx.InPktsNotUsingSA += peer.InPktsNotUsingSA
		rx.InPktsUnusedSA += peer.InPktsUnusedSA
	}
	c.Validated = Volume{rx.InPktsOK + rx.InPktsDelayed, rx.InOctetsDecrypted + rx.InOctetsValidated}
	c.Rejected = map[string]uint64{
		"bad_tag": totals.SecY.InPktsBadTag, "invalid": rx.InPktsInvalid, "late": rx.InPktsLate, "no_sci": totals.SecY.InPktsNoSCI,
		"no_tag": totals.SecY.InPktsNoTag, "not_using_sa": rx.InPktsNotUsingSA, "not_valid": rx.InPktsNotValid,
		"overrun": totals.SecY.InPktsOverrun, "unknown_sci": totals.SecY.InPktsUnknownSCI, "unused_sa": rx.InPktsUnusedSA,
	}
	t.server.setCounters(t.link.ID, c)
}

// setCounters is all that a task has to do with whoever looks: a map's entry.
func (s *server) setCounters(link string, c Counters) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counted == nil {
		s.counted = map[string]Counters{}
	}
	s.counted[link] = c
}

// observe is for the metrics.
func (s *server) observe() Observation {
	st, _ := s.snapshot()
	s.mu.Lock()
	defer s.mu.Unlock()
	o := Observation{Status: st, Started: s.started, Counted: make(map[string]Counters, len(st.Links))}
	for _, l := range st.Links {
		if c, ok := s.counted[l.ID]; ok {
			o.Counted[l.ID] = c // its maps are never changed
		}
	}
	return o
}

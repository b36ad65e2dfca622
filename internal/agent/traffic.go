package agent

import (
	"fmt"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// What a peer says in MKA need not be what its kernel does: with some equipment
// the two do not even have the same cipher suite. So a link that MKA calls secured
// is believed together with its traffic only.
const (
	// trafficPatience is how long nothing valid may arrive while something should.
	trafficPatience = 30 * time.Second
	// claimedFrames a peer must say that it has sent in that time: fewer may have
	// been lost on the way.
	claimedFrames = 3
	// sentFrames this end must have sent: somebody would have answered. This is
	// held against other equipment only; a Lever that says that it sends nothing
	// sends nothing, as on a link that traffic takes one way only.
	sentFrames = 10
	// spoiltFrames must have arrived and failed their check.
	spoiltFrames = 10
)

// trafficWatch compares what peers say and what this end sends with what
// arrives. The zero one is ready.
type trafficWatch struct {
	foreign bool // the far end is other equipment

	total macsec.Accumulator
	peers map[mka.SCI]*peerTraffic
}

// peerTraffic is what is known of one peer.
type peerTraffic struct {
	ki mka.KI // under which it last spoke of
	pn uint64 // this packet number

	now     frameCounts
	heard   time.Time // when a valid frame was last seen, or the watch began
	since   time.Time // begin of the span of time that is judged
	base    frameCounts
	missing *missingTraffic
}

// frameCounts are totals: of the peer's frames by what became of them here, of
// those that it says it has sent, and of ours.
type frameCounts struct{ valid, spoilt, claimed, sent uint64 }

// missingTraffic is a finding.
type missingTraffic struct {
	peer   mka.SCI
	since  time.Time
	detail string
}

// look takes the next sample and returns what is missing by now. What peers say
// of their packet numbers lags behind their frames, by lag at most.
func (w *trafficWatch) look(now time.Time, st *mka.Status, state *macsec.SecY, lag time.Duration) (found []missingTraffic) {
	w.total.Add(state)
	if !st.Secured {
		w.peers = nil
		return nil
	}
	totals, said := w.total.Totals(), transmitPNs(st)
	watched := make(map[mka.SCI]*peerTraffic, len(said))
	silent := true // nothing valid comes from any of other equipment
	for sci, pn := range said {
		p := w.peers[sci]
		known := p != nil
		if !known {
			p = &peerTraffic{ki: st.KI, pn: pn}
		}
		watched[sci] = p
		p.claim(st.KI, pn)
		rx, heard := totals.Rx[macsec.SCI(sci)], p.now.valid
		p.now.valid = rx.InPktsOK + rx.InPktsDelayed
		p.now.spoilt = rx.InPktsNotValid + rx.InPktsNotUsingSA
		p.now.sent = totals.Tx.OutPktsEncrypted + totals.Tx.OutPktsProtected
		if !known || p.now.valid != heard {
			p.heard, p.since, p.base, p.missing = now, now, p.now, nil
		}
		if now.Sub(p.heard) < lag {
			p.base.claimed = p.now.claimed // it may still speak of frames that were heard
		}
		silent = silent && w.foreign && now.Sub(p.heard) >= trafficPatience
	}
	w.peers = watched
	for sci, p := range watched {
		if span := now.Sub(p.since); p.missing == nil && span >= max(trafficPatience, 2*lag) {
			if detail := p.judge(span, silent); detail != "" {
				p.missing = &missingTraffic{sci, p.since, detail}
			}
			p.since, p.base = now, p.now
		}
		if p.missing != nil {
			found = append(found, *p.missing)
		}
	}
	slices.SortFunc(found, func(a, b missingTraffic) int { return slices.Compare(a.peer[:], b.peer[:]) })
	return found
}

// claim counts on what the peer says of its packet numbers, over all SAKs.
func (p *peerTraffic) claim(ki mka.KI, pn uint64) {
	if ki != p.ki {
		p.ki, p.pn = ki, 1 // of the first frame
	}
	if pn > p.pn {
		p.now.claimed += pn - p.pn
		p.pn = pn
	}
}

// judge says what is wrong after a span of time in which nothing valid came from
// the peer, or nothing. That nobody sends is no fault.
func (p *peerTraffic) judge(span time.Duration, silent bool) string {
	claimed, spoilt, sent := p.now.claimed-p.base.claimed, p.now.spoilt-p.base.spoilt, p.now.sent-p.base.sent
	span = span.Round(time.Second)
	switch {
	case claimed >= claimedFrames:
		return fmt.Sprintf("the direction from there to here is dead: it says that it sent %d protected frames within %v, of which %d arrived and none is valid", claimed, span, spoilt)
	case spoilt >= spoiltFrames:
		return fmt.Sprintf("the direction from there to here is dead: %d of its frames arrived within %v and none is valid", spoilt, span)
	case sent >= sentFrames && silent:
		return fmt.Sprintf("the direction from there to here is dead, and perhaps the other: this end sent %d protected frames within %v and nothing came back", sent, span)
	}
	return ""
}

// transmitPNs is what live peers say of their packet numbers under the SAK in
// use; zero from one that says nothing.
func transmitPNs(st *mka.Status) map[mka.SCI]uint64 {
	said := map[mka.SCI]uint64{}
	for i := range st.Participants {
		for j := range st.Participants[i].Peers {
			if pe := &st.Participants[i].Peers[j]; pe.Live {
				said[pe.SCI] = max(said[pe.SCI], pe.TransmitPN)
			}
		}
	}
	return said
}

// watchTraffic raises and clears traffic-missing.
func (t *task) watchTraffic(state *macsec.SecY, now time.Time) {
	st := t.port.Status()
	var faults []health.Fault
	t.traffic.foreign = t.link.External
	for _, m := range t.traffic.look(now, &st, state, 2*t.link.MKA.Life) {
		faults = append(faults, health.Raise(health.TrafficMissing, m.since, "peer", m.peer, "interface", t.link.Local.Secure,
			"cipher", st.Suite, "detail", m.detail))
	}
	if t.faults.Replace([]health.Code{health.TrafficMissing}, faults) && len(faults) > 0 {
		t.log.Warn("traffic is missing", "detail", faults[0].Text)
	}
}

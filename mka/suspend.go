package mka

import (
	"errors"
	"fmt"
	"time"
)

// MaxSuspension is the longest suspension of MKA (802.1X-2020 Table 9-3, MKA
// Suspension Limit).
const MaxSuspension = 120 * time.Second

// Suspension (802.1X-2020 9.18) lets a member be silent for a planned restart
// while everybody keeps the SAs. It announces the seconds in its XPN set; the
// key server repeats them in its own, so that members that it alone hears for
// know, too. Nobody makes a new SAK meanwhile, as the absent one could not take it.

// Suspension is our own announced absence.
type Suspension struct {
	Until time.Time // zero: none
	// Heard: every live peer has listed an MKPDU of ours that announced it.
	Heard bool
}

// CanSuspend says whether EventSuspend would be understood by everybody who is
// there, and if not, why.
func (p *Port) CanSuspend() error {
	pa := p.principal()
	if pa == nil || pa.livePeers() == 0 {
		return errors.New("no live peer: there is nobody who would wait")
	}
	for _, pe := range pa.peers {
		if pe.live && pe.version != 0 && pe.version < 2 {
			return fmt.Errorf("peer %s speaks MKA version %d, and suspension came with version 2: it will give us up after its life time", pe.sci, pe.version)
		}
	}
	return nil
}

// suspend announces our absence to the peers of every CAK.
func (p *Port) suspend(d time.Duration) {
	p.suspended = time.Time{}
	if d > 0 {
		p.suspended = p.now.Add(min(d, MaxSuspension))
	}
	for _, pa := range p.participants {
		pa.suspendedMN = pa.mn + 1
		pa.ramp, pa.sendNow = firstRamp, true
	}
}

// suspensionHeard says whether all live peers of pa have answered an MKPDU that
// announced our suspension.
func (pa *participant) suspensionHeard() bool {
	for _, pe := range pa.peers {
		if pe.live && pe.heardMN < pa.suspendedMN {
			return false
		}
	}
	return true
}

// suspension is what our next MKPDU says in seconds: our own absence, or, as key
// server, that of the member who asked for the longest.
func (p *Port) suspension(pa *participant) uint8 {
	until := p.suspended
	if pa.serving {
		for _, pe := range pa.peers {
			if pe.live && pe.suspendedUntil.After(until) {
				until = pe.suspendedUntil
			}
		}
	}
	left := until.Sub(p.now)
	if until.IsZero() || left <= 0 {
		return 0
	}
	return uint8(min((left+time.Second-1)/time.Second, MaxSuspension/time.Second))
}

// hearSuspension keeps pe, and, if it is the key server, those for whom it
// speaks, for as long as it says.
func (p *Port) hearSuspension(pa *participant, pe *peer, m *MKPDU) {
	d := min(time.Duration(m.XPN.Suspension)*time.Second, MaxSuspension)
	if d == 0 {
		pe.suspendedUntil = time.Time{}
		return
	}
	if pe.suspendedUntil.IsZero() {
		pa.sendNow = true // whoever leaves wants to know that it was heard
	}
	until := p.now.Add(d)
	pe.suspendedUntil = until
	for _, o := range pa.peers {
		if o == pe || o.live && pe == pa.server {
			o.expires = later(o.expires, until)
		}
	}
}

// someoneAway says whether we or a live peer of pa have announced to be away.
func (p *Port) someoneAway(pa *participant) bool {
	if p.now.Before(p.suspended) {
		return true
	}
	for _, pe := range pa.peers {
		if pe.live && p.now.Before(pe.suspendedUntil) {
			return true
		}
	}
	return false
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

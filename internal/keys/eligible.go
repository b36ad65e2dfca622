package keys

import (
	"fmt"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/health"
)

// maxGenerations is how many generations of a number are looked at on each side, the
// newest: each is paired with each of the other side's.
const maxGenerations = 4

// eligible finds every epoch of which both channels have their part, newest first,
// that has started and is not too old.
func (r *Ring) eligible(findings *[]Finding, date time.Time) []Epoch {
	var out []Epoch
	for e := range r.offers {
		// What is offered stays as long as both channels have something there.
		if r.has(e) && !r.spent(e) {
			out = append(out, e)
		}
	}
	a, b := r.usable(A, findings), r.usable(B, findings)
	for n, generations := range a {
		for _, x := range generations {
			for _, y := range b[n] {
				e, _ := Pair(x, y)
				switch {
				case slices.Contains(out, e) || r.spent(e):
				case r.sides[A].Keys[x].Key.Equal(r.sides[B].Keys[y].Key):
					*findings = append(*findings, Finding{Code: health.KeyMaterialEqual, Epoch: x})
				case r.started(e, date):
					out = append(out, e)
				}
			}
		}
	}
	slices.SortFunc(out, func(x, y Epoch) int { return y.Compare(x) })
	return out
}

// usable are the channel's epochs that a CAK may be made of, by number: those of fit
// material that is what it was when it was first used.
func (r *Ring) usable(which Side, findings *[]Finding) map[uint64][]Epoch {
	s, mark, known := &r.sides[which], r.state.HighWater.Side(which), r.prints(which)
	out := make(map[uint64][]Epoch)
	for e, m := range s.Keys {
		if f := unfit(e, m, known); f.Code != "" {
			f.Side, f.Epoch, f.File = which, e, m.File
			*findings = append(*findings, f)
			continue
		}
		out[e.Number] = append(out[e.Number], e)
	}
	for n, generations := range out {
		if len(generations) > maxGenerations {
			slices.SortFunc(generations, func(x, y Epoch) int { return y.Compare(x) })
			newest := generations[:maxGenerations]
			if slices.Contains(generations[maxGenerations:], mark) {
				newest = append(newest, mark)
			}
			out[n] = newest
		}
	}
	return out
}

// unfit says what is wrong with one channel's material, if anything is.
func unfit(e Epoch, m Material, known map[Epoch]Fingerprint) Finding {
	first, fixed := known[e]
	switch n := m.Key.Len(); {
	case e.Generation > MaxGeneration:
		return Finding{Code: health.KeyFileUnexpected, Detail: fmt.Sprintf("a generation above %d is none; issue a later number", MaxGeneration)}
	case fixed && m.Fingerprint() != first:
		return Finding{Code: health.KeyChanged}
	case n < MinMaterial:
		return Finding{Code: health.KeyMaterialShort}
	case n > maxField || len(m.KeyID) > maxField:
		return Finding{Code: health.KeyFileMalformed, Detail: ErrMaterialLong.Error()}
	}
	return Finding{}
}

// prints are the fingerprints of a channel's material that was part of an epoch that
// was offered: it is fixed in every other epoch, too.
func (r *Ring) prints(which Side) map[Epoch]Fingerprint {
	out := make(map[Epoch]Fingerprint, len(r.state.Seen))
	for e, prints := range r.state.Seen {
		out[e.Side(which)] = prints[which]
	}
	return out
}

// has reports whether both channels have their part of the epoch, usable or not.
func (r *Ring) has(e Epoch) bool {
	a, b := e.Sides()
	return r.sides[A].has(a) && r.sides[B].has(b)
}

// stale says whether the epoch, or its part of a channel, is older than the mark's.
func (r *Ring) stale(e Epoch) bool {
	mark := r.state.HighWater
	return e.Less(mark) || e.Side(A).Less(mark.Side(A)) || e.Side(B).Less(mark.Side(B))
}

// started says whether an epoch, of the link or of a channel, may be offered. One
// whose number was offered before may, whatever the clock says now.
func (r *Ring) started(e Epoch, date time.Time) bool {
	if e.started(r.begun(date)) || e.Number <= r.state.HighWater.Number {
		return true
	}
	for s := range r.state.Seen {
		if e.Number <= s.Number {
			return true
		}
	}
	return false
}

// nextStart is when the next of the epochs begins that a channel has delivered.
func (r *Ring) nextStart(date time.Time) (start time.Time, next Epoch, ok bool) {
	for s := range r.sides {
		for _, e := range r.sides[s].epochs() {
			if !r.started(e, date) && (!ok || e.Less(next)) {
				next, ok = e, true
			}
		}
	}
	return next.Start(), next, ok
}

// best chooses what to offer of the eligible epochs, newest first.
func (r *Ring) best(eligible []Epoch) []Epoch {
	h := r.state.HighWater
	if h.IsZero() {
		// One more than may be fetched ahead: an end whose clock is ahead has one of them.
		return slices.Clone(eligible[:min(len(eligible), MaxPrefetch+1)])
	}
	best := slices.Clone(eligible[:min(len(eligible), 2)])
	add := func(e Epoch) {
		if !slices.Contains(best, e) {
			best = append(best, e)
		}
	}
	after := slices.DeleteFunc(slices.Clone(eligible), func(e Epoch) bool { return !h.Less(e) })
	if len(after) > 0 {
		add(after[len(after)-1])
	}
	if slices.Contains(eligible, h) {
		add(h)
	}
	return best
}

func (r *Ring) reason(e Epoch) Reason {
	switch {
	case !r.has(e):
		return Revoked
	case r.stale(e):
		return Superseded
	case r.spent(e):
		return Expired
	}
	return Displaced
}

package keys

import (
	"slices"
	"time"
)

// MaxPrefetch is how many epochs a channel hands over that have not started: what an
// end holds ahead of its time somebody can take from it.
const MaxPrefetch = 2

// LimitPrefetch erases and drops the material of epochs, numbers with all of their
// generations, beyond those that have started by now and the two that follow. A
// channel calls it on what it is about to deliver. What is dropped is not revoked by
// that: where the clock was set back, what is in use stays.
//
// It returns when the channel should deliver again, since another epoch may be
// handed over then; zero if there is none. That is a time by the wall clock, which
// can be set: look at it once a minute, too.
func (s *Snapshot) LimitPrefetch(now time.Time) (again time.Time) {
	now = laterTime(now, s.AsOf)
	var next []uint64 // what has not started
	note := func(e Epoch) {
		if !e.started(now) && !slices.Contains(next, e.Number) {
			next = append(next, e.Number)
		}
	}
	for e := range s.Keys {
		note(e)
	}
	for e := range s.Present {
		note(e)
	}
	if len(next) <= MaxPrefetch {
		return time.Time{}
	}
	slices.Sort(next)
	last := next[MaxPrefetch-1]
	if s.ahead == nil {
		s.ahead = make(map[Epoch]bool)
	}
	for e, m := range s.Keys {
		if e.Number > last {
			m.Key.Erase()
			delete(s.Keys, e)
			s.ahead[e] = true
		}
	}
	for e := range s.Present {
		if e.Number > last {
			delete(s.Present, e)
			s.ahead[e] = true
		}
	}
	return Epoch{Number: next[0]}.Start()
}

// laterTime is the later of two times.
func laterTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

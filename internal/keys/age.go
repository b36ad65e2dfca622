package keys

import (
	"strings"
	"time"

	"github.com/lever-link/lever/internal/health"
)

// How old a key is.
//
// The age of the confirmed epoch's key decides whether a link may go on, and clocks
// can be wrong. A clock that is set, by accident or by somebody who has NTP in his
// hands, must not close every link at once; one that stands still or goes back must
// not make a key last forever. So:
//
//   - Time in which an agent runs is measured by the monotonic clock, which nobody
//     can set. What the wall clock does meanwhile changes no age.
//   - That time is recorded every so often (State.Used), so that it counts over
//     restarts, whatever the wall clock says then. What a restart can lose of it is the
//     time since the last record, an hour at most.
//   - Time in which no agent ran, nobody has measured: for that, and for nothing
//     else, the date of the confirmation is compared with the wall clock once, when
//     the record is read, and the greater of both is taken. A clock that is far ahead
//     at that moment closes a link; setting it right and restarting the agent opens
//     it again, for the time recorded is the time measured.
//   - A confirmation that was dated by a clock that was behind (a board without a
//     battery) is dated anew once the clock is found to be ahead of what was measured.
//
// An override ends by the monotonic clock, too, from when it was first seen.
// Time in which the whole machine sleeps is not measured.

// Override lets a link go on with a key that is too old. Whoever gives it to a Ring has
// seen that it was signed as it must be.
type Override struct {
	Until   time.Time
	Reason  string
	Signers []string
}

// ages are the limits of a key's age, and what is known of it.
type ages struct {
	cakEpoch, maxAge time.Duration
	override         Override
	// until is when the override ends, by the clock of the times that the Ring is given.
	until time.Time
	// over is set while the key is too old and nothing overrides that.
	over bool
}

// anchor is an age as it was at one moment of this process.
type anchor struct {
	at        time.Time // with the monotonic clock's reading
	age, used time.Duration
	began     time.Time // the date since when the key is in use
}

// Anchor takes the age of the confirmed epoch, as the State knows it from an earlier
// process, at the moment at which it was loaded; from then on it is measured. Whoever
// keeps States in memory calls it once and hands the result to each Ring.
func (s State) Anchor(now, date time.Time) State {
	if s.HighWater.IsZero() || !s.anchor.at.IsZero() {
		return s
	}
	age := s.Used
	if !s.ConfirmedAt.IsZero() {
		age = max(age, date.Sub(s.ConfirmedAt))
	}
	s.anchor = anchor{now, age, s.Used, date.Add(-age).Round(0)}
	return s
}

// passed is the time since the anchor.
func (a anchor) passed(now time.Time) time.Duration { return max(now.Sub(a.at), 0) }

// Limits sets how long a CAK is meant to be used and how long it may be, from the next
// step on; zero is no limit.
func (r *Ring) Limits(cakEpoch, maxAge time.Duration) {
	r.ages.cakEpoch, r.ages.maxAge = cakEpoch, maxAge
}

// Override sets what lets the link go on with a key that is too old, from the next
// step on. The zero Override is none.
func (r *Ring) Override(o Override) {
	if !o.Until.Equal(r.ages.override.Until) {
		r.ages.until = time.Time{}
	}
	r.ages.override = o
}

// confirmed begins the age of a key.
func (r *Ring) confirmed(now, date time.Time) {
	r.state.ConfirmedAt, r.state.Used = date.UTC().Truncate(time.Second), 0
	r.state.anchor = anchor{at: now, began: date.Round(0)}
}

// age is how long the confirmed epoch's key has been in use.
func (r *Ring) age(now time.Time) time.Duration {
	return r.state.anchor.age + r.state.anchor.passed(now)
}

// keepEvery is how often the time measured is recorded.
func (a *ages) keepEvery() time.Duration { return min(max(a.maxAge/16, time.Minute), time.Hour) }

// mature lets the key grow older, and records that now and then.
func (r *Ring) mature(now, date time.Time) {
	if r.state.HighWater.IsZero() {
		r.ages.over = false
		return
	}
	r.state = r.state.Anchor(now, date)
	a, wasOver := &r.ages, r.ages.over
	if o := a.override.Until; !o.IsZero() && a.until.IsZero() {
		a.until = now.Add(o.Sub(date))
	}
	a.over = a.maxAge > 0 && r.age(now) >= a.maxAge && !a.overridden(now)
	used := r.state.anchor.used + r.state.anchor.passed(now)
	unknown := r.state.ConfirmedAt.IsZero()
	if unknown || a.maxAge > 0 && (used-r.state.Used >= a.keepEvery() || a.over && !wasOver && used > r.state.Used) {
		r.state.Used = used.Truncate(time.Second)
		if at := date.Add(-r.age(now)); at.After(r.state.ConfirmedAt) {
			r.state.ConfirmedAt = at.UTC().Truncate(time.Second)
		}
		r.persist()
	}
}

func (a *ages) overridden(now time.Time) bool {
	return !a.override.Until.IsZero() && now.Before(a.until)
}

// overdue is the age at which it is a fault that no later epoch has been confirmed.
func (a *ages) overdue() time.Duration { return a.cakEpoch + max(a.cakEpoch/10, time.Minute) }

// diagnoseAge says that a key is older than it should be.
func (r *Ring) diagnoseAge(now time.Time, add func(Finding)) {
	a := &r.ages
	if r.state.HighWater.IsZero() {
		return
	}
	age, began := r.age(now), r.state.anchor.began
	f := Finding{Epoch: r.state.HighWater, Began: began, Until: began.Add(a.maxAge), Due: began.Add(a.cakEpoch)}
	if a.maxAge > 0 && age >= a.maxAge {
		f.Code = health.KeyTooOld
		if !a.over {
			f.Code, f.Expires = health.KeyAgeOverridden, a.override.Until
			f.Reason, f.Signers = a.override.Reason, strings.Join(a.override.Signers, ", ")
		}
		add(f)
		return
	}
	if a.cakEpoch > 0 && age >= a.overdue() {
		f.Code = health.KeyOverdue
		add(f)
	}
	if a.maxAge > 0 && age >= a.maxAge/2 {
		f.Code = health.KeyAging
		add(f)
	}
}

// nextAge is when the age of the key changes something next; zero: never.
func (r *Ring) nextAge(now time.Time) (next time.Time) {
	a := &r.ages
	if r.state.HighWater.IsZero() {
		return next
	}
	sooner := func(at time.Time) {
		if at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	age := r.age(now)
	if a.cakEpoch > 0 {
		sooner(now.Add(a.overdue() - age))
	}
	if a.maxAge > 0 {
		sooner(now.Add(a.maxAge/2 - age))
		sooner(now.Add(a.maxAge - age))
		sooner(now.Add(a.keepEvery() - (r.state.anchor.used + r.state.anchor.passed(now) - r.state.Used)))
	}
	if a.overridden(now) {
		sooner(a.until)
	}
	return next
}

// Expired says that the link is closed for the age of its key, and that the CKN does
// not name a later one: what it keyed must not be used any more.
func (r *Ring) Expired(ckn []byte) bool {
	if !r.ages.over {
		return false
	}
	e, _, ok := r.Identify(ckn)
	return !ok || r.spent(e)
}

// spent says whether the epoch may not be used any more: it is stale, or it is the
// confirmed one and too old.
func (r *Ring) spent(e Epoch) bool {
	return r.stale(e) || r.ages.over && e == r.state.HighWater
}

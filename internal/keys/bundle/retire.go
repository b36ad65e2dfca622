package bundle

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/keys"
)

// doubt is what was over when the clock had jumped: since when, and which epochs.
// A wrong clock looks as a long pause does; so what was in use before stays until
// what was issued after it has been out for an epoch.
type doubt struct {
	Since  time.Time `json:"since"`
	Retire uint64    `json:"retire"`
}

// retire takes what is over out of the journal, and with it out of all indexes.
func (l *ledger) retire(o *Options) (changed bool, err error) {
	before := o.Retire
	if before > 0 && o.EpochLength > 0 {
		before, changed = l.believe(o)
	}
	if before <= l.RetiredBefore {
		return changed, nil
	}
	remains := func(n uint64) bool { return n >= before }
	if issued := slices.Sorted(maps.Keys(l.Epochs)); len(issued) > 0 && !slices.ContainsFunc(issued, remains) && !slices.ContainsFunc(o.Epochs, remains) {
		newest := issued[len(issued)-1]
		return changed, fmt.Errorf("retiring all epochs before %d (%s) would leave none, for the newest that was issued is %d (%s): it is %s by this clock; set it right, or issue later epochs first",
			before, day(keys.Epoch{Number: before}.Start()), newest, day(keys.Epoch{Number: newest}.Start()), day(o.Now()))
	}
	for n := range l.Epochs {
		if n < before {
			l.retired++
		}
	}
	l.RetiredBefore = before
	maps.DeleteFunc(l.Epochs, func(n uint64, _ *epochState) bool { return n < before })
	l.Unfinished = slices.DeleteFunc(l.Unfinished, func(r Reissue) bool { return r.Epoch < before })
	return true, nil
}

// believe returns how much of what is over by the clock may be retired now. Nothing
// that was current when the issuer ran last is retired at once.
func (l *ledger) believe(o *Options) (before uint64, changed bool) {
	now := o.Now()
	current := keys.ScheduledEpoch(now, o.EpochLength).Number
	old, oldDoubt := l.Current, l.Doubt
	if l.Current == 0 {
		l.Current = l.lastCurrent(current, o.EpochLength)
	}
	if o.AfterPause {
		l.Current, l.Doubt = current, nil
	}
	if d := l.Doubt; d != nil && !now.Before(d.Since.Add(o.EpochLength)) {
		before = d.Retire
		l.Current, l.Doubt = keys.ScheduledEpoch(d.Since, o.EpochLength).Number, nil
	}
	switch {
	case o.Retire <= l.Current:
		before, l.Current, l.Doubt = o.Retire, current, nil
	case l.Doubt == nil || now.Before(l.Doubt.Since):
		l.Doubt = &doubt{now.UTC().Truncate(time.Second), o.Retire}
	}
	if d := l.Doubt; d != nil {
		n := 0
		for number := range l.Epochs {
			if number >= before && number < d.Retire {
				n++
			}
		}
		l.warnings = append(l.warnings, fmt.Sprintf(
			"%d epochs before %d are over by this clock, which said %s first, and stay until %s: the last that was current when this issuer ran is %d (%s); if it had a pause, deliver what is new, and they go by themselves (at once with lever keys issue --after-pause); if it had none, set the clock right",
			n, d.Retire, day(d.Since), day(d.Since.Add(o.EpochLength)), l.Current, day(keys.Epoch{Number: l.Current}.Start())))
	}
	return before, l.Current != old || l.Doubt != oldDoubt
}

// lastCurrent is the epoch that was current at the last run, by a journal that does
// not say: the newest is issued as far ahead as it may be, and never later than now.
func (l *ledger) lastCurrent(current uint64, length time.Duration) uint64 {
	newest := uint64(0)
	for n := range l.Epochs {
		newest = max(newest, n)
	}
	if newest == 0 {
		return current
	}
	return min(current, keys.ScheduledEpoch(keys.Epoch{Number: newest}.Start().Add(-ahead*length), length).Number)
}

// day words a time for those who look at a clock.
func day(at time.Time) string { return at.UTC().Format("2006-01-02T15:04Z") }

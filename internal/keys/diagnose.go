package keys

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/health"
)

// diagnose adds what is wrong with the link's keys as a whole: the channels' own
// findings, a late or rolled-back channel, no keys, and an unusable state file.
func (r *Ring) diagnose(findings *[]Finding, eligible []Epoch, date time.Time) {
	add := func(f Finding) { *findings = append(*findings, f) }
	if r.loadErr != nil {
		add(Finding{Code: health.StateUnreadable, Detail: r.loadErr.Error()})
	}
	if r.saveErr != nil {
		add(Finding{Code: health.StateUnwritable, Detail: r.saveErr.Error()})
	}
	for s := range r.sides {
		for _, f := range few(r.sides[s].Findings) {
			f.Side, f.Where = Side(s), r.sides[s].Where
			add(f)
		}
	}
	if !r.sides[A].heard || !r.sides[B].heard {
		// Before both channels have been read once, neither is late.
		return
	}
	if r.sides[A].newest().IsZero() && r.sides[B].newest().IsZero() {
		add(Finding{Code: health.NoKeys, Where: r.sides[A].Where, WhereOther: r.sides[B].Where})
		return
	}
	if start, next, ok := r.nextStart(date); ok && len(eligible) == 0 && !r.ages.over {
		add(Finding{Code: health.KeyPending, Epoch: next, Until: start})
	}
	var usable uint64 // the newest number of which there is a CAK
	if len(eligible) > 0 {
		usable = eligible[0].Number
	}
	for s := range r.sides {
		mine, other := &r.sides[s], &r.sides[Side(s).Other()]
		mark := r.state.HighWater.Side(Side(s))
		if n := mine.newest(); !n.IsZero() && n.Less(mark) {
			add(Finding{Code: health.KeyRollback, Side: Side(s), Epoch: n, Where: mine.Where, HighWater: mark})
			continue
		}
		// The next number that the other channel has and this one lacks in every
		// generation. Gaps below the newest usable one no longer matter, and what has
		// not started need not be there yet.
		for _, e := range other.epochs() {
			if e.Number > usable && e.Number >= mark.Number && r.started(e, date) && !mine.hasNumber(e.Number) {
				add(Finding{Code: health.ChannelLate, Side: Side(s), Epoch: e, Where: mine.Where})
				break
			}
		}
	}
}

// maxAlike is how many findings of one code a channel has: more would tell an operator
// nothing more, and whoever owns a channel must not decide how much work they are.
const maxAlike = 16

// few are the findings, of each code those about the newest epochs.
func few(all []Finding) []Finding {
	count := make(map[health.Code]int)
	for _, f := range all {
		count[f.Code]++
	}
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(x, y Finding) int {
		return cmp.Or(cmp.Compare(x.Code, y.Code), y.Epoch.Compare(x.Epoch), cmp.Compare(x.File, y.File))
	})
	var kept []Finding
	left := 0
	for i, f := range sorted {
		if i == 0 || f.Code != sorted[i-1].Code {
			left = maxAlike
		}
		if left--; left < 0 {
			continue
		}
		if more := count[f.Code] - maxAlike; left == 0 && more > 0 {
			f.Detail += fmt.Sprintf("; %d older ones are like it", more)
		}
		kept = append(kept, f)
	}
	return kept
}

// hasNumber reports whether the channel has an epoch's number in any generation.
func (s *side) hasNumber(n uint64) bool {
	return slices.ContainsFunc(s.epochs(), func(e Epoch) bool { return e.Number == n })
}

// epochs are all that the channel has delivered, usable or not, oldest first.
func (s *side) epochs() []Epoch {
	all := make([]Epoch, 0, len(s.Keys)+len(s.Present))
	for e := range s.Keys {
		all = append(all, e)
	}
	for e := range s.Present {
		all = append(all, e)
	}
	slices.SortFunc(all, Epoch.Compare)
	return slices.Compact(all)
}

// settle sorts the findings, lets known ones keep their Since, and tells whether
// anything differs from the last time.
func (r *Ring) settle(findings []Finding, now time.Time) ([]Finding, bool) {
	since := make(map[subject]time.Time, len(r.findings))
	for _, old := range r.findings {
		since[old.subject()] = old.Since
	}
	for i := range findings {
		findings[i].Since = now
		if at, known := since[findings[i].subject()]; known {
			findings[i].Since = at
		}
	}
	slices.SortFunc(findings, func(x, y Finding) int {
		return cmp.Or(cmp.Compare(x.Code, y.Code), cmp.Compare(x.Side, y.Side), x.Epoch.Compare(y.Epoch),
			cmp.Compare(x.File, y.File), cmp.Compare(x.Detail, y.Detail))
	})
	findings = slices.Compact(findings)
	changed := !slices.Equal(findings, r.findings)
	r.findings = findings
	return slices.Clone(findings), changed
}

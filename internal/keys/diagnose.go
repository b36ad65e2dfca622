package keys

import (
	"cmp"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/health"
)

// diagnose adds what is wrong with the link's keys as a whole: the channels' own
// findings, a late or rolled-back channel, no keys, and an unusable state file.
func (r *Ring) diagnose(findings *[]Finding, eligible []Epoch) {
	add := func(f Finding) { *findings = append(*findings, f) }
	if r.loadErr != nil {
		add(Finding{Code: health.StateUnreadable, Detail: r.loadErr.Error()})
	}
	if r.saveErr != nil {
		add(Finding{Code: health.StateUnwritable, Detail: r.saveErr.Error()})
	}
	for s := range r.sides {
		for _, f := range r.sides[s].Findings {
			f.Side, f.Where = Side(s), r.sides[s].Where
			add(f)
		}
	}
	if !r.sides[A].heard || !r.sides[B].heard {
		// Before both channels have been read once, neither is late.
		return
	}
	var newest Epoch
	if len(eligible) > 0 {
		newest = eligible[0]
	}
	if r.sides[A].newest().IsZero() && r.sides[B].newest().IsZero() {
		add(Finding{Code: health.NoKeys, Where: r.sides[A].Where, WhereOther: r.sides[B].Where})
		return
	}
	for s := range r.sides {
		mine, other := &r.sides[s], &r.sides[Side(s).Other()]
		if n := mine.newest(); !n.IsZero() && n.Less(r.state.HighWater) {
			add(Finding{Code: health.KeyRollback, Side: Side(s), Epoch: n, Where: mine.Where, HighWater: r.state.HighWater})
			continue
		}
		// The next epoch that the other channel has and this one lacks. Gaps below
		// the newest usable epoch no longer matter.
		var late Epoch
		for _, e := range other.epochs() {
			if newest.Less(e) && !e.Less(r.state.HighWater) && !mine.has(e) {
				late = e
				break
			}
		}
		if !late.IsZero() {
			add(Finding{Code: health.ChannelLate, Side: Side(s), Epoch: late, Where: mine.Where})
		}
	}
}

// epochs are all that the channel has, usable or not, oldest first.
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
	for i := range findings {
		findings[i].Since = now
		for _, old := range r.findings {
			if findings[i].same(old) {
				findings[i].Since = old.Since
			}
		}
	}
	slices.SortFunc(findings, func(x, y Finding) int {
		return cmp.Or(cmp.Compare(x.Code, y.Code), cmp.Compare(x.Side, y.Side), x.Epoch.Compare(y.Epoch),
			cmp.Compare(x.File, y.File), cmp.Compare(x.Detail, y.Detail))
	})
	changed := !slices.Equal(findings, r.findings)
	r.findings = findings
	return slices.Clone(findings), changed
}

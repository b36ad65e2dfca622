package inventory

import (
	"slices"
	"time"
)

// At returns the inventory with its verdicts judged anew at another time.
// Everything else is shared with inv.
func (inv *Inventory) At(now time.Time) *Inventory {
	out := *inv
	out.Links = make([]*Link, len(inv.Links))
	for i, l := range inv.Links {
		again := *l
		again.Verdict = l.VerdictAt(inv.Policy, now)
		out.Links[i] = &again
	}
	out.index()
	return &out
}

// Expiring returns the evidence by which the link is inside and that does not
// hold for as long as within from now on: for each control that the policy asks
// for the one that holds longest. A link that is not inside has none.
func (l *Link) Expiring(p Policy, now time.Time, within time.Duration) []Evidence {
	if l.Override != nil || l.custodyAt(p, now).Kind != Inside {
		return nil
	}
	var soon []Evidence
	for i := range l.Segments {
		s := &l.Segments[i]
		if slices.Contains(p.Inside, s.Custody) {
			continue
		}
		for _, c := range p.InsideIf[s.Custody] {
			best, _ := s.evidence(c)
			j := slices.IndexFunc(s.Controls, func(e Evidence) bool { return e.Control == c && e.Expires.Equal(best) })
			if j >= 0 && !best.After(now.Add(within)) {
				soon = append(soon, s.Controls[j])
			}
		}
	}
	return soon
}

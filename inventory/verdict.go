package inventory

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Verdict is what is to be done with a link, and why, in one line.
type Verdict struct {
	Kind   Kind   `json:"verdict"`
	Reason string `json:"reason"`
}

// VerdictAt judges the link by a policy at a time. Time only ever takes a link
// from inside or exempt to encrypt.
func (l *Link) VerdictAt(p Policy, now time.Time) Verdict {
	if o := l.Override; o != nil {
		switch {
		case o.Action == Exempt && holds(o.Expires, now):
			return Verdict{Exempt, fmt.Sprintf("exempt until %s, approved by %s: %s",
				day(o.Expires), strings.Join(o.Approvers, " and "), o.Reason)}
		case o.Action == Exempt:
			return Verdict{Encrypt, "the exemption expired on " + day(o.Expires)}
		case o.Reason != "":
			return Verdict{Encrypt, "override: encrypt: " + o.Reason}
		default:
			return Verdict{Encrypt, "override: encrypt"}
		}
	}
	return l.custodyAt(p, now)
}

// NextChange returns the first moment after now at which VerdictAt gives another
// kind of verdict, and false when it never will.
func (l *Link) NextChange(p Policy, now time.Time) (time.Time, bool) {
	var days []time.Time
	if l.Override != nil && !l.Override.Expires.IsZero() {
		days = append(days, l.Override.Expires)
	}
	for _, s := range l.Segments {
		for _, c := range s.Controls {
			days = append(days, c.Expires)
		}
	}
	slices.SortFunc(days, time.Time.Compare)
	for _, d := range days {
		if d.After(now) && l.VerdictAt(p, d).Kind != l.VerdictAt(p, now).Kind {
			return d, true
		}
	}
	return time.Time{}, false
}

// custodyAt judges by the segments alone.
func (l *Link) custodyAt(p Policy, now time.Time) Verdict {
	if len(l.Segments) == 0 {
		return Verdict{Encrypt, "no segments listed: unknown means outside physical control"}
	}
	var outside, inside []string
	for i := range l.Segments {
		s := &l.Segments[i]
		why, ok := s.judge(p, now)
		switch {
		case !ok:
			outside = append(outside, fmt.Sprintf("segment %d (%s)%s", i+1, s.label(), why))
		case !slices.Contains(inside, s.label()+why):
			inside = append(inside, s.label()+why)
		}
	}
	switch len(outside) {
	case 0:
		return Verdict{Inside, "every segment is inside physical control: " + strings.Join(inside, "; ")}
	case 1:
		return Verdict{Encrypt, outside[0]}
	default:
		return Verdict{Encrypt, fmt.Sprintf("%s; and %d more of %d", outside[0], len(outside)-1, len(l.Segments))}
	}
}

// judge says whether a segment is inside, and what is to be said after its
// label: what is missing, or until when it holds.
func (s *Segment) judge(p Policy, now time.Time) (why string, inside bool) {
	switch {
	case s.Custody == UnknownCustody:
		return ": unknown means outside physical control", false
	case !s.Custody.Known():
		// Before the policy is asked: no policy can vouch for a class that
		// nobody has defined.
		return ": not a known custody class, so outside physical control", false
	case slices.Contains(p.Inside, s.Custody):
		return "", true
	}
	controls := p.InsideIf[s.Custody]
	if len(controls) == 0 {
		return " is outside physical control", false
	}
	var missing []string
	var until time.Time
	for _, c := range controls {
		best, found := s.evidence(c)
		switch {
		case !found:
			missing = append(missing, "no evidence for "+string(c))
		case !holds(best, now):
			missing = append(missing, fmt.Sprintf("evidence for %s expired on %s", c, day(best)))
		case until.IsZero() || best.Before(until):
			until = best
		}
	}
	if len(missing) > 0 {
		return ": " + strings.Join(missing, ", "), false
	}
	return ", evidence until " + day(until), true
}

// evidence returns the date of the evidence for a control that holds longest.
func (s *Segment) evidence(c Control) (expires time.Time, found bool) {
	for _, e := range s.Controls {
		if e.Control == c && (!found || e.Expires.After(expires)) {
			expires, found = e.Expires, true
		}
	}
	return expires, found
}

// label is how a segment is called in reasons: its class and what names it.
func (s *Segment) label() string {
	label := string(s.Custody)
	if s.Site != "" {
		label += " at " + s.Site
	}
	if name := strings.TrimSpace(s.Provider + " " + s.Ref); name != "" {
		label += ", " + name
	}
	return label
}

// holds reports whether something that expires at a moment still holds.
func holds(expires, now time.Time) bool { return now.Before(expires) }

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

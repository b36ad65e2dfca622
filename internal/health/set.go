package health

import (
	"cmp"
	"slices"
)

// Set holds the faults of one link. The zero Set is empty and ready. It is for
// one goroutine; List returns a copy that may travel.
type Set struct {
	faults  map[identity]Fault
	version uint64
}

// identity tells instances apart: raising one again is an update, not a second
// fault.
type identity struct {
	code    Code
	subject string
}

func (f Fault) identity() identity { return identity{f.Code, f.subject} }

// Raise adds f, or updates the instance of the same code and subject, which
// keeps its Since: a fault is as old as its first report. It reports whether
// anything changed that a reader can see.
func (s *Set) Raise(f Fault) bool {
	if s.faults == nil {
		s.faults = make(map[identity]Fault)
	}
	id := f.identity()
	if old, ok := s.faults[id]; ok {
		f.Since = old.Since
		if old == f {
			return false
		}
	}
	s.faults[id] = f
	s.version++
	return true
}

// Clear removes every instance of the codes and reports whether there were any.
func (s *Set) Clear(codes ...Code) bool {
	changed := false
	for id := range s.faults {
		if slices.Contains(codes, id.code) {
			delete(s.faults, id)
			changed = true
		}
	}
	if changed {
		s.version++
	}
	return changed
}

// Replace makes now the complete set of faults with one of the codes: what is
// not in it is cleared, what is stays with its Since. A source that knows all of
// its faults at once, such as a key ring, calls this after every change. Faults
// in now whose code is not in codes are raised as well.
func (s *Set) Replace(codes []Code, now []Fault) bool {
	keep := make(map[identity]bool, len(now))
	for _, f := range now {
		keep[f.identity()] = true
	}
	changed := false
	for id := range s.faults {
		if slices.Contains(codes, id.code) && !keep[id] {
			delete(s.faults, id)
			changed = true
		}
	}
	if changed {
		s.version++
	}
	for _, f := range now {
		changed = s.Raise(f) || changed
	}
	return changed
}

// Has reports whether an instance of the code is raised.
func (s *Set) Has(code Code) bool {
	for id := range s.faults {
		if id.code == code {
			return true
		}
	}
	return false
}

// List returns the faults, the most severe first, then by code and subject: the
// order does not depend on the order of raising.
func (s *Set) List() []Fault {
	list := make([]Fault, 0, len(s.faults))
	for _, f := range s.faults {
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b Fault) int {
		return cmp.Or(
			cmp.Compare(a.Severity.rank(), b.Severity.rank()),
			cmp.Compare(a.Code, b.Code),
			cmp.Compare(a.subject, b.subject),
		)
	})
	return list
}

// Worst is the highest severity raised; false when there is no fault.
func (s *Set) Worst() (Severity, bool) {
	list := s.List()
	if len(list) == 0 {
		return "", false
	}
	return list[0].Severity, true
}

// Version grows with every visible change, so that a watcher can tell cheaply
// whether to list again.
func (s *Set) Version() uint64 { return s.version }

package fence

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// A Change is one thing that Close has done.
type Change struct {
	Direction Direction
	// Priority is the filter's, as in `tc filter show`.
	Priority uint16
	// Foreign is true for the removal of a filter that was not the fence's.
	Foreign bool
	Text    string
}

// String is one line for a log or an operator.
func (c Change) String() string {
	whose := ""
	if c.Foreign {
		whose = "somebody else's filter "
	}
	return fmt.Sprintf("%s priority %d: %s%s", c.Direction, c.Priority, whose, c.Text)
}

// OccupiedError says that Close could not install the fence because of filters
// that it does not own.
type OccupiedError struct{ Findings []Finding }

// Error implements error.
func (e *OccupiedError) Error() string {
	return fmt.Sprintf("%s; remove it (tc filter del dev … %s prio %d) or move it behind priority %d",
		e.Findings[0], e.Findings[0].Direction, e.Findings[0].Priority, dropPriority)
}

// rounds bounds Close: somebody may be changing filters against it. Three are
// the most that it needs by itself: shut, clear the way, move to the front.
const rounds = 8

// lacking has the classifiers that the running kernel turned out not to have.
// Each question would have it run modprobe.
var lacking sync.Map

// patience is how many steps may fail before Close does.
const patience = 2

// Close makes the fence what opts say, repairs it, or opens it for counting, and
// returns what it has changed, also with an error: nothing on a fence that is in
// place. At no moment does it let pass what was stopped before and still is to
// be, and at no moment does it lose a MACsec or MKA frame that passed before.
func Close(ifindex int, opts Options) ([]Change, error) {
	w, err := opts.wanted()
	if err != nil {
		return nil, fmt.Errorf("close the fence on interface %d: %w", ifindex, err)
	}
	changes, err := w.close(ifindex)
	if err != nil {
		err = fmt.Errorf("close the fence on interface %d: %w", ifindex, err)
	}
	return changes, err
}

func (w *wanted) close(ifindex int) (changes []Change, err error) {
	t, err := openTC(ifindex)
	if err != nil {
		return nil, err
	}
	defer t.close()
	_, w.lacking = lacking.Load(w.gates[Egress].kind)
	made, failed := false, 0
	for range rounds {
		var found [2][]filter
		var own bool
		for i, d := range directions() {
			if found[i], err = t.list(d); err != nil {
				return changes, err
			}
			for _, f := range found[i] {
				own = own || f.ours()
				made = made || f.ours() && f.madeHooks()
				w.lacking = w.lacking && (!f.ours() || f.kind != w.gates[d].kind)
			}
		}
		if !own {
			if made, err = t.ensureHooks(); err != nil {
				return changes, err
			}
		}
		var occupied []Finding
		busy := false
		for i, d := range directions() {
			steps, findings := w.plan(found[i], d)
			for _, s := range steps {
				busy = true
				if made && s.handle != 0 {
					s.handle |= madeHooksFlag
				}
				if err := s.do(t, d); err != nil {
					if s.remove == nil && s.add.kind == w.gates[d].kind && lacksClassifier(err) && !w.lacking {
						w.lacking = true // from here on
						break
					}
					// Somebody may have taken away the ground, such as the qdisc.
					if failed++; failed > patience {
						return changes, err
					}
					break
				}
				changes = append(changes, s.change(d))
				if w.after != nil {
					w.after()
				}
			}
			for _, f := range findings {
				if f.Problem == Occupied {
					occupied = append(occupied, f)
				}
			}
		}
		if busy {
			continue
		}
		if w.lacking { // and not the action, which the rows have, too
			lacking.Store(w.gates[Egress].kind, true)
		}
		if len(occupied) > 0 {
			return changes, &OccupiedError{occupied}
		}
		return changes, nil
	}
	return changes, errors.New("its filters do not stay as they are put: somebody else changes them all the time; find out who (tc monitor)")
}

// wanted is the fence as it should be, in both directions.
type wanted struct {
	Options
	gates   [2]rule
	lacking bool   // the kernel has no such filters as the gates
	after   func() // each step; nil but in tests
}

func (o Options) wanted() (*wanted, error) {
	w := &wanted{Options: o}
	for i, d := range directions() {
		var err error
		if w.gates[i], err = o.gateRule(d); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// plan is for the filters of chain 0: those of others see frames only when one
// of these sends them there.
func (w *wanted) plan(filters []filter, d Direction) ([]step, []Finding) {
	filters = slices.DeleteFunc(slices.Clone(filters), func(f filter) bool { return f.chain != 0 })
	if w.lacking {
		return w.planRows(filters, d)
	}
	return w.planGate(filters, d, w.gates[d])
}

// Inspect reports the state of the fence on an interface; one that has none is
// not closed and has all filters missing. It asks the kernel twice, and a third
// time where there is no filter at all.
func Inspect(ifindex int, opts Options) (State, error) {
	st, err := inspect(ifindex, opts)
	if err != nil {
		return State{}, fmt.Errorf("inspect the fence on interface %d: %w", ifindex, err)
	}
	return st, nil
}

func inspect(ifindex int, opts Options) (State, error) {
	w, err := opts.wanted()
	if err != nil {
		return State{}, err
	}
	t, err := openTC(ifindex)
	if err != nil {
		return State{}, err
	}
	defer t.close()
	var st State
	filters := 0
	for _, d := range directions() {
		found, err := t.list(d)
		if err != nil {
			return State{}, err
		}
		filters += len(found)
		w.lacking = opts.haveRows(found)
		_, findings := w.plan(found, d)
		if w.lacking {
			findings = append(findings, Finding{Direction: d, Problem: Weak, Priority: macsecPriority, Text: opts.weakness(d)})
		}
		st.Findings = append(st.Findings, sorted(findings)...)
		count := w.count(found)
		if d == Egress {
			st.DroppedEgress = count
		} else {
			st.DroppedIngress = count
		}
	}
	if filters == 0 { // those of an interface that does not exist are just none
		if err := t.exists(); err != nil {
			return State{}, err
		}
	}
	st.InPlace = !slices.ContainsFunc(st.Findings, func(f Finding) bool {
		return f.Problem != Weak && (f.Problem != Foreign || !opts.Monitor)
	})
	st.Closed = !opts.Monitor && !st.Leaks()
	return st, nil
}

// count is that of the filter which decides on what must not pass.
func (w *wanted) count(filters []filter) Counter {
	for _, f := range filters {
		if f.ours() && (f.kind == kindBPF || f.priority == dropPriority) {
			return f.counter()
		}
	}
	return Counter{}
}

// weakness is what rows cannot do.
func (o Options) weakness(d Direction) string {
	text := "the kernel has no cls_bpf: "
	if d == Egress {
		text += "MACsec frames pass without a look whether they are encrypted"
	} else {
		text += "frames pass by their EtherType alone"
	}
	if o.Allow != 0 {
		text += ", and " + o.Allow.String() + " is stopped"
	}
	return text
}

// Open removes the filters of the fence, and the clsact qdisc if Close made it
// and nobody else uses it. It is not an error if there is nothing to remove.
func Open(ifindex int) error {
	if err := open(ifindex); err != nil {
		return fmt.Errorf("open the fence on interface %d: %w", ifindex, err)
	}
	return nil
}

func open(ifindex int) error {
	t, err := openTC(ifindex)
	if err != nil {
		return err
	}
	defer t.close()
	if err := t.exists(); err != nil {
		return err
	}
	made, others := false, false
	for _, d := range directions() {
		filters, err := t.list(d)
		if err != nil {
			return err
		}
		for _, f := range slices.Backward(filters) { // what drops is last of the rows
			switch {
			case f.ours():
				made = made || f.madeHooks()
				if err := t.remove(d, &f); err != nil {
					return err
				}
			case f.matches():
				others = true
			}
		}
	}
	if !made || others {
		return nil
	}
	return t.removeHooks()
}

func sorted(fs []Finding) []Finding {
	slices.SortStableFunc(fs, func(a, b Finding) int { return cmp.Compare(a.Priority, b.Priority) })
	return fs
}

// Package fence lets nothing but MACsec and MKA frames over an interface in the
// clear.
//
// A MACsec device protects what goes through it; its parent interface stays
// open to everybody. The fence is a set of tc filters on the parent's clsact
// hooks, at ingress and at egress alike: frames of EtherType 88E5 pass, those of
// the link's MKA EtherType pass, and everything else is dropped, VLAN-tagged
// frames included. The kernel keeps the filters when the agent ends or is
// killed, and so the link stays closed.
//
// What belongs here: installing, checking and removing those filters, in the
// network namespace of the calling thread. What does not: deciding which
// interface to fence, and when.
//
// Two things pass a fence, both for root only: frames that an XDP program
// redirects, and frames sent on a packet socket with PACKET_QDISC_BYPASS, since
// the kernel runs the clsact hooks for neither. Packet sockets for all protocols
// see received frames before the fence (__netif_receive_skb_core), which is how
// captures show what it stops; those for one protocol see them behind it, and
// so MKA's own EtherType must pass for MKA to work.
package fence

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Options of a fence; the zero value is the standard's.
type Options struct {
	// EtherType of the link's MKA frames; 0 means 888E.
	EtherType uint16
}

// A Direction is one of the two hooks of an interface.
type Direction int

// The directions. Egress comes first in all that is done: what we must not say
// matters more than what we must not hear.
const (
	Egress Direction = iota
	Ingress
)

// String is what tc calls it.
func (d Direction) String() string {
	switch d {
	case Egress:
		return "egress"
	case Ingress:
		return "ingress"
	}
	return fmt.Sprintf("direction %d", int(d))
}

func (d Direction) parent() uint32 {
	if d == Egress {
		return netlink.HANDLE_MIN_EGRESS
	}
	return netlink.HANDLE_MIN_INGRESS
}

func directions() [2]Direction { return [2]Direction{Egress, Ingress} }

// A Problem is the kind of a Finding.
type Problem int

// The problems.
const (
	// Missing: a filter of the fence is not there.
	Missing Problem = iota
	// Altered: a filter of the fence does something else than it should.
	Altered
	// Foreign: somebody else's filter comes before the fence's drop, and may
	// pass, redirect or change frames before the fence sees them.
	Foreign
	// Occupied: somebody else's filter has a priority that the fence needs.
	Occupied
)

// String names the problem in a word.
func (p Problem) String() string {
	switch p {
	case Missing:
		return "missing"
	case Altered:
		return "altered"
	case Foreign:
		return "foreign"
	case Occupied:
		return "occupied"
	}
	return fmt.Sprintf("problem %d", int(p))
}

// A Finding is one thing that is not as the fence wants it.
type Finding struct {
	Direction Direction
	Problem   Problem
	// Priority is the filter's, as in `tc filter show`.
	Priority uint16
	// Text describes the filter.
	Text string
}

// String is one line for a log or an operator.
func (f Finding) String() string {
	return fmt.Sprintf("%s priority %d: %s: %s", f.Direction, f.Priority, f.Problem, f.Text)
}

// Counter counts what the fence dropped since it was closed.
type Counter struct {
	// Frames has 32 bits in the kernel (struct gnet_stats_basic) and wraps.
	Frames uint32
	Octets uint64
}

// State is what Inspect found.
type State struct {
	// Closed is true if all filters of the fence are there and as they should
	// be. Foreign filters do not change it: only who knows them can tell
	// whether they let anything through.
	Closed bool
	// Findings, egress first, by priority.
	Findings []Finding
	// Dropped frames; zero where there is no fence.
	DroppedEgress, DroppedIngress Counter
}

// Leaks says whether plain frames may pass because the drop of a direction is
// not in place, whatever else is.
func (s State) Leaks() bool {
	return slices.ContainsFunc(s.Findings, func(f Finding) bool {
		return f.Priority == dropPriority && f.Problem != Foreign
	})
}

// OccupiedError says that Close could not install the fence because of filters
// that it does not own.
type OccupiedError struct{ Findings []Finding }

// Error implements error.
func (e *OccupiedError) Error() string {
	return fmt.Sprintf("%s; remove it (tc filter del dev … %s prio %d) or move it behind priority %d",
		e.Findings[0], e.Findings[0].Direction, e.Findings[0].Priority, dropPriority)
}

// Close installs what is missing of the fence and repairs what was altered. It
// changes nothing on a fence that is closed, and at no moment does it let pass
// what was stopped before. On a link that carries traffic, MACsec and MKA
// frames pass at every moment of the first installation.
func Close(ifindex int, opts Options) error {
	if err := closeFence(ifindex, opts); err != nil {
		return fmt.Errorf("close the fence on interface %d: %w", ifindex, err)
	}
	return nil
}

func closeFence(ifindex int, opts Options) error {
	rules, err := opts.rules()
	if err != nil {
		return err
	}
	made, err := ensureHooks(ifindex)
	if err != nil {
		return err
	}
	var occupied []Finding
	var plans [2][]step
	for i, d := range directions() {
		filters, err := list(ifindex, d)
		if err != nil {
			return err
		}
		for _, f := range filters {
			made = made || f.ours() && f.madeHooks()
		}
		for _, r := range rules {
			st, fs := r.compare(filters, d)
			plans[i] = append(plans[i], st...)
			for _, f := range fs {
				if f.Problem == Occupied {
					occupied = append(occupied, f)
				}
			}
		}
	}
	// Also when some place is occupied: half a fence stops more than none.
	for i, d := range directions() {
		for _, s := range plans[i] {
			if err := s.do(ifindex, d, made); err != nil {
				return err
			}
		}
	}
	if len(occupied) > 0 {
		return &OccupiedError{occupied}
	}
	return nil
}

// Inspect reports the state of the fence on an interface; one that has none is
// not closed and has all filters missing.
func Inspect(ifindex int, opts Options) (State, error) {
	st, err := inspect(ifindex, opts)
	if err != nil {
		return State{}, fmt.Errorf("inspect the fence on interface %d: %w", ifindex, err)
	}
	return st, nil
}

func inspect(ifindex int, opts Options) (State, error) {
	rules, err := opts.rules()
	if err != nil {
		return State{}, err
	}
	st := State{Closed: true}
	// Without it, filters of an interface that does not exist are just none.
	if _, err := netlink.LinkByIndex(ifindex); err != nil {
		return State{}, err
	}
	for _, d := range directions() {
		filters, err := list(ifindex, d)
		if err != nil {
			return State{}, err
		}
		var fs []Finding
		for _, r := range rules {
			_, more := r.compare(filters, d)
			fs = append(fs, more...)
			st.Closed = st.Closed && len(more) == 0
		}
		dropped := &st.DroppedEgress
		if d == Ingress {
			dropped = &st.DroppedIngress
		}
		for _, f := range filters {
			if f.ours() && f.attrs.Priority == dropPriority {
				*dropped = f.counter()
			} else if f.before() {
				fs = append(fs, Finding{d, Foreign, f.attrs.Priority, f.String()})
			}
		}
		st.Findings = append(st.Findings, sorted(fs)...)
	}
	return st, nil
}

// Open removes the filters of the fence, the drop first, and the clsact qdisc
// if Close made it and nobody else uses it. It is not an error if there is
// nothing to remove.
func Open(ifindex int) error {
	if err := open(ifindex); err != nil {
		return fmt.Errorf("open the fence on interface %d: %w", ifindex, err)
	}
	return nil
}

func open(ifindex int) error {
	if _, err := netlink.LinkByIndex(ifindex); err != nil {
		return err
	}
	made, others := false, false
	for _, d := range directions() {
		filters, err := list(ifindex, d)
		if err != nil {
			return err
		}
		for _, f := range slices.Backward(filters) { // by priority, so the drop is first
			if !f.ours() {
				others = true
				continue
			}
			made = made || f.madeHooks()
			if err := f.remove(); err != nil {
				return err
			}
		}
	}
	if !made || others {
		return nil
	}
	err := netlink.QdiscDel(hooks(ifindex))
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remove the clsact qdisc: %w", err)
	}
	return nil
}

func hooks(ifindex int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}}
}

// ensureHooks adds the clsact qdisc, and tells whether it had to.
func ensureHooks(ifindex int) (made bool, err error) {
	link, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return false, err
	}
	qdiscs, err := netlink.QdiscList(link)
	if err != nil {
		return false, fmt.Errorf("list qdiscs: %w", err)
	}
	for _, q := range qdiscs {
		switch q.Type() {
		case "clsact":
			return false, nil
		case "ingress":
			return false, errors.New("it has an ingress qdisc, which leaves no place for the fence's clsact: remove it (tc qdisc del dev … ingress)")
		}
	}
	if err := netlink.QdiscAdd(hooks(ifindex)); err != nil {
		return false, fmt.Errorf("add a clsact qdisc (kernel module sch_ingress): %w", err)
	}
	return true, nil
}

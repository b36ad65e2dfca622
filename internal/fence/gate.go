package fence

import (
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strconv"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The gate is the fence of one direction: one filter of classic BPF before all
// others, whose program matches what must not pass and whose action drops that,
// or in mode monitor counts it and sends it on. What may pass goes on to the
// filters of others. One filter can be replaced at one stroke, and what comes
// behind it cannot undo it.

// gateRule is the gate of a direction as it should be.
func (o Options) gateRule(d Direction) (rule, error) {
	ps, err := o.passes(d)
	if err != nil {
		return rule{}, err
	}
	b, err := ops(program(ps, d))
	if err != nil {
		return rule{}, err
	}
	name := "drop all but MACsec and MKA"
	if o.Monitor {
		name = "count all but MACsec and MKA"
	}
	if o.Allow != 0 {
		name += ", " + o.Allow.String()
	}
	kind := kindBPF
	if o.classifier != "" {
		kind = o.classifier
	}
	return rule{name: name, kind: kind, protocol: unix.ETH_P_ALL, ops: b, verdict: o.last()}, nil
}

// Edition names what a fence with these options is made of: that of another version of
// Lever may be made of something else, which is then replaced though nobody touched it.
// Empty for options that there is no fence for.
func (o Options) Edition() string {
	h := fnv.New64a()
	for _, d := range directions() {
		r, err := o.gateRule(d)
		if err != nil {
			return ""
		}
		h.Write(r.ops)
	}
	return strconv.FormatUint(h.Sum64(), 16)
}

// last is the verdict on what must not pass.
func (o Options) last() rtnl.TcAct {
	if o.Monitor {
		return rtnl.TC_ACT_UNSPEC // on to the next filter, as with no fence
	}
	return rtnl.TC_ACT_SHOT
}

// A step changes one filter.
type step struct {
	remove   *filter // nil to add
	add      rule
	priority uint16
	handle   uint32
	instead  bool // of one that has this handle
	foreign  bool // what is removed is somebody else's
}

func (s step) do(t *tc, d Direction) error {
	if s.remove != nil {
		return t.remove(d, s.remove)
	}
	return t.add(d, s.priority, s.handle, s.add)
}

func (s step) change(d Direction) Change {
	c := Change{Direction: d, Priority: s.priority, Foreign: s.foreign}
	switch {
	case s.remove != nil:
		c.Priority, c.Text = s.remove.priority, "removed: "+s.remove.String()
	case s.instead:
		c.Text = "put right: " + s.add.name
	default:
		c.Text = "added: " + s.add.name
	}
	return c
}

// planGate finds out what is wrong with the gate of a direction and what to do
// about it: first what closes it, then what gets out of its way. Filters are
// those of chain 0; others see frames only when one of these sends them there.
func (o Options) planGate(filters []filter, d Direction, r rule) ([]step, []Finding) {
	var steps []step
	var findings []Finding
	report := func(p Problem, priority uint16, leak bool, text string) {
		findings = append(findings, Finding{Direction: d, Problem: p, Priority: priority, Text: text, Leak: leak})
	}
	place := firstPlace(filters, r)
	main := slices.IndexFunc(filters, func(f filter) bool { return f.ours() && f.fulfils(r) })
	right := main >= 0
	if !right {
		main = slices.IndexFunc(filters, func(f filter) bool { return f.ours() && f.kind == r.kind && f.protocol == r.protocol })
	}
	before := slices.Collect(foreignBefore(filters, main, place))
	beside := slices.ContainsFunc(before, func(i int) bool { return i < main && filters[i].priority == place })
	switch {
	case main < 0:
		steps = append(steps, step{add: r, priority: place, handle: ownHandle})
		report(Missing, place, !stopsAll(filters), r.name)
	case !right:
		f := &filters[main]
		steps = append(steps, step{add: r, priority: f.priority, handle: f.handle, instead: true})
		report(Altered, f.priority, true, fmt.Sprintf("%s instead of %s", f, r.name))
	case filters[main].priority > place:
		steps = append(steps, step{add: r, priority: place, handle: ownHandle})
		report(Altered, filters[main].priority, false, fmt.Sprintf("%s, although there is room at priority %d", r.name, place))
	case beside && !o.Monitor:
		// A classifier's newest program comes first (cls_bpf_change).
		steps = append(steps, step{add: r, priority: filters[main].priority, handle: filters[main].handle ^ besideFlag})
	}
	for _, i := range before {
		f := &filters[i]
		report(Foreign, f.priority, true, f.String())
		if !o.Monitor && (f.priority < place || f.hardware) { // of others the gate is in front in the end
			steps = append(steps, step{remove: f, foreign: true})
		}
	}
	// The last first: of a former Lever's filters that drops what the others pass.
	for i, f := range slices.Backward(filters) {
		if f.ours() && i != main {
			steps = append(steps, step{remove: &f})
			if main >= 0 {
				report(Altered, f.priority, i < main && !f.harmless(), f.String()+" is one too many")
			}
		}
	}
	return steps, findings
}

// firstPlace is the lowest priority that can have the rule's filter: one that is
// free, or has filters of the same kind and protocol (tcf_chain_tp_find).
func firstPlace(filters []filter, r rule) uint16 {
	for p := uint16(1); p < math.MaxUint16; p++ {
		if !slices.ContainsFunc(filters, func(f filter) bool {
			return f.priority == p && (f.kind != r.kind || f.protocol != r.protocol)
		}) {
			return p
		}
	}
	return math.MaxUint16
}

// foreignBefore yields filters of others that see frames before the one at main,
// or before one that would be added at place, and that may let them pass. Those that
// a NIC runs see them before any, wherever they are.
func foreignBefore(filters []filter, main int, place uint16) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for i := range filters {
			f := &filters[i]
			if behind := main >= 0 && i >= main || main < 0 && f.priority >= place; behind && !f.hardware {
				continue
			}
			if (f.matches() || passesBare(filters, i)) && !f.ours() && !f.harmless() && !yield(i) {
				return
			}
		}
	}
}

// passesBare tells whether the place at i has no filter and may pass frames all the same.
func passesBare(filters []filter, i int) bool {
	at := &filters[i]
	return at.handle == 0 && !at.inert() && !slices.ContainsFunc(filters, func(f filter) bool {
		return f.priority == at.priority && f.matches()
	})
}

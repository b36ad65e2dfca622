package fence

import (
	"errors"
	"fmt"
	"slices"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Rows are the fence of a direction where the kernel has no cls_bpf, and what a
// former Lever left: three filters of matchall that pass by EtherType. They see
// neither whether a MACsec frame is encrypted nor a destination address.

// The priorities of the rows.
const (
	macsecPriority = 3
	mkaPriority    = 4
	dropPriority   = 5
)

// lacksClassifier tells whether add failed because the kernel has no such kind
// of filter (tcf_proto_lookup_ops).
func lacksClassifier(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP)
}

// rows in the order of their priorities, from macsecPriority on.
func (o Options) rows() []rule {
	mka := o.EtherType
	if mka == 0 {
		mka = etherTypeEAPOL
	}
	last := "drop all else"
	if o.Monitor {
		last = "count all else"
	}
	return []rule{
		{name: "pass MACsec (88E5)", kind: kindMatchall, protocol: etherTypeMACsec, verdict: rtnl.TC_ACT_OK},
		{name: fmt.Sprintf("pass MKA (%04X)", mka), kind: kindMatchall, protocol: mka, verdict: rtnl.TC_ACT_OK},
		{name: last, kind: kindMatchall, protocol: unix.ETH_P_ALL, verdict: o.last()},
	}
}

// haveRows tells whether the rows are what there is of a fence.
func (o Options) haveRows(filters []filter) bool {
	if slices.ContainsFunc(filters, func(f filter) bool { return f.ours() && f.kind == kindBPF }) {
		return false
	}
	for i, r := range o.rows() {
		if !slices.ContainsFunc(filters, func(f filter) bool {
			return f.ours() && f.priority == macsecPriority+uint16(i) && f.fulfils(r)
		}) {
			return false
		}
	}
	return true
}

// stopsAll tells whether rows are there that stop what must not pass.
func stopsAll(filters []filter) bool {
	drop := Options{}.rows()[dropPriority-macsecPriority]
	main := slices.IndexFunc(filters, func(f filter) bool { return f.ours() && f.priority == dropPriority && f.fulfils(drop) })
	if main < 0 {
		return false
	}
	for range foreignBefore(filters, main, 0) {
		return false
	}
	return true
}

// planRows is planGate for rows.
func (o Options) planRows(filters []filter, d Direction) ([]step, []Finding) {
	var steps []step
	var findings []Finding
	for i, r := range o.rows() {
		st, fs := planRow(filters, d, macsecPriority+uint16(i), r, o.Monitor)
		steps, findings = append(steps, st...), append(findings, fs...)
	}
	main := slices.IndexFunc(filters, func(f filter) bool { return f.ours() && f.priority == dropPriority })
	for i := range foreignBefore(filters, main, dropPriority+1) {
		f := &filters[i]
		if !slices.ContainsFunc(findings, func(g Finding) bool { return g.Problem == Occupied && g.Priority == f.priority }) {
			findings = append(findings, Finding{Direction: d, Problem: Foreign, Priority: f.priority, Text: f.String(), Leak: true})
		}
		if !o.Monitor {
			steps = append(steps, step{remove: f, foreign: true})
		}
	}
	return steps, sorted(findings)
}

func planRow(filters []filter, d Direction, priority uint16, r rule, monitor bool) ([]step, []Finding) {
	leak := priority == dropPriority && !monitor
	finding := func(p Problem, text string) []Finding {
		return []Finding{{Direction: d, Problem: p, Priority: priority, Text: text, Leak: leak}}
	}
	for _, f := range filters {
		switch {
		case f.priority != priority || f.handle == 0:
		case !f.ours() && !monitor && f.matches() && !f.harmless():
			return nil, finding(Missing, r.name) // comes when the other is removed
		case !f.ours():
			return nil, finding(Occupied, fmt.Sprintf("%s is where the fence has to %s", &f, r.name))
		case f.fulfils(r):
			return nil, nil
		default:
			// cls_matchall cannot change in place, nor can the protocol of a
			// priority. Nothing that was stopped can pass in between: a drop
			// that is altered does not stop, and the drop follows a pass.
			return []step{{remove: &f}, {add: r, priority: priority, handle: f.handle}},
				finding(Altered, fmt.Sprintf("%s instead of %s", &f, r.name))
		}
	}
	return []step{{add: r, priority: priority, handle: ownHandle}}, finding(Missing, r.name)
}

// Package fence lets nothing but MACsec and MKA frames over an interface in the
// clear, and the announcements in which two ends tell each other which key they mean.
//
// A MACsec device protects what goes through it; its parent interface stays
// open to everybody. The fence is a tc filter on each of the parent's clsact
// hooks, ingress and egress, that drops what is not MACsec, MKA or allowed by
// name, VLAN-tagged frames included (but on the way in a tag of VLAN 0, which only gives
// a priority, changes nothing). What leaves as MACsec must have a SecTAG
// that says that it is encrypted, so that a device on which somebody turns
// encryption off sends nothing. In mode monitor the same filter counts and
// drops nothing. The kernel keeps it when the agent ends or is killed, and so
// the link stays closed.
//
// What belongs here: installing, checking, watching and removing those filters,
// in the network namespace of the calling thread. What does not: deciding which
// interface to fence, and when.
//
// # Filters of others
//
// The fence has the first place of each hook, so that in practice nobody comes
// before it: tc refuses another kind of filter there, and what has no priority
// of its own goes behind. Filters behind the fence are left alone. A filter of
// somebody else's that is there already, or gets there by a program of its own
// in the same place, is judged by what it can do. If it only drops, or sends on
// to the next filter, it stays and the fence comes after it. If it might let a
// plain frame pass (and a mirror, a redirect or an unknown program might), it
// cannot stay before a fence that is to be closed: the fence goes before it
// where the kernel lets both have one place, as with programs of cls_bpf, and
// elsewhere Close removes it and says so. Such filters come back only if
// somebody puts them back, behind the fence; plain frames never do. In mode
// monitor nothing is removed, and Inspect names what would be. A filter that a NIC
// runs comes before the fence wherever it is in the list.
//
// Whoever deletes the fence, with its qdisc or without, opens the link until
// the next Close; Watch tells of it at once.
//
// Things that pass a fence, all for root only: frames that an XDP program
// redirects, frames that a program attached by tcx (Linux 6.6) takes out of the
// way of the filters, and frames sent on a packet socket with
// PACKET_QDISC_BYPASS, by pktgen or by netpoll (which is netconsole), since the
// kernel runs the clsact hooks for none of them; and what the kernel does not send at
// all: RDMA, virtual functions, and filters of other interfaces by which a NIC
// redirects to this one.
// MACsec that is offloaded to a NIC does not pass: the parent sees it in plain.
// Packet sockets for all protocols see received frames before the fence
// (__netif_receive_skb_core), which is how captures show what it stops; those
// for one protocol see them behind it, and so MKA's own EtherType must pass for
// MKA to work. Pause frames are mostly the business of the NIC, which neither
// sends nor receives them by way of the fence.
package fence

import (
	"fmt"
	"slices"

	rtnl "github.com/vishvananda/netlink"
)

// Options of a fence; the zero value is the standard's.
type Options struct {
	// EtherType of the link's MKA frames; 0 means 888E.
	EtherType uint16
	// Allow passes link protocols beside MACsec and MKA.
	Allow Protocols
	// Monitor counts what would be dropped, and drops nothing.
	Monitor bool

	// classifier stands for cls_bpf in tests of kernels that have none.
	classifier string
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
		return rtnl.HANDLE_MIN_EGRESS
	}
	return rtnl.HANDLE_MIN_INGRESS
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
	// Foreign: somebody else's filter comes before the fence and may let frames
	// pass that the fence would drop.
	Foreign
	// Occupied: somebody else's filter has a priority that the fence needs. Only
	// where the kernel has no cls_bpf.
	Occupied
	// Weak: the kernel has no cls_bpf, so that the fence goes by EtherTypes alone.
	Weak
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
	case Weak:
		return "weak"
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
	// Leak is true if plain frames may pass because of it.
	Leak bool
}

// String is one line for a log or an operator.
func (f Finding) String() string {
	return fmt.Sprintf("%s priority %d: %s: %s", f.Direction, f.Priority, f.Problem, f.Text)
}

// Counter counts what the fence dropped, or with Options.Monitor would have,
// since its filter was last made or changed.
type Counter struct {
	Frames, Octets uint64
}

// State is what Inspect found.
type State struct {
	// Closed is true if nothing passes but what may: never with Options.Monitor.
	Closed bool
	// InPlace is true if Close would find nothing to do.
	InPlace bool
	// Findings, egress first, by priority.
	Findings []Finding
	// Dropped frames, or with Options.Monitor those that would have been; zero
	// where there is no fence.
	DroppedEgress, DroppedIngress Counter
}

// Leaks says whether there is a finding because of which plain frames may pass.
func (s State) Leaks() bool {
	return slices.ContainsFunc(s.Findings, func(f Finding) bool { return f.Leak })
}

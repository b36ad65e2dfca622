package fence

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// EtherTypes that the fence passes.
const (
	etherTypeMACsec = 0x88e5
	etherTypeEAPOL  = 0x888e
)

// The priorities are low numbers, so that little can come before the fence,
// but not the 1, 2 and 10 that people choose by hand.
const (
	macsecPriority = 3
	mkaPriority    = 4
	dropPriority   = 5
)

// Filters of the fence are known by their handle, whose lowest bit says that
// Close made the clsact qdisc as well: the kernel has no other place to keep
// that for the agent's next life.
const (
	ownHandle     = 0x1e7e4000
	madeHooksFlag = 1
)

// A rule is one filter of the fence as it should be.
type rule struct {
	priority uint16
	protocol uint16
	verdict  netlink.TcAct
}

func (r rule) String() string {
	switch r.priority {
	case macsecPriority:
		return "pass MACsec (88E5)"
	case mkaPriority:
		return fmt.Sprintf("pass MKA (%04X)", r.protocol)
	}
	return "drop all else"
}

// rules in the order of their priorities, the drop last.
func (o Options) rules() ([]rule, error) {
	mka := o.EtherType
	switch {
	case mka == 0:
		mka = etherTypeEAPOL
	case mka < 0x600:
		return nil, fmt.Errorf("MKA EtherType %04X: below 0600 is a length, no EtherType", mka)
	}
	switch mka {
	case unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP, unix.ETH_P_8021Q, unix.ETH_P_8021AD, unix.ETH_P_MPLS_UC, unix.ETH_P_MPLS_MC, unix.ETH_P_PPP_SES:
		return nil, fmt.Errorf("MKA EtherType %04X: it carries user traffic, which must not pass in the clear", mka)
	case etherTypeMACsec:
		return nil, fmt.Errorf("MKA EtherType %04X: it is MACsec's own", mka)
	}
	return []rule{
		{macsecPriority, etherTypeMACsec, netlink.TC_ACT_OK},
		{mkaPriority, mka, netlink.TC_ACT_OK},
		{dropPriority, unix.ETH_P_ALL, netlink.TC_ACT_SHOT},
	}, nil
}

// compare finds out what to do so that the filters have the rule, and what is
// wrong with them.
func (r rule) compare(filters []filter, d Direction) ([]step, []Finding) {
	finding := func(p Problem, text string) []Finding { return []Finding{{d, p, r.priority, text}} }
	for _, f := range filters {
		switch {
		case f.chain() != 0 || f.attrs.Priority != r.priority:
		case !f.ours():
			return nil, finding(Occupied, fmt.Sprintf("%s is where the fence has to %s", f, r))
		case f.fulfils(r):
			return nil, nil
		default:
			// cls_matchall cannot change in place, nor can the protocol of a
			// priority. Nothing that was stopped can pass in between: a drop
			// that is altered does not stop, and the drop follows a pass.
			return []step{{remove: &f, add: r}}, finding(Altered, fmt.Sprintf("%s instead of %s", f, r))
		}
	}
	return []step{{add: r}}, finding(Missing, r.String())
}

// A step changes one filter.
type step struct {
	remove *filter // nil for none
	add    rule
}

func (s step) do(ifindex int, d Direction, madeHooks bool) error {
	if s.remove != nil {
		if err := s.remove.remove(); err != nil {
			return err
		}
	}
	handle := uint32(ownHandle)
	if madeHooks {
		handle |= madeHooksFlag
	}
	err := netlink.FilterAdd(&netlink.MatchAll{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex,
			Parent:    d.parent(),
			Handle:    handle,
			Priority:  s.add.priority,
			Protocol:  s.add.protocol,
		},
		Actions: []netlink.Action{&netlink.GenericAction{ActionAttrs: netlink.ActionAttrs{Action: s.add.verdict}}},
	})
	if err != nil {
		return fmt.Errorf("%s: %s (kernel modules cls_matchall and act_gact): %w", d, s.add, err)
	}
	return nil
}

// A filter is one that the kernel has.
type filter struct {
	attrs *netlink.FilterAttrs
	is    netlink.Filter
}

// list gives the filters of one direction by priority; none if there is no
// clsact qdisc.
func list(ifindex int, d Direction) ([]filter, error) {
	// Not by netlink.LinkByIndex: the dump wants the index only.
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
	all, err := netlink.FilterList(link, d.parent())
	if err != nil {
		if errors.Is(err, unix.EINVAL) { // tc_dump_tfilter on no qdisc, some kernels
			return nil, nil
		}
		return nil, fmt.Errorf("list the %s filters: %w", d, err)
	}
	filters := make([]filter, 0, len(all))
	for _, f := range all {
		filters = append(filters, filter{f.Attrs(), f})
	}
	slices.SortStableFunc(filters, func(a, b filter) int { return cmp.Compare(a.attrs.Priority, b.attrs.Priority) })
	return filters, nil
}

func (f filter) chain() uint32 {
	if f.attrs.Chain == nil {
		return 0
	}
	return *f.attrs.Chain
}

// ours tells whether Close has made it.
func (f filter) ours() bool {
	return f.is.Type() == "matchall" && f.chain() == 0 &&
		f.attrs.Handle&^madeHooksFlag == ownHandle &&
		f.attrs.Priority >= macsecPriority && f.attrs.Priority <= dropPriority
}

func (f filter) madeHooks() bool { return f.attrs.Handle&madeHooksFlag != 0 }

// before tells whether it sees frames that the fence has not seen. Filters in
// other chains do so only when one of chain 0 sends frames there.
func (f filter) before() bool {
	return !f.ours() && f.chain() == 0 && f.attrs.Priority < dropPriority &&
		f.attrs.Priority != macsecPriority && f.attrs.Priority != mkaPriority // these are findings already
}

func (f filter) fulfils(r rule) bool {
	m, ok := f.is.(*netlink.MatchAll)
	if !ok || f.attrs.Protocol != r.protocol || len(m.Actions) != 1 {
		return false
	}
	a, ok := m.Actions[0].(*netlink.GenericAction)
	return ok && a.Action == r.verdict
}

func (f filter) counter() Counter {
	m, ok := f.is.(*netlink.MatchAll)
	if !ok {
		return Counter{}
	}
	for _, a := range m.Actions {
		if s := a.Attrs().Statistics; s != nil && s.Basic != nil {
			return Counter{Frames: s.Basic.Packets, Octets: s.Basic.Bytes}
		}
	}
	return Counter{}
}

func (f filter) remove() error {
	del := &netlink.MatchAll{FilterAttrs: *f.attrs}
	if err := netlink.FilterDel(del); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the filter %s: %w", f, err)
	}
	return nil
}

func (f filter) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s, protocol %04X, handle %#x", f.is.Type(), f.attrs.Protocol, f.attrs.Handle)
	if m, ok := f.is.(*netlink.MatchAll); ok {
		for _, a := range m.Actions {
			s.WriteString(", " + a.Type())
			if g, ok := a.(*netlink.GenericAction); ok {
				s.WriteString(" " + g.Action.String())
			}
		}
	}
	return s.String()
}

func sorted(fs []Finding) []Finding {
	slices.SortStableFunc(fs, func(a, b Finding) int { return cmp.Compare(a.Priority, b.Priority) })
	return fs
}

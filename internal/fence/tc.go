package fence

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	rtnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// messageBuffer is the size of a receive: what one message of the kernel's can
// have at most when it lists (NLMSG_GOODSIZE, raised to what the reader takes).
const messageBuffer = 32 << 10

// A rule is one filter of the fence as it should be.
type rule struct {
	name     string
	kind     string
	protocol uint16
	ops      []byte
	verdict  rtnl.TcAct
}

// tc asks and changes the filters of one interface.
type tc struct {
	conn  *netlink.Conn
	index int
}

func openTC(index int) (*tc, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{MessageBufferSize: messageBuffer})
	if err != nil {
		return nil, fmt.Errorf("open an rtnetlink socket: %w", err)
	}
	// So that an error has the kernel's own words; kernels before 4.12 do not.
	if err := conn.SetOption(netlink.ExtendedAcknowledge, true); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return nil, errors.Join(fmt.Errorf("ask for extended acknowledgements: %w", err), conn.Close())
	}
	return &tc{conn, index}, nil
}

func (t *tc) close() { _ = t.conn.Close() }

// list gives the filters of one direction in the order in which frames meet
// them; none if there is no clsact qdisc, or no such interface.
func (t *tc) list(d Direction) ([]filter, error) {
	answers, err := t.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETTFILTER, Flags: netlink.Request | netlink.Dump},
		Data:   tcmsg{index: t.index, parent: d.parent()}.encode(),
	})
	if err != nil {
		if errors.Is(err, unix.EINVAL) { // tc_dump_tfilter on no qdisc, some kernels
			return nil, nil
		}
		if errors.Is(err, unix.EMSGSIZE) { // fw_walk stops the dump where a filter was made without options
			err = fmt.Errorf("%w: the kernel cannot tell what comes after a filter of kind fw without handle and options; "+
				"remove it (tc filter del dev … %s pref …)", err, d)
		}
		return nil, fmt.Errorf("list the %s filters: %w", d, err)
	}
	filters := make([]filter, 0, len(answers))
	for _, m := range answers {
		if m.Header.Type != unix.RTM_NEWTFILTER {
			continue
		}
		f, err := decodeFilter(m.Data)
		if err != nil {
			return nil, fmt.Errorf("list the %s filters: %w", d, err)
		}
		filters = append(filters, f)
	}
	// Those of one priority stay as they came, which is as they are met.
	slices.SortStableFunc(filters, func(a, b filter) int { return cmp.Compare(a.priority, b.priority) })
	return filters, nil
}

// add adds a filter, or replaces the one that has its handle, at one stroke
// (cls_bpf_change; cls_matchall refuses).
func (t *tc) add(d Direction, priority uint16, handle uint32, r rule) error {
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.TCA_KIND, r.kind)
	ae.Nested(unix.TCA_OPTIONS, func(ae *netlink.AttributeEncoder) error {
		// A NIC that does it as well would not count.
		const skipHardware = 1 // TCA_CLS_FLAGS_SKIP_HW
		actions := uint16(nl.TCA_MATCHALL_ACT)
		if r.kind == kindBPF {
			actions = nl.TCA_BPF_ACT
			ae.Uint16(nl.TCA_BPF_OPS_LEN, uint16(len(r.ops)/unix.SizeofSockFilter))
			ae.Bytes(nl.TCA_BPF_OPS, r.ops)
			ae.Uint32(nl.TCA_BPF_FLAGS_GEN, skipHardware)
		} else {
			ae.Uint32(nl.TCA_MATCHALL_FLAGS, skipHardware)
		}
		ae.Nested(actions, func(ae *netlink.AttributeEncoder) error {
			ae.Nested(1, func(ae *netlink.AttributeEncoder) error { // the first of one
				ae.String(nl.TCA_ACT_KIND, kindGact)
				ae.Nested(nl.TCA_ACT_OPTIONS, func(ae *netlink.AttributeEncoder) error {
					ae.Bytes(nl.TCA_GACT_PARMS, gactParms(r.verdict))
					return nil
				})
				return nil
			})
			return nil
		})
		return nil
	})
	err := t.change(unix.RTM_NEWTFILTER, netlink.Create, tcmsg{
		index: t.index, handle: handle, parent: d.parent(), info: info(priority, r.protocol),
	}, ae)
	if err != nil {
		return fmt.Errorf("%s priority %d: %s (kernel modules cls_%s and act_gact): %w", d, priority, r.name, r.kind, err)
	}
	return nil
}

func (t *tc) remove(d Direction, f *filter) error {
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.TCA_KIND, f.kind)
	err := t.change(unix.RTM_DELTFILTER, 0, tcmsg{
		index: t.index, handle: f.handle, parent: d.parent(), info: info(f.priority, f.protocol),
	}, ae)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the filter %s priority %d (%s): %w", d, f.priority, f, err)
	}
	return nil
}

func (t *tc) change(typ netlink.HeaderType, flags netlink.HeaderFlags, m tcmsg, ae *netlink.AttributeEncoder) error {
	attributes, err := ae.Encode()
	if err != nil {
		return err
	}
	_, err = t.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: typ, Flags: netlink.Request | netlink.Acknowledge | flags},
		Data:   append(m.encode(), attributes...),
	})
	return err
}

// exists is asked when an interface has no filters: a LinkNotFoundError if the
// interface is not there either.
func (t *tc) exists() error {
	_, err := rtnl.LinkByIndex(t.index)
	return err
}

func (t *tc) hooks() *rtnl.Clsact {
	return &rtnl.Clsact{QdiscAttrs: rtnl.QdiscAttrs{
		LinkIndex: t.index,
		Handle:    rtnl.MakeHandle(0xffff, 0),
		Parent:    rtnl.HANDLE_CLSACT,
	}}
}

// ensureHooks adds the clsact qdisc, and tells whether it had to.
func (t *tc) ensureHooks() (made bool, err error) {
	link, err := rtnl.LinkByIndex(t.index)
	if err != nil {
		return false, err
	}
	qdiscs, err := rtnl.QdiscList(link)
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
	if err := rtnl.QdiscAdd(t.hooks()); err != nil {
		return false, fmt.Errorf("add a clsact qdisc (kernel module sch_ingress): %w", err)
	}
	return true, nil
}

func (t *tc) removeHooks() error {
	err := rtnl.QdiscDel(t.hooks())
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remove the clsact qdisc: %w", err)
	}
	return nil
}

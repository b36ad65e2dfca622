package fence

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/mdlayher/netlink"
	rtnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The kinds of filter that the fence is made of, as the kernel names them.
const (
	kindBPF      = "bpf"
	kindMatchall = "matchall"
	kindGact     = "gact" // of action
)

// Filters of the fence are known by their handle, whose lowest bit says that
// Close made the clsact qdisc as well: the kernel has no other place to keep
// that for the agent's next life. The next bit lets a filter be added beside
// the one that it is to replace.
const (
	ownHandle     = 0x1e7e4000
	madeHooksFlag = 1
	besideFlag    = 2
)

// A filter is one that the kernel has.
type filter struct {
	priority uint16
	protocol uint16 // EtherType
	chain    uint32
	kind     string
	handle   uint32 // 0: not a filter but the place (struct tcf_proto) that has filters of that kind
	table    bool   // not a filter but a hash table of u32
	ops      []byte // of classic bpf
	direct   bool   // a bpf program whose result is the verdict
	known    bool   // actions are all that it has
	hardware bool   // a NIC runs it, before all that the kernel runs
	actions  []action
}

type action struct {
	kind    string
	verdict rtnl.TcAct
	random  bool // another verdict now and then
	counter Counter
}

// ours tells whether Close has made it.
func (f *filter) ours() bool {
	return (f.kind == kindBPF || f.kind == kindMatchall) && f.chain == 0 && f.handle&^(madeHooksFlag|besideFlag) == ownHandle
}

func (f *filter) madeHooks() bool { return f.handle&madeHooksFlag != 0 }

// matches tells whether it is more than a place for filters.
func (f *filter) matches() bool { return f.handle != 0 && !f.table }

// inert tells whether a place of its kind passes nothing as long as it has no filter.
// One of tcindex passes everything then, and one of fw what has a mark (tcindex_classify,
// fw_classify).
func (f *filter) inert() bool {
	return f.table || f.kind == kindBPF || f.kind == kindMatchall || f.kind == "flower" || f.kind == "u32"
}

// harmless tells whether no frame can pass by it: it sends on what it matches to
// the next filter, or stops it. Of anything but a plain verdict that is not
// certain: a mirror's last word is "pipe", which ends the look at the filters
// (tcf_classify) as a pass does.
func (f *filter) harmless() bool {
	if !f.known || f.direct || len(f.actions) == 0 {
		return false // a filter without action passes what it matches
	}
	const trap rtnl.TcAct = 8 // TC_ACT_TRAP: to the CPU, and nowhere else
	for _, a := range f.actions {
		if a.kind != kindGact || a.random {
			return false
		}
		switch a.verdict {
		case rtnl.TC_ACT_UNSPEC, rtnl.TC_ACT_SHOT, rtnl.TC_ACT_STOLEN, rtnl.TC_ACT_QUEUED, trap:
		default:
			return false
		}
	}
	return true
}

// fulfils tells whether it does what a rule says, and nothing else.
func (f *filter) fulfils(r rule) bool {
	return f.kind == r.kind && f.protocol == r.protocol && bytes.Equal(f.ops, r.ops) && f.known && !f.direct &&
		len(f.actions) == 1 && f.actions[0].kind == kindGact && f.actions[0].verdict == r.verdict && !f.actions[0].random
}

func (f *filter) counter() Counter {
	if len(f.actions) == 0 {
		return Counter{}
	}
	return f.actions[0].counter
}

// String describes it to somebody who knows tc.
func (f *filter) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s, protocol %04X, handle %#x", f.kind, f.protocol, f.handle)
	if f.direct {
		s.WriteString(", direct-action")
	}
	if f.hardware {
		s.WriteString(", in hardware")
	}
	for _, a := range f.actions {
		s.WriteString(", " + a.kind)
		if a.kind == kindGact {
			s.WriteString(" " + a.verdict.String())
		}
	}
	if f.matches() && len(f.actions) == 0 && !f.direct {
		s.WriteString(", no action")
	}
	return s.String()
}

// tcmsg is struct tcmsg; of all requests and notices about tc.
type tcmsg struct {
	index                int
	handle, parent, info uint32
}

const tcmsgSize = 20

func (t tcmsg) encode() []byte {
	b := make([]byte, tcmsgSize)
	binary.NativeEndian.PutUint32(b[4:], uint32(t.index))
	binary.NativeEndian.PutUint32(b[8:], t.handle)
	binary.NativeEndian.PutUint32(b[12:], t.parent)
	binary.NativeEndian.PutUint32(b[16:], t.info)
	return b
}

func decodeTC(b []byte) (t tcmsg, attributes []byte, err error) {
	if len(b) < tcmsgSize {
		return t, nil, fmt.Errorf("a tc message of %d octets: too short", len(b))
	}
	return tcmsg{
		index:  int(int32(binary.NativeEndian.Uint32(b[4:]))),
		handle: binary.NativeEndian.Uint32(b[8:]),
		parent: binary.NativeEndian.Uint32(b[12:]),
		info:   binary.NativeEndian.Uint32(b[16:]),
	}, b[tcmsgSize:], nil
}

// info is what tcm_info has of a filter: its priority, and its protocol in
// network order.
func info(priority, protocol uint16) uint32 {
	return uint32(priority)<<16 | uint32(protocol<<8|protocol>>8)
}

// decodeFilter decodes an RTM_NEWTFILTER.
func decodeFilter(data []byte) (filter, error) {
	t, attributes, err := decodeTC(data)
	if err != nil {
		return filter{}, err
	}
	proto := uint16(t.info)
	f := filter{priority: uint16(t.info >> 16), protocol: proto<<8 | proto>>8, handle: t.handle}
	var options []byte
	err = eachAttribute(attributes, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.TCA_KIND:
			f.kind = ad.String()
		case unix.TCA_CHAIN:
			f.chain = ad.Uint32()
		case unix.TCA_OPTIONS:
			options = ad.Bytes()
		}
	})
	if err != nil {
		return filter{}, err
	}
	return f, f.decodeOptions(options)
}

// The flags that a classifier has of a filter that may be offloaded.
const (
	u32Flags   = 11     // TCA_U32_FLAGS
	inHardware = 1 << 2 // TCA_CLS_FLAGS_IN_HW
)

// decodeOptions knows the classifiers whose filters have nothing that could pass
// a frame but their actions.
func (f *filter) decodeOptions(options []byte) error {
	actions, ok := map[string]uint16{
		kindBPF: nl.TCA_BPF_ACT, kindMatchall: nl.TCA_MATCHALL_ACT, "flower": nl.TCA_FLOWER_ACT, "u32": nl.TCA_U32_ACT, "fw": nl.TCA_FW_ACT,
	}[f.kind]
	flags, offloads := map[string]uint16{
		kindBPF: nl.TCA_BPF_FLAGS_GEN, kindMatchall: nl.TCA_MATCHALL_FLAGS, "flower": nl.TCA_FLOWER_FLAGS, "u32": u32Flags,
	}[f.kind]
	f.known = ok
	return eachAttribute(options, func(ad *netlink.AttributeDecoder) {
		switch {
		case !ok:
		case ad.Type() == actions:
			ad.Do(f.decodeActions)
		case offloads && ad.Type() == flags:
			f.hardware = ad.Uint32()&inHardware != 0
		case f.kind == "u32" && ad.Type() == nl.TCA_U32_DIVISOR:
			f.table = true
		case f.kind == kindBPF && ad.Type() == nl.TCA_BPF_OPS:
			f.ops = ad.Bytes()
		case f.kind == kindBPF && ad.Type() == nl.TCA_BPF_FLAGS:
			f.direct = ad.Uint32()&nl.TCA_BPF_FLAG_ACT_DIRECT != 0
		}
	})
}

func (f *filter) decodeActions(b []byte) error {
	return eachAttribute(b, func(ad *netlink.AttributeDecoder) { // by their places
		ad.Do(func(b []byte) error {
			var a action
			var options []byte
			err := eachAttribute(b, func(ad *netlink.AttributeDecoder) {
				switch ad.Type() {
				case nl.TCA_ACT_KIND:
					a.kind = ad.String()
				case nl.TCA_ACT_OPTIONS:
					options = ad.Bytes()
				case nl.TCA_ACT_STATS:
					ad.Do(a.counter.decode)
				}
			})
			if err == nil && a.kind == kindGact {
				err = a.decodeGact(options)
			}
			f.actions = append(f.actions, a)
			return err
		})
	})
}

// gactSize is that of struct tc_gact, whose third word is the verdict.
const gactSize = 20

func gactParms(v rtnl.TcAct) []byte {
	b := make([]byte, gactSize)
	binary.NativeEndian.PutUint32(b[8:], uint32(v))
	return b
}

func (a *action) decodeGact(b []byte) error {
	return eachAttribute(b, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case nl.TCA_GACT_PARMS:
			if p := ad.Bytes(); len(p) >= gactSize {
				a.verdict = rtnl.TcAct(int32(binary.NativeEndian.Uint32(p[8:])))
			} else {
				a.kind = "gact of another shape"
			}
		case nl.TCA_GACT_PROB:
			a.random = true
		}
	})
}

// The parts of a counter (enum TCA_STATS_*).
const (
	statsBasic     = 1
	statsPackets64 = 8 // there if 32 bits do not hold them
)

func (c *Counter) decode(b []byte) error {
	return eachAttribute(b, func(ad *netlink.AttributeDecoder) {
		switch p := ad.Bytes(); {
		case ad.Type() == statsBasic && len(p) >= 12: // struct gnet_stats_basic
			c.Octets = binary.NativeEndian.Uint64(p)
			c.Frames = max(c.Frames, uint64(binary.NativeEndian.Uint32(p[8:])))
		case ad.Type() == statsPackets64 && len(p) == 8:
			c.Frames = binary.NativeEndian.Uint64(p)
		}
	})
}

func eachAttribute(b []byte, do func(*netlink.AttributeDecoder)) error {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return err
	}
	for ad.Next() {
		do(ad)
	}
	return ad.Err()
}

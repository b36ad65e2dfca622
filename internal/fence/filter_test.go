package fence

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	rtnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// message makes an RTM_NEWTFILTER as the kernel sends it.
func message(tb testing.TB, kind string, options func(*netlink.AttributeEncoder) error) []byte {
	tb.Helper()
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.TCA_KIND, kind)
	ae.Uint32(unix.TCA_CHAIN, 0)
	if options != nil {
		ae.Nested(unix.TCA_OPTIONS, options)
	}
	b, err := ae.Encode()
	if err != nil {
		tb.Fatal(err)
	}
	return append(tcmsg{index: 2, handle: ownHandle, parent: Egress.parent(), info: info(1, unix.ETH_P_ALL)}.encode(), b...)
}

// actions puts a gact with its counter into options.
func actions(typ uint16, verdict rtnl.TcAct, packets uint32, packets64 uint64) func(*netlink.AttributeEncoder) error {
	return func(ae *netlink.AttributeEncoder) error {
		ae.Nested(typ, func(ae *netlink.AttributeEncoder) error {
			ae.Nested(1, func(ae *netlink.AttributeEncoder) error {
				ae.String(nl.TCA_ACT_KIND, kindGact)
				ae.Nested(nl.TCA_ACT_OPTIONS, func(ae *netlink.AttributeEncoder) error {
					ae.Bytes(nl.TCA_GACT_PARMS, gactParms(verdict))
					return nil
				})
				ae.Nested(nl.TCA_ACT_STATS, func(ae *netlink.AttributeEncoder) error {
					basic := binary.NativeEndian.AppendUint64(nil, 700)
					basic = binary.NativeEndian.AppendUint32(basic, packets)
					ae.Bytes(statsBasic, append(basic, 0, 0, 0, 0))
					if packets64 > 0 {
						ae.Uint64(statsPackets64, packets64)
					}
					return nil
				})
				return nil
			})
			return nil
		})
		return nil
	}
}

func TestDecodeFilter(t *testing.T) {
	got, err := decodeFilter(message(t, kindBPF, func(ae *netlink.AttributeEncoder) error {
		ae.Bytes(nl.TCA_BPF_OPS, []byte("12345678"))
		return actions(nl.TCA_BPF_ACT, rtnl.TC_ACT_SHOT, 7, 0)(ae)
	}))
	want := filter{
		priority: 1, protocol: unix.ETH_P_ALL, kind: kindBPF, handle: ownHandle, ops: []byte("12345678"), known: true,
		actions: []action{{kind: kindGact, verdict: rtnl.TC_ACT_SHOT, counter: Counter{7, 700}}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(filter{}, action{})); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got, err = decodeFilter(message(t, kindMatchall, actions(nl.TCA_MATCHALL_ACT, rtnl.TC_ACT_UNSPEC, 1, 1<<32+1))); err != nil {
		t.Fatal(err)
	}
	if c := got.counter(); c.Frames != 1<<32+1 || got.actions[0].verdict != rtnl.TC_ACT_UNSPEC || !got.harmless() {
		t.Errorf("%s: %+v", &got, c)
	}
	if got, err = decodeFilter(message(t, "cgroup", actions(nl.TCA_MATCHALL_ACT, rtnl.TC_ACT_SHOT, 1, 0))); err != nil || got.harmless() {
		t.Errorf("a classifier that nobody knows: %s, %v, harmless %v", &got, err, got.harmless())
	}
}

// The flags of an offloaded filter have another number in each classifier.
func TestFilterInHardware(t *testing.T) {
	for kind, flags := range map[string]uint16{
		kindBPF: nl.TCA_BPF_FLAGS_GEN, kindMatchall: nl.TCA_MATCHALL_FLAGS, "flower": nl.TCA_FLOWER_FLAGS, "u32": u32Flags,
	} {
		for bits, want := range map[uint32]bool{4: true, 2 | 4: true, 8: false, 1 | 8: false, 0: false} {
			f, err := decodeFilter(message(t, kind, func(ae *netlink.AttributeEncoder) error { ae.Uint32(flags, bits); return nil }))
			if err != nil || f.hardware != want {
				t.Errorf("%s, flags %#x: in hardware %v, want %v; %v", kind, bits, f.hardware, want, err)
			}
		}
	}
}

func FuzzDecodeFilter(f *testing.F) {
	f.Add(message(f, kindBPF, actions(nl.TCA_BPF_ACT, rtnl.TC_ACT_SHOT, 1, 2)))
	f.Add(message(f, kindMatchall, actions(nl.TCA_MATCHALL_ACT, rtnl.TC_ACT_OK, 1, 0)))
	f.Add(message(f, "u32", nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeFilter(b)
		if err != nil {
			return
		}
		_ = got.String()
		if got.harmless() && len(got.actions) == 0 {
			t.Errorf("%+v passes all that it matches", got)
		}
	})
}

package fence

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Protocols are link protocols that may pass in the clear beside MACsec and MKA.
// Each tells of its link only, carries nothing for anybody else, and is bound
// here to group addresses that bridges do not forward (IEEE 802.1Q table 8-1).
type Protocols uint8

// The protocols that Options can allow.
const (
	LLDP  Protocols = 1 << iota // IEEE 802.1AB: EtherType 88CC to 01-80-C2-00-00-0E, -03 or -00
	LACP                        // IEEE 802.1AX: EtherType 8809 to 01-80-C2-00-00-02, slow protocol 1 and no other
	Pause                       // IEEE 802.3 31B, and 802.1Q priority-based flow control: EtherType 8808 to 01-80-C2-00-00-01
	known = LLDP | LACP | Pause
)

// String lists the names, as in the inventory's allow.
func (p Protocols) String() string {
	var names []string
	for _, n := range []struct {
		is   Protocols
		name string
	}{{LLDP, "lldp"}, {LACP, "lacp"}, {Pause, "pause"}} {
		if p&n.is != 0 {
			names = append(names, n.name)
		}
	}
	if p&^known != 0 {
		names = append(names, fmt.Sprintf("%#x", uint8(p&^known)))
	}
	return strings.Join(names, ", ")
}

// EtherTypes that the fence knows.
const (
	etherTypeMACsec = 0x88e5
	etherTypeEAPOL  = 0x888e
	etherTypeLLDP   = 0x88cc
	etherTypeSlow   = 0x8809
	etherTypePause  = 0x8808
)

// A field of a frame, and what it may be.
type field struct {
	offset, size uint32
	mask         uint32 // 0 for all of it
	oneOf        []uint32
	// least is how long the frame must be for the fields that follow, instead of a
	// field: what other passes need may be less.
	least uint32
}

// A pass is a kind of frames that may pass: those that meet every field.
type pass []field

func etherType(t uint16) field { return field{offset: 12, size: 2, oneOf: []uint32{uint32(t)}} }

// group is a destination 01-80-C2-00-00-XX.
func group(last ...uint32) []field {
	return []field{{offset: 0, size: 4, oneOf: []uint32{0x0180c200}}, {offset: 4, size: 2, oneOf: last}}
}

// passes are the frames that may pass in one direction.
func (o Options) passes(d Direction) ([]pass, error) {
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
	if o.Allow&^known != 0 {
		return nil, fmt.Errorf("allow %s: only lldp, lacp and pause may pass beside MACsec and MKA", o.Allow)
	}
	ps := []pass{{etherType(etherTypeMACsec)}, {etherType(mka)}}
	if d == Egress {
		// What leaves must be what it says: a SecTAG (IEEE 802.1AE 9.5) of
		// version 0 with E and C, so encrypted and not just protected, and an
		// EAPOL packet of type 5, MKA (IEEE 802.1X 11.3). What comes in needs no
		// such look: it is not we who disclose a frame that is only authenticated,
		// and the device takes it or, being strict, does not.
		ps[0] = append(ps[0], field{offset: 14, size: 1, mask: 0x8c, oneOf: []uint32{0x0c}})
		ps[1] = append(ps[1], field{offset: 15, size: 1, oneOf: []uint32{5}})
		if mka == etherTypeEAPOL {
			ps = append(ps, announcement())
		}
	}
	if o.Allow&LLDP != 0 {
		ps = append(ps, append(pass{etherType(etherTypeLLDP)}, group(0x000e, 0x0003, 0x0000)...))
	}
	if o.Allow&LACP != 0 {
		ps = append(ps, append(pass{etherType(etherTypeSlow), {offset: 14, size: 1, oneOf: []uint32{1}}}, group(0x0002)...))
	}
	if o.Allow&Pause != 0 {
		ps = append(ps, append(pass{etherType(etherTypePause), {offset: 14, size: 2, oneOf: []uint32{0x0001, 0x0101}}}, group(0x0001)...))
	}
	return ps, nil
}

// announcement is the one other EAPOL packet that may leave: an announcement, of
// type 6, of fewer than 512 octets, whose first TLV is organizationally specific
// (type 127) and by its organization and subtype ours. It carries the id of a key
// to the far end, and goes where MKA goes (internal/pae, Announcement).
func announcement() pass {
	return append(append(pass{etherType(etherTypeEAPOL)}, group(0x0003)...),
		field{offset: 15, size: 1, oneOf: []uint32{6}},
		field{least: 24},
		field{offset: 16, size: 2, mask: 0xfe00, oneOf: []uint32{0}},
		field{offset: 18, size: 1, mask: 0xfe, oneOf: []uint32{127 << 1}},
		field{offset: 20, size: 4, oneOf: []uint32{0x4a4c5601}})
}

// What a program answers: cls_bpf_classify takes 0 for "not mine", and all ones
// for "mine", whose action then follows.
const (
	mayPass = 0
	mustNot = 0xffffffff
)

// program matches the frames that must not pass. At both hooks a program of
// cls_bpf sees the frame from its destination address on (cls_bpf_classify).
func program(ps []pass, d Direction) []bpf.Instruction {
	// A load beyond the end of the frame ends a program with 0, which here means
	// pass, so the end is looked at first. A tag that lies beside the frame, as
	// from a VLAN device or after skb_vlan_untag, is not among its octets.
	code := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: leastFrame(ps), SkipTrue: 1},
		bpf.RetConstant{Val: mustNot},
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
	}
	untagged := bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1}
	if d == Ingress {
		// One with VLAN 0 only gives a priority, and the kernel takes it off
		// (__netif_receive_skb_core): IEEE 802.1X has EAPOL received with it.
		untagged.SkipTrue = 4
		code = append(code, untagged,
			bpf.LoadExtension{Num: bpf.ExtVLANTag},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xfff},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1})
	} else {
		code = append(code, untagged)
	}
	return append(append(code, bpf.RetConstant{Val: mustNot}), body(ps)...)
}

// leastFrame is how long a frame must be to have all the fields, but those behind a
// look at its length.
func leastFrame(ps []pass) uint32 {
	n := uint32(14)
	for _, p := range ps {
		for _, f := range p {
			if f.least > 0 {
				break
			}
			n = max(n, f.offset+f.size)
		}
	}
	return n
}

// body looks at the octets of a frame that has all the fields.
func body(ps []pass) []bpf.Instruction {
	var code []bpf.Instruction
	for _, p := range ps {
		code = append(code, p.code()...)
	}
	return append(code, bpf.RetConstant{Val: mustNot})
}

// code answers that a frame may pass if it is of that kind, and otherwise goes
// on behind itself.
func (p pass) code() []bpf.Instruction {
	code := []bpf.Instruction{bpf.RetConstant{Val: mayPass}}
	for _, f := range slices.Backward(p) {
		code = f.before(code)
	}
	return code
}

// before puts the look at a field before the code for frames that meet it.
func (f field) before(then []bpf.Instruction) []bpf.Instruction {
	if f.least > 0 {
		return append([]bpf.Instruction{
			bpf.LoadExtension{Num: bpf.ExtLen},
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: f.least, SkipFalse: uint8(len(then))},
		}, then...)
	}
	code := []bpf.Instruction{bpf.LoadAbsolute{Off: f.offset, Size: int(f.size)}}
	if f.mask != 0 {
		code = append(code, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: f.mask})
	}
	for i, v := range f.oneOf {
		left := uint8(len(f.oneOf) - 1 - i)
		j := bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: left}
		if left == 0 {
			j.SkipFalse = uint8(len(then)) // some 20 at most, of 255
		}
		code = append(code, j)
	}
	return append(code, then...)
}

// ops is a program as TCA_BPF_OPS has it: an array of struct sock_filter.
func ops(code []bpf.Instruction) ([]byte, error) {
	raw, err := bpf.Assemble(code)
	if err != nil {
		return nil, fmt.Errorf("assemble the fence's program: %w", err)
	}
	var b []byte
	for _, r := range raw {
		b = binary.NativeEndian.AppendUint16(b, r.Op)
		b = append(b, r.Jt, r.Jf)
		b = binary.NativeEndian.AppendUint32(b, r.K)
	}
	return b, nil
}

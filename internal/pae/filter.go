package pae

import (
	"encoding/binary"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Where things are in an MKPDU in EAPOL in Ethernet, and how little there can
// be of them (IEEE 802.1X-2020 11.3 and figure 11-8).
const (
	sourceAt    = 6
	etherTypeAt = 12
	eapolTypeAt = 15
	eapolLenAt  = 16
	bodyAt      = 18
	basicLenAt  = bodyAt + 2
	cknAt       = bodyAt + 32

	eapolMKA   = 5
	minBody    = 32
	setHeader  = 4
	basicFixed = 28 // octets of the Basic parameter set's body besides the CKN
	maxCKN     = 32
	icvLen     = 16
)

// basicLen is the scratch register that holds the length of the Basic set.
const basicLen = 0

// The largest sets that the jumps of classic BPF, of 255 instructions at most,
// reach over, and with which a program has less than BPF_MAXINSNS.
const (
	maxGroups = 16
	maxPeers  = 60
	maxCKNs   = 64
)

// program is what the kernel runs on each frame for a lane (see Lane). The
// filters of all lanes together let through whatever mka.Open would accept.
func (c *Conn) program(l Lane, f Focus) []bpf.Instruction {
	return append(ours(), c.classify(l, f)...)
}

// classify is program without what depends on more than the frame.
func (c *Conn) classify(l Lane, f Focus) []bpf.Instruction {
	p := mkpdu(c.etherType, c.groups)
	accept := []bpf.Instruction{bpf.RetConstant{Val: MaxFrame}}
	reject := []bpf.Instruction{bpf.RetConstant{Val: 0}}
	switch l {
	case Peers:
		return append(p, isCKN(f.CKNs, isSource(f.Peers, accept, reject), reject)...)
	case Known:
		return append(p, isCKN(f.CKNs, isSource(f.Peers, reject, accept), reject)...)
	case Strangers:
	}
	return append(p, isCKN(f.CKNs, reject, accept)...)
}

// ours is the start of a classic BPF program that rejects frames for others:
// those of a VLAN, and those to other stations that a promiscuous interface
// hears. The kernel takes the tag off and, for a VLAN that has no device, marks
// the frame as for another host before a socket for one protocol sees it
// (__netif_receive_skb_core); from the frame itself it cannot be told. A tag
// with VLAN 0 only gives a priority and is no more than taken off: IEEE 802.1X
// has EAPOL received with and without it.
func ours() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 2},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.PACKET_OTHERHOST, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}
}

// mkpdu goes on after it with frames of the EtherType to one of the groups that
// are EAPOL-MKA and whose lengths agree up to the CKN and the ICV, and rejects
// all others: they are the checks of 802.1X-2020 11.11.2 that need no key. A
// load from beyond the frame's end rejects it, too.
func mkpdu(etherType uint16, groups [][6]byte) []bpf.Instruction {
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: etherTypeAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(etherType), SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.LoadAbsolute{Off: eapolTypeAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: eapolMKA, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}
	p = append(p, isAddress(0, groups, nil, []bpf.Instruction{bpf.RetConstant{Val: 0}})...)
	return append(p,
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: MaxFrame, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		// The EAPOL body is whole words, and all there.
		bpf.LoadAbsolute{Off: eapolLenAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: minBody, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: 3, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: bodyAt},
		bpf.TAX{},
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.JumpIfX{Cond: bpf.JumpGreaterOrEqual, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		// The Basic set has a CKN of 1 to 32 octets.
		bpf.LoadAbsolute{Off: basicLenAt, Size: 2},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xfff},
		bpf.StoreScratch{Src: bpf.RegA, N: basicLen},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: basicFixed + 1, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: basicFixed + maxCKN, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		// It ends, padded, before the ICV. X is still where the body ends.
		bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 3},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: ^uint32(3)},
		bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: bodyAt + setHeader + icvLen},
		bpf.JumpIfX{Cond: bpf.JumpLessOrEqual, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	)
}

// isCKN goes on with then if the frame's CKN is one of those, else with
// otherwise; both end in a return.
func isCKN(ckns []string, then, otherwise []bpf.Instruction) []bpf.Instruction {
	blocks := make([][]bpf.Instruction, len(ckns))
	size := len(otherwise)
	for i := len(ckns) - 1; i >= 0; i-- {
		blocks[i] = cknBlock(ckns[i], uint32(size))
		size += len(blocks[i])
	}
	var p []bpf.Instruction
	for _, b := range blocks {
		p = append(p, b...)
	}
	return append(append(p, otherwise...), then...)
}

// cknBlock skips, past its own end, as many instructions as it is told if the
// frame has this CKN.
func cknBlock(ckn string, skip uint32) []bpf.Instruction {
	p := []bpf.Instruction{bpf.LoadScratch{Dst: bpf.RegA, N: basicLen}}
	miss := []int{1} // the places of jumps to the block's end
	p = append(p, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(basicFixed + len(ckn))})
	for at := 0; at < len(ckn); {
		size, val := 4, uint32(0)
		for size > len(ckn)-at {
			size /= 2
		}
		for _, o := range []byte(ckn[at : at+size]) {
			val = val<<8 | uint32(o)
		}
		miss = append(miss, len(p)+1)
		p = append(p,
			bpf.LoadAbsolute{Off: uint32(cknAt + at), Size: size},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: val})
		at += size
	}
	p = append(p, bpf.Jump{Skip: skip})
	for _, at := range miss {
		j := p[at].(bpf.JumpIf)
		j.SkipTrue = uint8(len(p) - at - 1)
		p[at] = j
	}
	return p
}

// isSource goes on with then if the frame's source is one of those, else with
// otherwise.
func isSource(addresses [][6]byte, then, otherwise []bpf.Instruction) []bpf.Instruction {
	return isAddress(sourceAt, addresses, then, otherwise)
}

func isAddress(at uint32, addresses [][6]byte, then, otherwise []bpf.Instruction) []bpf.Instruction {
	const block = 4
	var p []bpf.Instruction
	for i, a := range addresses {
		rest := (len(addresses)-1-i)*block + len(otherwise)
		p = append(p,
			bpf.LoadAbsolute{Off: at, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(a[:]), SkipTrue: 2},
			bpf.LoadAbsolute{Off: at + 4, Size: 2},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(binary.BigEndian.Uint16(a[4:])), SkipTrue: uint8(rest)})
	}
	return append(append(p, otherwise...), then...)
}

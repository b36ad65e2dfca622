package pae

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// An MKPDU in EAPOL in Ethernet: 14 octets of header, 4 of EAPOL, and a body of
// at least 32, of which no shorter one can have an ICV and a Basic parameter set.
const (
	minFrame    = 14 + 4 + 32
	eapolMKA    = 5
	etherTypeAt = 12
	eapolTypeAt = 15
)

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

// mkpdu accepts frames of the EtherType that are EAPOL-MKA and neither too
// short nor too long to be one.
func mkpdu(etherType uint16) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: minFrame, SkipTrue: 6},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: MaxFrame, SkipTrue: 5},
		bpf.LoadAbsolute{Off: etherTypeAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(etherType), SkipTrue: 3},
		bpf.LoadAbsolute{Off: eapolTypeAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: eapolMKA, SkipTrue: 1},
		bpf.RetConstant{Val: MaxFrame},
		bpf.RetConstant{Val: 0},
	}
}

package mka

import "encoding/binary"

const sakUseLen = 40

// SAKUse says which SAKs the sender receives and transmits with,
// IEEE 802.1X-2020 figure 11-10. LPNs are the low 32 bits; see [XPN] for the
// rest.
type SAKUse struct {
	Present bool
	// Empty is a set without a body: MACsec is not supported. The keys and the
	// ANs are then zero.
	Empty bool

	LatestAN           AN
	LatestTx, LatestRx bool
	OldAN              AN
	OldTx, OldRx       bool

	PlainTx, PlainRx bool
	DelayProtect     bool

	Latest    KI
	LatestLPN uint32
	Old       KI
	OldLPN    uint32
}

func (s *SAKUse) append(b []byte) ([]byte, error) {
	if !s.Present {
		return b, nil
	}
	if s.LatestAN > 3 || s.OldAN > 3 {
		return nil, unfit(SetSAKUse, "latest AN %d and old AN %d, want 0 to 3", s.LatestAN, s.OldAN)
	}
	o1 := s.LatestAN<<6 | bit(s.LatestTx, 0x20) | bit(s.LatestRx, 0x10) |
		s.OldAN<<2 | bit(s.OldTx, 0x02) | bit(s.OldRx, 0x01)
	flags := bit(s.PlainTx, 0x80) | bit(s.PlainRx, 0x40) | bit(s.DelayProtect, 0x10)
	if s.Empty {
		return appendSetHeader(b, SetSAKUse, o1, flags, 0), nil
	}
	b = appendSetHeader(b, SetSAKUse, o1, flags, sakUseLen)
	b = append(b, s.Latest.MI[:]...)
	b = binary.BigEndian.AppendUint32(b, s.Latest.KN)
	b = binary.BigEndian.AppendUint32(b, s.LatestLPN)
	b = append(b, s.Old.MI[:]...)
	b = binary.BigEndian.AppendUint32(b, s.Old.KN)
	return binary.BigEndian.AppendUint32(b, s.OldLPN), nil
}

func (s *SAKUse) decode(set []byte, at int) error {
	if s.Present {
		return nil
	}
	if n := len(set) - setHeader; n != 0 && n < sakUseLen {
		return refuse(SetSAKUse, at, ErrLength, "body of %d octets, want 0 or %d", n, sakUseLen)
	}
	*s = SAKUse{
		Present:  true,
		LatestAN: set[1] >> 6, LatestTx: set[1]&0x20 != 0, LatestRx: set[1]&0x10 != 0,
		OldAN: set[1] >> 2 & 3, OldTx: set[1]&0x02 != 0, OldRx: set[1]&0x01 != 0,
		PlainTx: set[2]&0x80 != 0, PlainRx: set[2]&0x40 != 0, DelayProtect: set[2]&0x10 != 0,
	}
	if len(set) == setHeader {
		s.Empty = true
		return nil
	}
	s.Latest = KIFromBytes([16]byte(set[4:20]))
	s.LatestLPN = binary.BigEndian.Uint32(set[20:])
	s.Old = KIFromBytes([16]byte(set[24:40]))
	s.OldLPN = binary.BigEndian.Uint32(set[40:])
	return nil
}

package mka

import "encoding/binary"

const xpnLen = 8

// XPN is the set that version 2 added: the high halves of the LPNs of
// [SAKUse], and a request to suspend MKA.
type XPN struct {
	Present       bool
	Suspension    uint8 // seconds, 0 means none
	LatestLPNHigh uint32
	OldLPNHigh    uint32
}

func (s *XPN) append(b []byte) []byte {
	if !s.Present {
		return b
	}
	b = appendSetHeader(b, SetXPN, s.Suspension, 0, xpnLen)
	b = binary.BigEndian.AppendUint32(b, s.LatestLPNHigh)
	return binary.BigEndian.AppendUint32(b, s.OldLPNHigh)
}

func (s *XPN) decode(set []byte, at int) error {
	if s.Present {
		return nil
	}
	if n := len(set) - setHeader; n < xpnLen {
		return refuse(SetXPN, at, ErrLength, "body of %d octets, want %d", n, xpnLen)
	}
	*s = XPN{
		Present:       true,
		Suspension:    set[1],
		LatestLPNHigh: binary.BigEndian.Uint32(set[4:]),
		OldLPNHigh:    binary.BigEndian.Uint32(set[8:]),
	}
	return nil
}

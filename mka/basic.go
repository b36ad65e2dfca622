package mka

import "encoding/binary"

// The MACsec capabilities that a Basic set can announce.
const (
	CapabilityNone            = 0 // MACsec is not implemented
	CapabilityIntegrity       = 1 // integrity without confidentiality
	CapabilityConfidentiality = 2 // and confidentiality with offset 0
	CapabilityOffsets         = 3 // and confidentiality with offsets 0, 30 and 50
)

// Basic is the first set of every MKPDU, IEEE 802.1X-2020 figure 11-8.
type Basic struct {
	Version       uint8 // of MKA: 1 (2010), 2 (2014, XPN), 3 (2018)
	Priority      uint8 // of the key server election, the lower the better
	KeyServer     bool
	MACsecDesired bool
	Capability    uint8 // CapabilityNone to CapabilityOffsets
	SCI           SCI
	MI            MI
	MN            uint32
	CKN           CKN // for Append alone: Decode leaves it empty, see Envelope.CKN
}

func (s *Basic) append(b []byte) ([]byte, error) {
	if len(s.CKN) < 1 || len(s.CKN) > maxCKN {
		return nil, unfit(SetBasic, "CKN of %d octets, want 1 to %d", len(s.CKN), maxCKN)
	}
	if s.Capability > CapabilityOffsets {
		return nil, unfit(SetBasic, "MACsec capability %d, want 0 to 3", s.Capability)
	}
	start := len(b)
	flags := bit(s.KeyServer, 0x80) | bit(s.MACsecDesired, 0x40) | s.Capability<<4
	b = appendSetHeader(b, SetType(s.Version), s.Priority, flags, basicFixed+len(s.CKN))
	b = append(b, s.SCI[:]...)
	b = append(b, s.MI[:]...)
	b = binary.BigEndian.AppendUint32(b, s.MN)
	b = append(b, algorithmAgility[:]...)
	b = append(b, s.CKN...)
	return pad(b, start), nil
}

// decode reads a set whose length Open has checked.
func (s *Basic) decode(set []byte) {
	*s = Basic{
		Version:       set[0],
		Priority:      set[1],
		KeyServer:     set[2]&0x80 != 0,
		MACsecDesired: set[2]&0x40 != 0,
		Capability:    set[2] >> 4 & 3,
		SCI:           SCI(set[4:12]),
		MI:            MI(set[12:24]),
		MN:            binary.BigEndian.Uint32(set[24:]),
	}
}

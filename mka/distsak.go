package mka

import "encoding/binary"

const (
	// shortDistSAK is a body without a cipher suite, which means GCM-AES-128:
	// the key number and 24 octets.
	shortDistSAK = 4 + 24
	// longDistSAKFixed is a body with one, before the wrapped SAK.
	longDistSAKFixed = 4 + 8
	minLongDistSAK   = longDistSAKFixed + 24
)

// Confidentiality offsets as the Distributed SAK encodes them.
const (
	ConfidentialityNone = 0 // integrity alone
	Confidentiality0    = 1 // everything after the SecTAG is encrypted
	Confidentiality30   = 2
	Confidentiality50   = 3
)

// DistributedSAK is a SAK from the key server, IEEE 802.1X-2020 figures 11-11
// and 11-12.
type DistributedSAK struct {
	Present bool
	// Plain is a set without a body: the key server wants no MACsec.
	Plain bool

	AN                    AN
	ConfidentialityOffset uint8 // ConfidentialityNone to Confidentiality50: a code, not octets
	KN                    uint32
	Suite                 CipherSuite
	Wrapped               []byte // by WrapSAK: 24 or 40 octets; after Decode it aliases the frame
}

func (s *DistributedSAK) append(b []byte) ([]byte, error) {
	if !s.Present {
		return b, nil
	}
	if s.AN > 3 || s.ConfidentialityOffset > Confidentiality50 {
		return nil, unfit(SetDistributedSAK, "AN %d and confidentiality offset code %d, want 0 to 3", s.AN, s.ConfidentialityOffset)
	}
	o1 := s.AN<<6 | s.ConfidentialityOffset<<4
	if s.Plain {
		return appendSetHeader(b, SetDistributedSAK, o1, 0, 0), nil
	}
	if !s.Suite.Known() || len(s.Wrapped) != s.Suite.KeyLen()+8 {
		return nil, unfit(SetDistributedSAK, "%s with a wrapped SAK of %d octets, want a known suite and its key's length and 8", s.Suite, len(s.Wrapped))
	}
	suite := s.Suite.normalised()
	n := longDistSAKFixed + len(s.Wrapped)
	if suite == GCMAES128 {
		n = shortDistSAK
	}
	b = appendSetHeader(b, SetDistributedSAK, o1, 0, n)
	b = binary.BigEndian.AppendUint32(b, s.KN)
	if suite != GCMAES128 {
		b = binary.BigEndian.AppendUint64(b, uint64(suite))
	}
	return append(b, s.Wrapped...), nil
}

func (s *DistributedSAK) decode(set []byte, at int) error {
	if s.Present {
		return nil
	}
	body := set[setHeader:]
	d := DistributedSAK{Present: true, AN: set[1] >> 6, ConfidentialityOffset: set[1] >> 4 & 3}
	switch n := len(body); {
	case n == 0:
		d.Plain = true
	case n == shortDistSAK:
		d.Suite, d.Wrapped = GCMAES128, body[4:]
	case n >= minLongDistSAK:
		d.Suite = CipherSuite(binary.BigEndian.Uint64(body[4:])).normalised()
		d.Wrapped = body[longDistSAKFixed:]
		if want := d.Suite.KeyLen() + 8; d.Suite.Known() {
			if len(d.Wrapped) < want {
				return refuse(SetDistributedSAK, at, ErrLength, "wrapped SAK of %d octets, want %d for %s", len(d.Wrapped), want, d.Suite)
			}
			d.Wrapped = d.Wrapped[:want:want]
		}
	default:
		return refuse(SetDistributedSAK, at, ErrLength, "body of %d octets, want 0, %d, or at least %d", n, shortDistSAK, minLongDistSAK)
	}
	if !d.Plain {
		d.KN = binary.BigEndian.Uint32(body)
	}
	*s = d
	return nil
}

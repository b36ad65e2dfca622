package mka

import "encoding/binary"

const (
	maxTLVType  = 1<<7 - 1
	maxTLVValue = 1<<9 - 1

	// TLVCipherSuites is the type of the TLV that lists MACsec cipher suites.
	TLVCipherSuites = 112

	suiteOfferLen = 10
)

// TLV is one element of an Announcement.
type TLV struct {
	Type  uint8  // 0 to 127
	Value []byte // at most 511 octets; after Decode it aliases the frame
}

// Announcement carries the TLVs of an EAPOL-Announcement inside an MKPDU,
// IEEE 802.1X-2020 figure 11-15.
type Announcement struct {
	Present bool
	// TLVs are reused by Decode: they belong to the MKPDU.
	TLVs []TLV
}

// SuiteOffer is a cipher suite in an Announcement.
type SuiteOffer struct {
	Suite      CipherSuite
	Capability uint16 // its low two bits are as in Basic.Capability
}

// NewCipherSuitesTLV encodes offers; [Announcement.CipherSuites] reads them.
func NewCipherSuitesTLV(offers ...SuiteOffer) TLV {
	v := make([]byte, 0, len(offers)*suiteOfferLen)
	for _, o := range offers {
		v = binary.BigEndian.AppendUint16(v, o.Capability)
		v = binary.BigEndian.AppendUint64(v, uint64(o.Suite))
	}
	return TLV{Type: TLVCipherSuites, Value: v}
}

// CipherSuites lists what every cipher suites TLV offers, in their order. An
// incomplete entry at a TLV's end is left out.
func (s *Announcement) CipherSuites() []SuiteOffer {
	var offers []SuiteOffer
	for _, t := range s.TLVs {
		if t.Type != TLVCipherSuites {
			continue
		}
		for v := t.Value; len(v) >= suiteOfferLen; v = v[suiteOfferLen:] {
			offers = append(offers, SuiteOffer{
				Capability: binary.BigEndian.Uint16(v),
				Suite:      CipherSuite(binary.BigEndian.Uint64(v[2:])).normalised(),
			})
		}
	}
	return offers
}

// lists says whether a cipher suites TLV lists just these.
func (t *TLV) lists(suites []CipherSuite) bool {
	if len(t.Value)/suiteOfferLen != len(suites) {
		return false
	}
	for i, s := range suites {
		if CipherSuite(binary.BigEndian.Uint64(t.Value[i*suiteOfferLen+2:])).normalised() != s {
			return false
		}
	}
	return true
}

func (s *Announcement) append(b []byte) ([]byte, error) {
	if !s.Present {
		return b, nil
	}
	n := 0
	for i := range s.TLVs {
		t := &s.TLVs[i]
		if t.Type > maxTLVType || len(t.Value) > maxTLVValue {
			return nil, unfit(SetAnnouncement, "TLV type %d with %d octets, want a type of 7 bits and at most %d octets", t.Type, len(t.Value), maxTLVValue)
		}
		n += 2 + len(t.Value)
	}
	if n > maxSetBody {
		return nil, unfit(SetAnnouncement, "TLVs of %d octets, want at most %d", n, maxSetBody)
	}
	start := len(b)
	b = appendSetHeader(b, SetAnnouncement, 0, 0, n)
	for i := range s.TLVs {
		t := &s.TLVs[i]
		b = binary.BigEndian.AppendUint16(b, uint16(t.Type)<<9|uint16(len(t.Value)))
		b = append(b, t.Value...)
	}
	return pad(b, start), nil
}

func (s *Announcement) decode(set []byte, at int) error {
	if s.Present {
		return nil
	}
	s.Present = true
	for body := set[setHeader:]; len(body) > 0; {
		offset := at + len(set) - len(body)
		if len(body) < 2 {
			return refuse(SetAnnouncement, offset, ErrLength, "%d octet left, want 2 of TLV header", len(body))
		}
		h := binary.BigEndian.Uint16(body)
		n := int(h & maxTLVValue)
		if 2+n > len(body) {
			return refuse(SetAnnouncement, offset, ErrLength, "TLV of %d octets, %d are left", n, len(body)-2)
		}
		s.TLVs = append(s.TLVs, TLV{Type: uint8(h >> 9), Value: body[2 : 2+n : 2+n]})
		body = body[2+n:]
	}
	return nil
}

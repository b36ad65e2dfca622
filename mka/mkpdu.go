package mka

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrRange is wrapped by the errors of [MKPDU.Append]: a value does not fit
// its field. It is a fault of the caller, never of the peer.
var ErrRange = errors.New("value does not fit its field")

// SetType is the type of a parameter set, IEEE 802.1X-2020 table 11-7. The
// Basic set has no type of its own: it is the first.
type SetType int

// The parameter sets.
const (
	SetNone           SetType = -1
	SetBasic          SetType = 0
	SetLivePeers      SetType = 1
	SetPotentialPeers SetType = 2
	SetSAKUse         SetType = 3
	SetDistributedSAK SetType = 4
	SetDistributedCAK SetType = 5
	SetKMD            SetType = 6
	SetAnnouncement   SetType = 7
	SetXPN            SetType = 8
	SetICVIndicator   SetType = 255
)

// String is the set's name in the standard.
func (s SetType) String() string {
	switch s {
	case SetNone:
		return "frame header"
	case SetBasic:
		return "Basic parameter set"
	case SetLivePeers:
		return "Live Peer List"
	case SetPotentialPeers:
		return "Potential Peer List"
	case SetSAKUse:
		return "SAK Use"
	case SetDistributedSAK:
		return "Distributed SAK"
	case SetDistributedCAK:
		return "Distributed CAK"
	case SetKMD:
		return "KMD"
	case SetAnnouncement:
		return "Announcement"
	case SetXPN:
		return "XPN"
	case SetICVIndicator:
		return "ICV Indicator"
	}
	return fmt.Sprintf("parameter set %d", int(s))
}

// MKPDU is one message: what the headers say and its parameter sets. The zero
// value of a set is a set that is not there.
//
// An MKPDU can be used again and again; after [MKPDU.Decode] its slices alias
// the frame, and the entries of lists are overwritten by the next Decode.
type MKPDU struct {
	Destination, Source MAC    // Destination zero means 01:80:c2:00:00:03 when encoding
	EtherType           uint16 // 0 means 888E when encoding
	EAPOLVersion        uint8  // 0 means 3 when encoding

	Basic           Basic
	Live, Potential PeerList
	SAKUse          SAKUse
	DistributedSAK  DistributedSAK
	DistributedCAK  DistributedCAK
	KMD             KMD
	Announcement    Announcement
	XPN             XPN

	// ICVIndicator asks for the indicator when encoding, and says that it was
	// there when decoding. The standard needs none for ICVs of 16 octets, so
	// by default none is sent.
	ICVIndicator bool
}

// Reset empties m, and keeps the memory of its lists for the next Decode.
func (m *MKPDU) Reset() {
	live, potential, tlvs := m.Live.Entries[:0], m.Potential.Entries[:0], m.Announcement.TLVs[:0]
	*m = MKPDU{}
	m.Live.Entries, m.Potential.Entries, m.Announcement.TLVs = live, potential, tlvs
}

// Decode reads the parameter sets of a frame whose ICV was verified, and
// refuses any other. It ignores sets that it does not know and repetitions of
// those that it does (IEEE 802.1X-2020 11.11). Basic.CKN stays empty, as a
// string would have to be allocated: see [Envelope.CKN]. After an error m is
// empty; the error is a *[FrameError].
func (m *MKPDU) Decode(e *Envelope) error {
	m.Reset()
	if e.icvKey == 0 {
		reason := e.refused
		if reason == nil {
			reason = ErrICV
		}
		return refuse(SetBasic, agilityOffset, reason, "verify the frame before reading it")
	}
	m.Destination, m.Source = e.Destination, e.Source
	m.EtherType, m.EAPOLVersion = e.EtherType, e.EAPOLVersion
	m.Basic.decode(e.frame[bodyOffset:e.basicEnd])
	if err := m.decodeSets(e); err != nil {
		m.Reset()
		return err
	}
	return nil
}

// decodeSets walks the sets between Basic and the ICV. The EAPOL body is whole
// words and every set is padded to whole words, so that as long as there is
// anything left there is a whole set header left.
func (m *MKPDU) decodeSets(e *Envelope) error {
	end := e.icvOffset()
	for at := e.basicEnd; at < end; {
		t := SetType(e.frame[at])
		n := setBodyLen(e.frame[at:])
		if t == SetICVIndicator {
			// Its body is the ICV, so it is the last set.
			if n != icvLen || at+setHeader != end {
				return refuse(t, at, ErrLength, "body of %d octets with %d left, want %d", n, end-at-setHeader+icvLen, icvLen)
			}
			m.ICVIndicator = true
			return nil
		}
		next := at + setHeader + padded(n)
		if next > end {
			return refuse(t, at, ErrLength, "body of %d octets, %d are left before the ICV", n, end-at-setHeader)
		}
		set := e.frame[at : at+setHeader+n : at+setHeader+n]
		if err := m.decodeSet(t, set, at, e.icvKey); err != nil {
			return err
		}
		at = next
	}
	return nil
}

func (m *MKPDU) decodeSet(t SetType, set []byte, at, keyLen int) error {
	switch t {
	case SetLivePeers:
		return m.Live.decode(t, set, at)
	case SetPotentialPeers:
		return m.Potential.decode(t, set, at)
	case SetSAKUse:
		return m.SAKUse.decode(set, at)
	case SetDistributedSAK:
		return m.DistributedSAK.decode(set, at)
	case SetDistributedCAK:
		return m.DistributedCAK.decode(set, at, keyLen)
	case SetKMD:
		m.KMD.decode(set)
	case SetAnnouncement:
		return m.Announcement.decode(set, at)
	case SetXPN:
		return m.XPN.decode(set, at)
	case SetNone, SetBasic, SetICVIndicator:
		// Not after the first set, or handled by the caller.
	}
	return nil
}

// Append writes the whole Ethernet frame, ICV included, with the sets in
// ascending order of type (some peers drop any other). It allocates only to
// grow dst. On an error, which wraps [ErrRange], dst comes back as it was.
func (m *MKPDU) Append(dst []byte, ick *ICK) ([]byte, error) {
	b, err := m.appendFrame(dst, ick)
	if err != nil {
		return dst, err
	}
	return b, nil
}

func (m *MKPDU) appendFrame(dst []byte, ick *ICK) ([]byte, error) {
	start := len(dst)
	b := m.appendHeaders(dst)
	var err error
	if b, err = m.Basic.append(b); err != nil {
		return nil, err
	}
	if b, err = m.Live.append(b, SetLivePeers); err != nil {
		return nil, err
	}
	if b, err = m.Potential.append(b, SetPotentialPeers); err != nil {
		return nil, err
	}
	if b, err = m.SAKUse.append(b); err != nil {
		return nil, err
	}
	if b, err = m.DistributedSAK.append(b); err != nil {
		return nil, err
	}
	if b, err = m.DistributedCAK.append(b); err != nil {
		return nil, err
	}
	if b, err = m.KMD.append(b); err != nil {
		return nil, err
	}
	if b, err = m.Announcement.append(b); err != nil {
		return nil, err
	}
	b = m.XPN.append(b)
	if m.ICVIndicator {
		b = appendSetHeader(b, SetICVIndicator, 0, 0, icvLen)
	}
	// Nine sets of at most 4 KiB each: the sum always fits 16 bits.
	binary.BigEndian.PutUint16(b[start+16:], uint16(len(b)-start-bodyOffset+icvLen))
	return ick.appendICV(b, start)
}

func (m *MKPDU) appendHeaders(b []byte) []byte {
	da, etherType, version := m.Destination, m.EtherType, m.EAPOLVersion
	if da == (MAC{}) {
		da = GroupAddress
	}
	if etherType == 0 {
		etherType = EtherType
	}
	if version == 0 {
		version = eapolVersion
	}
	b = append(b, da[:]...)
	b = append(b, m.Source[:]...)
	b = binary.BigEndian.AppendUint16(b, etherType)
	return append(b, version, eapolTypeMKA, 0, 0)
}

// appendSetHeader writes a set's first four octets; flags are the high nibble
// of the third.
func appendSetHeader(b []byte, t SetType, o1, flags uint8, body int) []byte {
	return append(b, uint8(t), o1, flags&0xf0|uint8(body>>8), uint8(body))
}

// pad fills up the set that started at start to whole words.
func pad(b []byte, start int) []byte {
	for (len(b)-start)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func unfit(set SetType, detail string, args ...any) error {
	return fmt.Errorf("mka: encode %s: %w: %s", set, ErrRange, fmt.Sprintf(detail, args...))
}

func bit(set bool, mask uint8) uint8 {
	if set {
		return mask
	}
	return 0
}

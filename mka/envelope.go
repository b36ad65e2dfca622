package mka

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Why a frame was refused; [FrameError] wraps one of them.
var (
	ErrTruncated   = errors.New("frame ends early")
	ErrNotMKA      = errors.New("not an EAPOL-MKA frame")
	ErrDestination = errors.New("not for this destination")
	ErrLength      = errors.New("length does not fit")
	ErrCKNLength   = errors.New("CKN is not of 1 to 32 octets")
	ErrAgility     = errors.New("algorithm agility is not 0080c201")
	ErrICV         = errors.New("ICV does not hold")
)

// FrameError says where and why a frame was refused.
type FrameError struct {
	Set    SetType // the parameter set, or SetNone for the headers before them
	Offset int     // octets from the destination address
	Reason error   // one of the sentinels of this package
	Detail string  // what was found and what was wanted
}

// Error implements error.
func (e *FrameError) Error() string {
	return fmt.Sprintf("mka: read %s at octet %d: %v: %s", e.Set, e.Offset, e.Reason, e.Detail)
}

// Unwrap makes errors.Is see the reason.
func (e *FrameError) Unwrap() error { return e.Reason }

// Sizes and values of the frame's outer layers, IEEE 802.1X-2020 11.3.
const (
	// EtherType is the EtherType of EAPOL, and so of MKA.
	EtherType = 0x888E

	etherHeader   = 14
	eapolHeader   = 4
	bodyOffset    = etherHeader + eapolHeader
	eapolVersion  = 3
	eapolTypeMKA  = 5
	minEAPOLBody  = 32
	setHeader     = 4
	icvLen        = 16
	maxSetBody    = 1<<12 - 1
	basicFixed    = 28 // of the Basic set's body: all but the CKN
	maxCKN        = 32
	agilityOffset = bodyOffset + 28
	cknOffset     = bodyOffset + 32
)

// algorithmAgility is the only key hierarchy that the standard defines:
// AES-CMAC and the KDF of 6.2.1. A frame that says another means keys that we
// could not compute.
var algorithmAgility = [4]byte{0x00, 0x80, 0xc2, 0x01}

// OpenParams is what a link expects in the headers. WAN equipment lets its
// operators change both, so they are options of a link.
type OpenParams struct {
	EtherType   uint16 // 0 means 888E
	Destination MAC    // zero means 01:80:c2:00:00:03
}

// Envelope is what can be known of a frame before its ICV is verified: enough
// to find the participant that the frame is for, and nothing that an attacker
// could use without the ICK.
type Envelope struct {
	Destination, Source MAC
	EtherType           uint16
	EAPOLVersion        uint8
	Version             uint8  // of MKA
	CKN                 []byte // aliases the frame

	frame    []byte // up to the ICV's end, without Ethernet trailers
	basicEnd int    // offset of the set after Basic
	icvKey   int    // octets of the ICK that verified, 0 before
	refused  error  // why Verify said no
}

// Open reads a frame's headers up to the CKN, in the order of IEEE 802.1X-2020
// 11.11.2. An Ethernet trailer (padding to 60 octets, an FCS) is cut off by
// the EAPOL body length. The Envelope aliases frame; the error is a
// *[FrameError].
func Open(frame []byte, p OpenParams) (Envelope, error) {
	if p.EtherType == 0 {
		p.EtherType = EtherType
	}
	if p.Destination == (MAC{}) {
		p.Destination = GroupAddress
	}
	var e Envelope
	if len(frame) < bodyOffset {
		return e, refuse(SetNone, len(frame), ErrTruncated, "%d octets, want %d of Ethernet and EAPOL header", len(frame), bodyOffset)
	}
	e.Destination, e.Source = MAC(frame[0:6]), MAC(frame[6:12])
	e.EtherType = binary.BigEndian.Uint16(frame[12:])
	e.EAPOLVersion = frame[14]
	if e.Destination != p.Destination {
		return e, refuse(SetNone, 0, ErrDestination, "%s, want %s", e.Destination, p.Destination)
	}
	if e.EtherType != p.EtherType {
		return e, refuse(SetNone, 12, ErrNotMKA, "EtherType %04x, want %04x", e.EtherType, p.EtherType)
	}
	if frame[15] != eapolTypeMKA {
		return e, refuse(SetNone, 15, ErrNotMKA, "EAPOL type %d, want %d", frame[15], eapolTypeMKA)
	}
	body := int(binary.BigEndian.Uint16(frame[16:]))
	if body < minEAPOLBody || body%4 != 0 {
		return e, refuse(SetNone, 16, ErrLength, "EAPOL body of %d octets, want at least %d and a multiple of 4", body, minEAPOLBody)
	}
	if bodyOffset+body > len(frame) {
		return e, refuse(SetNone, len(frame), ErrTruncated, "EAPOL body of %d octets, %d are there", body, len(frame)-bodyOffset)
	}
	frame = frame[: bodyOffset+body : bodyOffset+body]
	return e, e.openBasic(frame)
}

// openBasic finds the CKN and the sets that follow it.
func (e *Envelope) openBasic(frame []byte) error {
	basic := setBodyLen(frame[bodyOffset:])
	ckn := basic - basicFixed
	if ckn < 1 || ckn > maxCKN {
		return refuse(SetBasic, bodyOffset+2, ErrCKNLength, "parameter set body of %d octets, want %d to %d", basic, basicFixed+1, basicFixed+maxCKN)
	}
	end := bodyOffset + setHeader + padded(basic)
	if end > len(frame)-icvLen {
		return refuse(SetBasic, bodyOffset+2, ErrLength, "parameter set of %d octets and an ICV of %d in an EAPOL body of %d", setHeader+padded(basic), icvLen, len(frame)-bodyOffset)
	}
	e.Version = frame[bodyOffset]
	e.CKN = frame[cknOffset : cknOffset+ckn : cknOffset+ckn]
	e.frame = frame
	e.basicEnd = end
	return nil
}

// icvOffset is where the ICV starts, with or without an indicator before it.
func (e *Envelope) icvOffset() int { return len(e.frame) - icvLen }

// setBodyLen reads the 12-bit length of the parameter set that b starts with.
func setBodyLen(b []byte) int { return int(b[2]&0x0f)<<8 | int(b[3]) }

// padded is n rounded up to whole words, as the next set begins on one.
func padded(n int) int { return (n + 3) &^ 3 }

func refuse(set SetType, offset int, reason error, detail string, args ...any) error {
	return &FrameError{Set: set, Offset: offset, Reason: reason, Detail: fmt.Sprintf(detail, args...)}
}

package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// The EtherTypes that may be on an encrypted link's wire.
const (
	EtherTypeMACsec = 0x88E5
	EtherTypeEAPOL  = 0x888E
)

// PayloadMark is in every packet that is sent over a link here, so that one
// that can be read on the wire is recognised.
const PayloadMark = "lever-lab: nobody outside may read this"

// A WireCount sorts the frames of a wire by EtherType.
type WireCount struct {
	Frames   map[uint16]int
	firstOf  map[sourceType]time.Time
	countOf  map[sourceType]int
	Readable int // frames in which payloadMark can be read
}

type sourceType struct {
	MAC       [6]byte
	etherType uint16
}

// note counts one Ethernet frame. One that is too short to have an EtherType
// counts under 0, which is plain.
func (c *WireCount) note(frame []byte, at time.Time) {
	if c.Frames == nil {
		c.Frames, c.firstOf, c.countOf = map[uint16]int{}, map[sourceType]time.Time{}, map[sourceType]int{}
	}
	if bytes.Contains(frame, []byte(PayloadMark)) {
		c.Readable++
	}
	if len(frame) < 14 {
		c.Frames[0]++
		return
	}
	key := sourceType{etherType: binary.BigEndian.Uint16(frame[12:])}
	copy(key.MAC[:], frame[6:])
	c.Frames[key.etherType]++
	c.countOf[key]++
	if _, known := c.firstOf[key]; !known {
		c.firstOf[key] = at
	}
}

// First is when the first frame of that EtherType came from that address.
func (c *WireCount) First(mac net.HardwareAddr, etherType uint16) (time.Time, bool) {
	key := sourceType{etherType: etherType}
	copy(key.MAC[:], mac)
	at, ok := c.firstOf[key]
	return at, ok
}

// From is how many frames of that EtherType came from that address.
func (c *WireCount) From(mac net.HardwareAddr, etherType uint16) int {
	key := sourceType{etherType: etherType}
	copy(key.MAC[:], mac)
	return c.countOf[key]
}

// MACsec is how many frames were encrypted.
func (c *WireCount) MACsec() int { return c.Frames[EtherTypeMACsec] }

// EAPOL is how many were MKA's.
func (c *WireCount) EAPOL() int { return c.Frames[EtherTypeEAPOL] }

// Plain is everything else.
func (c *WireCount) Plain() int { return c.Total() - c.MACsec() - c.EAPOL() }

// Total is all of them.
func (c *WireCount) Total() int {
	n := 0
	for _, frames := range c.Frames {
		n += frames
	}
	return n
}

// PlainKinds names what is plain, such as "2 of 0800, 1 of 86DD".
func (c *WireCount) PlainKinds() string {
	var kinds []string
	for etherType, n := range c.Frames {
		if etherType != EtherTypeMACsec && etherType != EtherTypeEAPOL {
			kinds = append(kinds, fmt.Sprintf("%d of %04X", n, etherType))
		}
	}
	slices.Sort(kinds)
	return strings.Join(kinds, ", ")
}

package demo

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
	etherTypeMACsec = 0x88E5
	etherTypeEAPOL  = 0x888E
)

// payloadMark is in every packet that the demo sends over the link, so that one
// that can be read on the wire is recognised.
const payloadMark = "lever-demo: nobody outside may read this"

// A wireCount sorts the frames of a wire by EtherType.
type wireCount struct {
	frames   map[uint16]int
	firstOf  map[sourceType]time.Time
	readable int // frames in which payloadMark can be read
}

type sourceType struct {
	mac       [6]byte
	etherType uint16
}

// note counts one Ethernet frame. One that is too short to have an EtherType
// counts under 0, which is plain.
func (c *wireCount) note(frame []byte, at time.Time) {
	if c.frames == nil {
		c.frames, c.firstOf = map[uint16]int{}, map[sourceType]time.Time{}
	}
	if bytes.Contains(frame, []byte(payloadMark)) {
		c.readable++
	}
	if len(frame) < 14 {
		c.frames[0]++
		return
	}
	key := sourceType{etherType: binary.BigEndian.Uint16(frame[12:])}
	copy(key.mac[:], frame[6:])
	c.frames[key.etherType]++
	if _, known := c.firstOf[key]; !known {
		c.firstOf[key] = at
	}
}

// first is when the first frame of that EtherType came from that address.
func (c *wireCount) first(mac net.HardwareAddr, etherType uint16) (time.Time, bool) {
	key := sourceType{etherType: etherType}
	copy(key.mac[:], mac)
	at, ok := c.firstOf[key]
	return at, ok
}

func (c *wireCount) macsec() int { return c.frames[etherTypeMACsec] }
func (c *wireCount) eapol() int  { return c.frames[etherTypeEAPOL] }

// plain is everything else.
func (c *wireCount) plain() int { return c.total() - c.macsec() - c.eapol() }

func (c *wireCount) total() int {
	n := 0
	for _, frames := range c.frames {
		n += frames
	}
	return n
}

// plainKinds names what is plain, such as "2 of 0800, 1 of 86DD".
func (c *wireCount) plainKinds() string {
	var kinds []string
	for etherType, n := range c.frames {
		if etherType != etherTypeMACsec && etherType != etherTypeEAPOL {
			kinds = append(kinds, fmt.Sprintf("%d of %04X", n, etherType))
		}
	}
	slices.Sort(kinds)
	return strings.Join(kinds, ", ")
}

package sim

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/lever-link/lever/internal/secy"
	"github.com/lever-link/lever/mka"
)

// traffic is the data frames of a run: what was sealed, what must arrive, and what
// was delivered.
type traffic struct {
	sent    map[mka.SCI][]sealed
	highest map[delivery]uint32
	// Expect says whether what from sends now must reach to.
	expect func(from, to *Member) bool

	sentFrames, delivered, expected uint64
}

// sealed is one frame: the SAK that sealed it and its packet number's low half.
type sealed struct {
	ki      mka.KI
	pn      uint32
	arrived uint16 // a bit a member
}

type delivery struct {
	to int
	ki mka.KI
	by mka.SCI
}

// Where things are in a data frame: user data behind the Ethernet header, and the
// packet number in a SecTAG.
const (
	etherLen   = 14
	dataLen    = 64
	pnOffset   = 16
	dataType   = 0x88b5 // IEEE 802: local experimental
	broadcasts = 0xff
)

// dataFrame is the frame number seq of a member: its octets follow from that.
func dataFrame(from mka.MAC, seq uint32) []byte {
	f := bytes.Repeat([]byte{broadcasts}, 6)
	f = append(f, from[:]...)
	f = binary.BigEndian.AppendUint16(f, dataType)
	f = binary.BigEndian.AppendUint32(f, seq)
	x := seq*2654435761 + uint32(from[5])
	for len(f) < etherLen+dataLen {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		f = append(f, byte(x))
	}
	return f
}

// Traffic has every member send a data frame to all others every so often, from now
// on. Whatever is delivered must be what its sender sealed, and not an old one again.
// What from sends while expect says so must reach to.
func (s *Sim) Traffic(every time.Duration, expect func(from, to *Member) bool) {
	s.check.traffic.expect = expect
	for i, m := range s.Members {
		s.Net.After(every*time.Duration(i)/time.Duration(len(s.Members)), func() { m.speak(every) })
	}
}

func (m *Member) speak(every time.Duration) {
	m.SendData()
	m.sim.Net.After(every, func() { m.speak(every) })
}

// SendData seals a frame to all others and sends it. It says whether the device let
// it out.
func (m *Member) SendData() bool {
	t := &m.sim.check.traffic
	sent := t.sent[m.Config.SCI]
	seq := uint32(len(sent))
	frame, err := m.Kernel.Transmit(m.Index, dataFrame(m.Config.Address, seq))
	if err != nil {
		return false
	}
	ki, _ := m.SAs.Encoding()
	t.sent[m.Config.SCI] = append(sent, sealed{ki: ki, pn: binary.BigEndian.Uint32(frame[pnOffset:])})
	t.sentFrames++
	m.sim.expectData(m, seq)
	m.Station.Send(frame)
	return true
}

// expectData looks, as soon as a frame must have arrived, where it did.
func (s *Sim) expectData(from *Member, seq uint32) {
	t := &s.check.traffic
	if t.expect == nil {
		return
	}
	var must uint16
	for i, to := range s.Members {
		if to != from && t.expect(from, to) {
			must |= 1 << i
			t.expected++
		}
	}
	if must == 0 {
		return
	}
	s.Net.After(s.Segment.Delay+time.Nanosecond, func() {
		missing := must &^ t.sent[from.Config.SCI][seq].arrived
		for i := 0; missing != 0; i++ {
			if missing&(1<<i) != 0 && t.expect(from, s.Members[i]) {
				s.fail("data frame %d of %s did not reach %s\n  %s %v\n  %s %v", seq, from.Name, s.Members[i].Name,
					from.Name, &from.SAs, s.Members[i].Name, &s.Members[i].SAs)
			}
			missing &^= 1 << i
		}
	})
}

// deliver takes a MACsec frame off the wire.
func (m *Member) deliver(frame []byte) {
	data, err := m.Kernel.Receive(m.Index, frame)
	if err != nil {
		return // what had to arrive is missed by expectData
	}
	t := &m.sim.check.traffic
	t.delivered++
	if m.Data != nil {
		m.Data(data)
	}
	if len(data) != etherLen+dataLen {
		m.sim.fail("%s: the device delivers %d octets that nobody sent", m.Name, len(data))
		return
	}
	mac := mka.MAC(data[6:12])
	sci := mka.NewSCI(mac, 1)
	seq := binary.BigEndian.Uint32(data[etherLen:])
	sent := t.sent[sci]
	if int(seq) >= len(sent) || !bytes.Equal(data, dataFrame(mac, seq)) {
		m.sim.fail("%s: the device delivers a frame that nobody sealed: % x", m.Name, data)
		return
	}
	x := &sent[seq]
	x.arrived |= 1 << m.Number
	key := delivery{m.Number, x.ki, sci}
	highest := t.highest[key]
	if x.pn+secy.ReplayWindow < highest {
		m.sim.fail("%s: the device delivers an old frame of %v again, with packet number %d after %d: its receive SA was made anew", m.Name, sci, x.pn, highest)
	}
	if x.pn > highest {
		t.highest[key] = x.pn
	}
}

// DataCounts count data frames.
type DataCounts struct {
	Sent      uint64 // that devices let out
	Delivered uint64 // by devices, one for each receiver
	Expected  uint64 // of these, that had to be
}

// DataFrames counts those of Traffic and SendData.
func (s *Sim) DataFrames() DataCounts {
	t := &s.check.traffic
	return DataCounts{t.sentFrames, t.delivered, t.expected}
}

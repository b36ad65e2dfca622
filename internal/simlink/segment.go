package simlink

import (
	"slices"
	"time"
)

// Faults are what a segment does to each frame on its way to each station.
// Probabilities are from 0 to 1.
type Faults struct {
	Loss      float64
	Duplicate float64
	// Reorder delays a frame by up to ReorderBy, past later ones.
	Reorder   float64
	ReorderBy time.Duration
	// Corrupt flips one bit somewhere.
	Corrupt float64
}

// Segment is a shared medium: what a station sends reaches all others.
type Segment struct {
	net      *Net
	stations []*Station
	// Delay is how long a frame travels.
	Delay time.Duration
	// Faults apply from the next frame on.
	Faults Faults
	// Tap, if set, sees every frame as it is sent.
	Tap func(at time.Time, from *Station, frame []byte)
}

// Segment makes a new medium without faults.
func (n *Net) Segment(delay time.Duration) *Segment { return &Segment{net: n, Delay: delay} }

// Station is one attachment to a segment.
type Station struct {
	segment *Segment
	receive func(frame []byte)
	// cut holds the stations whose frames do not arrive here.
	cut []*Station
}

// Attach adds a station; receive gets a copy of each frame that reaches it.
func (s *Segment) Attach(receive func(frame []byte)) *Station {
	st := &Station{segment: s, receive: receive}
	s.stations = append(s.stations, st)
	return st
}

// Detach removes the station; frames under way to it are lost.
func (st *Station) Detach() {
	st.receive = nil
	st.segment.stations = slices.DeleteFunc(st.segment.stations, func(o *Station) bool { return o == st })
}

// Cut loses everything that from sends to st, and nothing else, until Heal.
func (st *Station) Cut(from *Station) { st.cut = append(st.cut, from) }

// Heal ends every Cut of st.
func (st *Station) Heal() { st.cut = nil }

// Send puts a frame on the segment. It is copied.
func (st *Station) Send(frame []byte) {
	s := st.segment
	if s.Tap != nil {
		s.Tap(s.net.now, st, frame)
	}
	for _, to := range s.stations {
		if to == st || slices.Contains(to.cut, st) {
			continue
		}
		s.carry(to, frame)
	}
}

func (s *Segment) carry(to *Station, frame []byte) {
	f, r := &s.Faults, s.net.rand
	if f.Loss > 0 && r.Float64() < f.Loss {
		return
	}
	copies := 1
	if f.Duplicate > 0 && r.Float64() < f.Duplicate {
		copies = 2
	}
	for range copies {
		c := slices.Clone(frame)
		if f.Corrupt > 0 && len(c) > 0 && r.Float64() < f.Corrupt {
			c[r.IntN(len(c))] ^= 1 << r.IntN(8)
		}
		delay := s.Delay
		if f.Reorder > 0 && f.ReorderBy > 0 && r.Float64() < f.Reorder {
			delay += time.Duration(r.Int64N(int64(f.ReorderBy)))
		}
		s.net.After(delay, func() {
			if to.receive != nil {
				to.receive(c)
			}
		})
	}
}

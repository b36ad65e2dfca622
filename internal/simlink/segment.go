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
	// Jitter is added to the delay of each frame, up to so much.
	Jitter time.Duration
}

// Counts count what the faults of a segment did, a frame and a receiver each.
type Counts struct {
	Sent                                                     uint64 // frames, whatever became of them
	Lost, Duplicated, Reordered, Corrupted, Delayed, CutAway uint64
}

// Segment is a shared medium: what a station sends reaches all others.
type Segment struct {
	net      *Net
	stations []*Station // replaced, never changed in place
	cuts     int
	// Delay is how long a frame travels.
	Delay time.Duration
	// Faults apply from the next frame on.
	Faults Faults
	// Counts count what the faults did.
	Counts Counts
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

// Attach adds a station; receive gets each frame that reaches it. The frame is
// shared with other receivers: it may be kept and must not be changed.
func (s *Segment) Attach(receive func(frame []byte)) *Station {
	st := &Station{segment: s, receive: receive}
	s.stations = append(slices.Clip(s.stations), st)
	return st
}

// Detach removes the station; frames under way to it are lost.
func (st *Station) Detach() {
	st.Heal()
	st.receive = nil
	st.segment.stations = slices.DeleteFunc(slices.Clone(st.segment.stations), func(o *Station) bool { return o == st })
}

// Cut loses everything that from sends to st, and nothing else, until Heal.
func (st *Station) Cut(from *Station) {
	st.cut = append(st.cut, from)
	st.segment.cuts++
}

// Heal ends every Cut of st.
func (st *Station) Heal() {
	st.segment.cuts -= len(st.cut)
	st.cut = nil
}

// Hears says whether st is not Cut from what from sends.
func (st *Station) Hears(from *Station) bool { return !slices.Contains(st.cut, from) }

// Send puts a frame on the segment. It is copied.
func (st *Station) Send(frame []byte) {
	s := st.segment
	s.Counts.Sent++
	if s.Tap != nil {
		s.Tap(s.net.Now(), st, frame)
	}
	frame = slices.Clone(frame)
	if s.Faults == (Faults{}) && s.cuts == 0 {
		to := s.stations
		s.net.After(s.Delay, func() {
			for _, o := range to {
				if o != st {
					o.arrive(frame)
				}
			}
		})
		return
	}
	for _, to := range s.stations {
		switch {
		case to == st:
		case !to.Hears(st):
			s.Counts.CutAway++
		default:
			s.carry(to, frame)
		}
	}
}

func (st *Station) arrive(frame []byte) {
	if st.receive != nil {
		st.receive(frame)
	}
}

func (s *Segment) carry(to *Station, frame []byte) {
	f, r := &s.Faults, s.net.rand
	if f.Loss > 0 && r.Float64() < f.Loss {
		s.Counts.Lost++
		return
	}
	copies := 1
	if f.Duplicate > 0 && r.Float64() < f.Duplicate {
		s.Counts.Duplicated++
		copies = 2
	}
	for range copies {
		c := frame
		if f.Corrupt > 0 && len(c) > 0 && r.Float64() < f.Corrupt {
			s.Counts.Corrupted++
			c = slices.Clone(c)
			c[r.IntN(len(c))] ^= 1 << r.IntN(8)
		}
		delay := s.Delay
		if f.Reorder > 0 && f.ReorderBy > 0 && r.Float64() < f.Reorder {
			s.Counts.Reordered++
			delay += time.Duration(r.Int64N(int64(f.ReorderBy)))
		}
		if f.Jitter > 0 {
			s.Counts.Delayed++
			delay += time.Duration(r.Int64N(int64(f.Jitter)))
		}
		s.net.After(delay, func() { to.arrive(c) })
	}
}

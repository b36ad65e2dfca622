package mka_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/sim"
	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/mka"
)

// The key server's own SSCI is in the middle of the Live Peer List's order.
func TestSSCIsWithTheKeyServerInTheMiddle(t *testing.T) {
	for server := range 3 {
		t.Run(fmt.Sprintf("key server %d", server), func(t *testing.T) {
			s := newSim(t, 1)
			for i := range 3 {
				s.Add(string(rune('a'+i)), byte(i+1), func(c *mka.Config) {
					if i == server {
						c.Priority = 1
					}
				}).Start(epoch1)
			}
			s.mustSecure(10 * time.Second)
			ki := s.Members[0].Status().KI
			for i, m := range s.Members {
				if m.Status().IsKeyServer != (i == server) {
					t.Errorf("%s is key server: %v", m.Name, m.Status().IsKeyServer)
				}
				// SSCI 1 is the numerically greatest SCI's.
				if got, want := s.SSCI(ki, m.Config.SCI), uint32(3-i); got != want {
					t.Errorf("SSCI %d of %s, want %d", got, m.Name, want)
				}
			}
		})
	}
}

// Frames of a peer's former MI that come late must not bring that back.
func TestLateFramesOfAFormerMIAreNotBelieved(t *testing.T) {
	s, a, b := pair(t, nil)
	var late [][]byte
	s.Segment.Tap = func(_ time.Time, from *simlink.Station, f []byte) {
		if from == b.Station {
			late = append(late, append([]byte(nil), f...))
		}
	}
	b.Step(mka.Event{Kind: mka.EventLinkUp})
	s.Net.Run(2 * time.Second)
	s.Segment.Tap = nil
	old := late[len(late)-1]
	// The last one is not delivered before the peer's next life.
	b.Step(mka.Event{Kind: mka.EventRekey})
	s.Net.Run(4 * time.Second)
	saks := a.Saw(mka.NoticeSAK)
	attacker := s.Segment.Attach(func([]byte) {})
	for range 20 {
		attacker.Send(old)
		s.Net.Run(100 * time.Millisecond)
	}
	if n := a.Saw(mka.NoticeSAK) - saks; n != 0 || !s.Secured() {
		t.Errorf("%d SAKs for late frames", n)
	}
	s.noGaps()
}

// Both ends of a link are told to rekey at once: the client's fresh MI meets a
// SAK that is being taken into use.
func TestRekeysAtBothEndsAtOnceLoseNothing(t *testing.T) {
	for micros := range 40 {
		t.Run(fmt.Sprint(micros*10), func(t *testing.T) {
			s, a, b := pair(t, nil)
			for _, m := range s.Members {
				m.OpDelay = 30 * time.Microsecond
			}
			a.Step(mka.Event{Kind: mka.EventRekey})
			s.Net.Run(time.Duration(micros*10) * time.Microsecond)
			b.Step(mka.Event{Kind: mka.EventRekey})
			s.Net.Run(10 * time.Second)
			if !s.Secured() {
				t.Errorf("%+v", a.Status())
			}
			s.noGaps()
		})
	}
}

// A record is stored before the numbers in it are used, but its last write may
// be lost all the same: no message number is sent twice.
func TestOneLostWriteOfTheRecordRepeatsNoNumber(t *testing.T) {
	s, a, b := pair(t, nil)
	var crossing *mka.Record // the record before a stride of message numbers was reserved
	for range 3000 {
		before := a.Record
		a.Step(mka.Event{Kind: mka.EventLinkUp})
		s.Net.Run(100 * time.Millisecond)
		if n := before.Participants[0].MN; a.Record.Participants[0].MN > n {
			crossing = before
			break
		}
	}
	if crossing == nil {
		t.Fatal("no stride was crossed")
	}
	s.Net.Run(5 * time.Second)
	a.Kill()
	a.StartFrom(crossing, epoch1) // sim checks message numbers
	s.Net.Run(10 * time.Second)
	if !s.Secured() || b.Saw(mka.NoticePeerLost) != 0 {
		t.Errorf("%+v", b.Status())
	}
	s.noGaps()
}

// A CAK that was erased before it came is one that everybody knows.
func TestCAKOfZerosIsRefused(t *testing.T) {
	s := newSim(t, 1)
	m := s.Add("a", 1, nil)
	m.Start(sim.CAK{CKN: "zeros", Octet: 0})
	s.Net.Run(time.Second)
	if st := m.Status(); len(st.Participants) != 0 || m.Condition(mka.ConditionBadCAK) == nil {
		t.Errorf("participants %+v, conditions %+v", st.Participants, st.Conditions)
	}
}

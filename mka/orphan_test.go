package mka_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/sim"
	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/mka"
)

// A key server that dies when one of two has its SAK: that one goes back to the SAK
// that the new key server transmits with, and does not wait for ever.
func TestSAKOfALostServerIsGivenUp(t *testing.T) {
	s := newSim(t, 1)
	a, b, c := s.Add("a", 1, nil), s.Add("b", 2, nil), s.Add("c", 3, nil)
	b.Start(epoch1)
	c.Start(epoch1)
	s.mustSecure(5*time.Second, b, c)
	s.Net.Run(10 * time.Second)
	ki := b.Status().KI
	b.OpFault = func(op mka.Op) error {
		if op.Kind == mka.OpAddReceiveSA {
			return errors.New("no memory")
		}
		return nil
	}
	a.Start(epoch1)
	s.Net.Run(400 * time.Millisecond)
	a.Kill()
	b.OpFault = nil
	s.Net.Run(10 * time.Minute)
	for _, m := range s.Members[1:] {
		if st := m.Status(); st.Rekeying || !st.Secured || m.SAs.TransmitSAs() != 1 {
			t.Errorf("%s: rekeying %v, secured %v with %v, before with %v, %d transmit SAs", m.Name, st.Rekeying, st.Secured, st.KI, ki, m.SAs.TransmitSAs())
		}
	}
	s.noGaps()
}

// A member that was killed while a SAK was being taken into use, and that starts without
// its CAK, clears the SAs away of what nobody took into use.
func TestSAKWithoutACAKIsGivenUp(t *testing.T) {
	s := newSim(t, 1)
	a, b, c := s.Add("a", 1, nil), s.Add("b", 2, nil), s.Add("c", 3, nil)
	for _, m := range s.Members {
		m.Start(epoch1)
	}
	s.mustSecure(5 * time.Second)
	s.Net.Run(10 * time.Second)
	c.OpFault = func(op mka.Op) error {
		if op.Kind == mka.OpAddReceiveSA {
			return errors.New("no memory")
		}
		return nil
	}
	for _, m := range s.Members {
		m.AddCAK(epoch2)
	}
	for range 500 {
		if s.Net.Run(10 * time.Millisecond); b.SAs.TransmitSAs() > 1 {
			break
		}
	}
	b.Kill()
	for _, m := range []*sim.Member{a, c} {
		m.OpFault = nil
		m.RevokeCAK(epoch2.CKN)
	}
	b.Start(epoch1)
	if n := b.SAs.TransmitSAs(); n != 2 {
		t.Fatalf("b has %d transmit SAs at its start: nothing to give up", n)
	}
	s.Net.Run(time.Minute)
	if st := b.Status(); st.Rekeying || !st.Secured || b.SAs.TransmitSAs() != 1 {
		t.Errorf("b: rekeying %v, secured %v with %v, %d transmit SAs", st.Rekeying, st.Secured, st.KI, b.SAs.TransmitSAs())
	}
	s.noGaps()
}

// A key server that died when it had distributed a SAK, and that resumes from what it
// knew before, learns from the others on which AN they have it: it makes its next SAK
// on one that nobody needs, whenever it returns while they take a third one into use.
func TestForgottenSAKKeepsItsAN(t *testing.T) {
	for after := time.Duration(0); after < 1500*time.Millisecond; after += 10 * time.Millisecond {
		forgottenSAK(t, after)
	}
}

func forgottenSAK(t *testing.T, after time.Duration) {
	s := newSim(t, 1)
	a, b, c, d := s.Add("a", 1, nil), s.Add("b", 2, nil), s.Add("c", 3, nil), s.Add("d", 4, nil)
	for _, m := range s.Members {
		m.Start(epoch1)
	}
	s.mustSecure(5 * time.Second)
	s.Net.Run(10 * time.Second)
	a.OpDelay = 15 * time.Millisecond
	d.Rekey() // under a new MI: the record that a leaves asks for the SAK that it was making
	s.Net.Run(20 * time.Millisecond)
	a.Kill()
	s.Net.Run(2 * time.Second)
	begun := b.Saw(mka.NoticeSAK)
	c.OpDelay = 200 * time.Millisecond // for which all wait
	for range 1000 {
		if s.Net.Run(10 * time.Millisecond); b.Saw(mka.NoticeSAK) > begun {
			break
		}
	}
	s.Net.Run(after)
	a.OpDelay, c.OpDelay = 0, 50*time.Millisecond
	those := []*sim.Member{b, c, d} // who did not miss a thing
	lost := s.watch(those)
	a.Start(epoch1)
	s.Net.Run(time.Minute)
	if *lost != "" {
		t.Errorf("back after %v: %s", after, *lost)
	}
	for _, m := range those {
		if st := m.Status(); st.Rekeying || !st.Secured || st.KI != a.Status().KI {
			t.Errorf("%s: back after %v: rekeying %v, secured %v with %v", m.Name, after, st.Rekeying, st.Secured, st.KI)
		}
	}
}

// A key server that dies when one of two has not heard that it transmits with the SAK of a
// new CAK, and is missed under that CAK first: the other transmits with it already, and
// goes on being heard.
func TestSAKOfALostServerThatAnotherUses(t *testing.T) {
	s := newSim(t, 1)
	a, b, c := s.Add("a", 3, nil), s.Add("b", 1, nil), s.Add("c", 2, nil)
	for _, m := range s.Members {
		m.Start(epoch1)
	}
	s.mustSecure(5 * time.Second)
	s.Net.Run(10 * time.Second)
	s.Segment.Tap = func(_ time.Time, from *simlink.Station, f []byte) {
		c.Station.Heal()
		if from == b.Station && bytes.Contains(f, []byte(epoch2.CKN)) && c.SAs.TransmitSAs() > 1 {
			c.Station.Cut(b.Station)
		}
	}
	lost := ""
	s.Stepped = func(*sim.Member, *mka.Output) {
		if lost == "" && !s.Carries(a, c) {
			lost = fmt.Sprintf("%v: a does not reach c any more", s.Since())
		}
	}
	secured := a.Saw(mka.NoticeSecured)
	for _, m := range s.Members {
		m.AddCAK(epoch2)
	}
	for range 1000 {
		if s.Net.Run(10 * time.Millisecond); a.Saw(mka.NoticeSecured) > secured {
			break
		}
	}
	s.Net.Run(2500 * time.Millisecond)
	b.Kill()
	s.Net.Run(time.Minute)
	if lost != "" {
		t.Error(lost)
	}
	for _, m := range []*sim.Member{a, c} {
		if st := m.Status(); st.Rekeying || !st.Secured || st.KI != a.Status().KI {
			t.Errorf("%s: rekeying %v, secured %v with %v", m.Name, st.Rekeying, st.Secured, st.KI)
		}
	}
}

// Somebody new, who would be key server, and who has not met the one that is away with
// notice: those who wait for him take no SAK that is not for him.
func TestNewcomerWaitsForWhoIsAway(t *testing.T) {
	s := newSim(t, 1)
	a, b, c := s.Add("a", 1, nil), s.Add("b", 2, nil), s.Add("c", 3, nil)
	b.Start(epoch1)
	c.Start(epoch1)
	s.mustSecure(5*time.Second, b, c)
	s.Net.Run(10 * time.Second)
	c.Step(mka.Event{Kind: mka.EventSuspend, Suspend: 40 * time.Second})
	s.Net.Run(time.Second)
	c.Kill()
	s.Net.Run(5 * time.Second)
	lost := s.watch([]*sim.Member{b, c})
	a.Start(epoch1)
	s.Net.Run(30 * time.Second)
	c.Start(epoch1)
	s.mustSecure(10 * time.Second)
	if *lost != "" {
		t.Error(*lost)
	}
}

// watch says when the first of those does not reach another any more.
func (s *scene) watch(those []*sim.Member) *string {
	lost := new(string)
	s.Stepped = func(*sim.Member, *mka.Output) {
		for _, from := range those {
			for _, to := range those {
				if from != to && *lost == "" && !s.Carries(from, to) {
					*lost = fmt.Sprintf("%v: %s does not reach %s any more", s.Since(), from.Name, to.Name)
				}
			}
		}
	}
	return lost
}

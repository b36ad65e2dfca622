package mka_test

import (
	"errors"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/sim"
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

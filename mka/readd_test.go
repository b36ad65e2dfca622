package mka_test

import (
	"testing"
	"time"

	"github.com/lever-link/lever/mka"
)

// A CAK that is taken away and given again, to an agent that resumed, is not resumed a
// second time: its numbers went on since the record of before was stored.
func TestCAKGivenAgainRepeatsNoNumber(t *testing.T) {
	s, a, b := pair(t, nil)
	for _, m := range s.Members {
		m.AddCAK(epoch2)
	}
	s.Net.Run(20 * time.Second)
	if st := a.Status(); st.CKN != epoch2.CKN {
		t.Fatalf("on %q", st.CKN)
	}
	a.Kill()
	a.Start(epoch1, epoch2)
	s.mustSecure(10 * time.Second)
	for range 3000 { // more message numbers than are left out when resuming
		a.Step(mka.Event{Kind: mka.EventLinkUp})
		s.Net.Run(100 * time.Millisecond)
	}
	a.RemoveCAK(epoch1.CKN)
	s.Net.Run(time.Second)
	a.AddCAK(epoch1) // sim checks message numbers
	s.Net.Run(2 * time.Second)
	live := 0
	for _, pa := range b.Status().Participants {
		for _, pe := range pa.Peers {
			if pe.Live {
				live++
			}
		}
	}
	if live != 2 {
		t.Errorf("b hears a under %d CAKs, want both", live)
	}
	s.noGaps()
}

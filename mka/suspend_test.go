package mka_test

import (
	"testing"
	"time"

	"github.com/lever-link/lever/mka"
)

// Whoever takes a fresh MI while he is away counts his message numbers from 1 again,
// and each of them announces that he is.
func TestSuspensionIsHeardUnderAFreshMI(t *testing.T) {
	s, a, b := pair(t, nil)
	s.Net.Run(time.Minute) // message numbers that the fresh MI does not reach soon
	b.Step(mka.Event{Kind: mka.EventSuspend, Suspend: time.Minute})
	b.Step(mka.Event{Kind: mka.EventRekey})
	mi := b.Status().Participants[0].MI
	s.Net.Run(5 * time.Second)
	if st := b.Status(); !st.Suspension.Heard || !st.Secured {
		t.Errorf("the peer has answered the fresh MI %v: heard %v, secured %v", mi, st.Suspension.Heard, st.Secured)
	}
	if until := a.Status().Participants[0].Peers[0].SuspendedUntil; until.IsZero() {
		t.Error("the key server does not know of the suspension")
	}
	s.noGaps()
}

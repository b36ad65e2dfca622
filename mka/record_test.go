package mka_test

import (
	"testing"
	"time"

	"github.com/lever-link/lever/mka"
)

// A record of before there was a SAK cannot be the last one if there are SAs: numbers
// were used since that it does not know.
func TestRecordOfBeforeTheFirstSAKIsNotResumed(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.Add("a", 1, nil), s.Add("b", 2, nil)
	a.Start(epoch1)
	first := a.Record
	if first == nil || first.Latest != nil || len(first.Participants) != 1 {
		t.Fatalf("the first record is %+v", first)
	}
	b.Start(epoch1)
	if _, ok := s.UntilSecured(5 * time.Second); !ok {
		t.Fatal("not secured")
	}
	for range 40 { // more key numbers than a stride has
		a.Step(mka.Event{Kind: mka.EventRekey})
		s.Net.Run(5 * time.Second)
	}
	a.Kill()
	a.StartFrom(first, epoch1)
	if mi := a.Status().Participants[0].MI; mi == first.Participants[0].MI {
		t.Errorf("the MI is still %v", mi)
	}
	if _, ok := s.UntilSecured(10 * time.Second); !ok {
		t.Error("not secured")
	}
}

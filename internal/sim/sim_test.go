package sim_test

import (
	"testing"
	"time"

	"github.com/lever-link/lever/internal/sim"
	"github.com/lever-link/lever/mka"
)

var epoch1 = sim.CAK{CKN: "epoch-1", Octet: 1, Rank: 1}

func TestTwoMembersSecureAndCarryData(t *testing.T) {
	s := sim.New(1)
	s.Fail = t.Errorf
	a, b := s.Add("a", 1, nil), s.Add("b", 2, nil)
	names := &sim.Namer{}
	s.Trace = func(e sim.Entry) { t.Logf("%v %s", e.At, s.Line(names, e)) }
	a.Start(epoch1)
	b.Start(epoch1)
	d, ok := s.UntilSecured(time.Second)
	if !ok || d > time.Millisecond {
		t.Fatalf("secured %v after %v", ok, d)
	}
	s.Trace = nil
	gaps := s.WatchGaps()
	s.Traffic(time.Second, s.Carries)
	for range 5 {
		b.Rekey()
		s.Net.Run(10 * time.Second)
	}
	if gaps.Count != 0 || a.Saw(mka.NoticeSAK) != 6 {
		t.Errorf("%d gaps, the first %s; %d SAKs", gaps.Count, gaps.First, a.Saw(mka.NoticeSAK))
	}
	// The last frame is still on its way.
	if n := s.DataFrames(); n.Sent < 98 || n.Delivered < n.Sent-2 || n.Expected != n.Sent {
		t.Errorf("%+v", n)
	}
	s.CheckNonces()
}

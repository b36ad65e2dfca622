package mka_test

import (
	"testing"
	"time"

	"github.com/lever-link/lever/internal/sim"
)

// scene is a simulated segment that fails its test, and that knows of every moment
// at which there was no way for a frame.
type scene struct {
	*sim.Sim
	t    *testing.T
	gaps *sim.Gaps
}

func newSim(t *testing.T, seed uint64) *scene {
	s := &scene{Sim: sim.New(seed), t: t}
	s.Fail = t.Errorf
	s.gaps = s.WatchGaps()
	t.Cleanup(s.CheckNonces)
	return s
}

// mustSecure runs until all are secured and fails when that takes longer.
func (s *scene) mustSecure(limit time.Duration, members ...*sim.Member) time.Duration {
	s.t.Helper()
	d, ok := s.UntilSecured(limit, members...)
	if !ok {
		for _, m := range s.Members {
			s.t.Logf("%s: %+v", m.Name, m.Status())
		}
		s.t.Fatalf("not secured within %v", limit)
	}
	return d
}

func (s *scene) noGaps() {
	s.t.Helper()
	if s.gaps.Count > 0 {
		s.t.Errorf("%d moments without a way for a frame, the first at %s", s.gaps.Count, s.gaps.First)
	}
}

package mka_test

import (
	"testing"
	"time"

	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/mka"
)

// The last frames of a peer that is gone, again.
func TestReplayDoesNotReviveAPeer(t *testing.T) {
	s, a, b := pair(t, nil)
	var last [][]byte
	s.Segment.Tap = func(_ time.Time, from *simlink.Station, f []byte) {
		if from == b.Station {
			last = append(last, append([]byte(nil), f...))
		}
	}
	s.Net.Run(5 * time.Second)
	b.Kill()
	killed := s.Net.Now()
	attacker := s.Segment.Attach(func([]byte) {})
	lost := time.Time{}
	for range 400 {
		s.Net.Run(100 * time.Millisecond)
		if lost.IsZero() && a.Saw(mka.NoticePeerLost) > 0 {
			lost = s.Net.Now()
		}
		if !lost.IsZero() {
			attacker.Send(last[len(last)-1])
		}
	}
	t.Logf("lost after %v; live notices %d lost notices %d, SAKs %d", lost.Sub(killed), a.Saw(mka.NoticePeerLive), a.Saw(mka.NoticePeerLost), a.Saw(mka.NoticeSAK))
	if n := a.Saw(mka.NoticePeerLive); n != 1 {
		t.Errorf("peer became live %d times by a replayed frame", n-1)
	}
}

// Sixty-four former lives of a member, replayed, do not keep it out.
func TestReplaysKeepNobodyOut(t *testing.T) {
	s, a, b := pair(t, nil)
	lives := map[string][]byte{}
	s.Segment.Tap = func(_ time.Time, from *simlink.Station, f []byte) {
		if from == b.Station && len(f) > 42 {
			lives[string(f[30:42])] = append([]byte(nil), f...)
		}
	}
	for range 70 {
		b.Kill()
		b.StartFrom(nil, epoch1)
		s.Net.Run(time.Second)
	}
	s.Segment.Tap = nil
	b.Kill()
	s.Net.Run(30 * time.Second)
	attacker := s.Segment.Attach(func([]byte) {})
	replay := func(d time.Duration) {
		for range d / (500 * time.Millisecond) {
			for _, f := range lives {
				attacker.Send(f)
			}
			s.Net.Run(500 * time.Millisecond)
		}
	}
	replay(2 * time.Second)
	b.StartFrom(nil, epoch1)
	replay(time.Minute)
	if n := a.Status().Participants[0].Peers; !s.Secured() {
		t.Errorf("not secured after a minute: %d lives replayed, %d peers", len(lives), len(n))
	}
}

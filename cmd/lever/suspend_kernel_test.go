//go:build kernel

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/mka"
)

// A planned restart that was announced: an agent is away for more than its life
// time, the key server for three of them or, in make trials, for ten, and neither
// a packet nor the peer is lost. It has the processor to itself.
func TestSuspend(t *testing.T) {
	s := newPair(t)
	s.deliver(1, "ab")
	s.start()
	key := s.secured()
	server := s.keyServer()
	s.remember()
	var absences []time.Duration
	s.underStream(0, 1, trialRate, func() {
		for _, end := range []int{server, 1 - server} {
			other := 1 - end
			said := s.lever(end, "suspend", fmt.Sprint(int((*trialAway + 38*time.Second).Seconds())))
			t.Logf("r%d: %s", end+1, strings.TrimSpace(said))
			if !strings.HasPrefix(said, theLink+": the far end waits until ") {
				t.Errorf("lever suspend says %q", said)
			}
			s.must(lab.Await(s.ctx(), patience, "the far end to show it", func() (bool, string) {
				l := s.status(other)
				return len(l.Peers) == 1 && l.Peers[0].SuspendedUntil != nil, strings.Join(l.Offers, " ")
			}))
			if table := s.lever(other, "status"); !strings.Contains(table, "has announced to be away until") {
				t.Errorf("lever status of the far end:\n%s", table)
			}
			s.stop(end)
			left := time.Now()
			// The other end goes on with its hellos, one in two seconds.
			hellos := int(*trialAway / mka.DefaultHello)
			if end != server && *trialAway < time.Minute {
				hellos /= 2 // CI has shown it once
			}
			heard := func() (n int) {
				s.wire.Look(func(c *lab.WireCount) { n = c.EAPOL() })
				return n
			}
			until := heard() + hellos
			s.must(lab.Await(s.ctx(), *trialAway+patience, fmt.Sprintf("%d hellos", hellos), func() (bool, string) {
				return heard() >= until, fmt.Sprintf("%d to come", until-heard())
			}))
			if l := s.status(other); l.State != lab.StateSecured || len(l.Faults) != 0 || !l.Peers[0].Live || l.Peers[0].SuspendedUntil == nil {
				t.Errorf("after %v: %+v", time.Since(left), l)
			}
			s.start(end)
			if now := s.secured(); now.ID != key.ID {
				t.Errorf("%v after %v: it was not resumed", now, key)
			}
			absences = append(absences, time.Since(left).Round(100*time.Millisecond))
			s.must(lab.Await(s.ctx(), patience, "the far end to be at one with it", func() (bool, string) {
				l := s.status(other)
				return l.Peers[0].SuspendedUntil == nil && len(l.Faults) == 0 && l.Rekeys == 0, strings.Join(l.Offers, " ")
			}))
		}
	})
	s.onlyEncrypted()
	figureOf(t, "suspend", "suspended and away under %d packets a second each way, the key server and the other end: %v without a packet lost\n  %v", trialRate, absences, s.spentOnce())
	for _, r := range s.routers {
		if log := strings.Join(r.LastLines(500), "\n"); strings.Contains(log, "peer_lost") {
			t.Errorf("%s says that its peer is lost:\n%s", r.Name, log)
		}
	}
	if _, err := s.routers[0].Lever(s.ctx(), "suspend", "121"); err == nil || !strings.Contains(err.Error(), "from 0 to 120") {
		t.Errorf("lever suspend 121: %v", err)
	}
	s.kill(1)
	s.must(lab.Await(s.ctx(), patience, "the peer to be missed", func() (bool, string) {
		_, err := s.routers[0].Lever(s.ctx(), "suspend", "60")
		return err != nil && strings.Contains(err.Error(), "may be given up by their far ends"), "it is there"
	}))
}

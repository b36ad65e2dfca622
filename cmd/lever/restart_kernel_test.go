//go:build kernel

package main

import (
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/agent"
	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/macsec"
)

// carries expects the encrypted path to stand whatever agents run, and the
// fence with it: pings pass over the device and none on the parent.
func (s *site) carries() {
	s.Helper()
	s.pings(0, 1)
	if n := s.plainPings(0, 1); n != 0 {
		s.Errorf("%d plain pings were answered", n)
	}
}

// Agents stop, crash, forget and come back, and the stream notices nothing.
func TestRestarts(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.deliver(1, "ab")
	s.start()
	key := s.secured()
	keyServer := s.keyServer()
	s.underStream(0, 1, besides, func() {
		for _, end := range []int{keyServer, 1 - keyServer} {
			for _, how := range []struct {
				name string
				end  func(...int)
			}{{"SIGTERM", s.stop}, {"SIGKILL", s.kill}} {
				t.Logf("%s to r%d", how.name, end+1)
				how.end(end)
				s.carries()
				s.start(end)
				now := s.secured()
				if now.ID != key.ID && !s.lostPeer(1-end) {
					t.Errorf("%s to r%d: %v after %v: it was not resumed", how.name, end+1, now, key)
				}
				key = now
			}
		}
		for _, end := range []int{keyServer, 1 - keyServer} {
			t.Logf("r%d's run directory is lost with its agent", end+1)
			s.kill(end)
			s.must(os.RemoveAll(s.routers[end].Path(lab.RunDir)))
			s.start(end)
			key = s.securedAnew(key) // the members have changed
		}
		t.Log("both agents at once")
		s.kill()
		s.carries()
		s.start()
		s.secured()
	})
	s.onlyEncrypted()
}

// lostPeer says whether a router has ever given its peer up. On a machine so busy
// that an agent takes a life time to start that is right, and so is the fresh SAK
// that the return of the peer makes.
func (s *site) lostPeer(i int) bool {
	return slices.ContainsFunc(s.routers[i].LastLines(1000), func(l string) bool { return strings.Contains(l, "peer_lost") })
}

// keyServer is which router is key server.
func (s *site) keyServer() int {
	s.Helper()
	all := s.await("all agents to name the same key server", func(l lab.LinkStatus) bool { return l.KeyServer != "" })
	i := slices.IndexFunc(all, func(l lab.LinkStatus) bool { return l.KeyServer == l.LocalSCI })
	if i < 0 {
		s.Fatal("neither end is key server")
	}
	return i
}

// An agent that dies in the midst of a rekey, wherever that is, loses nothing.
func TestKilledDuringRekey(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.deliver(1, "ab")
	s.start()
	s.secured()
	s.underStream(0, 1, besides, func() {
		for n := range 6 {
			victim, asked := n%2, (n/2)%2
			// Asked over its socket, the rekey begins now and not when a process
			// has started.
			done := make(chan error, 1)
			go func() {
				_, err := agent.NewClient(s.routers[asked].Path(lab.RunDir)).Rekey(s.ctx(), theLink)
				done <- err
			}()
			at := rand.N(20 * time.Millisecond)
			<-time.After(at) // the moment is what the test varies
			s.kill(victim)
			t.Logf("r%d, which was %v into a rekey asked for at r%d, is dead", victim+1, at, asked+1)
			s.carries()
			s.start(victim)
			key := s.secured()
			// Whether it was carried out or died with the agent is not promised;
			// that the next one is.
			err := <-done
			t.Logf("the rekey: %v", err)
			s.lever(victim, "rekey", theLink)
			s.securedAnew(key)
		}
	})
	s.onlyEncrypted()
}

// An agent that is away for longer than MKA waits costs nothing either: the
// encrypted path goes on without it.
func TestAgentAbsent(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.deliver(1, "ab")
	s.start()
	s.secured()
	for _, away := range []int{0, 1} {
		s.underStream(0, 1, besides, func() {
			s.kill(away)
			gone := time.Now()
			s.fault(1-away, health.PeerLost)
			s.must(lab.Await(s.ctx(), patience, "ten seconds without an agent", func() (bool, string) {
				return time.Since(gone) > 10*time.Second, ""
			}))
			s.carries()
			s.start(away)
			s.secured()
			s.noFault(1-away, health.PeerLost)
		})
	}
	s.onlyEncrypted()
}

// What a restarted agent finds in the kernel that is not as it must be is put
// right; a device that somebody took away is made anew.
func TestDeviceTakenAway(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.deliver(1, "ab")
	s.start()
	key := s.secured()
	l, err := s.routers[0].Space.Links.LinkByName(theDevice)
	s.must(err)
	s.must(s.routers[0].Space.Links.LinkDel(l))
	if _, err := s.routers[0].SecY(theDevice); err != nil && !errors.Is(err, macsec.ErrNotExist) {
		t.Fatal(err)
	}
	s.securedAnew(key)
	s.closedDevices()
	s.carries()
}

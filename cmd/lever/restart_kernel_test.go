//go:build kernel

package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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

// An agent that starts on a full run directory has nowhere to put its socket and
// its record, and looks after its link all the same.
func TestStartOnAFullRunDirectory(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.deliver(1, "ab")
	const size = 64 << 10
	dir := s.routers[0].Path(lab.RunDir)
	unmount, err := lab.SmallDisk(dir, size)
	s.must(err)
	t.Cleanup(func() { s.kill(0); s.mustNot(unmount()) })
	full := filepath.Join(dir, "filler")
	if err := os.WriteFile(full, make([]byte, 2*size), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	s.start()
	s.await("r2 to be secured with r1", isSecured, 1)
	s.carries()
	s.must(s.routers[0].Alive())
	s.must(os.Remove(full))
	key := s.secured()
	s.noFault(0, health.RunDirUnwritable)
	s.kill(0)
	s.start(0)
	if now := s.secured(); now.ID != key.ID && !s.lostPeer(1) {
		t.Errorf("%v after %v: it was not resumed", now, key)
	}
}

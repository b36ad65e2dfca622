//go:build !kernel

package agent

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyfile"
)

// TestStuckDisk has the disk below the state directory of r1 take a write and never
// end it, from the first key on and over a change of epoch.
func TestStuckDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		s := newSite(t, twoLinks, func(s *site) {
			s.files = func(n *node, f *files) {
				if n == s.r1 {
					f.replace = func(path string, text []byte) error { <-stuck; return keyfile.Replace(path, text) }
				}
			}
		})
		time.Sleep(10 * time.Second)
		for _, id := range []string{"l1", "l2"} {
			st := s.want(s.r1, id, StateSecured, health.StateUnwritable)
			if !strings.Contains(st.Faults[0].Text, "the disk has not taken it") {
				t.Errorf("%s", st.Faults[0])
			}
		}
		flow := s.stream(t)
		s.deliver(epoch(t, "2.0"))
		time.Sleep(30 * time.Second)
		if st := s.want(s.r1, "l1", StateSecured, health.StateUnwritable); st.Epoch != "2.0" || s.r1.server.alive() != nil {
			t.Errorf("%+v, %v", st, s.r1.server.alive())
		}
		// A session that begins anew does not go back to what the disk has, nothing.
		s.edit("ref: one}]", "ref: one}]\n    mka: {replay_window: 99}")
		if st := s.want(s.r1, "l1", StateSecured, health.StateUnwritable); st.Epoch != "2.0" {
			t.Errorf("%+v", st)
		}
		flow()
		close(stuck)
		time.Sleep(5 * time.Second)
		s.want(s.r1, "l1", StateSecured)
		if state, err := keys.NewStore(s.r1.stateDir).Load("l1"); err != nil || state.HighWater != epoch(t, "2.0") {
			t.Errorf("in the end the disk has %v, %v", state.HighWater, err)
		}
	})
}

// full is a run directory that takes so many writes, and of the next one a part.
type full struct {
	mu   sync.Mutex
	left int
}

func (f *full) write(path string, text []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left--
	if f.left >= 0 {
		return osFiles.write(path, text)
	}
	if f.left == -1 { // what had room
		if err := os.WriteFile(path, text[:len(text)/2], 0o600); err != nil {
			return err
		}
	}
	return fmt.Errorf("write %s: %w", path, syscall.ENOSPC)
}

// TestFullRunDirectory fills the run directory of r1 at every write of a start, two
// rekeys and a restart. No frame is lost, the link says what is wrong, and restarts
// without a record repeat nothing: the pair checks each nonce when it ends.
func TestFullRunDirectory(t *testing.T) {
	filled := true
	step := 4
	if *crashAll {
		step = 1
	}
	for at := 0; filled; at += step { // until there were no more writes than that
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &full{left: at}
				s := newSite(t, twoLinks, func(s *site) {
					s.files = func(n *node, on *files) {
						if n == s.r1 {
							on.write = f.write
						}
					}
				})
				time.Sleep(5 * time.Second)
				flow := s.stream(t)
				for range 2 {
					if err := s.r1.ask("rekey"); err != nil {
						t.Error(err)
					}
					time.Sleep(5 * time.Second)
				}
				s.r1.halt()
				s.startAt(s.r1)
				time.Sleep(20 * time.Second)
				if err := s.r2.ask("rekey"); err != nil {
					t.Error(err)
				}
				time.Sleep(5 * time.Second)
				flow()
				f.mu.Lock()
				filled = f.left < 0
				f.left = 1 << 30
				f.mu.Unlock()
				if filled {
					s.want(s.r1, "l1", StateSecured, health.RunDirUnwritable)
				}
				if err := s.r1.ask("rekey"); err != nil {
					t.Error(err)
				}
				time.Sleep(10 * time.Second)
				s.want(s.r1, "l1", StateSecured)
			})
		})
	}
}

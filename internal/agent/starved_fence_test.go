//go:build !kernel

package agent

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A fence that was seen closed a moment ago is no leak because nobody can look at it for
// want of descriptors; one that nobody can look at for long, or for another reason, is.
func TestFenceThatCannotBeLookedAt(t *testing.T) {
	for _, tt := range []struct {
		err     error // of closing, and of looking unless that has its own
		looking error
		lasting time.Duration
		down    bool
	}{
		{syscall.EMFILE, nil, 2 * time.Second, false},
		{fmt.Errorf("open a socket: %w", syscall.ENOBUFS), nil, 2 * time.Second, false},
		{syscall.EMFILE, nil, 10 * time.Second, true},
		{errors.New("an answer that nobody understands"), nil, 2 * time.Second, true},
		{errors.New("an answer that nobody understands"), syscall.EMFILE, 2 * time.Second, true},
	} {
		t.Run(fmt.Sprintf("%v, %v for %v", tt.err, tt.looking, tt.lasting), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newSecuredPair(t)
				time.Sleep(5 * time.Second)
				p.r1.noted()
				p.r1.failing("close fence", tt.err)
				p.r1.failing("inspect fence", cmp.Or(tt.looking, tt.err))
				time.Sleep(tt.lasting)
				p.r1.failing("close fence", nil)
				p.r1.failing("inspect fence", nil)
				down := strings.Contains(strings.Join(p.r1.noted(), "\n"), "eth4 up=false")
				if down != tt.down {
					t.Errorf("the parent was set down: %v", down)
				}
				time.Sleep(10 * time.Second)
				p.r1.wantFaults()
				p.on(0, "1.0")
			})
		})
	}
}

// What was seen says nothing of a fence of which the kernel has told meanwhile that it was
// changed, nor of another one that is wanted now.
func TestFenceThatIsAnotherSinceItWasSeen(t *testing.T) {
	for name, c := range map[string]struct {
		mode   string
		change func(s *site)
	}{
		"somebody opens it": {"enforce", func(s *site) {
			p := s.r1.iface("eth4")
			s.r1.mu.Lock()
			p.fenced = false
			s.r1.mu.Unlock()
			s.r1.links.signalFence(p.index)
		}},
		"it only counted so far": {"monitor", func(s *site) {
			s.write(twoLinks)
			s.r1.server.reload("SIGHUP", true)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, strings.Replace(twoLinks, "enforce", c.mode, 1))
				time.Sleep(10*time.Second + 100*time.Millisecond)
				s.r1.failing("close fence", syscall.EMFILE)
				s.r1.failing("inspect fence", syscall.EMFILE)
				c.change(s)
				synctest.Wait()
				s.r1.mu.Lock()
				up, fenced := s.r1.port.up, s.r1.port.fenced
				s.r1.mu.Unlock()
				if up && !fenced {
					t.Error("plain frames may pass")
				}
				s.r1.failing("close fence", nil)
				s.r1.failing("inspect fence", nil)
				time.Sleep(30 * time.Second)
				s.want(s.r1, "l1", StateSecured)
			})
		})
	}
}

// Who was kept from looking himself does not take for wedged whom he watches.
func TestStarvedIsNotWedged(t *testing.T) {
	at := time.Now()
	for gap, want := range map[time.Duration]time.Duration{
		0: 0, lookAfter: 0, 2 * lookAfter: 0, 3 * lookAfter: 2 * lookAfter, time.Minute: time.Minute - lookAfter,
	} {
		if got := starved(at, at.Add(gap)); got != want {
			t.Errorf("after %v: %v, want %v", gap, got, want)
		}
	}
}

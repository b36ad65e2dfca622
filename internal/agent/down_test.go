//go:build !kernel

package agent

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// standing is a link that an agent, which is gone, has left standing.
func standing(t *testing.T) *pair {
	t.Helper()
	p := newSecuredPair(t)
	p.halt()
	p.r1.noted()
	return p
}

// down is `lever down` at r1 without an agent.
func (p *pair) down(links ...string) ([]string, error) {
	on := p.r1.platform()
	return downWithoutAgent(&on, func() (macsec.Kernel, error) { return p.r1.kernel, nil }, p.r1.runDir, links)
}

func (p *pair) stands() bool {
	_, err := p.r1.kernel.Device("eth4-sec")
	return err == nil && p.r1.now().fenced
}

func TestDownWithoutAgent(t *testing.T) {
	for _, links := range [][]string{nil, {"l1"}} {
		synctest.Test(t, func(t *testing.T) {
			p := standing(t)
			done, err := p.down(links...)
			if err != nil || !slices.Equal(done, []string{"l1"}) {
				t.Fatalf("%q, %v", done, err)
			}
			if got, want := p.r1.noted(), []string{"DeleteDevice eth4-sec", "fence opened on eth4"}; !slices.Equal(got, want) {
				t.Errorf("did %q, want %q", got, want)
			}
			if _, err := os.Stat(linkPath(p.r1.runDir, "l1")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the record stays: %v", err)
			}
			// Nothing is left: everything is nothing, and a name is a mistake.
			if done, err := p.down(); err != nil || len(done) != 0 {
				t.Errorf("a second time: %q, %v", done, err)
			}
			if done, err := p.down("l1"); err == nil || len(done) != 0 || !strings.Contains(err.Error(), p.r1.runDir) {
				t.Errorf("a second time by name: %q, %v", done, err)
			}
		})
	}
}

func TestDownOfWhatIsHalfGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := standing(t)
		if err := p.r1.kernel.DeleteDevice(p.r1.device().Index); err != nil {
			t.Fatal(err)
		}
		if done, err := p.down(); err != nil || len(done) != 1 || p.r1.now().fenced {
			t.Errorf("%q, %v, fenced %v", done, err, p.r1.now().fenced)
		}
	})
}

// When a step fails the link stays as closed as it was, and can be tried again.
func TestDownThatFails(t *testing.T) {
	broken := errors.New("broken on purpose")
	for _, c := range []struct {
		name   string
		damage func(*node) (repair func())
		want   string
	}{
		{"the device cannot be read", func(n *node) func() {
			n.kernel.Fail(macsec.OpDevice, -1, syscall.EIO)
			return n.kernel.Recover
		}, "take link l1 down: macsec: Device on eth4-sec: input/output error"},
		{"the device cannot be deleted", func(n *node) func() {
			n.kernel.Fail(macsec.OpDeleteDevice, -1, syscall.EPERM)
			return n.kernel.Recover
		}, "the fence stays"},
		{"another's device", func(n *node) func() {
			if err := n.kernel.DeleteDevice(n.device().Index); err != nil {
				n.t.Fatal(err)
			}
			other := n.plug("eth5", &wire{}, mka.MAC{2, 9})
			if _, err := n.kernel.CreateDevice(other.index, "eth4-sec", macsec.DeviceConfig{}); err != nil {
				n.t.Fatal(err)
			}
			return func() { n.unplug(other) }
		}, "sits on another interface: left alone, and the fence with it"},
		{"the interface is elsewhere", func(n *node) func() {
			name := n.port.name
			n.change(n.port, func(p *port) { p.name = "elsewhere" })
			return func() { n.change(n.port, func(p *port) { p.name = name }) }
		}, "nothing removed: there is no interface eth4"},
		{"the fence does not open", func(n *node) func() {
			n.failing("open fence", broken)
			return func() { n.failing("open fence", nil) }
		}, "open the fence on eth4: broken on purpose"},
		{"the record is torn", func(n *node) func() {
			path := linkPath(n.runDir, "l1")
			good, err := os.ReadFile(path)
			if err != nil {
				n.t.Fatal(err)
			}
			put := func(b []byte) {
				if err := os.WriteFile(path, b, 0o600); err != nil {
					n.t.Error(err)
				}
			}
			put(good[:20])
			return func() { put(good) }
		}, "read the record of link l1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := standing(t)
				repair := c.damage(p.r1)
				done, err := p.down()
				if len(done) != 0 || err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%q, %v, want %q", done, err, c.want)
				}
				if !p.r1.now().fenced {
					t.Error("the fence is open")
				}
				if _, err := os.Stat(linkPath(p.r1.runDir, "l1")); err != nil {
					t.Errorf("the record is gone: %v", err)
				}
				repair()
				if done, err := p.down(); err != nil || len(done) != 1 || p.stands() {
					t.Errorf("put right: %q, %v", done, err)
				}
			})
		})
	}
}

func TestDownNamesWhatIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := standing(t)
		done, err := p.down("l9", "l1")
		if !slices.Equal(done, []string{"l1"}) || err == nil || !strings.Contains(err.Error(), `take link "l9" down: no agent has left it in `+p.r1.runDir) {
			t.Errorf("%q, %v", done, err)
		}
		p.r1.runDir = t.TempDir()
		if _, err := p.down(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "none has left links in "+p.r1.runDir) {
			t.Errorf("a directory that no agent has used: %v", err)
		}
		if left, err := os.ReadDir(p.r1.runDir); err != nil || len(left) != 0 {
			t.Errorf("made there: %v, %v", left, err)
		}
	})
}

func TestDownNeedsAKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := standing(t)
		on := p.r1.platform()
		_, err := downWithoutAgent(&on, func() (macsec.Kernel, error) { return nil, macsec.ErrUnsupported }, p.r1.runDir, nil)
		if !errors.Is(err, macsec.ErrUnsupported) || !p.stands() {
			t.Errorf("%v", err)
		}
	})
}

// TestDownUnderAnAgentThatFails has one step of it fail. The link stays as closed as it
// was, and is set up again by itself: nothing of the attempt is left.
func TestDownUnderAnAgentThatFails(t *testing.T) {
	for name, fail := range map[string]func(n *node, broken *atomic.Bool){
		"the device cannot be deleted": func(n *node, _ *atomic.Bool) { n.kernel.Fail(macsec.OpDeleteDevice, 1, syscall.EPERM) },
		"the record cannot be removed": func(_ *node, broken *atomic.Bool) { broken.Store(true) },
		"the fence does not open":      func(n *node, _ *atomic.Bool) { n.failing("open fence", syscall.EPERM) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var broken atomic.Bool
				s := newSite(t, twoLinks, func(s *site) {
					s.files = func(_ *node, f *files) {
						remove := f.remove
						f.remove = func(path string) error {
							if broken.Load() {
								return &os.PathError{Op: "remove", Path: path, Err: syscall.EROFS}
							}
							return remove(path)
						}
					}
				})
				time.Sleep(10 * time.Second)
				fail(s.r1, &broken)
				s.r1.noted()
				if err := s.r1.ask("down"); err == nil || !strings.Contains(err.Error(), "take link l1 down") {
					t.Errorf("it says %v", err)
				}
				broken.Store(false)
				s.r1.failing("open fence", nil)
				time.Sleep(20 * time.Second)
				s.want(s.r1, "l1", StateSecured)
				if slices.Contains(s.r1.noted(), "fence opened on eth4") {
					t.Error("the fence was open")
				}
				p := s.r1.iface("eth4")
				s.r1.unplug(p)
				time.Sleep(2 * time.Second)
				s.r1.plug("eth4", s.wire, p.address)
				time.Sleep(20 * time.Second)
				s.want(s.r1, "l1", StateSecured)
				if !s.r1.fencedAt("eth4") {
					t.Error("the interface was replaced, and the link is open")
				}
				if err := s.r1.ask("down"); err != nil {
					t.Error(err)
				}
				s.want(s.r1, "l1", StateDown, health.TakenDown)
				if _, err := os.Stat(linkPath(s.r1.runDir, "l1")); err == nil || s.r1.fencedAt("eth4") {
					t.Errorf("a second time: the record is there: %v", err)
				}
			})
		})
	}
}

// TestDownThatOpensHalfAFence: what is closed again then was opened by nobody else.
func TestDownThatOpensHalfAFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		time.Sleep(10 * time.Second)
		p.r1.server.mu.Lock()
		on := &p.r1.server.tasks["l1"].server.platform
		p.r1.server.mu.Unlock()
		open := on.openFence
		on.openFence = func(index int) error { return errors.Join(open(index), syscall.EPERM) }
		if err := p.r1.ask("down"); !errors.Is(err, syscall.EPERM) {
			t.Errorf("it says %v", err)
		}
		time.Sleep(5 * time.Second)
		if st := p.r1.status(); st.State != StateSecured || has(st, health.FenceDrift) || !p.r1.now().fenced {
			t.Errorf("%s, fenced %v, %q", st.State, p.r1.now().fenced, st.Faults)
		}
	})
}

// TestDownTwiceInOneCommand names a link twice, without an agent.
func TestDownTwiceInOneCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := standing(t)
		if done, err := p.down("l1", "l1"); err != nil || !slices.Equal(done, []string{"l1"}) || p.stands() {
			t.Errorf("%q, %v", done, err)
		}
	})
}

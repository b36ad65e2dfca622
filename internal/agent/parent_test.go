//go:build !kernel

package agent

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/mka"
)

// TestParentStaysDown has an operator set the interface down, which is an order. Nothing
// that begins the link's session anew is a reason to set it up.
func TestParentStaysDown(t *testing.T) {
	for name, then := range map[string]func(s *site){
		"nothing else":       func(*site) {},
		"another address":    func(s *site) { s.r1.change(s.r1.iface("eth4"), func(p *port) { p.address[5] = 99 }) },
		"another rekey time": func(s *site) { s.edit("mode: enforce", "mode: enforce, sak_rekey: 2h") },
		"another cipher":     func(s *site) { s.edit(l1Leased+"]", l1Leased+"]\n    cipher: gcm-aes-256") },
		"agent restarted":    func(s *site) { s.r1.halt(); s.startAt(s.r1) },
		"device deleted":     func(s *site) { _ = s.r1.kernel.DeleteDevice(s.secy(s.r1, "eth4-sec").Index) },
		"a port for a while": func(s *site) {
			p := s.r1.iface("eth4")
			s.r1.change(p, func(p *port) { p.master = 77 })
			time.Sleep(3 * time.Second)
			s.r1.change(p, func(p *port) { p.master = 0 })
		},
		"a fence that cannot be closed for a while": func(s *site) {
			s.r1.failing("close fence", errors.New("occupied"))
			s.r1.change(s.r1.iface("eth4"), func(p *port) { p.fenced = false })
			time.Sleep(3 * time.Second)
			s.r1.failing("close fence", nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, twoLinks)
				time.Sleep(10 * time.Second)
				p := s.r1.iface("eth4")
				s.r1.change(p, func(p *port) { p.up, p.running = false, false })
				time.Sleep(10 * time.Second)
				then(s)
				time.Sleep(20 * time.Second)
				if s.r1.upAt("eth4") {
					t.Error("the agent has set it up")
				}
				if st, _ := s.link(s.r1, "l1"); !has(st, health.ParentDown) {
					t.Errorf("nobody hears of it: %+v", st)
				}
				s.r1.change(p, func(p *port) { p.up, p.running = true, true })
				time.Sleep(30 * time.Second)
				s.want(s.r1, "l1", StateSecured)
			})
		})
	}
}

// TestParentIsSetUp is about an interface that is down by nobody's order: the agent held
// it down, for its fence could not be closed, or the link was never set up on it.
func TestParentIsSetUp(t *testing.T) {
	occupied := errors.New("occupied")
	hold := func(n *node) {
		n.failing("close fence", occupied)
		n.change(n.iface("eth4"), func(p *port) { p.fenced = false })
		time.Sleep(3 * time.Second)
		if n.upAt("eth4") {
			n.t.Error("its fence is open, and it is up")
		}
	}
	for name, then := range map[string]func(s *site){
		"held":                     func(s *site) { hold(s.r1) },
		"held, and restarted":      func(s *site) { hold(s.r1); s.r1.halt(); s.startAt(s.r1); time.Sleep(3 * time.Second) },
		"held, and restarted late": func(s *site) { hold(s.r1); s.r1.halt(); s.r1.failing("close fence", nil); s.startAt(s.r1) },
		"held from the start": func(s *site) {
			s.r1.halt()
			removeRecord(s.r1)
			s.r1.failing("close fence", occupied)
			s.r1.iface("eth4").fenced = false
			s.startAt(s.r1)
			time.Sleep(3 * time.Second)
			s.r1.halt()
			s.startAt(s.r1)
		},
		"held twice": func(s *site) {
			hold(s.r1)
			s.r1.failing("close fence", nil)
			time.Sleep(5 * time.Second)
			hold(s.r1)
		},
		"never set up": func(s *site) {
			s.r1.halt()
			removeRecord(s.r1)
			s.r1.change(s.r1.iface("eth4"), func(p *port) { p.up, p.running = false, false })
			s.startAt(s.r1)
		},
		"replaced": func(s *site) {
			s.r1.unplug(s.r1.iface("eth4"))
			s.r1.halt()
			p := s.r1.plug("eth4", s.wire, mka.MAC{2, 0, 0, 0, 0, 1})
			p.up, p.running = false, false
			s.startAt(s.r1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, twoLinks)
				time.Sleep(10 * time.Second)
				then(s)
				s.r1.failing("close fence", nil)
				time.Sleep(30 * time.Second)
				s.r1.links.signal(0) // as the kernel does when it is set up
				time.Sleep(10 * time.Second)
				if !s.r1.upAt("eth4") {
					t.Error("it stays down")
				}
				s.want(s.r1, "l1", StateSecured)
				// What was held is no longer: from now on an order is one.
				s.r1.change(s.r1.iface("eth4"), func(p *port) { p.up, p.running = false, false })
				s.r1.halt()
				s.startAt(s.r1)
				time.Sleep(10 * time.Second)
				if s.r1.upAt("eth4") {
					t.Error("the agent has set it up against an order")
				}
			})
		})
	}
}

// TestParentIsHeldUnrecorded has the agent hold the interface down at a moment at which
// it cannot write that down: it does so as soon as it can, for a restart takes what is not
// written for an order.
func TestParentIsHeldUnrecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refused atomic.Bool
		s := newSite(t, twoLinks, func(s *site) {
			s.files = func(_ *node, f *files) {
				write := f.write
				f.write = func(path string, text []byte) error {
					if refused.Load() {
						return &os.PathError{Op: "write", Path: path, Err: syscall.EMFILE}
					}
					return write(path, text)
				}
			}
		})
		time.Sleep(10*time.Second + 100*time.Millisecond)
		refused.Store(true)
		s.r1.failing("close fence", errors.New("occupied"))
		s.r1.change(s.r1.iface("eth4"), func(p *port) { p.fenced = false })
		time.Sleep(3 * time.Second)
		if s.r1.upAt("eth4") {
			t.Error("its fence is open, and it is up")
		}
		refused.Store(false)
		time.Sleep(3 * time.Second)
		s.r1.halt()
		s.r1.failing("close fence", nil)
		s.startAt(s.r1)
		time.Sleep(5 * time.Second)
		if !s.r1.upAt("eth4") {
			t.Error("it stays down")
		}
	})
}

func (m *machine) upAt(name string) bool {
	p := m.iface(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	return p.up
}

// removeRecord is a run directory that knows nothing of l1, as after a boot.
func removeRecord(n *node) {
	n.t.Helper()
	if err := removeLinkFile(osFiles, n.runDir, "l1"); err != nil {
		n.t.Fatal(err)
	}
}

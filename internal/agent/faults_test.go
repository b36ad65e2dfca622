//go:build !kernel

package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// What keeps a link from being set up has a name, leaks nothing, and is over
// soon after its cause.
func TestSetUpFaults(t *testing.T) {
	broken := errors.New("broken on purpose")
	for _, c := range []struct {
		name   string
		damage func(*node)
		repair func(*node)
		code   health.Code
		text   string
	}{
		{"no interface", func(n *node) { n.unplug(n.port) }, func(n *node) { n.port = n.plug("eth4", n.port.wire, n.port.address) },
			health.ParentMissing, "there is no interface eth4"},
		{"bridge port", func(n *node) {
			br := n.plug("br0", &wire{}, mka.MAC{2, 9})
			n.change(n.port, func(p *port) { p.master = br.index })
		}, func(n *node) { n.change(n.port, func(p *port) { p.master = 0 }) },
			health.ParentEnslaved, "eth4 is a port of br0"},
		{"no fence", func(n *node) { n.failing("close fence", broken) }, func(n *node) { n.failing("close fence", nil) },
			health.FenceMissing, "broken on purpose"},
		{"a fence that nobody can look at", func(n *node) { n.failing("inspect fence", broken) }, func(n *node) { n.failing("inspect fence", nil) },
			health.FenceMissing, "broken on purpose"},
		{"no MACsec", func(n *node) { n.kernel.Fail(macsec.OpCreateDevice, -1, macsec.ErrUnsupported) }, func(n *node) { n.kernel.Recover() },
			health.KernelLacking, "the kernel cannot do MACsec"},
		{"no permission", func(n *node) { n.kernel.Fail(macsec.OpCreateDevice, -1, syscall.EPERM) }, func(n *node) { n.kernel.Recover() },
			health.LinkFailed, "operation not permitted"},
		{"unreadable device", func(n *node) { n.kernel.Fail(macsec.OpSecY, -1, syscall.EIO) }, func(n *node) { n.kernel.Recover() },
			health.LinkFailed, "input/output error"},
		{"no socket", func(n *node) { n.failing("open MKA", broken) }, func(n *node) { n.failing("open MKA", nil) },
			health.LinkFailed, "listen for MKA on eth4: broken on purpose"},
		{"a parent that stays down", func(n *node) {
			n.change(n.port, func(p *port) { p.up, p.running = false, false })
			n.failing("set up", broken)
		}, func(n *node) { n.failing("set up", nil) },
			health.LinkFailed, "set eth4 up: broken on purpose"},
		{"somebody else's device", func(n *node) {
			other := n.plug("eth5", &wire{}, mka.MAC{2, 9})
			if _, err := n.kernel.CreateDevice(other.index, "eth4-sec", macsec.DeviceConfig{}); err != nil {
				n.t.Fatal(err)
			}
		}, func(n *node) {
			if err := n.kernel.DeleteDevice(n.device().Index); err != nil {
				n.t.Fatal(err)
			}
		}, health.DeviceForeign, "it sits on eth5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				p.deliver(epoch(t, "1.0"))
				c.damage(p.r1)
				p.r1.noted()
				p.start()
				f := p.r1.awaitFault(0, c.code)
				if !strings.Contains(f.Text, c.text) || strings.Contains(f.String(), "(unknown)") || f.Severity != health.Critical {
					t.Errorf("%s, want %q", f, c.text)
				}
				time.Sleep(10 * time.Second)
				st := p.r1.status()
				if st.State != StateFailed || len(st.Faults) != 1 || !st.Faults[0].Since.Equal(f.Since) {
					t.Errorf("ten seconds later %+v", st)
				}
				did := p.r1.noted()
				if slices.Contains(did, "MKPDU") || slices.Contains(did, "UpdateDevice eth4-sec up=true") {
					t.Errorf("it goes on all the same: %q", did)
				}
				c.repair(p.r1)
				p.secured(5 * time.Second)
			})
		})
	}
}

// TestAddressThatCannotBeAdded is what a link with an address of IPv6 is in for where
// that is switched off: it has its keys, and the rest of its traffic, all the same.
func TestAddressThatCannotBeAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.deliver(epoch(t, "1.0"))
		p.r1.failing("addresses", syscall.EACCES)
		p.start()
		p.r1.awaitState(5*time.Second, StateSecured)
		f := p.r1.awaitFault(0, health.AddressMissing)
		if !strings.Contains(f.Text, "eth4-sec has not all of its addresses: permission denied") || strings.Contains(f.String(), "(unknown)") {
			t.Errorf("%s", f)
		}
		p.r1.halt()
		p.r1.start()
		time.Sleep(30 * time.Second)
		p.r1.awaitState(0, StateSecured)
		if said := strings.Count(p.r1.log.String(), "msg=addresses"); said != 2 {
			t.Errorf("said %d times by two agents", said)
		}
		p.r1.failing("addresses", nil)
		p.secured(5 * time.Second)
	})
}

func TestParentIsDownWhileTheFenceLeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.deliver(epoch(t, "1.0"))
		p.r1.failing("close fence", errors.New("occupied"))
		p.r1.port.foreign = []fence.Finding{{Direction: fence.Egress, Problem: fence.Missing, Priority: 1, Leak: true}}
		p.start()
		p.r1.awaitFault(0, health.FenceMissing)
		if p.r1.now().up {
			t.Error("plain frames may leave")
		}
		p.r1.change(p.r1.port, func(p *port) { p.foreign = nil })
		p.r1.failing("close fence", nil)
		p.secured(5 * time.Second)
	})
}

func TestForeignFilterIsAFaultOfALinkThatWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.deliver(epoch(t, "1.0"))
		p.r1.port.foreign = []fence.Finding{{Direction: fence.Egress, Problem: fence.Foreign, Priority: 1, Text: "u32"}}
		p.start()
		if f := p.r1.awaitFault(time.Second, health.FenceForeign); strings.Contains(f.String(), "(unknown)") {
			t.Errorf("%s", f)
		}
		p.r1.awaitState(time.Second, StateSecured)
	})
}

// newStaticPair is a link whose ends take each other for somebody else's
// equipment.
func newStaticPair(t *testing.T, cak string) *pair {
	t.Helper()
	p := newPair(t)
	p.change(func(l *inventory.Link) { l.External, l.Cipher = true, inventory.GCMAES256 })
	for i, n := range p.nodes() {
		file := filepath.Join(n.stateDir, "l1.cak")
		if err := os.WriteFile(file, []byte(cak), 0o600); err != nil {
			t.Fatal(err)
		}
		l := *n.link.Link
		l.PSK = []inventory.PSK{{CKN: []byte("abcd"), CAKFile: file}}
		l.MKA.Priority += uint8(i)
		n.link.Link = &l
	}
	return p
}

func TestStaticKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cak := strings.Repeat("4d", 32)
		p := newStaticPair(t, cak)
		p.start()
		p.secured(5 * time.Second)
		st := p.r1.status()
		if st.CKN != "61626364" || st.Epoch != "" || st.Cipher != "GCM-AES-256" {
			t.Errorf("%+v", st)
		}
		if strings.Contains(p.r1.log.String(), cak[:16]) {
			t.Error("the CAK is in the log")
		}
		// MKA has no way for a client to ask other equipment for a SAK.
		if err := p.r2.ask("rekey"); err == nil || !strings.Contains(err.Error(), "is key server") {
			t.Errorf("%v", err)
		}
		defer p.stream(t)()
		if err := p.r1.ask("rekey"); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Second)
	})
}

func TestStaticKeyFilesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(file string) error
		code   health.Code
	}{
		"readable by others": {func(f string) error { return os.Chmod(f, 0o644) }, health.KeyFilePermissions},
		"malformed":          {func(f string) error { return os.WriteFile(f, []byte("not hexadecimal\n"), 0o600) }, health.KeyFileMalformed},
		"missing":            {os.Remove, health.KeyFileUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newStaticPair(t, strings.Repeat("4d", 32))
				file := p.r1.link.PSK[0].CAKFile
				if err := c.damage(file); err != nil {
					t.Fatal(err)
				}
				p.r1.start()
				f := p.r1.awaitFault(time.Second, c.code)
				if !strings.Contains(f.Text, file) || strings.Contains(f.String(), "(unknown)") {
					t.Errorf("%s", f)
				}
				if s := p.r1.status(); s.State != StateWaiting {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func TestBelowPolicyCipherIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.change(func(l *inventory.Link) { l.Cipher = inventory.GCMAES128 })
		p.deliver(epoch(t, "1.0"))
		p.start()
		for _, n := range p.nodes() {
			n.awaitState(time.Second, StateSecured)
			f := n.awaitFault(0, health.BelowPolicyCipher)
			if n.device().CipherSuite != macsec.GCMAES128 || strings.Contains(f.String(), "(unknown)") {
				t.Errorf("%s: %s", n.name, f)
			}
		}
	})
}

func TestSuiteMismatchIsSaidAndNothingInstalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		l := *p.r2.link.Link
		l.Cipher = inventory.GCMAES256
		p.r2.link.Link = &l
		p.deliver(epoch(t, "1.0"))
		p.start()
		f := p.r2.awaitFault(10*time.Second, health.SuiteMismatch)
		if !strings.Contains(f.Text, "GCM-AES-XPN-256") || !strings.Contains(f.Text, "was made for GCM-AES-256") {
			t.Errorf("%s", f)
		}
		time.Sleep(time.Minute)
		for _, n := range p.nodes() {
			if s := n.status(); s.State == StateSecured || n.device().Up {
				t.Errorf("%s: %+v", n.name, s)
			}
		}
	})
}

// TestFailedLinkAmidEvents has interfaces that are no business of a failed link change a
// thousand times a second: it is not set up anew for each. When its own comes back, or
// changes, it is at once.
func TestFailedLinkAmidEvents(t *testing.T) {
	for name, c := range map[string]struct {
		damage, repair func(*node)
	}{
		"its interface is a port": {
			func(n *node) { n.change(n.port, func(p *port) { p.master = 77 }) },
			func(n *node) { n.change(n.port, func(p *port) { p.master = 0 }) },
		},
		"its interface is missing": {
			func(n *node) { n.unplug(n.port) },
			func(n *node) { n.port = n.plug("eth4", n.port.wire, n.port.address) },
		},
		"its device cannot be made": {
			func(n *node) {
				n.kernel.Fail(macsec.OpCreateDevice, -1, syscall.EPERM)
				if err := n.kernel.DeleteDevice(n.device().Index); err != nil {
					n.t.Fatal(err)
				}
			},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newSecuredPair(t)
				time.Sleep(10 * time.Second)
				c.damage(p.r1)
				time.Sleep(5 * time.Second)
				p.r1.awaitState(0, StateFailed)
				tries := p.r1.attempts()
				storm := func() {
					for range 1000 {
						p.r1.links.signal(4711) // somebody's container
						time.Sleep(time.Millisecond)
					}
				}
				storm()
				if n := p.r1.attempts() - tries; n > 20 {
					t.Errorf("it was set up anew %d times in a second", n)
				}
				if c.repair == nil {
					return
				}
				time.Sleep(time.Millisecond)
				p.r1.links.signal(4711)
				synctest.Wait()
				c.repair(p.r1)
				synctest.Wait()
				if st := p.r1.status(); st.State == StateFailed || !p.r1.now().fenced {
					t.Errorf("its interface is back, fenced %v: %+v", p.r1.now().fenced, st)
				}
				p.r1.awaitState(10*time.Second, StateSecured)
			})
		})
	}
}

// attempts is how often a session was begun: each closes the fence first.
func (n *node) attempts() int {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked["close fence"]
}

// An interface that is not Ethernet can be neither fenced nor encrypted: it carries
// nothing, unless the policy only counts.
func TestNotEthernet(t *testing.T) {
	for mode, up := range map[inventory.Mode]bool{inventory.Enforce: false, inventory.Monitor: true} {
		t.Run(mode.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				p.r1.policy.Mode = mode
				p.r1.failing("find parent", &notEthernetError{"eth4", p.r1.port.index})
				p.r1.start()
				f := p.r1.awaitFault(time.Second, health.LinkFailed)
				if !strings.Contains(f.Text, "eth4 has no Ethernet address") || strings.Contains(f.Text, "held down") == up {
					t.Errorf("%s", f)
				}
				if now := p.r1.now(); now.up != up {
					t.Errorf("the interface is up: %v", now.up)
				}
			})
		})
	}
}

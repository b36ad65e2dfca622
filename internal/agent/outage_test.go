//go:build !kernel

package agent

import (
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
	"github.com/lever-link/lever/mka"
)

func TestInterfaceGoneAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		// Faults that only a session can see the end of end with it.
		p.r1.change(p.r1.port, func(p *port) { p.running = false })
		next := epoch(t, "2.0")
		p.r1.channels[keys.A].put(next, octets(next, keys.A))
		p.r1.awaitFault(0, health.ParentDown)
		p.r1.awaitFault(20*time.Second, health.PeerLost)
		p.r1.awaitFault(0, health.ChannelLate)
		p.r1.unplug(p.r1.port)
		st := p.r1.awaitState(0, StateFailed)
		if len(st.Faults) != 1 || !has(st, health.ParentMissing) || st.AN != nil || st.SecuredSince != nil {
			t.Errorf("without its interface: %+v", st)
		}
		if err := p.r1.ask("rekey"); err == nil || !strings.Contains(err.Error(), "not set up") {
			t.Errorf("rekey of a link without its interface: %v", err)
		}
		p.r2.awaitFault(20*time.Second, health.PeerLost)
		p.r1.port = p.r1.plug("eth4", p.wire, p.r1.port.address)
		p.r1.awaitFault(time.Second, health.ChannelLate)
		p.r1.channels[keys.A].put(next, nil)
		for _, n := range p.nodes() {
			n.awaitState(10*time.Second, StateSecured)
		}
		p.secured(10 * time.Second)
		if !p.r1.now().fenced {
			t.Error("the interface that came back is not fenced")
		}
		for _, way := range [][2]*node{{p.r1, p.r2}, {p.r2, p.r1}} {
			if err := way[0].send(way[1]); err != nil {
				t.Errorf("after it came back: %v", err)
			}
		}
		if s := p.r1.status(); s.SecuredSince == nil || s.SecuredSince.Before(time.Date(2000, 1, 1, 0, 0, 1, 0, time.UTC)) {
			t.Errorf("secured since before it was lost: %+v", s)
		}
	})
}

// An interface of the same name may be another one by the time we look.
func TestInterfaceReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		mac := p.r1.port.address
		p.r1.kernel.RemoveInterface(p.r1.port.index)
		p.r1.mu.Lock()
		p.r1.ports = nil
		p.r1.mu.Unlock()
		p.r1.port = p.r1.plug("eth4", p.wire, mac)
		p.r1.awaitFault(0, health.ParentDrift)
		time.Sleep(30 * time.Second)
		p.secured(time.Second)
		if !p.r1.now().fenced {
			t.Error("the new interface is not fenced")
		}
	})
}

func TestDeviceRemovedBySomebodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		if err := p.r2.kernel.DeleteDevice(p.r2.device().Index); err != nil {
			t.Fatal(err)
		}
		// Seen at the next sample.
		if f := p.r2.awaitFault(2*time.Second, health.SecYDrift); !strings.Contains(f.Text, "device deleted") {
			t.Errorf("%+v", f)
		}
		time.Sleep(30 * time.Second)
		p.secured(time.Second)
		for _, way := range [][2]*node{{p.r1, p.r2}, {p.r2, p.r1}} {
			if err := way[0].send(way[1]); err != nil {
				t.Errorf("after it was made anew: %v", err)
			}
		}
	})
}

func TestCarrierLostAndBack(t *testing.T) {
	for name, c := range map[string]struct {
		down, up func(*port)
		detail   string
	}{
		"cable":         {func(p *port) { p.running = false }, func(p *port) { p.running = true }, "no carrier"},
		"administrator": {func(p *port) { p.up, p.running = false, false }, func(p *port) { p.up, p.running = true, true }, "set down by an administrator"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newSecuredPair(t)
				had := sas(p.r1.device())
				p.r1.change(p.r1.port, c.down)
				f := p.r1.awaitFault(0, health.ParentDown)
				if !strings.Contains(f.Text, c.detail) {
					t.Errorf("%s", f)
				}
				time.Sleep(2 * time.Second) // shorter than a life: nobody is lost
				p.r1.change(p.r1.port, c.up)
				p.secured(time.Second)
				time.Sleep(10 * time.Second)
				p.secured(0)
				if has := sas(p.r1.device()); !slices.Equal(has, had) {
					t.Errorf("a short outage made %v of %v", has, had)
				}
				p.r1.change(p.r1.port, c.down)
				time.Sleep(time.Minute)
				p.r1.change(p.r1.port, c.up)
				p.secured(10 * time.Second)
			})
		})
	}
}

// A peer that falls silent costs no SA: what works keeps working.
func TestSilentPeerKeepsTheSAs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		defer p.stream(t)()
		p.sever(true)
		for _, n := range p.nodes() {
			st := n.await(10*time.Second, "missing its peer", func(s LinkStatus) bool { return has(s, health.PeerLost) && s.State == StateNegotiating })
			if st.AN == nil || st.SecuredSince != nil {
				t.Errorf("%s: %+v", n.name, st)
			}
			if err := n.ask("rekey"); err == nil || !strings.Contains(err.Error(), "no live peer") {
				t.Errorf("%s: rekey without a peer: %v", n.name, err)
			}
		}
		time.Sleep(time.Minute)
		p.sever(false)
		p.secured(10 * time.Second)
	})
}

func TestNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.deliver(epoch(t, "1.0"))
		p.r1.start()
		time.Sleep(silentAfter - time.Second)
		if s := p.r1.status(); len(s.Faults) != 0 || s.State != StateNegotiating {
			t.Errorf("a far end that may be starting is a fault already: %+v", s)
		}
		f := p.r1.awaitFault(3*time.Second, health.PeerSilent)
		if !strings.Contains(f.Text, "on eth4 since 00:00:00") || !strings.Contains(f.Next, "01:80:c2:00:00:03") {
			t.Errorf("%s", f)
		}
		p.r2.start()
		p.secured(time.Second)
	})
}

func TestRefusedSAKIsAFaultAndTriedAgain(t *testing.T) {
	for _, op := range []string{macsec.OpAddTxSA, macsec.OpAddRxSA, macsec.OpAddRxSC, macsec.OpUpdateTxSA} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				p.r2.kernel.Fail(op, -1, syscall.EBUSY)
				p.deliver(epoch(t, "1.0"))
				p.start()
				f := p.r2.awaitFault(10*time.Second, health.SAKInstallFailed)
				if !strings.Contains(f.Text, "device or resource busy") || !strings.Contains(f.Text, op) {
					t.Errorf("%s", f)
				}
				time.Sleep(time.Minute)
				if s := p.r2.status(); s.State == StateSecured {
					t.Errorf("secured without a key: %+v", s)
				}
				p.r2.kernel.Recover()
				p.secured(2 * time.Minute)
				if err := p.r2.send(p.r1); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A device that cannot be set up at first is, as soon as it can.
func TestTrafficBeginsAsSoonAsItCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		refused := 3
		p.r1.kernel.Before(func(o macsectest.Operation) error {
			if o.DeviceUpdate != nil && o.DeviceUpdate.Up != nil && refused > 0 {
				refused--
				return syscall.ENOMEM
			}
			return nil
		})
		p.deliver(epoch(t, "1.0"))
		p.start()
		p.r2.awaitState(time.Second, StateSecured)
		p.r1.awaitFault(0, health.LinkFailed) // until its device is up
		p.secured(10 * time.Second)
		if err := p.r1.send(p.r2); err != nil || refused != 0 {
			t.Errorf("%v, %d refusals are left", err, refused)
		}
	})
}

func TestNoCarrierAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.r1.change(p.r1.port, func(p *port) { p.running = false })
		p.deliver(epoch(t, "1.0"))
		p.start()
		p.r1.awaitFault(0, health.ParentDown)
		p.r1.change(p.r1.port, func(p *port) { p.running = true })
		p.secured(time.Second)
	})
}

// The packet numbers of a SAK are finite: the next one comes in time.
func TestRekeyByPacketNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPairWithoutXPN(t)
		for i, n := range []*node{p.r1, p.r2} {
			time.Sleep(20 * time.Second)
			d := n.device()
			if err := n.kernel.MoveTx(d.Index, d.EncodingAN, 0xC000_0000); err != nil {
				t.Fatal(err)
			}
			end := p.stream(t)
			for _, o := range p.nodes() {
				// A client says what was true a hello earlier.
				o.await(8*time.Second, "rekeyed", func(s LinkStatus) bool { return s.Rekeys == uint64(i+1) })
			}
			time.Sleep(5 * time.Second)
			end()
		}
	})
}

// An unreadable device is no reason to give up a link that works.
func TestSampleThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		defer p.stream(t)()
		p.r1.kernel.Fail(macsec.OpSecY, -1, syscall.EIO)
		time.Sleep(20 * time.Second)
		p.secured(0)
	})
}

func TestRefusedRekeyKeepsTheOldSAK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		time.Sleep(time.Minute)
		defer p.stream(t)()
		p.r1.kernel.Fail(macsec.OpAddTxSA, 1, syscall.ENOMEM)
		if err := p.r1.ask("rekey"); err != nil {
			t.Errorf("with a kernel that refuses once: %v", err)
		}
		time.Sleep(time.Minute)
		p.secured(time.Minute)
		if err := p.r1.ask("rekey"); err != nil {
			t.Errorf("with a kernel that works again: %v", err)
		}
	})
}

func TestTakeDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		n := p.r1
		n.noted()
		n.kernel.Fail(macsec.OpDeleteDevice, 1, syscall.EPERM)
		if err := n.ask("down"); err == nil || !strings.Contains(err.Error(), "the fence stays") || !n.now().fenced {
			t.Fatalf("a device that cannot be deleted: %v, fenced %v", err, n.now().fenced)
		}
		if s := n.status(); s.State != StateSecured {
			t.Errorf("after that: %+v", s)
		}
		if err := n.ask("down"); err != nil {
			t.Fatal(err)
		}
		inOrder(t, n.name, n.noted(), "DeleteDevice eth4-sec", "fence opened on eth4")
		if all, _ := n.server.snapshot(); all.Links[0].State != StateDown { // whoever was answered finds it there
			t.Errorf("taken down, and the status is %+v", all)
		}
		st := n.awaitState(0, StateDown)
		if !has(st, health.TakenDown) || has(st, health.LinkFailed) || st.AN != nil {
			t.Errorf("%+v", st)
		}
		if _, err := os.Stat(linkPath(n.runDir, "l1")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the record stays: %v", err)
		}
		if err := n.ask("rekey"); err == nil || !strings.Contains(err.Error(), "was taken down") {
			t.Errorf("rekey: %v", err)
		}
		if err := n.ask("down"); err != nil {
			t.Errorf("a second time: %v", err)
		}
		// It stays down, whatever happens to the interface, until a restart.
		n.links.signal(0)
		time.Sleep(time.Hour)
		if got := n.noted(); len(got) != 0 || n.status().State != StateDown {
			t.Errorf("an hour later: %q, %+v", got, n.status())
		}
		n.halt()
		n.start()
		p.secured(10 * time.Second)
		if !n.now().fenced {
			t.Error("after a restart the fence is open")
		}
	})
}

func TestTakeDownOfALinkThatIsNotSetUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		n := p.r1
		n.unplug(n.port)
		n.start()
		n.awaitFault(0, health.ParentMissing)
		if err := n.ask("down"); err == nil || !strings.Contains(err.Error(), "nothing removed") {
			t.Errorf("an interface that may be in another namespace: %v", err)
		}
		n.plug("eth4", p.wire, mka.MAC{2, 0, 0, 0, 0, 1})
		n.kernel.Fail(macsec.OpCreateDevice, -1, syscall.EPERM)
		n.awaitFault(2*time.Second, health.LinkFailed)
		if err := n.ask("down"); err != nil {
			t.Error(err)
		}
		n.awaitState(0, StateDown)
		if n.now().fenced {
			t.Error("the fence is closed")
		}
	})
}

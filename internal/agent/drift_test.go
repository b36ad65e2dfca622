//go:build !kernel

package agent

import (
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// drifts are what somebody else may do to the link at r1, of which the kernel
// tells or does not.
func drifts(n *node) map[string]func(*macsec.SecY) error {
	k := n.kernel
	update := func(u macsec.DeviceUpdate) func(*macsec.SecY) error {
		return func(s *macsec.SecY) error { return k.UpdateDevice(s.Index, u) }
	}
	sa := func(an macsec.AN) macsec.SA {
		return macsec.SA{AN: an, Active: true, NextPN: 1, KeyID: macsec.KeyID{0: 0xee}, Key: secret.New(make([]byte, 32)), SSCI: 9}
	}
	return map[string]func(*macsec.SecY) error{
		"encrypt off":       update(macsec.DeviceUpdate{Encrypt: new(false)}),
		"protect off":       update(macsec.DeviceUpdate{Protect: new(false)}),
		"validate disabled": update(macsec.DeviceUpdate{Validate: new(macsec.Disabled)}),
		"validate check":    update(macsec.DeviceUpdate{Validate: new(macsec.Check)}),
		"replay off":        update(macsec.DeviceUpdate{ReplayProtect: new(false)}),
		"SCI off":           update(macsec.DeviceUpdate{IncludeSCI: new(false)}),
		"device down":       update(macsec.DeviceUpdate{Up: new(false)}),
		"encoding SA": func(s *macsec.SecY) error {
			return k.UpdateDevice(s.Index, macsec.DeviceUpdate{EncodingAN: new((s.EncodingAN + 1) % 4)})
		},
		"transmit SA off": func(s *macsec.SecY) error {
			return k.UpdateTxSA(s.Index, s.EncodingAN, macsec.SAUpdate{Active: new(false)})
		},
		"receive SA off": func(s *macsec.SecY) error {
			return k.UpdateRxSA(s.Index, s.RxSCs[0].SCI, s.EncodingAN, macsec.SAUpdate{Active: new(false)})
		},
		"receive SC off":      func(s *macsec.SecY) error { return k.UpdateRxSC(s.Index, s.RxSCs[0].SCI, false) },
		"transmit SA gone":    func(s *macsec.SecY) error { return deleteTx(n, s) },
		"receive SC gone":     func(s *macsec.SecY) error { return k.DeleteRxSC(s.Index, s.RxSCs[0].SCI) },
		"receive SA gone":     func(s *macsec.SecY) error { return deleteRx(n, s) },
		"foreign transmit SA": func(s *macsec.SecY) error { return k.AddTxSA(s.Index, sa((s.EncodingAN+2)%4)) },
		"foreign transmit SA in use": func(s *macsec.SecY) error {
			an := (s.EncodingAN + 2) % 4
			if err := k.AddTxSA(s.Index, sa(an)); err != nil {
				return err
			}
			return k.UpdateDevice(s.Index, macsec.DeviceUpdate{EncodingAN: &an})
		},
		"transmit SA exchanged": func(s *macsec.SecY) error {
			if err := deleteTx(n, s); err != nil {
				return err
			}
			return k.AddTxSA(s.Index, sa(s.EncodingAN))
		},
		"foreign receive SA": func(s *macsec.SecY) error { return k.AddRxSA(s.Index, s.RxSCs[0].SCI, sa((s.EncodingAN+2)%4)) },
		"foreign receive SC": func(s *macsec.SecY) error {
			sci := macsec.SCI{0: 0xee}
			if err := k.AddRxSC(s.Index, sci, true); err != nil {
				return err
			}
			return k.AddRxSA(s.Index, sci, sa(0))
		},
		"device deleted": func(s *macsec.SecY) error { return k.DeleteDevice(s.Index) },
		"device renamed": func(s *macsec.SecY) error { k.Rename(s.Index, "other"); return nil },
		"alias": func(s *macsec.SecY) error {
			defer n.links.signal(s.Index)
			return n.platform().setAlias(s.Index, "uplink to ams")
		},
		"device MTU":   func(s *macsec.SecY) error { k.SetMTU(s.Index, 1200); return nil },
		"fence opened": func(*macsec.SecY) error { n.change(n.port, func(p *port) { p.fenced = false }); return nil },
		"parent's MTU": func(*macsec.SecY) error {
			n.kernel.SetMTU(n.port.index, 9000)
			n.change(n.port, func(p *port) { p.mtu = 9000 })
			return nil
		},
		"parent's address": func(*macsec.SecY) error {
			n.change(n.port, func(p *port) { p.address = mka.MAC{2, 0, 0, 0, 7, 7} })
			return nil
		},
	}
}

func deleteTx(n *node, s *macsec.SecY) error {
	if err := n.kernel.UpdateTxSA(s.Index, s.EncodingAN, macsec.SAUpdate{Active: new(false)}); err != nil {
		return err
	}
	return n.kernel.DeleteTxSA(s.Index, s.EncodingAN)
}

func deleteRx(n *node, s *macsec.SecY) error {
	if err := n.kernel.UpdateRxSA(s.Index, s.RxSCs[0].SCI, s.EncodingAN, macsec.SAUpdate{Active: new(false)}); err != nil {
		return err
	}
	return n.kernel.DeleteRxSA(s.Index, s.RxSCs[0].SCI, s.EncodingAN)
}

// Whatever somebody changes is put right within two seconds, is a fault for a
// while, and leaves nothing behind: at the key server, at the client, and while no
// agent runs.
func TestDriftIsPutRight(t *testing.T) {
	for name := range drifts(&node{machine: &machine{}}) {
		for _, while := range []string{"key server", "client", "restart"} {
			t.Run(name+" at "+while, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newSecuredPair(t)
					n := p.r1
					if server := n.status(); (server.KeyServer == server.LocalSCI) == (while == "client") {
						n = p.r2
					}
					time.Sleep(time.Minute)
					before := n.device()
					if while == "restart" {
						n.halt()
					}
					if err := drifts(n)[name](n.device()); err != nil {
						t.Fatal(err)
					}
					if while == "restart" {
						n.start()
					}
					if while != "restart" || !strings.HasPrefix(name, "parent") { // of those nothing is known any more
						n.await(2*time.Second, "showing a drift", drifting)
					}
					time.Sleep(2*time.Second - time.Millisecond)
					synctest.Wait()
					if !n.asBefore(before) {
						t.Errorf("it was\n%+v\nand is\n%+v", before, n.device())
					}
					if p.r1.status().State != StateSecured || p.r2.status().State != StateSecured {
						t.Errorf("%+v\n%+v", p.r1.status(), p.r2.status())
					}
					time.Sleep(20 * time.Second)
					p.secured(time.Millisecond)
					if !n.asBefore(before) {
						t.Errorf("it was\n%+v\nand at last\n%+v", before, n.device())
					}
					for _, x := range p.nodes() {
						if s := x.device(); len(s.TxSC.SAs) != 1 || len(s.RxSCs) != 1 || len(s.RxSCs[0].SAs) != 1 {
							t.Errorf("left over at %s: %+v", x.name, s)
						}
					}
				})
			})
		}
	}
}

var driftCodes = []health.Code{health.SecYDrift, health.FenceDrift, health.ParentDrift}

func drifting(s LinkStatus) bool {
	return slices.ContainsFunc(s.Faults, func(f health.Fault) bool { return slices.Contains(driftCodes, f.Code) })
}

// asBefore says whether the node's device is as it was, but for its keys, and
// closed, and the fence as well.
func (n *node) asBefore(was *macsec.SecY) bool {
	is := n.device()
	a, b := was.DeviceConfig, is.DeviceConfig
	a.EncodingAN, b.EncodingAN, a.SCI, b.SCI = 0, 0, macsec.SCI{}, macsec.SCI{}
	tx := is.TxSC.SA(is.EncodingAN)
	if a != b || !is.Up || is.MTU != n.now().mtu-32 || tx == nil || !tx.Active || !n.now().fenced || len(is.RxSCs) != 1 {
		return false
	}
	rx := is.RxSCs[0].SA(is.EncodingAN)
	return is.RxSCs[0].Active && rx != nil && rx.Active && rx.KeyID == tx.KeyID
}

// A fence that somebody else's filter makes useless is a matter of its own.
func TestFenceFindingsThatAreNoDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		p.r1.change(p.r1.port, func(o *port) {
			o.foreign = []fence.Finding{{Direction: fence.Egress, Problem: fence.Foreign, Priority: 1, Text: "flower"}}
		})
		p.r1.awaitFault(2*time.Second, health.FenceForeign)
		if s := p.r1.status(); drifting(s) {
			t.Errorf("%+v", s.Faults)
		}
	})
}

// A far end whose card was exchanged comes back under another SCI: nobody is missing.
func TestPeerUnderAnotherSCI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		time.Sleep(time.Minute)
		p.r1.halt()
		if err := p.r1.kernel.DeleteDevice(p.r1.device().Index); err != nil {
			t.Fatal(err)
		}
		p.r1.change(p.r1.port, func(o *port) { o.address = mka.MAC{2, 0, 0, 0, 9, 9} })
		if err := os.Remove(linkPath(p.r1.runDir, "l1")); err != nil {
			t.Fatal(err)
		}
		p.r1.start()
		p.r1.await(10*time.Second, "secured", func(s LinkStatus) bool { return s.State == StateSecured })
		time.Sleep(30 * time.Second)
		p.secured(time.Second)
	})
}

// A device that is made anew on an interface that has another address by now is the
// same member to the far end, which has nobody to wait for.
func TestDeviceMadeAnewKeepsItsSCI(t *testing.T) {
	for _, n := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			p := newSecuredPair(t)
			n := p.nodes()[n]
			sci := n.device().SCI
			time.Sleep(time.Minute)
			n.change(n.port, func(o *port) { o.address = mka.MAC{2, 0, 0, 0, 7, 7} })
			time.Sleep(time.Minute)
			if err := n.kernel.DeleteDevice(n.device().Index); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if s := n.status(); s.State != StateSecured || n.device().SCI != sci {
				t.Errorf("%v instead of %v: %+v", n.device().SCI, sci, s)
			}
			time.Sleep(20 * time.Second)
			p.secured(0)
		})
	}
}

// TestFenceNoticesReachEveryLink has somebody delete the fence of a link that is not
// set up: it is closed as soon as the kernel tells of it, and the link says that it was
// open.
func TestFenceNoticesReachEveryLink(t *testing.T) {
	for name, c := range map[string]struct {
		before func(s *site)
		state  State
		faults []health.Code // without the drift
	}{
		"failed later": {
			before: func(s *site) { s.r1.change(s.r1.iface("eth4"), func(p *port) { p.master = 77 }) },
			state:  StateFailed, faults: []health.Code{health.ParentEnslaved},
		},
		"failed from the start": {
			before: func(s *site) {
				s.r1.halt()
				_ = os.Remove(linkPath(s.r1.runDir, "l1"))
				s.r1.change(s.r1.iface("eth4"), func(p *port) { p.master = 77 })
				s.startAt(s.r1)
			},
			state: StateFailed, faults: []health.Code{health.ParentEnslaved},
		},
		"removed": {
			before: func(s *site) { s.edit(l1Lines, "") },
			state:  StateRemoved, faults: []health.Code{health.LinkRemoved},
		},
		"removed, and the agent restarted": {
			before: func(s *site) { s.edit(l1Lines, ""); s.r1.halt(); s.startAt(s.r1) },
			state:  StateRemoved, faults: []health.Code{health.LinkRemoved},
		},
		"moved": {
			before: func(s *site) {
				s.edit(l1Lines, strings.Replace(l1Lines, "eth4", "eth8", 1))
			},
			state: StateRemoved, faults: []health.Code{health.LinkRemoved},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, twoLinks)
				time.Sleep(10 * time.Second)
				c.before(s)
				time.Sleep(5*time.Second + 100*time.Millisecond)
				id := "l1"
				if name == "moved" {
					id = movedID("l1", "eth4")
				}
				s.want(s.r1, id, c.state, c.faults...)
				p := s.r1.iface("eth4")
				s.r1.mu.Lock()
				p.fenced = false
				s.r1.mu.Unlock()
				s.r1.links.signalFence(p.index)
				synctest.Wait()
				if !s.r1.fencedAt("eth4") {
					t.Error("it is open after the kernel has told of it")
				}
				st := s.want(s.r1, id, c.state, append([]health.Code{health.FenceDrift}, c.faults...)...)
				if text := st.Faults[0].Text; !strings.Contains(text, "fence filter changed: egress priority 5") {
					t.Error(text)
				}
				if !strings.Contains(s.r1.log.String(), `fault=fence-drift was="fence filter changed`) {
					t.Error("the log does not say that it was open")
				}
				time.Sleep(driftShown + 2*clearEvery)
				s.want(s.r1, id, c.state, c.faults...)
			})
		})
	}
}

// TestFenceOfARemovedLinkWhileNoAgentRan has it be open when the next agent starts.
func TestFenceOfARemovedLinkWhileNoAgentRan(t *testing.T) {
	for name, do := range map[string]func(*site){
		"somebody deletes it":       func(s *site) { s.r1.iface("eth4").fenced = false },
		"the interface is replaced": func(s *site) { s.r1.unplug(s.r1.iface("eth4")); s.r1.plug("eth4", s.wire, mka.MAC{2, 4}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, twoLinks)
				time.Sleep(10 * time.Second)
				s.edit(l1Lines, "")
				s.r1.halt()
				do(s)
				s.startAt(s.r1)
				s.want(s.r1, "l1", StateRemoved, health.FenceDrift, health.LinkRemoved)
				s.r1.unplug(s.r1.iface("eth4"))
				time.Sleep(driftShown + 2*clearEvery)
				s.want(s.r1, "l1", StateRemoved, health.LinkRemoved)
				s.r1.plug("eth4", s.wire, mka.MAC{2, 5}) // while the agent runs
				s.want(s.r1, "l1", StateRemoved, health.LinkRemoved, health.ParentDrift)
				if !s.r1.fencedAt("eth4") {
					t.Error("it is open")
				}
			})
		})
	}
}

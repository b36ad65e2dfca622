//go:build !kernel

package agent

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secy"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
)

func TestFenceThenDeviceThenKeysThenTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.r1.port.up, p.r1.port.running = false, false // as after a boot
		p.start()
		for _, n := range p.nodes() {
			n.awaitState(0, StateWaiting)
			synctest.Wait()
			if d := n.device(); d.Up || len(d.RxSCs)+len(d.TxSC.SAs) != 0 {
				t.Errorf("%s: before the first key: %+v", n.name, d)
			}
			if err := n.send(n); !errors.Is(err, macsectest.ErrDropped) {
				t.Errorf("%s: a frame before the first key: %v", n.name, err)
			}
		}
		p.deliver(epoch(t, "1.0"))
		p.secured(100 * time.Millisecond)
		for _, n := range p.nodes() {
			set := []string{
				"fence closed on " + n.port.name + " but for 888E",
				"CreateDevice " + n.link.Local.Secure + " GCM-AES-XPN-256",
				"MKA on " + n.port.name,
				"MKPDU",
				"AddRxSC", "AddRxSA", "AddTxSA", "UpdateTxSA", "UpdateDevice " + n.link.Local.Secure + " encoding=",
				"UpdateDevice " + n.link.Local.Secure + " up=true",
			}
			if n == p.r1 {
				set = slices.Insert(set, 2, "eth4 up=true")
			}
			j := n.noted()
			inOrder(t, n.name, j, set...)
			if strings.HasPrefix(j[0], "fence") && !n.now().fenced {
				t.Errorf("%s: the fence did not stay", n.name)
			}
			if d := n.device(); !d.Up || !d.Encrypt || d.Validate != macsec.Strict || !d.ReplayProtect || d.ReplayWindow != secy.ReplayWindow {
				t.Errorf("%s: device %+v", n.name, d)
			}
		}
		defer p.stream(t)()
		time.Sleep(10 * time.Second)
	})
}

func TestRekeyOnRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		defer p.stream(t)()
		for i, n := range []*node{p.r1, p.r2, p.r1, p.r2, p.r2} {
			time.Sleep(10 * time.Second)
			before := n.status()
			asked := time.Now()
			if err := n.ask("rekey"); err != nil {
				t.Fatalf("rekey at %s: %v", n.name, err)
			}
			if took := time.Since(asked); took > 500*time.Millisecond {
				t.Errorf("rekey at %s took %v", n.name, took)
			}
			after := n.status()
			if *after.AN == *before.AN || after.State != StateSecured || after.LastRekey == nil || after.LastRekey.Before(asked) {
				t.Errorf("rekey at %s: %+v, then %+v", n.name, before, after)
			}
			for _, o := range p.nodes() {
				o.await(time.Second, "rekeyed", func(s LinkStatus) bool { return s.Rekeys == uint64(i+1) })
			}
		}
	})
}

func TestRekeyByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.r1.policy.SAKRekey, p.r2.policy.SAKRekey = 30*time.Second, 30*time.Second
		p.deliver(epoch(t, "1.0"))
		p.start()
		p.secured(time.Second)
		defer p.stream(t)()
		time.Sleep(100 * time.Second)
		for _, n := range p.nodes() {
			if s := n.status(); s.Rekeys != 3 || s.State != StateSecured {
				t.Errorf("%s: after 100 seconds %+v", n.name, s)
			}
			// What is given up goes: two ANs at most are taken.
			if d := n.device(); len(d.TxSC.SAs) > 2 || len(d.RxSCs) != 1 || len(d.RxSCs[0].SAs) > 2 {
				t.Errorf("%s: %+v", n.name, d)
			}
		}
	})
}

func TestEpochRollover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		old := p.r1.status()
		if old.Epoch != "1.0" || old.KeyServer != old.LocalSCI && old.KeyServer != p.r2.status().LocalSCI {
			t.Errorf("status %+v", old)
		}
		defer p.stream(t)()
		time.Sleep(5 * time.Second)

		// One end first: nothing happens until the other has it, too.
		next := epoch(t, "2.0")
		for side, c := range p.r1.channels {
			c.put(next, octets(next, keys.Side(side)))
		}
		time.Sleep(time.Minute)
		fault := p.r2.awaitFault(time.Second, health.UnknownCKN)
		if !strings.Contains(fault.Text, "epoch 2.0") || !strings.Contains(fault.Text, "channel a and channel b") {
			t.Errorf("the end that has not the new epoch says %s", fault)
		}
		if s := p.r1.status(); s.Epoch != "1.0" || s.State != StateSecured {
			t.Errorf("with an epoch that one end has: %+v", s)
		}

		for side, c := range p.r2.channels {
			c.put(next, octets(next, keys.Side(side)))
		}
		for _, n := range p.nodes() {
			st := n.await(20*time.Second, "on epoch 2.0", func(s LinkStatus) bool { return s.Epoch == "2.0" && s.Rekeys == 1 })
			if st.State != StateSecured || st.CKN == old.CKN {
				t.Errorf("%s: on epoch 2.0: %+v", n.name, st)
			}
		}
		time.Sleep(time.Minute)
		for _, n := range p.nodes() {
			if s := n.status(); len(s.Faults) != 0 || s.Epoch != "2.0" {
				t.Errorf("%s: a minute later: %+v", n.name, s)
			}
			state, err := keys.NewStore(n.stateDir).Load("l1")
			if err != nil || state.HighWater != next {
				t.Errorf("%s: high-water mark %v, %v", n.name, state.HighWater, err)
			}
		}
	})
}

func TestLateChannelIsAFaultAndChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		defer p.stream(t)()
		next := epoch(t, "2.0")
		for _, n := range p.nodes() {
			n.channels[keys.A].put(next, octets(next, keys.A))
		}
		time.Sleep(time.Minute)
		for _, n := range p.nodes() {
			f := n.awaitFault(time.Second, health.ChannelLate)
			if !strings.Contains(f.Text, "epoch 2.0 has arrived over channel a but not over channel b (channel b of l1)") {
				t.Errorf("%s: %s", n.name, f)
			}
			if s := n.status(); s.State != StateSecured || s.Epoch != "1.0" || s.Rekeys != 0 {
				t.Errorf("%s: %+v", n.name, s)
			}
		}
		for _, n := range p.nodes() {
			n.channels[keys.B].put(next, octets(next, keys.B))
		}
		p.secured(time.Second)
		for _, n := range p.nodes() {
			n.await(20*time.Second, "on epoch 2.0", func(s LinkStatus) bool { return s.Epoch == "2.0" })
		}
	})
}

func TestRevocationClosesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		e := epoch(t, "1.0")
		p.r1.channels[keys.A].put(e, nil)
		st := p.r1.awaitState(0, StateWaiting)
		if st.Epoch != "" || st.AN != nil || len(st.Peers) != 0 {
			t.Errorf("revoked, and the status is %+v", st)
		}
		synctest.Wait()
		if d := p.r1.device(); len(d.TxSC.SAs) != 0 || len(d.RxSCs) != 0 && len(d.RxSCs[0].SAs) != 0 {
			t.Errorf("a revoked key is still in the kernel: %+v", d)
		}
		for _, way := range [][2]*node{{p.r1, p.r2}, {p.r2, p.r1}} {
			if err := way[0].send(way[1]); !errors.Is(err, macsectest.ErrDropped) {
				t.Errorf("%s still talks to %s: %v", way[0].name, way[1].name, err)
			}
		}
		if !p.r1.now().fenced {
			t.Error("the fence is open")
		}
		p.r2.awaitFault(20*time.Second, health.PeerLost)

		// A new epoch brings the link back; the revoked one stays gone.
		p.deliver(epoch(t, "2.0"))
		p.r1.channels[keys.A].put(e, nil)
		for _, n := range p.nodes() {
			st := n.awaitState(time.Minute, StateSecured)
			if st.Epoch != "2.0" {
				t.Errorf("%s: %+v", n.name, st)
			}
		}
		for _, way := range [][2]*node{{p.r1, p.r2}, {p.r2, p.r1}} {
			if err := way[0].send(way[1]); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestRevocationOfTheNewestGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		next := epoch(t, "2.0")
		p.r1.channels[keys.A].put(next, octets(next, keys.A))
		p.r1.channels[keys.B].put(next, octets(next, keys.B))
		defer p.stream(t)()
		time.Sleep(5 * time.Second)
		p.r1.channels[keys.B].put(next, nil)
		time.Sleep(5 * time.Second)
		if s := p.r1.status(); s.State != StateSecured || s.Epoch != "1.0" {
			t.Errorf("%+v", s)
		}
	})
}

func TestWrongMaterialNeverSecuresAndBothEndsSayWhy(t *testing.T) {
	for _, side := range []keys.Side{keys.A, keys.B} {
		t.Run("channel "+side.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				e := epoch(t, "1.0")
				p.deliver(e)
				p.r2.channels[side].put(e, []byte(strings.Repeat("something else", 5)))
				p.start()
				for _, n := range p.nodes() {
					f := n.awaitFault(10*time.Second, health.ICVMismatch)
					if f.Severity != health.Critical || !strings.Contains(f.Text, "epoch 1.0") {
						t.Errorf("%s: %s", n.name, f)
					}
				}
				time.Sleep(10 * time.Minute)
				for _, n := range p.nodes() {
					if s := n.status(); s.State != StateNegotiating || !has(s, health.ICVMismatch) || s.AN != nil {
						t.Errorf("%s: %+v", n.name, s)
					}
					if d := n.device(); d.Up || len(d.TxSC.SAs) != 0 {
						t.Errorf("%s: %+v", n.name, d)
					}
				}
			})
		})
	}
}

func TestOneChannelAloneNeverSecures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		e := epoch(t, "1.0")
		for _, n := range p.nodes() {
			n.channels[keys.A].put(e, octets(e, keys.A))
		}
		p.start()
		time.Sleep(10 * time.Minute)
		for _, n := range p.nodes() {
			if s := n.status(); s.State != StateWaiting || !has(s, health.ChannelLate) {
				t.Errorf("%s: %+v", n.name, s)
			}
			if slices.Contains(n.noted(), "MKPDU") {
				t.Errorf("%s speaks without a key", n.name)
			}
		}
	})
}

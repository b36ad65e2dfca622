//go:build !kernel

package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/inventory"
)

// newPairWithoutXPN is a secured pair whose packet numbers have 32 bits.
func newPairWithoutXPN(t *testing.T) *pair {
	t.Helper()
	p := newPair(t)
	p.change(func(l *inventory.Link) { l.Cipher = inventory.GCMAES256 })
	p.deliver(epoch(t, "1.0"))
	p.start()
	p.secured(time.Second)
	return p
}

// The packet numbers of a SAK are used up while no other one can be had. The kernel
// switches its transmit SA off; switched on again it would send packet number 1 a second
// time. So it goes, nothing is sent, and the status says why, until another SAK is there.
func TestPacketNumbersUsedUp(t *testing.T) {
	for name, restart := range map[string]bool{"running": false, "restarted": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPairWithoutXPN(t)
				frame := make([]byte, 74)
				send := func(what string, want bool) {
					t.Helper()
					for range 3 { // the first after the wrap is dropped whatever comes next
						if _, err := p.r1.kernel.Transmit(p.r1.device().Index, frame); (err == nil) != want {
							t.Errorf("%s: %v", what, err)
						}
					}
				}
				p.wire.sever(true)
				time.Sleep(30 * time.Second)
				d := p.r1.device()
				an := d.EncodingAN
				if restart {
					p.r1.halt()
				}
				use := func(n uint64) {
					if err := p.r1.kernel.MoveTx(d.Index, an, n); err != nil {
						t.Fatal(err)
					}
				}
				use(1 << 31)
				use(1<<32 - p.r1.device().TxSC.SA(an).NextPN)
				if restart {
					p.r1.start()
				}
				time.Sleep(5 * time.Second)
				if f := p.r1.awaitFault(0, health.PNsUsedUp); f.Severity != health.Critical {
					t.Errorf("%s", f)
				}
				if st := p.r1.status(); st.Traffic != TrafficStopped || st.State == StateSecured {
					t.Errorf("state %s, traffic %s (%s)", st.State, st.Traffic, st.TrafficDetail)
				}
				send("while nobody is there", false)
				if sa := p.r1.device().TxSC.SA(an); sa != nil {
					t.Errorf("the transmit SA is still there: %+v", sa)
				}
				p.wire.sever(false)
				for range 100 {
					time.Sleep(5 * time.Millisecond)
					for _, sa := range p.r1.device().TxSC.SAs {
						if sa.Active && sa.NextPN == 0 {
							t.Fatalf("AN %d is switched on", sa.AN)
						}
					}
				}
				time.Sleep(10 * time.Second)
				p.secured(0)
				send("with another SAK", true)
			})
		})
	}
}

// The packet numbers of a SAK are used up when another one is in use already, and it is
// not retired yet: nothing stops, nobody has done it, and nothing is said.
func TestPacketNumbersOfTheOldSAKUsedUp(t *testing.T) {
	for name, restart := range map[string]bool{"running": false, "restarted": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPairWithoutXPN(t)
				time.Sleep(30 * time.Second)
				d := p.r1.device()
				if err := p.r1.ask("rekey"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(500 * time.Millisecond)
				synctest.Wait()
				if now := p.r1.device(); now.EncodingAN == d.EncodingAN || now.TxSC.SA(d.EncodingAN) == nil {
					t.Fatalf("there are not two SAKs: %+v", now)
				}
				if restart {
					p.r1.halt()
					p.wire.sever(true)
				}
				for _, n := range []uint64{1 << 31, 1<<31 - p.r1.device().TxSC.SA(d.EncodingAN).NextPN} {
					if err := p.r1.kernel.MoveTx(d.Index, d.EncodingAN, n); err != nil {
						t.Fatal(err)
					}
				}
				if restart {
					p.r1.start()
				}
				for range 10 {
					time.Sleep(500 * time.Millisecond)
					if st := p.r1.status(); has(st, health.PNsUsedUp) || has(st, health.SecYDrift) {
						t.Fatalf("%q", st.Faults)
					}
				}
				if now := p.r1.device(); now.TxSC.SA(d.EncodingAN) != nil {
					t.Errorf("it is still there: %+v", now.TxSC.SAs)
				}
				p.wire.sever(false)
				time.Sleep(20 * time.Second)
				p.secured(0)
			})
		})
	}
}

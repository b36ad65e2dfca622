//go:build !kernel

package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/inventory"
)

// Data frames that an outsider replays while the peer is idle ask for no SAK.
func TestReplayedDataAsksForNoSAK(t *testing.T) {
	for _, delay := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t)
			p.change(func(l *inventory.Link) { l.MKA.DelayProtect = delay })
			p.deliver(epoch(t, "1.0"))
			p.start()
			p.secured(time.Second)
			time.Sleep(10 * time.Second)
			before := p.r2.status().Rekeys
			for range 10 {
				var wire [][]byte
				for range 200 {
					f := hold(t, p.r1)
					if len(wire) < 5 {
						wire = append(wire, f)
					}
					if _, err := p.r2.kernel.Receive(p.r2.device().Index, f); err != nil {
						t.Fatal(err)
					}
				}
				for range 100 { // ten seconds in which the peer is idle
					for _, f := range wire {
						_, _ = p.r2.kernel.Receive(p.r2.device().Index, f)
					}
					time.Sleep(100 * time.Millisecond)
				}
			}
			if st := p.r2.status(); st.Rekeys != before || len(st.Faults) > 0 {
				t.Errorf("delay protection %v: %d rekeys for replayed data frames, faults %v", delay, st.Rekeys-before, st.Faults)
			}
		})
	}
}

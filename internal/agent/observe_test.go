//go:build !kernel

package agent

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
)

// counted is what an agent has counted, after its next look at the kernel.
func (n *node) counted() Counters {
	n.t.Helper()
	time.Sleep(2 * driftPeriod)
	synctest.Wait()
	o := n.server.observe()
	c, ok := o.Counted[n.link.ID]
	if !ok || o.Node != n.name || len(o.Links) != 1 || o.Started.IsZero() {
		n.t.Fatalf("%+v", o)
	}
	return c
}

// exchange sends frames both ways.
func (p *pair) exchange(frames int) {
	p.r1.t.Helper()
	for range frames {
		for _, way := range [][2]*node{{p.r1, p.r2}, {p.r2, p.r1}} {
			if err := way[0].send(way[1]); err != nil {
				p.r1.t.Fatal(err)
			}
		}
	}
}

// Every frame is counted once, over SAs, CAKs and sessions that come and go.
func TestFramesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		want := uint64(0)
		check := func(after string) {
			t.Helper()
			for _, n := range p.nodes() {
				c := n.counted()
				if c.Encrypted.Frames != want || c.Validated.Frames != want || c.Encrypted.Octets == 0 || c.Validated.Octets == 0 ||
					c.Protected != (Volume{}) || c.UntaggedSent+c.UntaggedReceived != 0 {
					t.Errorf("%s, after %s: %d frames each way, and counted is %+v", n.name, after, want, c)
				}
			}
		}
		exchange := func(frames int) { p.exchange(frames); want += uint64(frames) }
		exchange(100)
		check("the first hundred")
		for range 3 {
			exchange(10)
			if err := p.r1.ask("rekey"); err != nil {
				t.Fatal(err)
			}
			exchange(10)
		}
		check("rekeys")
		p.deliver(epoch(t, "2.0"))
		time.Sleep(10 * time.Second)
		exchange(10)
		check("another CAK")
		mac := p.r1.port.address
		p.r1.change(p.r1.port, func(p *port) { p.up, p.running = false, false })
		time.Sleep(time.Second)
		p.r1.change(p.r1.port, func(p *port) { p.up, p.running = true, true })
		p.secured(20 * time.Second)
		exchange(10)
		check("an outage")
		before := p.r1.counted()
		p.r1.unplug(p.r1.port)
		time.Sleep(time.Second)
		p.r1.port = p.r1.plug("eth4", p.wire, mac)
		p.secured(30 * time.Second)
		p.exchange(7)
		after := p.r1.counted()
		if after.Encrypted.Frames != before.Encrypted.Frames+7 || after.Validated.Frames != before.Validated.Frames+7 ||
			after.Sent <= before.Sent || after.Received <= before.Received {
			t.Errorf("a device made anew: from %+v to %+v", before, after)
		}
	})
}

func TestWhatIsRejectedIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		names := func(m map[string]uint64) []string { return slices.Sorted(maps.Keys(m)) }
		c := p.r1.counted()
		if got := names(c.Rejected); !slices.Equal(got, RejectCauses()) {
			t.Errorf("causes of rejection %q, want %q", got, RejectCauses())
		}
		if got := names(c.Refused); !slices.Equal(got, RefuseCauses()) {
			t.Errorf("causes of refusal %q, want %q", got, RefuseCauses())
		}
		if got := names(c.Missed); !slices.Equal(got, Lanes()) {
			t.Errorf("lanes %q, want %q", got, Lanes())
		}
		for cause, n := range c.Rejected {
			if n != 0 {
				t.Errorf("%d frames rejected for %s", n, cause)
			}
		}
		// A frame that was changed on its way.
		frame := make([]byte, 60)
		copy(frame[6:], p.r2.port.address[:])
		frame[12] = 8
		wire, err := p.r2.kernel.Transmit(p.r2.device().Index, frame)
		if err != nil {
			t.Fatal(err)
		}
		wire[len(wire)-1] ^= 1
		if _, err := p.r1.kernel.Receive(p.r1.device().Index, wire); err == nil {
			t.Fatal("it was delivered")
		}
		if c := p.r1.counted(); c.Rejected["not_valid"] != 1 {
			t.Errorf("rejected %v", c.Rejected)
		}
		before := p.r1.counted()
		p.r1.change(p.r1.port, func(p *port) { p.plain = 5 })
		after := p.r1.counted()
		if d := after.FenceDrops[fence.Egress].Frames - before.FenceDrops[fence.Egress].Frames; d != 5 {
			t.Errorf("five plain frames, and the fence counted %d", d)
		}
		// What the fence counts begins again when it is made anew.
		p.r1.change(p.r1.port, func(p *port) { p.plain = 2 })
		if again := p.r1.counted(); again.FenceDrops[fence.Egress].Frames != after.FenceDrops[fence.Egress].Frames+2 ||
			again.FenceDrops[fence.Ingress].Frames != after.FenceDrops[fence.Ingress].Frames+4 {
			t.Errorf("begun again: from %+v to %+v", after.FenceDrops, again.FenceDrops)
		}
		if err := p.r1.kernel.UpdateDevice(p.r1.device().Index, macsec.DeviceUpdate{Encrypt: new(false)}); err != nil {
			t.Fatal(err)
		}
		if c := p.r1.counted(); c.Repairs["encrypt off"] != 1 {
			t.Errorf("repairs %v", c.Repairs)
		}
	})
}

// A link whose kernel does not answer is observed all the same, and the other way
// round: who observes without end holds up no link.
func TestObservingBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		stuck, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		p.r1.kernel.Before(func(o macsectest.Operation) error {
			once.Do(func() {
				close(stuck)
				<-release
			})
			return nil
		})
		asked := make(chan error, 1)
		go func() { asked <- p.r1.ask("rekey") }()
		<-stuck
		if o := p.r1.server.observe(); len(o.Links) != 1 || o.Links[0].State != StateSecured {
			t.Errorf("%+v", o)
		}
		close(release)
		if err := <-asked; err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var looking sync.WaitGroup
		for range 3 {
			looking.Go(func() {
				for ctx.Err() == nil {
					o := p.r1.server.observe()
					for _, c := range o.Counted {
						for range c.Rejected { // with -race: nobody writes to it
						}
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		end := p.stream(t)
		for range 5 {
			if err := p.r1.ask("rekey"); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
		}
		end()
		cancel()
		looking.Wait()
		if s := p.r1.status(); !strings.Contains(string(s.State), "secured") {
			t.Errorf("%+v", s)
		}
	})
}

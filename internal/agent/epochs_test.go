//go:build !kernel

package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
)

// on waits until both ends use an epoch.
func (p *pair) on(within time.Duration, epoch string) {
	p.r1.t.Helper()
	for _, n := range p.nodes() {
		n.await(within, "on epoch "+epoch, func(s LinkStatus) bool { return s.Epoch == epoch && s.State == StateSecured })
	}
}

// A channel that is suspect is issued again alone, first one, then the other: the new
// CAK is in use before the old one goes, and what was revoked goes at both ends.
func TestOneChannelIssuedAgainAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		defer p.stream(t)()
		time.Sleep(5 * time.Second)
		old, again := epoch(t, "1.0"), epoch(t, "1.1")
		for i, step := range []struct {
			side  keys.Side
			epoch string
		}{{keys.A, "1.2"}, {keys.B, "1.3"}} {
			before := p.r1.status()
			p.r1.channels[step.side].put(again, octets(again, step.side))
			time.Sleep(10 * time.Second)
			if s := p.r1.status(); s.Epoch != before.Epoch || s.State != StateSecured {
				t.Errorf("with a generation that one end has: %+v", s)
			}
			p.r2.channels[step.side].put(again, octets(again, step.side))
			p.on(20*time.Second, step.epoch)
			for _, n := range p.nodes() {
				n.channels[step.side].put(old, nil)
			}
			time.Sleep(time.Minute)
			for _, n := range p.nodes() {
				st := n.status()
				if st.Epoch != step.epoch || st.State != StateSecured || len(st.Faults) != 0 || st.Rekeys != uint64(i)+1 || len(st.Offers) != 1 {
					t.Errorf("%s: a minute later: %+v", n.name, st)
				}
				if state, err := keys.NewStore(n.stateDir).Load("l1"); err != nil || state.HighWater != epoch(t, step.epoch) {
					t.Errorf("%s: high-water mark %v, %v", n.name, state.HighWater, err)
				}
			}
		}
	})
}

// An epoch begins at its start at both ends, though they have had it before, one much
// later than the other, and though their clocks differ.
func TestScheduledEpochBeginsAtItsStart(t *testing.T) {
	const length, behind = 10 * time.Minute, 20 * time.Second
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.r2.skew.Store(int64(-behind))
		now := keys.ScheduledEpoch(time.Now(), length)
		next := keys.ScheduledEpoch(time.Now().Add(length), length)
		put := func(n *node, e keys.Epoch) {
			for side, c := range n.channels {
				c.put(e, octets(e, keys.Side(side)))
			}
		}
		for _, n := range p.nodes() {
			put(n, now)
		}
		put(p.r1, next)
		p.start()
		p.r1.awaitState(time.Second, StateNegotiating) // for r2's clock is before the first epoch
		p.r2.awaitFault(time.Second, health.KeyPending)
		p.on(time.Minute, now.String())
		time.Sleep(time.Until(next.Start()) - time.Minute)
		defer p.stream(t)()
		put(p.r2, next)
		time.Sleep(time.Until(next.Start()) - time.Millisecond)
		for _, n := range p.nodes() {
			if s := n.status(); s.Epoch != now.String() || len(s.Offers) != 1 || len(s.Faults) != 0 {
				t.Errorf("%s: just before the start: %+v", n.name, s)
			}
		}
		time.Sleep(10 * time.Millisecond)
		if s := p.r1.status(); s.Epoch != now.String() || len(s.Offers) != 2 {
			t.Errorf("r1 at the start: %+v", s)
		}
		time.Sleep(behind - 20*time.Millisecond)
		if s := p.r2.status(); s.Epoch != now.String() || len(s.Offers) != 1 {
			t.Errorf("r2, whose clock is behind: %+v", s)
		}
		p.on(5*time.Second, next.String())
		time.Sleep(time.Minute)
		for _, n := range p.nodes() {
			if s := n.status(); s.Epoch != next.String() || len(s.Offers) != 1 || len(s.Faults) != 0 || s.Rekeys != 1 {
				t.Errorf("%s: a minute later: %+v", n.name, s)
			}
		}
	})
}

// A clock that is set is noticed within a minute, and what has begun goes on when it
// is set back.
func TestScheduledEpochAndAClockThatIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		now := keys.ScheduledEpoch(time.Now(), time.Hour)
		next := keys.ScheduledEpoch(time.Now().Add(time.Hour), time.Hour)
		p.deliver(now)
		p.deliver(next)
		p.start()
		p.on(10*time.Second, now.String())
		defer p.stream(t)()
		for _, n := range p.nodes() {
			n.skew.Store(int64(time.Hour))
		}
		p.on(rollEvery+10*time.Second, next.String())
		for _, n := range p.nodes() {
			n.skew.Store(-int64(30 * 365 * 24 * time.Hour))
		}
		time.Sleep(2 * rollEvery)
		for _, n := range p.nodes() {
			if s := n.status(); s.Epoch != next.String() || s.State != StateSecured || len(s.Faults) != 0 {
				t.Errorf("%s: %+v", n.name, s)
			}
		}
	})
}

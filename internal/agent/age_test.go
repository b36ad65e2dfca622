//go:build !kernel

package agent

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/signed"
	"github.com/lever-link/lever/macsec/macsectest"
)

// newAgingPair is a link whose keys are meant to last for two minutes and may for ten.
func newAgingPair(t *testing.T) *pair {
	t.Helper()
	p := newPair(t)
	for _, n := range p.nodes() {
		n.policy.CAKEpoch, n.policy.MaxAge = 2*time.Minute, 10*time.Minute
	}
	p.deliver(epoch(t, "1.0"))
	p.start()
	p.secured(time.Second)
	return p
}

// closed wants the link to be shut at both ends, with the reason.
func (p *pair) closed() {
	p.r1.t.Helper()
	for _, n := range p.nodes() {
		st := n.awaitState(time.Second, StateFailed)
		if !has(st, health.KeyTooOld) || st.Traffic != TrafficStopped || len(st.Offers) != 0 {
			n.t.Errorf("%s: %+v", n.name, st)
		}
		if d := n.device(); len(d.TxSC.SAs) != 0 || len(d.RxSCs) != 0 && len(d.RxSCs[0].SAs) != 0 {
			n.t.Errorf("%s: a key that is too old is still in the kernel: %+v", n.name, d)
		}
		if !n.now().fenced {
			n.t.Errorf("%s: the fence is open", n.name)
		}
	}
	for _, way := range [][2]*node{{p.r1, p.r2}, {p.r2, p.r1}} {
		if err := way[0].send(way[1]); !errors.Is(err, macsectest.ErrDropped) {
			p.r1.t.Errorf("%s still talks to %s: %v", way[0].name, way[1].name, err)
		}
	}
}

// wantFaults checks that a node has these faults and no other.
func (n *node) wantFaults(codes ...health.Code) {
	n.t.Helper()
	st := n.status()
	ok := len(st.Faults) == len(codes)
	for _, c := range codes {
		ok = ok && has(st, c)
	}
	if !ok {
		n.t.Errorf("%s: %v, want %v", n.name, st.Faults, codes)
	}
}

func TestKeyThatIsNotReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newAgingPair(t)
		began := time.Now()
		at := func(d time.Duration) { time.Sleep(time.Until(began.Add(d))) }
		for _, step := range []struct {
			at    time.Duration
			codes []health.Code
		}{
			{3*time.Minute - time.Second, nil},
			{3*time.Minute + time.Second, []health.Code{health.KeyOverdue}},
			{5*time.Minute - time.Second, []health.Code{health.KeyOverdue}},
			{5*time.Minute + time.Second, []health.Code{health.KeyOverdue, health.KeyAging}},
			{10*time.Minute - time.Second, []health.Code{health.KeyOverdue, health.KeyAging}},
		} {
			at(step.at)
			for _, n := range p.nodes() {
				n.wantFaults(step.codes...)
				if s := n.status(); s.State != StateSecured || s.Rekeys != 0 {
					t.Errorf("%s at %v: %+v", n.name, step.at, s)
				}
			}
		}
		f := p.r1.awaitFault(0, health.KeyAging)
		if !strings.Contains(f.Text, "in use since 2000-01-01T00:00:0") || !strings.Contains(f.Text, "at 2000-01-01T00:10:0") {
			t.Errorf("%s", f)
		}
		at(10*time.Minute + time.Second)
		p.closed()

		// One channel alone does not open it, nor does one end.
		next := epoch(t, "2.0")
		for _, n := range p.nodes() {
			n.channels[keys.A].put(next, octets(next, keys.A))
		}
		p.r1.channels[keys.B].put(next, octets(next, keys.B))
		time.Sleep(time.Minute)
		if err := p.r1.send(p.r2); !errors.Is(err, macsectest.ErrDropped) {
			t.Errorf("with an epoch that one end has: %v", err)
		}
		p.r2.channels[keys.B].put(next, octets(next, keys.B))
		p.secured(20 * time.Second)
		p.on(0, "2.0")
		for _, way := range [][2]*node{{p.r1, p.r2}, {p.r2, p.r1}} {
			if err := way[0].send(way[1]); err != nil {
				t.Error(err)
			}
		}
	})
}

// What an earlier agent keyed is closed when its key has become too old, whether that
// one saw it or not, and though no channel can be asked.
func TestKeyBecomesTooOldWhileNoAgentRuns(t *testing.T) {
	for name, c := range map[string]struct {
		runs, away time.Duration
		open       bool
	}{
		"not yet":               {4 * time.Minute, 5 * time.Minute, true},
		"while away":            {4 * time.Minute, 7 * time.Minute, false},
		"nearly all of it away": {30 * time.Second, 10 * time.Minute, false},
		"before it went away":   {11 * time.Minute, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newAgingPair(t)
				time.Sleep(c.runs)
				p.halt()
				time.Sleep(c.away)
				for _, n := range p.nodes() {
					for _, ch := range n.channels {
						ch.cut(true)
					}
				}
				p.start()
				time.Sleep(time.Second)
				if !c.open {
					p.closed()
					return
				}
				for _, n := range p.nodes() {
					if has(n.status(), health.KeyTooOld) {
						t.Errorf("%s: %+v", n.name, n.status())
					}
				}
				if err := p.r1.send(p.r2); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// statement is an override as it is read at the moment.
type statement struct {
	mu  sync.Mutex
	now keys.Override
	err error
}

func (s *statement) say(o keys.Override, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now, s.err = o, err
}

func (s *statement) read() (keys.Override, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now, s.err
}

func TestOverrideOfAnAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		var said statement
		for _, n := range p.nodes() {
			n.policy.CAKEpoch, n.policy.MaxAge = 2*time.Minute, 10*time.Minute
			n.override = said.read
		}
		p.deliver(epoch(t, "1.0"))
		p.start()
		p.secured(time.Second)
		time.Sleep(8 * time.Minute)
		said.say(keys.Override{Until: time.Now().Add(5 * time.Minute), Reason: "the vault is flooded", Signers: []string{"ann", "bob"}}, nil)
		end := p.stream(t)
		time.Sleep(4 * time.Minute)
		for _, n := range p.nodes() {
			n.wantFaults(health.KeyAgeOverridden)
			f := n.awaitFault(0, health.KeyAgeOverridden)
			if !strings.Contains(f.Text, "stays in use until 2000-01-01T00:13:0") || !strings.Contains(f.Text, "for the vault is flooded (signed by ann, bob)") {
				t.Errorf("%s: %s", n.name, f)
			}
		}
		// A file that cannot be read takes nothing back.
		said.say(keys.Override{}, errors.New("input/output error"))
		time.Sleep(50 * time.Second)
		end()
		time.Sleep(20 * time.Second)
		p.closed()
		if n := strings.Count(p.r1.log.String(), "input/output error"); n != 2 {
			t.Errorf("the error was logged %d times", n)
		}
		// A new one opens it again, and taking it back closes it within a minute.
		said.say(keys.Override{Until: time.Now().Add(time.Hour), Reason: "it still is", Signers: []string{"ann", "bob"}}, nil)
		time.Sleep(rollEvery + 20*time.Second)
		p.on(0, "1.0")
		said.say(keys.Override{}, nil)
		time.Sleep(rollEvery)
		p.closed()
		// One that the inventory no longer trusts is none, as one that is taken back.
		said.say(keys.Override{Until: time.Now().Add(time.Hour), Reason: "again", Signers: []string{"ann", "bob"}}, nil)
		time.Sleep(rollEvery + 20*time.Second)
		p.on(0, "1.0")
		said.say(keys.Override{}, fmt.Errorf("age.override: %w", signed.ErrUntrusted))
		time.Sleep(rollEvery)
		p.closed()
	})
}

// A clock that jumps while an agent runs closes nothing: neither at once nor when the
// interface was away, and it makes no key last.
func TestClockJumpsClosesNothing(t *testing.T) {
	for name, jump := range map[string]time.Duration{"forward": 38 * 365 * 24 * time.Hour, "back": -29 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newAgingPair(t)
				began := time.Now()
				time.Sleep(time.Minute)
				end := p.stream(t)
				for _, n := range p.nodes() {
					n.skew.Store(int64(jump))
				}
				time.Sleep(3 * rollEvery / 2)
				end()
				for _, n := range p.nodes() {
					n.wantFaults()
				}
				// Another session, which reads the State again.
				p.r1.unplug(p.r1.port)
				p.r1.awaitState(0, StateFailed)
				p.r1.port = p.r1.plug("eth4", p.wire, p.r1.port.address)
				for _, n := range p.nodes() {
					n.awaitState(10*time.Second, StateSecured)
				}
				time.Sleep(time.Until(began.Add(9 * time.Minute)))
				for _, n := range p.nodes() {
					n.wantFaults(health.KeyOverdue, health.KeyAging)
				}
				time.Sleep(time.Until(began.Add(10*time.Minute + time.Second)))
				p.closed()
			})
		})
	}
}

// New limits in the inventory hold at once, and without another session.
func TestLimitsOfAgeChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, strings.Replace(twoLinks, "mode: enforce", "mode: enforce, cak_epoch: 1h, max_age: 24h", 1))
		time.Sleep(10 * time.Minute)
		was := s.history(s.r1, "l1", "eth4-sec")
		s.want(s.r1, "l1", StateSecured)
		s.edit("cak_epoch: 1h, max_age: 24h", "cak_epoch: 1m, max_age: 15m")
		s.want(s.r1, "l1", StateSecured, health.KeyAging, health.KeyOverdue)
		s.edit("cak_epoch: 1m, max_age: 15m", "cak_epoch: 1h, max_age: 24h")
		s.want(s.r1, "l1", StateSecured)
		if is := s.history(s.r1, "l1", "eth4-sec"); is != was {
			t.Errorf("was %s\nis  %s", was, is)
		}
		s.edit("cak_epoch: 1h, max_age: 24h", "cak_epoch: 1m, max_age: 2m")
		s.want(s.r1, "l1", StateFailed, health.KeyTooOld)
		s.edit("cak_epoch: 1m, max_age: 2m", "cak_epoch: 1h, max_age: 24h")
		time.Sleep(10 * time.Second)
		s.want(s.r1, "l1", StateSecured)
	})
}

//go:build !kernel

package agent

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/inventory"
)

// leave is `lever suspend` as the control socket passes it on.
func (n *node) leave(d time.Duration) Suspended {
	n.t.Helper()
	all := n.server.suspendAll(n.t.Context(), d)
	if len(all) != 1 || all[0].Link != "l1" {
		n.t.Fatalf("%+v", all)
	}
	return all[0]
}

// An announced absence of many life times is none, at either end and whoever is
// key server.
func TestSuspendedRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		defer p.stream(t)()
		for i, n := range p.nodes() {
			other := p.nodes()[1-i]
			began := time.Now()
			s := n.leave(time.Minute)
			if took := time.Since(began); s.Error != "" || took > time.Second || !s.Until.Equal(began.Add(time.Minute)) {
				t.Fatalf("%+v after %v", s, took)
			}
			st := other.await(3*time.Second, "told", func(s LinkStatus) bool { return s.Peers[0].SuspendedUntil != nil })
			if until := st.Peers[0].SuspendedUntil; until.Before(began.Add(58*time.Second)) || until.After(began.Add(62*time.Second)) {
				t.Fatalf("%s of its peer: %v", other.name, until)
			}
			n.halt()
			time.Sleep(40 * time.Second)
			if st := other.status(); st.State != StateSecured || len(st.Faults) != 0 || !st.Peers[0].Live {
				t.Errorf("%s: %+v", other.name, st)
			}
			n.start()
			p.secured(5 * time.Second)
			other.await(3*time.Second, "at one with a peer that is back", func(s LinkStatus) bool { return s.Peers[0].SuspendedUntil == nil })
			if st := n.status(); st.SuspendedUntil != nil || st.Rekeys != 0 {
				t.Errorf("%s: %+v", n.name, st)
			}
		}
		if strings.Contains(p.r1.log.String(), "peer_lost") {
			t.Error("somebody was given up")
		}
	})
}

// Whoever stays away for longer than announced is lost.
func TestSuspensionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		p.r1.leave(20 * time.Second)
		p.r1.halt()
		time.Sleep(19 * time.Second)
		p.r2.noFault()
		p.r2.awaitFault(10*time.Second, health.PeerLost)
	})
}

func TestSuspensionTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		p.r1.leave(MaxSuspension)
		if st := p.r1.status(); st.SuspendedUntil == nil {
			t.Errorf("%+v", st)
		}
		if s := p.r1.leave(0); s.Error != "" || !s.Until.IsZero() {
			t.Errorf("%+v", s)
		}
		p.r2.await(time.Second, "without it", func(s LinkStatus) bool { return s.Peers[0].SuspendedUntil == nil })
		p.r1.halt()
		p.r2.awaitFault(10*time.Second, health.PeerLost)
	})
}

// Each link says why its far end does not wait.
func TestSuspensionThatIsNotHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.deliver(epoch(t, "1.0"))
		p.r1.start()
		if s := p.r1.leave(time.Minute); !strings.Contains(s.Error, "nobody who would wait") || !s.Until.IsZero() {
			t.Errorf("without a peer: %+v", s)
		}
		p.r2.start()
		p.secured(time.Second)
		p.sever(true)
		began := time.Now()
		s := p.r1.leave(time.Minute)
		if !strings.Contains(s.Error, "not every peer has confirmed it within 5s") || time.Since(began) != leavePatience {
			t.Errorf("on a dead wire: %+v after %v", s, time.Since(began))
		}
		p.sever(false)
		p.secured(10 * time.Second)
		if err := p.r1.ask("down"); err != nil {
			t.Fatal(err)
		}
		if s := p.r1.leave(time.Minute); !strings.Contains(s.Error, "was taken down") {
			t.Errorf("when it is down: %+v", s)
		}
	})
}

// What the inventory says of MKA arrives in the MKPDUs and in the device.
func TestOptionsOfALink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.change(func(l *inventory.Link) {
			l.MKA.DelayProtect, l.MKA.Hello, l.MKA.ICVIndicator, l.MKA.ReplayWindow = true, 500*time.Millisecond, true, 7
		})
		p.deliver(epoch(t, "1.0"))
		p.start()
		p.secured(time.Second)
		var sent []arriving
		p.mu.Lock()
		tap := newSocket(p.r1.machine, p.r1.port, p.sockets[0].opts)
		p.sockets = append(p.sockets, tap)
		p.mu.Unlock()
		defer func() { _ = tap.Close() }()
		for _, n := range p.nodes() {
			if d := n.device(); d.ReplayWindow != 7 || !d.ReplayProtect {
				t.Errorf("%s: window %d", n.name, d.ReplayWindow)
			}
			if st := n.status(); !st.DelayProtect {
				t.Errorf("%s: %+v", n.name, st)
			}
		}
		began := time.Now()
		each(10*time.Millisecond, 10*time.Second, func() {
			for l := range tap.lanes { // nobody else reads it
				for len(tap.lanes[l].frames) > 0 {
					sent = append(sent, <-tap.lanes[l].frames)
				}
			}
			for _, way := range [][2]*node{{p.r1, p.r2}, {p.r2, p.r1}} {
				if err := way[0].send(way[1]); err != nil {
					t.Error(err)
				}
			}
		})
		if n := len(sent); n < 36 || n > 60 {
			t.Errorf("%d MKPDUs of two ends in %v, want one each in 0.5 s", n, time.Since(began))
		}
		for _, f := range sent {
			// The parameter set 255 (ICV indicator) of 16 octets stands before the ICV.
			if i := len(f.frame) - 20; f.frame[i] != 255 || f.frame[i+3] != 16 {
				t.Fatalf("% x ends without an ICV indicator", f.frame)
			}
		}
	})
}

// hold sends a frame of data and keeps it.
func hold(t *testing.T, n *node) []byte {
	t.Helper()
	frame := make([]byte, 60)
	frame[12] = 8
	wire, err := n.kernel.Transmit(n.device().Index, frame)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// A replay window of zero takes no frame that was overtaken; delay protection
// takes none that is old, within the widest window.
func TestFramesThatAreLate(t *testing.T) {
	for _, c := range []struct {
		name   string
		window uint32
		delay  bool
		newer  int // frames that overtook it
		after  time.Duration
		want   bool
	}{
		{"not overtaken", 0, false, 0, 0, true},
		{"overtaken by one", 0, false, 1, 0, false},
		{"overtaken by one within the window", 64, false, 1, 0, true},
		{"old", 64, false, 0, 10 * time.Second, true},
		{"old, with delay protection", 64, true, 0, 10 * time.Second, false},
		{"old and overtaken by few", 64, false, 10, 10 * time.Second, true},
		{"old and overtaken by few, with delay protection", 64, true, 10, 10 * time.Second, false},
		{"young and overtaken by few, with delay protection", 64, true, 10, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				p.change(func(l *inventory.Link) { l.MKA.ReplayWindow, l.MKA.DelayProtect = c.window, c.delay })
				p.deliver(epoch(t, "1.0"))
				p.start()
				p.secured(time.Second)
				for range 100 {
					if err := p.r1.send(p.r2); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(2 * time.Second)
				held := hold(t, p.r1)
				for range c.newer {
					if err := p.r1.send(p.r2); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(c.after)
				if _, err := p.r2.kernel.Receive(p.r2.device().Index, held); (err == nil) != c.want {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

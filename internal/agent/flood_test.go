//go:build !kernel

package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/internal/pae"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/mka"
)

// flood sends rate hostile frames a second on w until stop is called.
func flood(t *testing.T, w *wire, rate int, make func(*lab.Hostile) []byte) (stop func()) {
	t.Helper()
	const turn = 10 * time.Millisecond
	h := lab.NewHostile(1, w.overheard())
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(turn)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				for range rate * int(turn) / int(time.Second) {
					w.carry(nil, make(h))
				}
			case <-ctx.Done():
				return
			}
		}
	})
	return func() { cancel(); done.Wait() }
}

// overheard is what was heard so far.
func (w *wire) overheard() [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.heard.Frames())
}

// newOverheardPair is a secured pair whose MKPDUs somebody has heard.
func newOverheardPair(t *testing.T) *pair {
	t.Helper()
	p := newPair(t)
	p.heard = &lab.Heard{}
	p.deliver(epoch(t, "1.0"))
	p.start()
	p.secured(time.Second)
	time.Sleep(10 * time.Second)
	return p
}

// TestFloodDisturbsNobody floods a link with all that an attacker can send: it
// stays secured, takes a rekey, loses no frame, and nobody has to read about
// it a thousand times.
func TestFloodDisturbsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOverheardPair(t)
		before := strings.Count(p.r1.log.String(), "\n")
		changes := p.r1.changes(t.Context())
		stop := flood(t, p.wire, 5000, (*lab.Hostile).Next)
		for i := range 200 {
			time.Sleep(100 * time.Millisecond)
			for _, way := range [][2]*node{{p.r1, p.r2}, {p.r2, p.r1}} {
				if err := way[0].send(way[1]); err != nil {
					t.Fatalf("after %d tenths of a second: %v", i, err)
				}
			}
			if i == 100 {
				if err := p.r1.ask("rekey"); err != nil {
					t.Errorf("rekey under flood: %v", err)
				}
			}
		}
		for _, n := range p.nodes() {
			if st := n.status(); st.State != StateSecured || st.Rekeys != 1 {
				t.Errorf("%s: %+v", n.name, st)
			}
		}
		stop()
		if lines := strings.Count(p.r1.log.String(), "\n") - before; lines > 30 {
			t.Errorf("%d lines of log of 100000 hostile frames and a rekey", lines)
		}
		if strings.Contains(p.r1.log.String(), "peer_lost") {
			t.Error("a peer was lost")
		}
		// A status that frames alone change is shown every half a second at most.
		if n := changes(); n > 20*2+20 {
			t.Errorf("%d changes of status in 20 s", n)
		}
		for _, s := range p.sockets {
			if n := s.lanes[pae.Peers].dropped.Load(); n > 0 {
				t.Errorf("%d frames were dropped on their way from a peer's address", n)
			}
		}
		time.Sleep(25 * time.Second) // what was wrong is forgotten
		p.secured(time.Second)
	})
}

// changes counts how often the status changes, until it is called.
func (n *node) changes(ctx context.Context) (stop func() int) {
	ctx, cancel := context.WithCancel(ctx)
	count := make(chan int)
	go func() {
		c := 0
		for {
			_, changed := n.server.snapshot()
			select {
			case <-changed:
				c++
			case <-ctx.Done():
				count <- c
				return
			}
		}
	}()
	return func() int { cancel(); return <-count }
}

// TestStrangersAreNamed: what is read slowly is still diagnosed. A neighbour
// that is set up wrong and sends 5000 frames a second is no less so.
func TestStrangersAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOverheardPair(t)
		frame := lab.NewHostile(1, p.overheard()).Make(lab.UnknownCKN)
		stop := flood(t, p.wire, 5000, func(*lab.Hostile) []byte { return frame })
		defer stop()
		for _, n := range p.nodes() {
			f := n.awaitFault(10*time.Second, health.UnknownCKN)
			if ckn := mka.CKN(frame[50:82]).String(); !strings.Contains(f.Text, ckn) {
				t.Errorf("%s: %q does not name the CKN %s", n.name, f.Text, ckn)
			}
		}
		for _, s := range p.sockets {
			if s.lanes[pae.Strangers].dropped.Load() == 0 {
				t.Error("every stranger was listened to")
			}
		}
	})
}

// TestFloodOfOneLinkLeavesOthers drowns a link of an agent and looks at another.
func TestFloodOfOneLinkLeavesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		drowned := &wire{heard: &lab.Heard{}}
		l := *p.r1.link.Link
		l.ID = "l2"
		l.Ends = []inventory.End{{Node: "r1", Interface: "eth5", Secure: "eth5-sec"}, {Node: "r2", Interface: "eth6", Secure: "eth6-sec"}}
		p.deliver(epoch(t, "1.0"))
		for i, n := range p.nodes() {
			n.plug(l.Ends[i].Interface, drowned, mka.MAC{2, 0, 0, 0, 1, byte(i + 1)})
			n.start(inventory.NodeLink{Link: &l, Local: l.Ends[i], Remote: l.Ends[1-i : 2-i]})
		}
		p.secured(time.Second)
		time.Sleep(10 * time.Second)
		at := time.Now()
		for range 2 {
			stop := flood(t, drowned, 20000, func(h *lab.Hostile) []byte { return h.Make(lab.Spoofed) })
			time.Sleep(5 * time.Second)
			stop()
		}
		p.secured(time.Second)
		for _, n := range p.nodes() {
			all, _ := n.server.snapshot()
			for _, st := range all.Links {
				if st.State != StateSecured || !st.SecuredSince.Before(at) {
					t.Errorf("%s: %+v", n.name, st)
				}
			}
		}
	})
}

// TestFiltersThatAreRefused: what the kernel had no memory for once is tried again, and
// said once.
func TestFiltersThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.deliver(epoch(t, "1.0"))
		p.r1.failing("focus", errors.New("cannot allocate memory"))
		p.start()
		p.secured(time.Second)
		time.Sleep(10 * time.Second)
		p.r1.failing("focus", nil)
		time.Sleep(5 * time.Second)
		s := p.sockets[0]
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.focus.CKNs) != 1 || len(s.focus.Peers) != 1 {
			t.Errorf("sorted by %+v, want one CKN and one peer", s.focus)
		}
		if n := strings.Count(p.r1.log.String(), "cannot allocate memory"); n != 1 {
			t.Errorf("said %d times:\n%s", n, p.r1.log.String())
		}
	})
}

// TestFiltersThatWereRefusedInBetween: a refusal leaves the lanes sorted by some of what
// was and some of what was to be, and that is put right also when nothing is to change any
// more.
func TestFiltersThatWereRefusedInBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		asked := func() int {
			synctest.Wait()
			p.r1.mu.Lock()
			defer p.r1.mu.Unlock()
			return p.r1.asked["focus"]
		}
		time.Sleep(5*time.Second + 100*time.Millisecond)
		p.r1.failing("focus", errors.New("cannot allocate memory"))
		before := asked()
		p.wire.sever(true)
		time.Sleep(10 * time.Second) // the peer is lost
		p.wire.sever(false)
		time.Sleep(5 * time.Second) // and is back
		refused := asked()
		p.r1.failing("focus", nil)
		time.Sleep(5 * time.Second)
		if now := asked(); refused == before || now != refused+1 {
			t.Errorf("asked %d times, refused %d times, and then asked %d times; want once", before, refused-before, now-refused)
		}
		p.secured(0)
	})
}

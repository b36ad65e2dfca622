//go:build !kernel

package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/mka"
)

// readiness is what an agent tells the service manager, and what holds up fences.
type readiness struct {
	mu    sync.Mutex
	held  map[int]chan struct{} // interfaces whose fence does not get closed meanwhile
	ready atomic.Int32
}

// hold has fences not get closed until release is called.
func (r *readiness) hold(indexes ...int) (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = map[int]chan struct{}{}
	c := make(chan struct{})
	for _, i := range indexes {
		r.held[i] = c
	}
	return sync.OnceFunc(func() { close(c) })
}

// boot starts an agent at a node whose fences are all open, as after a boot, with what
// tells the service manager that it is ready.
func (s *site) boot(n *node, r *readiness) *server {
	s.t.Helper()
	n.halt()
	n.mu.Lock()
	for _, p := range n.ports {
		p.fenced = false
	}
	n.mu.Unlock()
	first, err := firstInventory(Options{Inventory: s.path, Node: n.name, RunDir: n.runDir, StateDir: n.stateDir})
	if err != nil {
		s.t.Fatal(err)
	}
	links, err := first.inv.ForNode(n.name)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	g, ctx := errgroup.WithContext(ctx)
	on := n.platform()
	closeFence := on.closeFence
	on.closeFence = func(index int, o fence.Options) ([]fence.Change, error) {
		r.mu.Lock()
		held := r.held[index]
		r.mu.Unlock()
		if held != nil {
			select {
			case <-held: // the kernel is busy with something else
			case <-ctx.Done():
			}
		}
		return closeFence(index, o)
	}
	srv := newServer(Options{
		Node: n.name, Inventory: s.path, RunDir: n.runDir, StateDir: n.stateDir, Log: n.server.log,
		Ready: func(func(context.Context) error) { r.ready.Add(1) },
	}, on, n.kernel, n.links)
	srv.open = n.server.open
	n.server = srv
	srv.start(ctx, g, first.inv, links)
	srv.accept(first)
	g.Go(func() error { return srv.follow(ctx, nil) })
	g.Go(func() error { srv.readyWhenFenced(ctx); return nil })
	n.stop = func() {
		cancel()
		if err := g.Wait(); err != nil {
			n.t.Errorf("%s: %v", n.name, err)
		}
	}
	return srv
}

// TestReloadIsReadyWhenFenced reloads while the fences of the start are being closed,
// and with a link that is new: the network may not begin before they all are, unless
// one takes too long.
func TestReloadIsReadyWhenFenced(t *testing.T) {
	const third = "  - {id: l3, a: r1/eth8, z: r2/eth11}\n"
	for name, c := range map[string]struct {
		atBoot  bool // the reload comes while the agent starts
		adds    string
		hold    []string
		forever bool
	}{
		"while the agent starts":           {atBoot: true, hold: []string{"eth4"}},
		"with a link more, at the start":   {atBoot: true, adds: third, hold: []string{"eth4", "eth8"}},
		"later":                            {},
		"with a link more":                 {adds: third, hold: []string{"eth8"}},
		"with one whose fence hangs":       {adds: third, hold: []string{"eth8"}, forever: true},
		"with one that hangs at the start": {atBoot: true, hold: []string{"eth4"}, forever: true},
		"with one that has no interface":   {adds: strings.Replace(third, "eth8", "eth12", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, twoLinks)
				s.r1.plug("eth8", &wire{}, mka.MAC{2, 0, 0, 0, 0, 8})
				time.Sleep(10 * time.Second)
				var r readiness
				var held []int
				for _, name := range c.hold {
					held = append(held, s.r1.iface(name).index)
				}
				release := r.hold(held...)
				defer release()
				srv := s.boot(s.r1, &r)
				said := int32(0)
				if !c.atBoot {
					time.Sleep(time.Second)
					if said = r.ready.Load(); said != 1 {
						t.Fatalf("ready %d times after the start", said)
					}
				}
				s.write(twoLinks + c.adds)
				srv.reload("SIGHUP", true)
				time.Sleep(5 * time.Second)
				open := slices.ContainsFunc(c.hold, func(name string) bool { return !s.r1.fencedAt(name) })
				if now := r.ready.Load(); open && now != said || !open && now <= said {
					t.Errorf("ready %d times after %d; open: %v", now, said, open)
				}
				if c.forever {
					time.Sleep(fencePatience)
				} else {
					release()
					time.Sleep(time.Second)
				}
				if now := r.ready.Load(); now <= said {
					t.Errorf("ready %d times after %d at last", now, said)
				}
				if c.forever && c.atBoot && strings.Contains(s.r1.log.String(), "every fence that can be is closed") {
					t.Error("the log says that every fence is closed")
				}
			})
		})
	}
}

// TestNotReadyWithoutALook has interfaces not even be looked up for a while: they may be
// there, and open.
func TestNotReadyWithoutALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, twoLinks)
		time.Sleep(10 * time.Second)
		s.r1.halt()
		s.r1.failing("find parent", fmt.Errorf("look up interface: %w", syscall.EMFILE))
		var r readiness
		s.boot(s.r1, &r)
		time.Sleep(5 * time.Second)
		if r.ready.Load() != 0 {
			t.Error("ready, and nobody has looked for the interfaces")
		}
		s.r1.failing("find parent", nil)
		time.Sleep(5 * time.Second)
		if r.ready.Load() != 1 || !s.r1.fencedAt("eth4") || !s.r1.fencedAt("eth5") {
			t.Errorf("ready %d times; fences %v, %v", r.ready.Load(), s.r1.fencedAt("eth4"), s.r1.fencedAt("eth5"))
		}
	})
}

// TestReadyWhenTheInventoryIsInForce starts an agent with an inventory that takes a link
// away, and so must stay as it is for a while. It has a link that is new, too: the network
// may not begin before that one has its fence.
func TestReadyWhenTheInventoryIsInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, twoLinks)
		s.r1.plug("eth8", &wire{}, mka.MAC{2, 0, 0, 0, 0, 8})
		time.Sleep(10 * time.Second)
		s.r1.halt()
		s.write(twoLinks[:strings.Index(twoLinks, "  - id: l2")] + "  - {id: l3, a: r1/eth8, z: r2/eth11}\n")
		var r readiness
		s.boot(s.r1, &r)
		time.Sleep(graveSettles - time.Second)
		if n := r.ready.Load(); n != 0 {
			t.Errorf("ready %d times; the fence on eth8 is closed: %v", n, s.r1.fencedAt("eth8"))
		}
		time.Sleep(2 * time.Second)
		if n := r.ready.Load(); n == 0 || !s.r1.fencedAt("eth8") {
			t.Errorf("ready %d times; the fence on eth8 is closed: %v", n, s.r1.fencedAt("eth8"))
		}
		s.want(s.r1, "l2", StateRemoved, health.LinkRemoved)
	})
}

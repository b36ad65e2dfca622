//go:build !kernel

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/watch"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
	"github.com/lever-link/lever/mka"
)

// twoLinks is an inventory whose links l1 and l2 join r1 and r2. Each test changes
// some of it.
const twoLinks = `apiVersion: lever/v1
policy: {mode: enforce}
channels: {a: {type: dir, path: /k/a}, b: {type: dir, path: /k/b}}
sites: {s: {custody: controlled-building}, u: {}}
nodes: {r1: {site: s}, r2: {site: u}}
links:
  - id: l1
    a: r1/eth4
    z: r2/eth9
    segments: [{custody: leased-wave, ref: one}]
  - id: l2
    a: r1/eth5
    z: r2/eth10
    segments: [{custody: leased-wave, ref: two}]
`

// site are two nodes with two links between them, which follow an inventory file.
type site struct {
	*pair
	t      testing.TB
	path   string
	second *wire
	offset atomic.Int64 // of the wall clock
	logTo  func(slog.Handler) slog.Handler
	files  func(*node, *files)
}

// newSite starts agents that keep up with an inventory, as Run does, but for
// inotify, which is none of virtual time: the file is looked at every two seconds.
func newSite(t *testing.T, text string, opts ...func(*site)) *site {
	t.Helper()
	s := &site{pair: newPair(t), t: t, path: filepath.Join(t.TempDir(), "lever.yaml"), second: &wire{}}
	s.write(text)
	for _, o := range opts {
		o(s)
	}
	s.r1.plug("eth5", s.second, mka.MAC{2, 0, 0, 0, 1, 1})
	s.r2.plug("eth10", s.second, mka.MAC{2, 0, 0, 0, 1, 2})
	s.deliver(epoch(t, "1.0"))
	for _, n := range s.nodes() {
		s.startAt(n)
	}
	return s
}

// write replaces the inventory by rename, as editors do.
func (s *site) write(text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path+".new", []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.path+".new", s.path); err != nil {
		s.t.Fatal(err)
	}
}

// edit replaces parts of the inventory and lets the agents find it.
func (s *site) edit(oldnew ...string) {
	s.t.Helper()
	text, err := os.ReadFile(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	next := strings.NewReplacer(oldnew...).Replace(string(text))
	if next == string(text) {
		s.t.Fatal("the edit changes nothing")
	}
	s.write(next)
	time.Sleep(watch.Rescan + watch.Settles + graveSettles + time.Second)
}

func (s *site) startAt(n *node) {
	s.t.Helper()
	seen := watch.Signature(s.path)
	first, err := firstInventory(Options{Inventory: s.path, Node: n.name, RunDir: n.runDir, StateDir: n.stateDir})
	if err != nil {
		s.t.Fatal(err)
	}
	inv := first.inv.At(later(first.floor, time.Now().Add(time.Duration(s.offset.Load()))))
	links, err := inv.ForNode(n.name)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	g, ctx := errgroup.WithContext(ctx)
	opts := Options{Node: n.name, Inventory: s.path, RunDir: n.runDir, StateDir: n.stateDir}
	handler := slog.Handler(slog.NewTextHandler(n.log, nil))
	if s.logTo != nil {
		handler = s.logTo(handler)
	}
	opts.Log = slog.New(handler).With("at", n.name)
	on := n.platform()
	if s.files != nil {
		s.files(n, &on.files)
	}
	n.server = newServer(opts, on, n.kernel, n.links)
	n.server.judged = first.floor
	n.server.wall = func() time.Time { return time.Now().Add(time.Duration(s.offset.Load())) }
	n.server.open = func(*inventory.Inventory, *slog.Logger) [2]keys.Channel {
		return [2]keys.Channel{n.channels[0], n.channels[1]}
	}
	changed := make(chan struct{})
	g.Go(func() error { watch.Settled(ctx, s.path, seen, nil, changed); return nil })
	n.server.start(ctx, g, inv, links)
	n.server.accept(first)
	g.Go(func() error { return n.server.follow(ctx, changed) })
	n.stop = func() {
		cancel()
		if err := g.Wait(); err != nil {
			n.t.Errorf("%s: %v", n.name, err)
		}
	}
}

// link is the status of one link at a node.
func (s *site) link(n *node, id string) (LinkStatus, bool) {
	synctest.Wait()
	st, _ := n.server.snapshot()
	i := slices.IndexFunc(st.Links, func(l LinkStatus) bool { return l.ID == id })
	if i < 0 {
		return LinkStatus{}, false
	}
	return st.Links[i], true
}

func (s *site) want(n *node, id string, state State, faults ...health.Code) LinkStatus {
	s.t.Helper()
	st, ok := s.link(n, id)
	var codes []health.Code
	for _, f := range st.Faults {
		codes = append(codes, f.Code)
	}
	if !ok || st.State != state || !slices.Equal(codes, faults) {
		s.t.Errorf("%s: %s is %v %q with %v, want %q with %v", n.name, id, ok, st.State, st.Faults, state, faults)
	}
	return st
}

// iface is an interface of a machine by name.
func (m *machine) iface(name string) *port {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.ports, func(p *port) bool { return p.name == name })
	if i < 0 {
		m.t.Fatalf("no interface %s", name)
	}
	return m.ports[i]
}

func (m *machine) fencedAt(name string) bool {
	p := m.iface(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	return p.fenced
}

// secy is the device of that name, nil if there is none.
func (s *site) secy(n *node, name string) *macsec.SecY {
	s.t.Helper()
	d, err := n.kernel.Device(name)
	if err != nil {
		return nil
	}
	state, err := n.kernel.SecY(d.Index)
	if err != nil {
		s.t.Fatal(err)
	}
	return state
}

// history is what must stay the same of a link that nothing disturbs.
func (s *site) history(n *node, id, device string) string {
	s.t.Helper()
	synctest.Wait()
	n.server.mu.Lock()
	t := n.server.tasks[id]
	n.server.mu.Unlock()
	f, err := readLinkFile(n.runDir, id)
	if err != nil || f == nil || f.MKA == nil {
		s.t.Fatalf("%s: %+v, %v", id, f, err)
	}
	st, _ := s.link(n, id)
	return fmt.Sprintf("task %p, MI %v, SAs %v, secured since %v, rekeys %d", t, f.MKA.Participants[0].MI, sas(s.secy(n, device)), st.SecuredSince, st.Rekeys)
}

// TestReloadChangesOneLink changes l1 in many ways. Whatever it is, l2 goes on as
// if nothing had happened: its task, its member identifier, its SAs.
func TestReloadChangesOneLink(t *testing.T) {
	for name, c := range map[string]struct {
		edit  []string
		does  inventory.SessionChange // as lever check --diff shows it
		state State
		check func(t *testing.T, s *site)
	}{
		"words": {
			does: inventory.Untouched,
			edit: []string{"ref: one", "ref: uno"}, state: StateSecured,
			check: func(t *testing.T, s *site) {
				if st, _ := s.link(s.r1, "l1"); !strings.Contains(st.Reason, "uno") {
					t.Errorf("the reason is %q", st.Reason)
				}
			},
		},
		"an address": {
			does: inventory.Untouched,
			edit: []string{"a: r1/eth4", "a: {node: r1, interface: eth4, addresses: [10.0.0.0/31]}"}, state: StateSecured,
			check: func(t *testing.T, s *site) {
				if got := fmt.Sprint(s.r1.ports[0].addresses[s.secy(s.r1, "eth4-sec").Index]); got != "[10.0.0.0/31]" {
					t.Errorf("addresses %v", got)
				}
			},
		},
		"the parameters of MKA and of the replay protection": {
			does: inventory.Resumed,
			edit: []string{"ref: one}]", "ref: one}]\n    mka: {delay_protect: true, replay_window: 99}"}, state: StateSecured,
			check: func(t *testing.T, s *site) {
				if d := s.secy(s.r1, "eth4-sec"); d.ReplayWindow != 99 {
					t.Errorf("window %d", d.ReplayWindow)
				}
			},
		},
		"the cipher": {
			does: inventory.Remade,
			edit: []string{"ref: one}]", "ref: one}]\n    cipher: gcm-aes-256"}, state: StateSecured,
			check: func(t *testing.T, s *site) {
				if d := s.secy(s.r1, "eth4-sec"); d.CipherSuite != macsec.GCMAES256 {
					t.Errorf("cipher %v", d.CipherSuite)
				}
			},
		},
		"the name of the device": {
			does: inventory.Remade,
			edit: []string{"a: r1/eth4", "a: {node: r1, interface: eth4, secure: wan0}"}, state: StateSecured,
			check: func(t *testing.T, s *site) {
				if s.secy(s.r1, "eth4-sec") != nil || s.secy(s.r1, "wan0") == nil {
					t.Error("the device has not got its new name")
				}
			},
		},
		"removed": {
			does: inventory.Dropped,
			edit: []string{"  - id: l1\n    a: r1/eth4\n    z: r2/eth9\n    segments: [{custody: leased-wave, ref: one}]\n", ""}, state: StateRemoved,
			check: func(t *testing.T, s *site) {
				for _, n := range s.nodes() {
					st := s.want(n, "l1", StateRemoved, health.LinkRemoved)
					if st.Verdict != "encrypt" || !strings.Contains(st.Faults[0].Next, "lever down l1") {
						t.Errorf("%s: %+v", n.name, st)
					}
					if !n.now().fenced || s.secy(n, n.link.Local.Secure) != nil {
						t.Errorf("%s: fence %v, device %+v", n.name, n.now().fenced, s.secy(n, n.link.Local.Secure))
					}
				}
				// It does not come back by itself, and survives a restart of the agent.
				s.r1.halt()
				s.startAt(s.r1)
				s.want(s.r1, "l1", StateRemoved, health.LinkRemoved)
				s.r1.unplug(s.r1.iface("eth4"))
				s.r1.port = s.r1.plug("eth4", s.wire, mka.MAC{2, 0, 0, 0, 0, 1})
				time.Sleep(2 * clearEvery)
				if !s.r1.fencedAt("eth4") {
					t.Error("the interface was replaced, and plain frames may pass")
				}
				if err := s.r1.ask("down"); err != nil {
					t.Fatal(err)
				}
				if _, there := s.link(s.r1, "l1"); there || s.r1.fencedAt("eth4") {
					t.Error("lever down has not ended it")
				}
				s.r1.halt()
				s.startAt(s.r1)
				if _, there := s.link(s.r1, "l1"); there || s.r1.fencedAt("eth4") {
					t.Error("it is back")
				}
			},
		},
		"inside": {
			does:  inventory.TakenDown,
			edit:  []string{"{custody: leased-wave, ref: one}", "{custody: controlled-room}, {custody: campus-duct, controls: [{control: locked-duct, evidence: T1, expires: 9999-01-01}, {control: duct-intrusion-detection, evidence: T2, expires: 2000-01-20}]}"},
			state: StateInside,
			check: func(t *testing.T, s *site) {
				for _, n := range s.nodes() {
					st := s.want(n, "l1", StateInside, health.EvidenceExpiring)
					if n.now().fenced || s.secy(n, n.link.Local.Secure) != nil || !strings.Contains(st.Faults[0].Text, "duct-intrusion-detection (T2) expires on 2000-01-20") {
						t.Errorf("%s: fence %v, device %+v, %+v", n.name, n.now().fenced, s.secy(n, n.link.Local.Secure), st)
					}
					if _, err := os.Stat(linkPath(n.runDir, "l1")); err == nil {
						t.Error("its record is still there")
					}
				}
				// And when the evidence expires it is encrypted without anybody's doing.
				s.offset.Store(int64(19*24*time.Hour - time.Minute))
				time.Sleep(2 * time.Minute)
				for _, n := range s.nodes() {
					st := s.want(n, "l1", StateSecured)
					if !n.now().fenced || !strings.Contains(st.Reason, "expired on 2000-01-20") {
						t.Errorf("%s: fence %v, %+v", n.name, n.now().fenced, st)
					}
				}
				// The clock that goes back takes nothing back.
				s.offset.Store(int64(-30 * 24 * time.Hour))
				time.Sleep(2 * time.Minute)
				s.edit("ref: two", "ref: due")
				for _, n := range s.nodes() {
					s.want(n, "l1", StateSecured)
				}
			},
		},
		"moved": {
			does: inventory.Moved,
			edit: []string{"a: r1/eth4", "a: r1/eth6"}, state: StateFailed,
			check: func(t *testing.T, s *site) {
				s.want(s.r1, "l1", StateFailed, health.ParentMissing)
				st := s.want(s.r1, "l1@eth4", StateRemoved, health.LinkRemoved)
				if !s.r1.fencedAt("eth4") || s.secy(s.r1, "eth4-sec") != nil || !strings.Contains(st.Faults[0].Next, "lever down l1@eth4") {
					t.Errorf("%+v", st)
				}
				s.r1.plug("eth6", s.wire, mka.MAC{2, 0, 0, 0, 0, 6})
				time.Sleep(10 * time.Second)
				s.want(s.r1, "l1", StateSecured)
				s.r1.halt()
				s.startAt(s.r1)
				s.want(s.r1, "l1@eth4", StateRemoved, health.LinkRemoved)
				if err := s.r1.server.ask(t.Context(), command{Verb: "down", Link: "l1@eth4"}); err != nil {
					t.Fatal(err)
				}
				if _, there := s.link(s.r1, "l1@eth4"); there || s.r1.fencedAt("eth4") {
					t.Error("lever down has not ended it")
				}
				time.Sleep(10 * time.Second)
				s.want(s.r1, "l1", StateSecured)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, twoLinks)
				time.Sleep(10 * time.Second)
				s.want(s.r1, "l2", StateSecured)
				before := s.history(s.r1, "l2", "eth5-sec")
				l1 := s.history(s.r1, "l1", "eth4-sec")
				task, had := s.r1.server.tasks["l1"], s.secy(s.r1, "eth4-sec")
				running, err := inventory.Load(s.path)
				if err != nil {
					t.Fatal(err)
				}
				flow := func() {}
				if c.does <= inventory.Resumed {
					flow = s.stream(t) // which wants no frame lost
				}
				s.r1.noted()
				s.edit(c.edit...)
				time.Sleep(5 * time.Second)
				flow()

				// What the agent did is what is shown of it.
				changed, err := inventory.Load(s.path)
				if err != nil {
					t.Fatal(err)
				}
				changes := inventory.Diff(running, changed)
				if len(changes) != 1 || changes[0].Link != "l1" || changes[0].Ends[0].Node != "r1" || changes[0].Ends[0].Session != c.does {
					t.Fatalf("shown is %+v, want %s at r1", changes, c.does)
				}
				if now := s.r1.server.tasks["l1"]; (now == task) != (c.does == inventory.Untouched) {
					t.Errorf("%s: the same task: %v", c.does, now == task)
				}
				d := s.secy(s.r1, "eth4-sec")
				if kept := d != nil && d.Index == had.Index && slices.Equal(sas(d), sas(had)); kept != (c.does <= inventory.Resumed) {
					t.Errorf("%s: the device was %+v and is %+v", c.does, had, d)
				}
				if now := s.r1.fencedAt("eth4"); now != (c.does != inventory.TakenDown) {
					t.Errorf("%s: the fence is closed: %v", c.does, now)
				}
				if c.does == inventory.Untouched {
					if now := s.history(s.r1, "l1", "eth4-sec"); now != l1 {
						t.Errorf("l1 was disturbed:\n%s\n%s", l1, now)
					}
				}
				if st, _ := s.link(s.r1, "l1"); st.State != c.state || has(st, health.SecYDrift) {
					t.Errorf("l1 is %+v, want it %s", st, c.state)
				}
				if after := s.history(s.r1, "l2", "eth5-sec"); after != before {
					t.Errorf("l2 was disturbed:\n%s\n%s", before, after)
				}
				for _, did := range s.r1.noted() {
					if strings.Contains(did, "eth5") {
						t.Errorf("l2 was touched: %s", did)
					}
				}
				c.check(t, s)
			})
		})
	}
}

// nodeFaults are those of the node as a whole.
func (s *site) nodeFaults(n *node) []health.Fault {
	synctest.Wait()
	st, _ := n.server.snapshot()
	return st.Faults
}

// TestInvalidInventoryChangesNothing breaks the inventory in several ways, mends it
// each time, and breaks it once more with a link gone.
func TestInvalidInventoryChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, twoLinks)
		time.Sleep(10 * time.Second)
		before := s.history(s.r1, "l1", "eth4-sec")
		defer s.stream(t)()
		for name, c := range map[string]struct {
			text string
			want []string
		}{
			"mistakes": {
				strings.NewReplacer("mode: enforce", "mode: enforced", "z: r2/eth9", "z: r7/eth9").Replace(twoLinks),
				[]string{"lever.yaml:2:16: policy.mode must be one of enforce, monitor", "; ", "lever.yaml:9:8: ", "r7"},
			},
			"half written":    {twoLinks[:len(twoLinks)/2], []string{"lever.yaml:"}},
			"empty":           {"", []string{"lever.yaml"}},
			"without us":      {strings.NewReplacer("r1", "r3", "r2", "r4").Replace(twoLinks), []string{`no such node`}},
			"without version": {strings.TrimPrefix(twoLinks, "apiVersion: lever/v1\n"), []string{"apiVersion"}},
		} {
			s.write(c.text)
			time.Sleep(5 * time.Second)
			faults := s.nodeFaults(s.r1)
			if len(faults) != 1 || faults[0].Code != health.InventoryInvalid {
				t.Fatalf("%s: %v", name, faults)
			}
			for _, want := range c.want {
				if !strings.Contains(faults[0].Text, want) {
					t.Errorf("%s: %s, want it to say %q", name, faults[0], want)
				}
			}
			if now := s.history(s.r1, "l1", "eth4-sec"); now != before {
				t.Errorf("%s: l1 was disturbed:\n%s\n%s", name, before, now)
			}
			s.write(twoLinks)
			time.Sleep(5 * time.Second)
			if faults := s.nodeFaults(s.r1); len(faults) != 0 {
				t.Errorf("%s, and mended: %v", name, faults)
			}
		}
		if err := os.Remove(s.path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if faults := s.nodeFaults(s.r1); len(faults) != 1 || !strings.Contains(faults[0].Text, "no such file") {
			t.Errorf("without its file: %v", faults)
		}
		if now := s.history(s.r1, "l1", "eth4-sec"); now != before {
			t.Errorf("l1 was disturbed:\n%s\n%s", before, now)
		}
	})
}

// TestModesOnALiveLink switches between enforce and monitor under a stream.
func TestModesOnALiveLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, twoLinks)
		time.Sleep(10 * time.Second)
		before := s.history(s.r1, "l1", "eth4-sec")
		defer s.stream(t)()
		for range 3 {
			s.edit("enforce", "monitor")
			s.want(s.r1, "l1", StateSecured, health.FenceOpen)
			s.edit("monitor", "enforce")
			s.want(s.r1, "l1", StateSecured)
			if !s.r1.fencedAt("eth4") || !s.r1.fencedAt("eth5") {
				t.Error("the fence is open in mode enforce")
			}
		}
		if now := s.history(s.r1, "l1", "eth4-sec"); now != before {
			t.Errorf("l1 was disturbed:\n%s\n%s", before, now)
		}
	})
}

// TestLinksChangePlaces swaps the interfaces of two links at both ends.
func TestLinksChangePlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, twoLinks)
		time.Sleep(10 * time.Second)
		s.edit("r1/eth4", "r1/eth5", "r1/eth5", "r1/eth4", "r2/eth9", "r2/eth10", "r2/eth10", "r2/eth9")
		time.Sleep(10 * time.Second)
		for _, n := range s.nodes() {
			st, _ := n.server.snapshot()
			if len(st.Links) != 2 {
				t.Errorf("%s: %+v", n.name, st.Links)
			}
			for _, id := range []string{"l1", "l2"} {
				s.want(n, id, StateSecured)
			}
		}
		if st, _ := s.link(s.r1, "l1"); st.Interface != "eth5" || !s.r1.fencedAt("eth4") || !s.r1.fencedAt("eth5") {
			t.Errorf("%+v", st)
		}
	})
}

// TestDownStaysDown changes a link that an operator has taken down.
func TestDownStaysDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, twoLinks)
		time.Sleep(10 * time.Second)
		if err := s.r1.ask("down"); err != nil {
			t.Fatal(err)
		}
		for _, edit := range [][]string{{"ref: one", "ref: uno"}, {"ref: uno}]", "ref: uno}]\n    cipher: gcm-aes-256"}, {"mode: enforce", "sak_rekey: 2h"}} {
			s.edit(edit...)
			s.want(s.r1, "l1", StateDown, health.TakenDown)
			if s.r1.fencedAt("eth4") || s.secy(s.r1, "eth4-sec") != nil {
				t.Error("it is up again")
			}
		}
		s.edit("  - id: l1\n    a: r1/eth4\n    z: r2/eth9\n", "  - id: l1\n    a: r1/eth8\n    z: r2/eth9\n")
		if _, there := s.link(s.r1, "l1@eth4"); there || s.r1.fencedAt("eth4") {
			t.Error("a fence that an operator has opened was closed")
		}
	})
}

// TestInventoryChangedWhileNoAgentRan says in it what a reload would be told.
func TestInventoryChangedWhileNoAgentRan(t *testing.T) {
	for name, c := range map[string]struct {
		edit   []string
		state  State
		fenced bool
	}{
		"removed":  {[]string{"  - id: l1\n    a: r1/eth4\n    z: r2/eth9\n    segments: [{custody: leased-wave, ref: one}]\n", ""}, StateRemoved, true},
		"inside":   {[]string{"{custody: leased-wave, ref: one}", "{custody: campus-duct, controls: [{control: locked-duct, evidence: T1, expires: 9999-01-01}, {control: duct-intrusion-detection, evidence: T2, expires: 9999-01-01}]}"}, StateInside, false},
		"another":  {[]string{"id: l1", "id: l3"}, "", true},
		"renamed":  {[]string{"a: r1/eth4", "a: {node: r1, interface: eth4, secure: wan0}"}, StateNegotiating, true},
		"the same": {[]string{"ref: one", "ref: uno"}, StateSecured, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, twoLinks)
				time.Sleep(10 * time.Second)
				s.r1.halt()
				s.edit(c.edit...)
				s.startAt(s.r1)
				time.Sleep(graveSettles + 4*time.Second)
				st, there := s.link(s.r1, "l1")
				if there != (c.state != "") || st.State != c.state && !(c.state == StateNegotiating && st.State == StateSecured) || s.r1.fencedAt("eth4") != c.fenced {
					t.Errorf("there %v: %+v; fenced %v", there, st, s.r1.fencedAt("eth4"))
				}
				if d := s.secy(s.r1, "eth4-sec"); (d != nil) != (name == "the same" || name == "another") {
					t.Errorf("device %+v", d)
				}
			})
		})
	}
}

// TestStartWithAnInvalidInventory restarts agents while their inventory has
// mistakes: they go on with the one that they accepted last.
func TestStartWithAnInvalidInventory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, twoLinks)
		s.edit("ref: one", "ref: uno")
		time.Sleep(10 * time.Second)
		had := sas(s.secy(s.r1, "eth4-sec"))
		flow := s.stream(t)
		s.write(strings.Replace(twoLinks, "mode: enforce", "mode: enforced", 1))
		for _, n := range s.nodes() {
			n.halt()
			s.startAt(n)
		}
		time.Sleep(10 * time.Second)
		for _, n := range s.nodes() {
			if faults := s.nodeFaults(n); len(faults) != 1 || !strings.Contains(faults[0].Text, "lever.yaml:2:16: ") {
				t.Errorf("%s: %v", n.name, faults)
			}
			if st := s.want(n, "l1", StateSecured); !strings.Contains(st.Reason, "uno") {
				t.Errorf("%s: it is not the one that was accepted last: %+v", n.name, st)
			}
		}
		if now := sas(s.secy(s.r1, "eth4-sec")); !slices.Equal(now, had) {
			t.Errorf("the SAs were %v and are %v", had, now)
		}
		s.write(twoLinks)
		time.Sleep(5 * time.Second)
		for _, n := range s.nodes() {
			if faults := s.nodeFaults(n); len(faults) != 0 {
				t.Errorf("%s, mended: %v", n.name, faults)
			}
		}
		flow()
	})
}

// TestStartWithAClockThatIsBehind has evidence run out, and then a machine boot without
// the time, as many do.
func TestStartWithAClockThatIsBehind(t *testing.T) {
	const expires = 20 * 24 * time.Hour // after the test's clock begins
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, strings.Replace(twoLinks, "{custody: leased-wave, ref: one}", "{custody: controlled-room}, "+strings.Replace(l1Inside, "9999-01-01}]", "2000-01-21}]", 1), 1))
		time.Sleep(5 * time.Second)
		s.want(s.r1, "l1", StateInside, health.EvidenceExpiring)
		s.offset.Store(int64(expires))
		time.Sleep(2 * time.Minute)
		s.want(s.r1, "l1", StateSecured)
		for range 2 { // and the second agent after it
			for _, n := range s.nodes() {
				n.halt()
			}
			s.offset.Store(0)
			for _, n := range s.nodes() {
				if err := errors.Join(os.RemoveAll(n.runDir), os.MkdirAll(filepath.Join(n.runDir, linksDir), 0o700)); err != nil {
					t.Fatal(err)
				}
				s.startAt(n)
			}
			time.Sleep(10 * time.Second)
			for _, n := range s.nodes() {
				if st := s.want(n, "l1", StateSecured); !n.now().fenced || !strings.Contains(st.Reason, "expired on 2000-01-21") {
					t.Errorf("%s: fence %v, %+v", n.name, n.now().fenced, st)
				}
				if log := n.log.String(); !strings.Contains(log, "the clock is behind") {
					t.Error("nothing is said of the clock")
				}
			}
		}
	})
}

// TestFirstInventory wants an error where there is nothing to go on with.
func TestFirstInventory(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "lever.yaml")
	put := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	broken := strings.Replace(twoLinks, "mode: enforce", "mode: enforced", 1)
	put(path, broken)
	want := func(says ...string) {
		t.Helper()
		f, err := firstInventory(Options{Inventory: path, Node: "r1", StateDir: state})
		if err == nil {
			t.Errorf("%+v, want an error", f)
			return
		}
		for _, s := range says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%v, want it to say %q", err, s)
			}
		}
	}
	want("lever.yaml:2:16: ") // no agent was here before
	put(path, twoLinks)
	f, err := firstInventory(Options{Inventory: path, Node: "r1", StateDir: state})
	if err != nil || f.refused != nil {
		t.Fatal(err, f.refused)
	}
	if err := writeLastGood(path, "r1", state, f.read); err != nil {
		t.Fatal(err)
	}
	put(path, broken)
	f, err = firstInventory(Options{Inventory: path, Node: "r1", StateDir: state})
	if err != nil || f.refused == nil || len(f.inv.Links) != 2 {
		t.Errorf("%+v, %v", f, err)
	}
	for what, text := range map[string]string{
		"another path": `{"version":1,"path":"/elsewhere","node":"r1"}`,
		"another node": fmt.Sprintf(`{"version":1,"path":%q,"node":"r2"}`, path),
	} {
		put(filepath.Join(state, lastGoodName), text)
		if _, err := firstInventory(Options{Inventory: path, Node: "r1", StateDir: state}); err == nil || strings.Contains(err.Error(), "accepted last") {
			t.Errorf("%s: %v", what, err)
		}
	}
	put(filepath.Join(state, lastGoodName), `{"version":1,`)
	want("lever.yaml:2:16: ", "accepted last there is no use")
	put(filepath.Join(state, lastGoodName), fmt.Sprintf(`{"version":1,"path":%q,"node":"r1","files":[]}`, path))
	want("accepted last there is no use", "there is no file")
}

// TestStuckLinkFollowsLater has the task of l1 not come back from the kernel while the
// inventory changes l1 again and again. No second task begins meanwhile, and what becomes
// of the link in the end is what the last inventory says.
func TestStuckLinkFollowsLater(t *testing.T) {
	without := strings.Replace(twoLinks, l1Lines, "", 1)
	for name, c := range map[string]struct {
		texts  []string
		state  State
		fenced bool
	}{
		"removed and put back":            {[]string{without, twoLinks}, StateSecured, true},
		"and removed again":               {[]string{without, twoLinks, without}, StateRemoved, true},
		"put back with other words":       {[]string{without, twoLinks, strings.Replace(twoLinks, "ref: one", "ref: uno", 1)}, StateSecured, true},
		"put back inside":                 {[]string{without, strings.Replace(twoLinks, l1Leased, l1Inside, 1)}, StateInside, false},
		"its interface is another link's": {[]string{without, strings.Replace(twoLinks, "id: l1", "id: l3", 1)}, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, twoLinks)
				time.Sleep(10 * time.Second)
				task := s.r1.server.tasks["l1"]
				wake := make(chan struct{})
				var stuck atomic.Bool
				index := s.secy(s.r1, "eth4-sec").Index
				s.r1.kernel.After(func(o macsectest.Operation) error {
					if o.Op == macsec.OpAddTxSA && o.Index == index && stuck.CompareAndSwap(false, true) {
						<-wake
					}
					return nil
				})
				_ = s.r2.ask("rekey")
				time.Sleep(wedgedAfter + 5*time.Second)
				for i, text := range c.texts {
					s.write(text)
					time.Sleep(40 * time.Second)
					s.r1.server.mu.Lock()
					now := s.r1.server.tasks["l1"]
					s.r1.server.mu.Unlock()
					if now != task {
						t.Errorf("%d: another task has taken over while nobody knows what the kernel will do", i)
					}
				}
				close(wake)
				time.Sleep(30 * time.Second)
				st, _ := s.link(s.r1, "l1")
				if st.State != c.state || s.r1.fencedAt("eth4") != c.fenced {
					t.Errorf("fenced %v: %+v", s.r1.fencedAt("eth4"), st)
				}
				if name != "its interface is another link's" {
					return
				}
				s.r1.noted()
				time.Sleep(30 * time.Second)
				s.want(s.r1, "l3", StateSecured)
				if did := s.r1.noted(); slices.ContainsFunc(did, func(d string) bool { return strings.HasPrefix(d, "DeleteDevice") }) {
					t.Errorf("it does %q", did)
				}
			})
		})
	}
}

// TestInsideLinkIsRemoved wants nothing left of it in the status.
func TestInsideLinkIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, strings.Replace(twoLinks, l1Leased, l1Inside, 1))
		time.Sleep(10 * time.Second)
		s.want(s.r1, "l1", StateInside)
		s.edit(strings.Replace(l1Lines, l1Leased, l1Inside, 1), "")
		if st, there := s.link(s.r1, "l1"); there {
			t.Errorf("it is still shown: %+v", st)
		}
		if err := s.r1.ask("down"); err == nil || !strings.Contains(err.Error(), `has no link "l1"`) {
			t.Errorf("lever down says %v", err)
		}
		s.edit("  - id: l2\n", l1Lines+"  - id: l2\n")
		time.Sleep(10 * time.Second)
		s.want(s.r1, "l1", StateSecured)
	})
}

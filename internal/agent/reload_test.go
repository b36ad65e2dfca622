//go:build !kernel

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/watch"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec"
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
	offset time.Duration // of the wall clock
}

// newSite starts agents that keep up with an inventory, as Run does, but for
// inotify, which is none of virtual time: the file is looked at every two seconds.
func newSite(t *testing.T, text string) *site {
	t.Helper()
	s := &site{pair: newPair(t), t: t, path: filepath.Join(t.TempDir(), "lever.yaml"), second: &wire{}}
	s.write(text)
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
	time.Sleep(watch.Rescan + watch.Settles + time.Second)
}

func (s *site) startAt(n *node) {
	s.t.Helper()
	seen := watch.Signature(s.path)
	inv, err := inventory.Load(s.path, inventory.WithNow(time.Now().Add(s.offset)))
	if err != nil {
		s.t.Fatal(err)
	}
	links, err := inv.ForNode(n.name)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	g, ctx := errgroup.WithContext(ctx)
	opts := Options{Node: n.name, Inventory: s.path, RunDir: n.runDir, StateDir: n.stateDir}
	opts.Log = slog.New(slog.NewTextHandler(n.log, nil)).With("at", n.name)
	n.server = newServer(opts, n.platform(), n.kernel, n.links)
	n.server.wall = func() time.Time { return time.Now().Add(s.offset) }
	n.server.open = func(*inventory.Inventory, *slog.Logger) [2]keys.Channel {
		return [2]keys.Channel{n.channels[0], n.channels[1]}
	}
	changed := make(chan struct{})
	g.Go(func() error { watch.Settled(ctx, s.path, seen, nil, changed); return nil })
	n.server.start(ctx, g, inv, links)
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
		task  bool // l1 has the same task afterwards
		sas   bool // and the same SAs
		state State
		check func(t *testing.T, s *site)
	}{
		"words": {
			edit: []string{"ref: one", "ref: uno"}, task: true, sas: true, state: StateSecured,
			check: func(t *testing.T, s *site) {
				if st, _ := s.link(s.r1, "l1"); !strings.Contains(st.Reason, "uno") {
					t.Errorf("the reason is %q", st.Reason)
				}
			},
		},
		"an address": {
			edit: []string{"a: r1/eth4", "a: {node: r1, interface: eth4, addresses: [10.0.0.0/31]}"}, task: true, sas: true, state: StateSecured,
			check: func(t *testing.T, s *site) {
				if got := fmt.Sprint(s.r1.ports[0].addresses[s.secy(s.r1, "eth4-sec").Index]); got != "[10.0.0.0/31]" {
					t.Errorf("addresses %v", got)
				}
			},
		},
		"the parameters of MKA and of the replay protection": {
			edit: []string{"ref: one}]", "ref: one}]\n    mka: {delay_protect: true, replay_window: 99}"}, sas: true, state: StateSecured,
			check: func(t *testing.T, s *site) {
				if d := s.secy(s.r1, "eth4-sec"); d.ReplayWindow != 99 {
					t.Errorf("window %d", d.ReplayWindow)
				}
			},
		},
		"the cipher": {
			edit: []string{"ref: one}]", "ref: one}]\n    cipher: gcm-aes-256"}, state: StateSecured,
			check: func(t *testing.T, s *site) {
				if d := s.secy(s.r1, "eth4-sec"); d.CipherSuite != macsec.GCMAES256 {
					t.Errorf("cipher %v", d.CipherSuite)
				}
			},
		},
		"the name of the device": {
			edit: []string{"a: r1/eth4", "a: {node: r1, interface: eth4, secure: wan0}"}, state: StateSecured,
			check: func(t *testing.T, s *site) {
				if s.secy(s.r1, "eth4-sec") != nil || s.secy(s.r1, "wan0") == nil {
					t.Error("the device has not got its new name")
				}
			},
		},
		"removed": {
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
				s.offset = 19*24*time.Hour - time.Minute
				time.Sleep(2 * time.Minute)
				for _, n := range s.nodes() {
					st := s.want(n, "l1", StateSecured)
					if !n.now().fenced || !strings.Contains(st.Reason, "expired on 2000-01-20") {
						t.Errorf("%s: fence %v, %+v", n.name, n.now().fenced, st)
					}
				}
				// The clock that goes back takes nothing back.
				s.offset = -30 * 24 * time.Hour
				time.Sleep(2 * time.Minute)
				s.edit("ref: two", "ref: due")
				for _, n := range s.nodes() {
					s.want(n, "l1", StateSecured)
				}
			},
		},
		"moved": {
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
				task, had := s.r1.server.tasks["l1"], sas(s.secy(s.r1, "eth4-sec"))
				quiet := func() {}
				if c.sas {
					quiet = s.stream(t)
				}
				s.r1.noted()
				s.edit(c.edit...)
				time.Sleep(5 * time.Second)
				st, _ := s.link(s.r1, "l1")
				if st.State != c.state {
					t.Errorf("l1 is %+v, want it %s", st, c.state)
				}
				if now := s.r1.server.tasks["l1"]; (now == task) != c.task {
					t.Errorf("the same task: %v", now == task)
				}
				if c.sas {
					if now := sas(s.secy(s.r1, "eth4-sec")); !slices.Equal(now, had) {
						t.Errorf("the SAs were %v and are %v", had, now)
					}
				}
				quiet()
				if c.task {
					if now := s.history(s.r1, "l1", "eth4-sec"); now != l1 {
						t.Errorf("l1 was disturbed:\n%s\n%s", l1, now)
					}
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

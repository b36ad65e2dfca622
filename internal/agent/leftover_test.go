//go:build !kernel

package agent

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// What twoLinks says of l1, and words that put it inside or exempt it.
const (
	l1Lines  = "  - id: l1\n    a: r1/eth4\n    z: r2/eth9\n    segments: [{custody: leased-wave, ref: one}]\n"
	l1Leased = "{custody: leased-wave, ref: one}"
	l1Inside = "{custody: campus-duct, controls: [{control: locked-duct, evidence: T1, expires: 9999-01-01}, {control: duct-intrusion-detection, evidence: T2, expires: 9999-01-01}]}"
	l1Exempt = l1Leased + "]\n    override: {action: exempt, approvers: [ann, bob], reason: test, expires: 2000-06-01}\n    allow: ["
)

// TestRemovedLinkIsFollowed removes l1, whose fence stays, and puts something in its
// place: what is left of it becomes what the inventory now says of its interface, and
// stays so when the agent is restarted.
func TestRemovedLinkIsFollowed(t *testing.T) {
	for name, c := range map[string]struct {
		lines   string
		link    string // that lines are about
		state   State
		fenced  bool   // at eth4
		barred  string // what is left, if anything is
		faults  []health.Code
		devices []string // of eth4-sec and eth8-sec, which are there
	}{
		"another link on its interface": {
			lines: strings.Replace(l1Lines, "id: l1", "id: l3", 1), link: "l3", state: StateSecured, fenced: true, devices: []string{"eth4-sec"},
		},
		"another link on its interface, which is inside": {
			lines: strings.NewReplacer("id: l1", "id: l3", l1Leased, l1Inside).Replace(l1Lines), link: "l3", state: StateInside,
		},
		"itself": {
			lines: l1Lines, link: "l1", state: StateSecured, fenced: true, devices: []string{"eth4-sec"},
		},
		"itself with another device": {
			lines: strings.Replace(l1Lines, "a: r1/eth4", "a: {node: r1, interface: eth4, secure: eth8-sec}", 1),
			link:  "l1", state: StateSecured, fenced: true, devices: []string{"eth8-sec"},
		},
		"itself, inside": {
			lines: strings.Replace(l1Lines, l1Leased, l1Inside, 1), link: "l1", state: StateInside,
		},
		"itself, exempt": {
			lines: strings.Replace(l1Lines, l1Leased, l1Exempt, 1), link: "l1", state: StateExempt, faults: []health.Code{health.Exempt},
		},
		"itself elsewhere": {
			lines: strings.Replace(l1Lines, "eth4", "eth8", 1), link: "l1", state: StateSecured, fenced: true, barred: "l1@eth4", devices: []string{"eth8-sec"},
		},
		"itself elsewhere, inside": {
			lines: strings.NewReplacer("eth4", "eth8", l1Leased, l1Inside).Replace(l1Lines), link: "l1", state: StateInside, fenced: true, barred: "l1@eth4",
		},
		"itself elsewhere, and another link": {
			lines: strings.Replace(l1Lines, "eth4", "eth8", 1) + "  - {id: l3, a: r1/eth4, z: r2/eth11}\n",
			link:  "l1", state: StateSecured, fenced: true, faults: []health.Code{health.UnknownCKN}, devices: []string{"eth4-sec", "eth8-sec"},
		},
		"itself elsewhere, and another link, which is inside": {
			lines: strings.Replace(l1Lines, "eth4", "eth8", 1) + "  - {id: l3, a: r1/eth4, z: r2/eth11, segments: [" + l1Inside + "]}\n",
			link:  "l1", state: StateSecured, devices: []string{"eth8-sec"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, twoLinks)
				s.r1.plug("eth8", s.wire, mka.MAC{2, 0, 0, 0, 0, 8})
				time.Sleep(10 * time.Second)
				s.edit(l1Lines, "")
				s.want(s.r1, "l1", StateRemoved, health.LinkRemoved)

				s.write(twoLinks[:strings.Index(twoLinks, "  - id: l1")] + c.lines + twoLinks[strings.Index(twoLinks, "  - id: l2"):])
				s.deliver(epoch(t, "1.0"))
				time.Sleep(30 * time.Second)
				s.r1.noted()
				check := func() {
					t.Helper()
					time.Sleep(30 * time.Second)
					s.want(s.r1, c.link, c.state, c.faults...)
					for _, did := range s.r1.noted() {
						if strings.HasPrefix(did, "DeleteDevice") || strings.HasPrefix(did, "fence opened") {
							t.Errorf("it does %s", did)
						}
					}
					if _, there := s.link(s.r1, "l1"); there != (c.link == "l1") {
						t.Errorf("l1 is shown: %v", there)
					}
					for _, name := range []string{"eth4-sec", "eth8-sec"} {
						want := strings.Contains(strings.Join(c.devices, " "), name)
						if there := s.secy(s.r1, name) != nil; there != want {
							t.Errorf("%s is there: %v", name, there)
						}
					}
					if now := s.r1.fencedAt("eth4"); now != c.fenced {
						t.Errorf("the fence on eth4 is closed: %v", now)
					}
					if c.barred != "" {
						s.want(s.r1, c.barred, StateRemoved, health.LinkRemoved)
					}
				}
				check()
				s.r1.halt()
				s.startAt(s.r1)
				check()
				if c.barred == "" {
					return
				}
				// It is as barred as one that is removed: an interface that is made anew is closed.
				s.r1.unplug(s.r1.iface("eth4"))
				s.r1.plug("eth4", s.second, mka.MAC{2, 0, 0, 0, 0, 1})
				time.Sleep(2 * clearEvery)
				if !s.r1.fencedAt("eth4") {
					t.Error("the interface was replaced, and plain frames may pass")
				}
				if err := s.r1.server.ask(t.Context(), command{Verb: "down", Link: c.barred}); err != nil {
					t.Fatal(err)
				}
				s.r1.halt()
				s.startAt(s.r1)
				if _, there := s.link(s.r1, c.barred); there || s.r1.fencedAt("eth4") {
					t.Error("lever down has not ended it")
				}
				if now := s.r1.fencedAt("eth8"); now != (c.state == StateSecured) {
					t.Errorf("the fence on eth8 is closed: %v", now)
				}
			})
		})
	}
}

// TestLeftoverThatCannotBeCleared has another link come to the interface of l1 while
// what is left of l1 cannot be cleared: what is tried again later touches nothing of
// the other's.
func TestLeftoverThatCannotBeCleared(t *testing.T) {
	broken := errors.New("broken on purpose")
	for name, c := range map[string]struct {
		fail  func(*node)
		edits [][]string
	}{
		"its device": {
			func(n *node) { n.kernel.Fail(macsec.OpDeleteDevice, -1, broken) },
			[][]string{{"id: l1", "id: l3"}},
		},
		"its fence, while the other was inside": {
			func(n *node) { n.failing("open fence", broken) },
			[][]string{{"id: l1", "id: l3", l1Leased, l1Inside}, {l1Inside, l1Leased}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, twoLinks)
				time.Sleep(10 * time.Second)
				c.fail(s.r1)
				for _, e := range c.edits {
					s.edit(e...)
				}
				time.Sleep(30 * time.Second)
				s.r1.noted()
				s.r1.failing("open fence", nil)
				s.r1.kernel.Recover()
				time.Sleep(30 * time.Second)
				for _, did := range s.r1.noted() {
					if did != "MKPDU" {
						t.Errorf("it does %s", did)
					}
				}
				s.want(s.r1, "l3", StateSecured)
				if !s.r1.fencedAt("eth4") {
					t.Error("the fence is open")
				}
				if _, there := s.link(s.r1, "l1"); there {
					t.Error("l1 is still shown")
				}
			})
		})
	}
}

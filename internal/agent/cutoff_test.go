//go:build !kernel

package agent

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/watch"
)

// TestCutOffInventory cuts the inventory off at every octet, as writing in place
// does: for a moment, and for good. No link is taken away by it.
func TestCutOffInventory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, twoLinks)
		time.Sleep(10 * time.Second)
		history := func() string {
			return s.history(s.r1, "l1", "eth4-sec") + s.history(s.r1, "l2", "eth5-sec") + s.history(s.r2, "l2", "eth10-sec")
		}
		before := history()
		defer s.stream(t)()
		whole := 0
		for n := range len(twoLinks) {
			if !*crashAll && n%7 != 0 && twoLinks[n-1] != '\n' {
				continue
			}
			s.write(twoLinks[:n])
			if n%20 == 0 || twoLinks[n-1] == '\n' { // for a moment
				time.Sleep(graveSettles - time.Second)
			} else {
				time.Sleep(graveSettles + watch.Rescan + time.Second)
			}
			if faults := s.nodeFaults(s.r1); len(faults) == 0 {
				whole++ // but for words, or not judged yet
			}
			if now := history(); now != before {
				t.Fatalf("cut off after %q:\n%s\n%s", twoLinks[:n], before, now)
			}
		}
		if whole == 0 || *crashAll && whole > len(twoLinks)/4 {
			t.Errorf("%d of %d were taken for whole", whole, len(twoLinks))
		}
	})
}

// TestInventoryThatLosesItsPolicy is one whose policy trusts less than the defaults do. A
// directory that loses the file with the policy is still an inventory.
func TestInventoryThatLosesItsPolicy(t *testing.T) {
	const strict = "policy: {inside: [controlled-room]}\n"
	text := strings.NewReplacer("policy: {mode: enforce}\n", strict, "{custody: leased-wave, ref: one}", "{site: s}", "r2: {site: u}", "r2: {site: s}").Replace(twoLinks)
	for name, restarted := range map[string]bool{"running": false, "restarted": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, text)
				time.Sleep(10 * time.Second)
				s.want(s.r1, "l1", StateSecured)
				if restarted {
					s.r1.halt()
				}
				s.write(strings.Replace(text, strict, "", 1))
				if restarted {
					s.startAt(s.r1)
				}
				time.Sleep(time.Minute)
				if faults := s.nodeFaults(s.r1); len(faults) != 1 || !strings.Contains(faults[0].Text, "has no policy any more") {
					t.Errorf("%v", faults)
				}
				s.want(s.r1, "l1", StateSecured)
				if !s.r1.fencedAt("eth4") {
					t.Error("the fence is open")
				}
				s.write(strings.Replace(text, strict, "policy: {}\n", 1))
				time.Sleep(time.Minute)
				s.want(s.r1, "l1", StateInside)
				if s.r1.fencedAt("eth4") {
					t.Error("the fence is closed, although the policy says that the link is inside")
				}
			})
		})
	}
}

// TestCutOffInventoryUncoversNothing brings a link back of which the fence is left over, and
// of its way only what lies inside is written yet.
func TestCutOffInventoryUncoversNothing(t *testing.T) {
	const way = "    segments:\n      - {site: s}\n"
	text := strings.NewReplacer("    segments: [{custody: leased-wave, ref: one}]\n", way+"      - {custody: leased-wave}\n", "r2: {site: u}", "r2: {site: s}").Replace(twoLinks)
	first, last := strings.Index(text, "  - id: l1"), strings.Index(text, "  - id: l2")
	without := text[:first] + text[last:]
	back := without + text[first:last]
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, text)
		time.Sleep(10 * time.Second)
		s.write(without)
		time.Sleep(graveSettles + 2*watch.Rescan)
		s.want(s.r1, "l1", StateRemoved, health.LinkRemoved)
		closed := func(what string) {
			t.Helper()
			if !s.r1.fencedAt("eth4") {
				t.Errorf("%s: the fence is open", what)
			}
		}
		half := back[:strings.Index(back, "      - {custody: leased-wave}\n")]
		s.write(half)
		time.Sleep(graveSettles - time.Second)
		closed("for a moment")
		s.write(strings.TrimSuffix(half, "\n"))
		time.Sleep(time.Minute)
		closed("without a newline")
		s.r1.halt()
		s.startAt(s.r1)
		time.Sleep(time.Minute)
		closed("without a newline, at a start")
		s.r1.halt()
		s.write(half)
		s.startAt(s.r1)
		time.Sleep(graveSettles - time.Second)
		closed("for a moment, at a start")
		s.write(back)
		time.Sleep(time.Minute)
		s.want(s.r1, "l1", StateSecured)
		closed("whole")
	})
}

// TestInventoryCutOffWhileNoAgentRan restarts an agent with an inventory that a running
// one would refuse, or not believe yet: neither does this one.
func TestInventoryCutOffWhileNoAgentRan(t *testing.T) {
	without := twoLinks[:strings.Index(twoLinks, "  - id: l2")]
	for name, c := range map[string]struct {
		text    string
		refused bool
		at, end State // of l2 after the start, and at last
	}{
		"cut off":                      {strings.TrimSuffix(without, "\n"), true, StateSecured, StateSecured},
		"without a link":               {without, false, StateSecured, StateRemoved},
		"cut off, and nothing is lost": {strings.TrimSuffix(twoLinks, "\n"), false, StateSecured, StateSecured},
		"with a link inside":           {strings.Replace(twoLinks, "{custody: leased-wave, ref: two}", l1Inside, 1), false, StateSecured, StateInside},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, twoLinks)
				time.Sleep(10 * time.Second)
				s.r1.halt()
				s.write(c.text)
				s.startAt(s.r1)
				time.Sleep(graveSettles - time.Second)
				shown := func(want State) {
					t.Helper()
					st, _ := s.link(s.r1, "l2")
					faults := s.nodeFaults(s.r1)
					device := s.secy(s.r1, "eth5-sec") != nil
					if st.State != want || device != (want == StateSecured) || (len(faults) > 0) != c.refused {
						t.Errorf("it has a device: %v, %v, %+v", device, faults, st)
					}
					if c.refused && (len(faults) != 1 || faults[0].Code != health.InventoryInvalid || !strings.Contains(faults[0].Text, "it would interrupt l2 and does not end with a newline")) {
						t.Errorf("%v", faults)
					}
				}
				shown(c.at)
				time.Sleep(3 * time.Second)
				shown(c.end)
				time.Sleep(time.Minute)
				shown(c.end)

				// The next agent has nothing to wait for, unless it is refused again.
				s.r1.halt()
				s.startAt(s.r1)
				time.Sleep(time.Second)
				st, _ := s.link(s.r1, "l2")
				if st.State != c.end {
					t.Errorf("after another restart: %+v", st)
				}
				// And it is no harm to give it back.
				s.write(twoLinks)
				time.Sleep(20 * time.Second)
				s.want(s.r1, "l2", StateSecured)
				if faults := s.nodeFaults(s.r1); len(faults) != 0 {
					t.Errorf("mended: %v", faults)
				}
			})
		})
	}
}

// TestInventoryTornAtTheStart changes the inventory again while the agent waits whether
// it stays as it is.
func TestInventoryTornAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, twoLinks)
		time.Sleep(10 * time.Second)
		before := sas(s.secy(s.r1, "eth5-sec"))
		s.r1.halt()
		s.write(twoLinks[:strings.Index(twoLinks, "  - id: l2")])
		s.startAt(s.r1)
		time.Sleep(time.Second)
		s.write(twoLinks)
		time.Sleep(time.Minute)
		s.want(s.r1, "l2", StateSecured)
		if now := sas(s.secy(s.r1, "eth5-sec")); !slices.Equal(now, before) {
			t.Errorf("the SAs were %v and are %v", before, now)
		}
	})
}

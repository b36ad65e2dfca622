//go:build !kernel

package agent

import (
	"testing"
	"testing/synctest"
	"time"

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

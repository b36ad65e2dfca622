package sim

import (
	"testing"
	"time"

	"github.com/lever-link/lever/internal/simlink"
)

// A timer that is set for a moment of the member's clock must not fire before it,
// and the clock must never run backwards.
func TestClocksRunAndTimersAreNotEarly(t *testing.T) {
	for _, c := range []clock{
		{base: simlink.Epoch},
		{base: simlink.Epoch.Add(-47 * time.Hour), ppm: 200},
		{base: simlink.Epoch.Add(time.Hour), ppm: -200, started: 1234567 * time.Microsecond},
		{base: simlink.Epoch, ppm: 1, started: 59 * time.Minute},
	} {
		last := c.at(c.started)
		for d := c.started; d < c.started+time.Hour; d += 977 * time.Millisecond {
			now := c.at(d)
			if now.Before(last) {
				t.Fatalf("%+v: %v after %v", c, now, last)
			}
			last = now
			for _, wait := range []time.Duration{1, time.Microsecond, 2 * time.Second, time.Hour} {
				due := now.Add(wait)
				at := c.when(due)
				if c.at(at).Before(due) || at > d+wait+wait/1000+time.Microsecond {
					t.Fatalf("%+v: %v from %v is %v, when the clock says %v", c, wait, d, at, c.at(at))
				}
			}
		}
	}
}

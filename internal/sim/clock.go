package sim

import "time"

// clock is a member's own: it started somewhere and runs fast or slow. Within one
// life of a Port it only runs, as Go's monotonic clock does; what an operator does to
// the wall clock shows at the next start, through the times in the record.
type clock struct {
	started time.Duration // on the Net
	base    time.Time     // what the clock said then
	ppm     int64         // how much it runs fast
}

// at is what the clock says when d has passed on the Net.
func (c *clock) at(d time.Duration) time.Time {
	d -= c.started
	return c.base.Add(d + time.Duration(int64(d)/1_000_000*c.ppm))
}

// when is the first moment on the Net at which the clock says t or later.
func (c *clock) when(t time.Time) time.Duration {
	want := t.Sub(c.base)
	d := c.started + want - time.Duration(int64(want)/1_000_000*c.ppm)
	for c.at(d).Before(t) {
		d += max(t.Sub(c.at(d))/2, 1)
	}
	return d
}

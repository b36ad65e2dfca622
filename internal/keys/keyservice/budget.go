package keyservice

import "time"

// budget bounds how often something is done: as many times at once as burst says,
// and once more each time that every has passed.
type budget struct {
	every time.Duration
	burst int

	due time.Time // when what was spent so far would be paid off
}

// ready is when the next time may be: now or later.
func (b *budget) ready(now time.Time) time.Time {
	earliest := b.due.Add(-time.Duration(b.burst-1) * b.every)
	if earliest.Before(now) {
		return now
	}
	return earliest
}

// spend takes one time, if there is one.
func (b *budget) spend(now time.Time) bool {
	if b.ready(now).After(now) {
		return false
	}
	if b.due.Before(now) {
		b.due = now
	}
	b.due = b.due.Add(b.every)
	return true
}

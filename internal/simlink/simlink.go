// Package simlink simulates links in virtual time: shared segments that lose,
// duplicate, reorder and delay frames, and partitions. It is what protocol
// tests run on: an hour of a link takes milliseconds, and a seed replays it.
//
// It belongs to tests. It carries frames as octets and knows no protocol; what
// the stations do with them is theirs.
package simlink

import (
	"math/rand/v2"
	"time"
)

// Net is a set of segments that share one virtual clock and one source of
// randomness. The same seed and the same calls give the same run. It is not
// safe for concurrent use: everything happens inside Run.
type Net struct {
	now   int64 // nanoseconds since Epoch
	rand  *rand.Rand
	queue queue
	order uint64
}

// Epoch is the time at which every Net starts.
var Epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// New makes a Net whose randomness comes from seed alone.
func New(seed uint64) *Net {
	return &Net{rand: rand.New(rand.NewPCG(seed, 0x6c65766572))}
}

// Now is the virtual time.
func (n *Net) Now() time.Time { return Epoch.Add(n.Since()) }

// Since is how much virtual time has passed.
func (n *Net) Since() time.Duration { return time.Duration(n.now) }

// Rand is the Net's randomness, for stations that want to stay replayable.
func (n *Net) Rand() *rand.Rand { return n.rand }

// Timer is a call that is due at a virtual time.
type Timer struct {
	at    int64
	order uint64
	do    func()
	index int
}

// At calls do at t, or as soon as possible when t has passed. Calls that are
// due at the same time happen in the order in which they were asked for.
func (n *Net) At(t time.Time, do func()) *Timer { return n.After(t.Sub(Epoch)-n.Since(), do) }

// After is At, d from now.
func (n *Net) After(d time.Duration, do func()) *Timer {
	n.order++
	x := &Timer{at: n.now + int64(max(d, 0)), order: n.order, do: do}
	n.queue.push(x)
	return x
}

// Stop forgets a call that is not made yet. A nil Timer may be stopped.
func (n *Net) Stop(t *Timer) {
	if t != nil && t.index >= 0 && t.index < len(n.queue) && n.queue[t.index] == t {
		n.queue.remove(t.index)
	}
}

// Run lets d of virtual time pass.
func (n *Net) Run(d time.Duration) {
	end := n.now + int64(d)
	for n.next(end) {
	}
	n.now = end
}

// RunUntil lets time pass until done says so, for limit at most. It reports
// how long that took and whether done came true.
func (n *Net) RunUntil(limit time.Duration, done func() bool) (time.Duration, bool) {
	start := n.now
	end := start + int64(limit)
	for !done() {
		if !n.next(end) {
			n.now = end
			return limit, done()
		}
	}
	return time.Duration(n.now - start), true
}

// Next makes the next call that is due before or at end.
func (n *Net) Next(end time.Time) bool { return n.next(int64(end.Sub(Epoch))) }

func (n *Net) next(end int64) bool {
	if len(n.queue) == 0 || n.queue[0].at > end {
		return false
	}
	x := n.queue[0]
	n.queue.remove(0)
	n.now = x.at
	x.do()
	return true
}

// queue is a binary heap of the calls that are due, the first at its top. It is
// container/heap written out: an hour of a link is a million calls.
type queue []*Timer

func (q queue) less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}

func (q queue) swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue) push(t *Timer) {
	t.index = len(*q)
	*q = append(*q, t)
	q.up(t.index)
}

func (q *queue) remove(i int) {
	h := *q
	last := len(h) - 1
	h[i].index = -1
	if i != last {
		h[i] = h[last]
		h[i].index = i
	}
	h[last] = nil
	*q = h[:last]
	if i != last {
		q.up(q.down(i))
	}
}

func (q queue) up(i int) {
	for i > 0 && q.less(i, (i-1)/2) {
		q.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (q queue) down(i int) int {
	for {
		child := 2*i + 1
		if child+1 < len(q) && q.less(child+1, child) {
			child++
		}
		if child >= len(q) || !q.less(child, i) {
			return i
		}
		q.swap(i, child)
		i = child
	}
}

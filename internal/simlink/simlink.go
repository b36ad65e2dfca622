// Package simlink simulates links in virtual time: shared segments that lose,
// duplicate, reorder and delay frames, and partitions. It is what protocol
// tests run on: an hour of a link takes milliseconds, and a seed replays it.
//
// It belongs to tests. It carries frames as octets and knows no protocol; what
// the stations do with them is theirs.
package simlink

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// Net is a set of segments that share one virtual clock and one source of
// randomness. The same seed and the same calls give the same run. It is not
// safe for concurrent use: everything happens inside Run.
type Net struct {
	now   time.Time
	rand  *rand.Rand
	queue queue
	order uint64
}

// Epoch is the time at which every Net starts.
var Epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// New makes a Net whose randomness comes from seed alone.
func New(seed uint64) *Net {
	return &Net{now: Epoch, rand: rand.New(rand.NewPCG(seed, 0x6c65766572))}
}

// Now is the virtual time.
func (n *Net) Now() time.Time { return n.now }

// Rand is the Net's randomness, for stations that want to stay replayable.
func (n *Net) Rand() *rand.Rand { return n.rand }

// Timer is a call that is due at a virtual time.
type Timer struct {
	at    time.Time
	order uint64
	do    func()
	index int
}

// At calls do at t, or as soon as possible when t has passed. Calls that are
// due at the same time happen in the order in which they were asked for.
func (n *Net) At(t time.Time, do func()) *Timer {
	if t.Before(n.now) {
		t = n.now
	}
	n.order++
	x := &Timer{at: t, order: n.order, do: do}
	heap.Push(&n.queue, x)
	return x
}

// After is At, d from now.
func (n *Net) After(d time.Duration, do func()) *Timer { return n.At(n.now.Add(d), do) }

// Stop forgets a call that is not made yet. A nil Timer may be stopped.
func (n *Net) Stop(t *Timer) {
	if t != nil && t.index >= 0 && t.index < len(n.queue) && n.queue[t.index] == t {
		heap.Remove(&n.queue, t.index)
	}
}

// Run lets d of virtual time pass.
func (n *Net) Run(d time.Duration) {
	end := n.now.Add(d)
	for n.Next(end) {
	}
	n.now = end
}

// RunUntil lets time pass until done says so, for limit at most. It reports
// how long that took and whether done came true.
func (n *Net) RunUntil(limit time.Duration, done func() bool) (time.Duration, bool) {
	start := n.now
	end := start.Add(limit)
	for !done() {
		if !n.Next(end) {
			n.now = end
			return limit, done()
		}
	}
	return n.now.Sub(start), true
}

// Next makes the next call that is due before or at end.
func (n *Net) Next(end time.Time) bool {
	if len(n.queue) == 0 || n.queue[0].at.After(end) {
		return false
	}
	x := heap.Pop(&n.queue).(*Timer)
	n.now = x.at
	x.do()
	return true
}

type queue []*Timer

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if q[i].at.Equal(q[j].at) {
		return q[i].order < q[j].order
	}
	return q[i].at.Before(q[j].at)
}
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (q *queue) Push(x any) {
	t := x.(*Timer)
	t.index = len(*q)
	*q = append(*q, t)
}
func (q *queue) Pop() any {
	old := *q
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	t.index = -1
	return t
}

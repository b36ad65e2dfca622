package agent

import (
	"slices"
	"sync"
)

// linkEvents tells the tasks that interfaces have changed. It says no more than
// that: each looks at its own.
type linkEvents struct {
	mu   sync.Mutex
	subs []*subscription
}

// subscription is one task's. A router has many interfaces, and a task needs to
// know of two of them, once it has found them.
type subscription struct {
	c       chan struct{}
	from    *linkEvents
	indexes []int // of which it wants to know; none: of all
}

func (e *linkEvents) subscribe() *subscription {
	s := &subscription{c: make(chan struct{}, 1), from: e}
	e.mu.Lock()
	e.subs = append(e.subs, s)
	e.mu.Unlock()
	return s
}

// end gives the subscription up.
func (s *subscription) end() {
	s.from.mu.Lock()
	s.from.subs = slices.DeleteFunc(s.from.subs, func(o *subscription) bool { return o == s })
	s.from.mu.Unlock()
}

// only restricts it to some interfaces; none lifts that.
func (s *subscription) only(indexes ...int) {
	s.from.mu.Lock()
	s.indexes = indexes
	s.from.mu.Unlock()
}

// signal tells of a change of one interface, or, without one, that there may have
// been any.
func (e *linkEvents) signal(index ...int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.subs {
		if len(index) > 0 && len(s.indexes) > 0 && !slices.Contains(s.indexes, index[0]) {
			continue
		}
		select {
		case s.c <- struct{}{}:
		default: // it has not looked since the last one
		}
	}
}

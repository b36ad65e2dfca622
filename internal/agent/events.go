package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/netdev"
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
	fence   chan struct{} // of tc filters, which cannot wait
	from    *linkEvents
	indexes []int // of which it wants to know; none: of all
}

func (e *linkEvents) subscribe() *subscription {
	s := &subscription{c: make(chan struct{}, 1), fence: make(chan struct{}, 1), from: e}
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

// signal tells of a change of an interface, or, with 0, that there may have been any.
func (e *linkEvents) signal(index int) {
	e.tell(func(s *subscription) chan struct{} { return s.c }, index)
}

// signalFence tells of a change of its tc filters.
func (e *linkEvents) signalFence(index int) {
	e.tell(func(s *subscription) chan struct{} { return s.fence }, index)
}

func (e *linkEvents) tell(which func(*subscription) chan struct{}, index int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.subs {
		if index != 0 && len(s.indexes) > 0 && !slices.Contains(s.indexes, index) {
			continue
		}
		select {
		case which(s) <- struct{}{}:
		default: // it has not looked since the last one
		}
	}
}

// watchKernel listens for what the kernel tells of interfaces, of their addresses
// and of their tc filters, until ctx ends.
func watchKernel(ctx context.Context, log *slog.Logger) (*linkEvents, error) {
	e := &linkEvents{}
	err := netdev.Watch(ctx, log, e.signal)
	if err == nil {
		err = fence.Watch(ctx, log, e.signalFence)
	}
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return e, nil
}

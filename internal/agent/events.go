package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/internal/fence"
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

// signal tells of a change of one interface, or, without one, that there may have
// been any.
func (e *linkEvents) signal(index ...int) {
	e.tell(func(s *subscription) chan struct{} { return s.c }, index)
}

// signalFence tells of a change of its tc filters.
func (e *linkEvents) signalFence(index ...int) {
	e.tell(func(s *subscription) chan struct{} { return s.fence }, index)
}

func (e *linkEvents) tell(which func(*subscription) chan struct{}, index []int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.subs {
		if len(index) > 0 && len(s.indexes) > 0 && !slices.Contains(s.indexes, index[0]) {
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
	if err := watchLinks(ctx, log, e.signal); err != nil {
		return nil, err
	}
	err := fence.Watch(ctx, log, func(index int) {
		if index == 0 {
			e.signalFence()
			return
		}
		e.signalFence(index)
	})
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return e, nil
}

// watchLinks calls changed with the index of each interface of which the kernel
// says something, and without one if it may have said more than it had room for.
func watchLinks(ctx context.Context, log *slog.Logger, changed func(index ...int)) error {
	const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1)
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: groups})
	if err != nil {
		return fmt.Errorf("agent: subscribe to interface events: %w", err)
	}
	end := context.AfterFunc(ctx, func() { _ = conn.Close() })
	go func() {
		defer func() {
			end()
			_ = conn.Close()
		}()
		for {
			messages, err := conn.Receive()
			switch {
			case ctx.Err() != nil:
				return
			case errors.Is(err, unix.ENOBUFS):
				log.Warn("interface events were lost: looking at all links")
				changed()
			case err != nil:
				log.Error("interfaces are no longer watched: their changes are seen by and by", "error", err)
				changed()
				return
			}
			for _, m := range messages {
				// struct ifinfomsg and struct ifaddrmsg have the index at one place.
				if len(m.Data) >= 8 {
					changed(int(int32(binary.NativeEndian.Uint32(m.Data[4:]))))
				}
			}
		}
	}()
	return nil
}

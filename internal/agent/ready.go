package agent

import (
	"context"
	"sync"
	"time"
)

// fencePatience is how long a fence may take before the agent says that it is ready in
// spite of it: a link whose interface hangs the kernel must not hold up a whole boot.
const fencePatience = 20 * time.Second

// openFences counts the fences that nobody has tried to close yet.
type openFences struct {
	mu   sync.Mutex
	open int
	none chan struct{} // is closed when there is none; nil when nobody waits for that
}

// add is one more, until closed is called.
func (f *openFences) add() (closed func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open++
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.open--; f.open == 0 && f.none != nil {
			close(f.none)
			f.none = nil
		}
	})
}

// closed is closed when there is none.
func (f *openFences) closed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == 0 {
		now := make(chan struct{})
		close(now)
		return now
	}
	if f.none == nil {
		f.none = make(chan struct{})
	}
	return f.none
}

// awaitFences returns when no link is without its fence any more, which it says, or when
// one takes too long, or ctx has ended.
func (s *server) awaitFences(ctx context.Context) (closed bool) {
	patience := time.NewTimer(fencePatience)
	defer patience.Stop()
	select {
	case <-s.unfenced.closed():
		return true
	case <-patience.C:
		s.log.Error("ready, but for links whose fence has not been closed", "after", fencePatience)
	case <-ctx.Done():
	}
	return false
}

// readyWhenFenced says that the agent is at work when no link is without its fence any
// more: the service manager has the network wait for that.
func (s *server) readyWhenFenced(ctx context.Context) {
	closed := s.awaitFences(ctx)
	if ctx.Err() != nil {
		return
	}
	if closed {
		s.log.Info("ready: every fence that can be is closed")
	}
	s.ready()
	close(s.atWork)
}

// reloading tells the service manager of a reload that begins. It is over when its
// links have their fences, and not before the agent is at work: to the service manager
// that is one word, which lets the network begin.
func (s *server) reloading() (over func()) {
	if s.opts.Reloading != nil {
		s.opts.Reloading()
	}
	n, held := s.reloads.Add(1), s.unfenced.add() // whoever waits for fences waits for this
	return func() {
		held()
		if s.opts.Ready == nil {
			return
		}
		s.group.Go(func() error {
			s.awaitFences(s.ctx)
			select {
			case <-s.atWork:
			case <-s.ctx.Done():
			}
			if s.ctx.Err() == nil && s.reloads.Load() == n { // else a later one speaks for this
				s.ready()
			}
			return nil
		})
	}
}

// ready says that the agent is at work.
func (s *server) ready() {
	if s.opts.Ready != nil {
		s.opts.Ready(func(ctx context.Context) error {
			if s.answers.Load() {
				return NewClient(s.opts.RunDir).Alive(ctx)
			}
			return s.alive()
		})
	}
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/inventory"
)

const (
	// lookAfter is how often a keeper looks at its task.
	lookAfter = time.Second
	// wedgedAfter is how long a task may not come round: its loop has something to
	// do every two seconds, and nothing in it takes more than milliseconds.
	wedgedAfter = 10 * time.Second
	// wellAfter is how long a link must have been well for the fault to end that
	// its task broke off, and for the next restart to come at once again.
	wellAfter = 10 * time.Minute
	// maxBackoff bounds the pause before a task that broke off is started again.
	maxBackoff = time.Minute
	// maxAbandoned is how many tasks of one link may be left behind: each is a
	// goroutine that may be spinning.
	maxAbandoned = 3
)

// pulse shows from outside whether a task comes round its loop.
type pulse struct{ beats atomic.Uint64 }

func (p *pulse) beat() { p.beats.Add(1) }

// spec is what a link's task is made from.
type spec struct {
	link     inventory.NodeLink
	policy   inventory.Policy
	channels [2]keys.Channel
	// fenced, if set, is to be called when the fence was closed, or could not be.
	fenced func()
}

// keeper sees to it that a link has a task, one at a time: it starts another when
// one breaks off, and leaves one behind that does not come round. Links share
// nothing in this, so that what breaks one leaves the others alone.
//
// A goroutine cannot be ended from outside. What can be ended is its reach: all
// that a task does to the world goes through its lease, and once that has ended
// nothing more begins in it. When nothing is under way in it either, a task that is
// left behind is one that died between two operations: its successor takes over as
// a restarted agent would, and if it wakes up every door is closed to it. A task
// that does not come back from a call to the kernel or to a file system has no
// successor before it does: nobody knows when that call will do what it does, and a
// second task would as a rule get stuck behind the first. Then the agent says that
// it is not alive, and it is for the service manager to restart the process. There,
// too, nothing is done twice: the kernel gives the lock on the run directory to
// another process when the last thread of this one is gone, and not before.
type keeper struct {
	server *server
	id     string // of the link
	cancel context.CancelFunc
	done   chan struct{} // closed when the keeper's work has ended

	mu   sync.Mutex
	spec spec
	task *task

	count     int          // of tasks that broke off
	abandoned atomic.Int32 // goroutines of tasks that were left behind
	broke     time.Time    // when the last one did
	backoff   time.Duration
}

// breakdown is why a task ended that should not have.
type breakdown struct{ cause, stack string }

// keep starts keeping a link.
func (s *server) keep(sp spec) {
	ctx, cancel := context.WithCancel(s.ctx)
	k := &keeper{server: s, id: sp.link.ID, cancel: cancel, done: make(chan struct{}), spec: sp}
	k.next(nil) // before anybody asks for the status
	s.kept[sp.link.ID] = k
	s.group.Go(func() error {
		defer close(k.done)
		defer cancel()
		k.run(ctx)
		return nil
	})
}

// end stops the link's task and returns when nothing of it can act any more. It
// fails when the task does not come back from the kernel.
func (k *keeper) end() error {
	k.cancel()
	select {
	case <-k.done:
		return nil
	case <-time.After(wedgedAfter + 2*lookAfter):
		return errors.New("its task does not come back from a call to the kernel")
	}
}

// change gives the link's task another spec, which takes effect without ending
// its session.
func (k *keeper) change(sp spec) {
	k.mu.Lock()
	defer k.mu.Unlock()
	sp.fenced = k.spec.fenced
	k.spec = sp
	select {
	case <-k.task.changes: // it has not seen that one, and need not
	default:
	}
	k.task.changes <- sp
}

// next makes the task that follows another, which has ended or was left behind.
func (k *keeper) next(last *task) *task {
	s := k.server
	k.mu.Lock()
	defer k.mu.Unlock()
	if last != nil {
		last.events.end()
	}
	t := newTask(s, k.spec)
	k.task = t
	s.mu.Lock()
	s.tasks[k.id] = t
	s.mu.Unlock()
	s.setStatus(t.statusNow(time.Now()))
	return t
}

// run keeps the link until ctx ends.
func (k *keeper) run(ctx context.Context) {
	t := k.task
	defer func() { k.task.events.end() }()
	for {
		b := k.attend(ctx, t)
		if b == nil {
			return
		}
		k.report(t, b)
		if k.backoff > 0 && !sleep(ctx, k.backoff) {
			return
		}
		k.backoff = min(max(2*k.backoff, time.Second), maxBackoff)
		t = k.next(t)
	}
}

// attend runs a task until it has ended, with nil, or broke off.
func (k *keeper) attend(ctx context.Context, t *task) *breakdown {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan *breakdown, 1)
	go func() {
		b := &breakdown{cause: "its goroutine was ended"}
		defer func() { ended <- b }()
		b = t.guarded(ctx)
	}()
	defer k.server.wedged(k.id, nil)

	look := time.NewTicker(lookAfter)
	defer look.Stop()
	beats, moved, looked := uint64(0), time.Now(), time.Now()
	stopping, stopped, late := ctx.Done(), false, false
	for {
		select {
		case b := <-ended:
			if late && !stopped {
				return &breakdown{cause: "it did not come round for " + time.Since(moved).Truncate(time.Second).String()}
			}
			return b
		case <-stopping:
			stopping, stopped, moved = nil, true, time.Now() // once more as much time
		case <-look.C:
			now := time.Now()
			moved, looked = moved.Add(starved(looked, now)), now
			if n := t.pulse.beats.Load(); n != beats && !late {
				beats, moved = n, now
				k.settle(now)
				continue
			}
			if now.Sub(moved) < wedgedAfter {
				continue
			}
			late, stopping = true, nil
			call, out := t.lease.end()
			cancel()
			if out && k.abandoned.Load() < maxAbandoned {
				k.abandoned.Add(1)
				go func() { <-ended; k.abandoned.Add(-1) }()
				t.leave()
				if stopped {
					return nil
				}
				return &breakdown{cause: "it did not come round for " + wedgedAfter.String() + " and was left behind"}
			}
			if k.server.ctx.Err() != nil {
				return nil // the process ends, and everything with it
			}
			k.server.wedged(k.id, &wedge{moved, call})
		}
	}
}

// starved is how long somebody who looks every lookAfter was kept from it: the machine was
// busy, or the process stopped, and whom he watches had no time either.
func starved(looked, now time.Time) time.Duration {
	if gap := now.Sub(looked); gap > 2*lookAfter {
		return gap - lookAfter
	}
	return 0
}

// guarded is run, with a panic as its result.
func (t *task) guarded(ctx context.Context) (b *breakdown) {
	defer func() {
		if p := recover(); p != nil {
			b = &breakdown{cause: fmt.Sprint("panic: ", p), stack: string(debug.Stack())}
			t.leave()
		}
	}()
	if err := t.run(ctx); err != nil {
		return &breakdown{cause: err.Error()}
	}
	if ctx.Err() == nil {
		return &breakdown{cause: "it ended by itself"}
	}
	return nil
}

// guard runs what a session has going beside its task. A panic in it ends the
// session, as an error does, and no other link's.
func (t *task) guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			t.log.Error("panic beside the link's task", "cause", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

// leave lets go of what a task holds that broke off: its socket, so that whoever
// reads from it ends.
func (t *task) leave() {
	t.lease.end()
	if conn := t.lease.conn.Load(); conn != nil {
		_ = (*conn).Close()
	}
}

// report raises the fault that a task broke off, and writes its stack to the log.
func (k *keeper) report(t *task, b *breakdown) {
	k.count++
	k.broke = time.Now()
	attrs := []any{"cause", b.cause, "count", k.count, "again_in", k.backoff.String()}
	if b.stack != "" {
		attrs = append(attrs, "stack", b.stack)
	}
	t.log.Error("the link's task broke off: it is started again", attrs...)
	k.server.supervise(k.id, func(f *health.Set) bool {
		f.Clear(health.TaskWedged)
		return f.Raise(health.Raise(health.TaskRestarted, k.broke, "count", k.count, "at", k.broke.UTC().Format(time.RFC3339), "detail", b.cause))
	})
}

// settle ends the fault when the link has been well for long enough.
func (k *keeper) settle(now time.Time) {
	if k.count == 0 || now.Sub(k.broke) < wellAfter {
		return
	}
	k.server.mu.Lock()
	state := k.server.status[k.id].State
	k.server.mu.Unlock()
	if state == StateFailed || state == StateNegotiating {
		return
	}
	k.count, k.backoff = 0, 0
	k.server.supervise(k.id, func(f *health.Set) bool { return f.Clear(health.TaskRestarted) })
}

// wedge is a task that does not come round, and that cannot be left behind.
type wedge struct {
	since time.Time
	call  string // into which it went and has not come back from; empty: none
}

func (w *wedge) String() string {
	if w.call == "" {
		return fmt.Sprintf("it is the %dth that does not come round", maxAbandoned+1)
	}
	return "it has not come back from " + w.call
}

// wedged notes whether the task of a link is wedged.
func (s *server) wedged(id string, w *wedge) {
	s.mu.Lock()
	old := s.stuck[id]
	if w == nil {
		delete(s.stuck, id)
	} else {
		s.stuck[id] = w
	}
	s.mu.Unlock()
	switch {
	case w != nil:
		if old == nil {
			s.log.Error("the link's task is wedged", "link", id, "detail", w.String())
		}
		s.supervise(id, func(f *health.Set) bool {
			return f.Raise(health.Raise(health.TaskWedged, w.since, "at", w.since.UTC().Format(time.RFC3339), "detail", w))
		})
	case old != nil:
		s.log.Info("the link's task has come round", "link", id)
		s.supervise(id, func(f *health.Set) bool { return f.Clear(health.TaskWedged) })
	}
}

// alive returns an error when something in this process is stuck that only a
// restart of it can mend.
func (s *server) alive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for id, w := range s.stuck {
		errs = append(errs, fmt.Errorf("link %s: its task has not come round since %s: %s", id, w.since.UTC().Format(time.RFC3339), w))
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// supervise changes the faults that a link's keeper sees, which its task cannot
// report itself.
func (s *server) supervise(id string, change func(*health.Set) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.supervised[id]
	if set == nil {
		set = &health.Set{}
		s.supervised[id] = set
	}
	if l, known := s.said[id]; change(set) && known {
		s.status[id] = s.whole(l)
		s.wakeWatchers()
	}
}

// whole is a link's status with the faults of its keeper. The caller holds s.mu.
func (s *server) whole(l LinkStatus) LinkStatus {
	if set := s.supervised[l.ID]; set != nil {
		l.Faults = slices.Concat(set.List(), l.Faults)
	}
	return l
}

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// controlSocket is the agent's, in its run directory.
const controlSocket = "agent.sock"

// A watcher follows what a router's agent says, by one `lever status --watch`
// for as long as that agent lives: a process for each look would take the time
// of the agents that it looks at.
type watcher struct {
	Router *Router
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	life    int // of the agent, whose words these are
	status  NodeStatus
	err     error
	changed chan struct{} // closed and replaced at every change
}

// watched returns the router's watcher, and starts it when it is first asked
// for.
func (r *Router) watched() *watcher {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watcher == nil {
		ctx, cancel := context.WithCancel(context.Background())
		r.watcher = &watcher{
			Router: r, cancel: cancel, done: make(chan struct{}),
			life: r.agent.lifeNow(), err: errors.New("no answer yet"), changed: make(chan struct{}),
		}
		go r.watcher.run(ctx)
	}
	return r.watcher
}

// latest is what the agent that runs now has said last of a link, and a channel
// that closes when it says something else.
func (w *watcher) latest(link string) (LinkStatus, <-chan struct{}, error) {
	life := w.Router.agent.lifeNow()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.life != life:
		return LinkStatus{}, w.changed, errors.New("no answer yet from the agent that was started last")
	case w.err != nil:
		return LinkStatus{}, w.changed, w.err
	}
	l, err := w.status.Of(w.Router.Name, link)
	return l, w.changed, err
}

func (w *watcher) tell(life int, s NodeStatus, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.life, w.status, w.err = life, s, err
	close(w.changed)
	w.changed = make(chan struct{})
}

// run asks again whenever there is an agent to ask, until ctx ends.
func (w *watcher) run(ctx context.Context) {
	defer close(w.done)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		life := w.Router.agent.lifeNow()
		if w.Router.Answers() {
			w.tell(life, NodeStatus{}, w.follow(ctx, life))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Answers reports whether an agent listens.
func (r *Router) Answers() bool {
	c, err := net.Dial("unix", r.Path(RunDir+"/"+controlSocket))
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// follow runs `lever status --watch` to its end, and returns why it ended.
func (w *watcher) follow(ctx context.Context, life int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.Router.Binary, "status", "--watch", "-o", "json", "--run-dir", w.Router.Path(RunDir))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("lever status: %w", err)
	}
	for dec := json.NewDecoder(out); ; {
		var s NodeStatus
		if err = dec.Decode(&s); err != nil {
			break
		}
		if w.Router.agent.lifeNow() != life {
			cancel() // it is not known which agent said this
			err = errors.New("the agent was started again")
			break
		}
		w.tell(life, s, nil)
	}
	if waitErr := cmd.Wait(); waitErr != nil {
		err = waitErr
	}
	return fmt.Errorf("lever status --watch: %w: %s", err, strings.TrimSpace(stderr.String()))
}

// Stop ends the watching.
func (w *watcher) Stop() {
	w.cancel()
	<-w.done
}

// AwaitStatus waits until what the agents of routers say of a link is as it
// should be, and returns it, in their order.
func AwaitStatus(ctx context.Context, routers []*Router, link string, limit time.Duration, what string, good func([]LinkStatus) bool) ([]LinkStatus, error) {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	// Which of several channels closes first does not matter: look again at all.
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	all := make([]LinkStatus, len(routers))
	for {
		held, seen := true, ""
		var changed <-chan struct{}
		for i, r := range routers {
			if err := r.Alive(); err != nil {
				return all, err
			}
			var err error
			all[i], changed, err = r.watched().latest(link)
			if err != nil {
				held, seen = false, fmt.Sprintf("%s %s: %v.", seen, r.Name, err)
				continue
			}
			seen = fmt.Sprintf("%s %s: %s.", seen, r.Name, all[i])
		}
		if held && good(all) {
			return all, nil
		}
		select {
		case <-ctx.Done():
			return all, context.Cause(ctx)
		case <-deadline.C:
			return all, fmt.Errorf("waited %v for %s; seen last:%s", limit, what, seen)
		case <-changed:
		case <-tick.C:
		}
	}
}

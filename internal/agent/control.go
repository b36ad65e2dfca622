package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// socketName is the control socket in the run directory, of mode 0600: who may
// open it may rekey and take down.
const socketName = "agent.sock"

// A verb over the control socket is one line of JSON each way; watch answers
// with a line at every change until the caller hangs up.
type command struct {
	Verb string        `json:"verb"` // status, watch, alive, rekey, suspend, down
	Link string        `json:"link,omitempty"`
	For  time.Duration `json:"for,omitempty"` // of suspend
}

type answer struct {
	Error     string      `json:"error,omitempty"`
	Status    *Status     `json:"status,omitempty"`
	Suspended []Suspended `json:"suspended,omitempty"`
	// Namespace is the agent's network namespace, in whose kernel its status can
	// be looked up.
	Namespace string `json:"namespace,omitempty"`
}

// request is a command on its way to a link's task.
type request struct {
	verb    string
	suspend time.Duration
	done    chan error
}

// rekeyPatience bounds how long a rekey may take before the caller hears of
// it: a rekey under way, its retirement, and this one.
const rekeyPatience = 20 * time.Second

// serve answers on the control socket until ctx ends.
func (s *server) serve(ctx context.Context) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	l, err := s.listen()
	passes := func() bool { return noRoom(err) || scarce(err) }
	if err == nil || passes() {
		conns.Go(func() { s.readyWhenFenced(ctx) })
	}
	if passes() {
		s.log.Error("the control socket cannot be opened yet: nobody can ask for the status", "error", err)
	}
	for passes() {
		// That nobody can ask is no reason to leave the links alone.
		s.nodeFault(func(f *health.Set) bool {
			return f.Raise(health.Raise(health.RunDirUnwritable, time.Now(), "detail", err))
		})
		if !sleep(ctx, time.Second) {
			return nil
		}
		l, err = s.listen()
	}
	if err != nil {
		return err
	}
	s.answers.Store(true)
	s.nodeFault(func(f *health.Set) bool { return f.Clear(health.RunDirUnwritable) })
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("agent: control socket: %w", err)
			}
			// Such as of too many open files: that nobody can ask is no reason to stop.
			s.log.Error("a caller of the control socket could not be served", "error", err)
			if !sleep(ctx, time.Second) {
				return nil
			}
			continue
		}
		conns.Go(func() {
			defer func() { _ = c.Close() }()
			hangUp := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer hangUp()
			s.answer(ctx, c)
		})
	}
}

// listen opens the control socket.
func (s *server) listen() (net.Listener, error) {
	path := filepath.Join(s.opts.RunDir, socketName)
	_ = os.Remove(path) // ours: the lock says that no other agent lives
	l, err := (&net.ListenConfig{}).Listen(s.ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("agent: open the control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("agent: protect the control socket: %w", err)
	}
	return l, nil
}

func (s *server) answer(ctx context.Context, c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	in := bufio.NewReaderSize(c, 4096)
	out := json.NewEncoder(c)
	line, err := in.ReadSlice('\n')
	if err != nil {
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	var cmd command
	if err := json.Unmarshal(line, &cmd); err != nil {
		_ = out.Encode(answer{Error: "the request is not one line of JSON: " + err.Error()})
		return
	}
	switch cmd.Verb {
	case "status":
		st, _ := s.snapshot()
		_ = out.Encode(answer{Status: &st, Namespace: netNamespace()})
	case "watch":
		gone := make(chan struct{})
		go func() { _, _ = in.ReadByte(); close(gone) }()
		for {
			st, changed := s.snapshot()
			if out.Encode(answer{Status: &st, Namespace: netNamespace()}) != nil {
				return
			}
			select {
			case <-changed:
			case <-gone:
				return
			case <-ctx.Done():
				return
			}
		}
	case "alive":
		var a answer
		if err := s.alive(); err != nil {
			a.Error = err.Error()
		}
		_ = out.Encode(a)
	case "suspend":
		if cmd.For < 0 || cmd.For > MaxSuspension {
			_ = out.Encode(answer{Error: fmt.Sprintf("MKA can announce an absence of up to %v; found %v", MaxSuspension, cmd.For)})
			return
		}
		_ = out.Encode(answer{Suspended: s.suspendAll(ctx, cmd.For)})
	case "rekey", "down":
		if err := s.ask(ctx, cmd); err != nil {
			_ = out.Encode(answer{Error: err.Error()})
			return
		}
		st, _ := s.snapshot()
		_ = out.Encode(answer{Status: &st})
	default:
		_ = out.Encode(answer{Error: fmt.Sprintf("this agent does not know the verb %q", cmd.Verb)})
	}
}

// ask hands a command to the task of its link and waits for the outcome.
func (s *server) ask(ctx context.Context, cmd command) error {
	s.mu.Lock()
	t := s.tasks[cmd.Link]
	st, known := s.status[cmd.Link]
	s.mu.Unlock()
	if t == nil && cmd.Verb == "down" {
		if left, err := s.downLeftover(cmd.Link); left {
			return err
		}
	}
	if t == nil {
		if known {
			return fmt.Errorf("link %s is not encrypted here (%s: %s): there is nothing to %s", cmd.Link, st.State, st.Reason, cmd.Verb)
		}
		return fmt.Errorf("node %s has no link %q: `lever status` lists those that it has", s.opts.Node, cmd.Link)
	}
	patience, late := rekeyPatience, "no new SAK came into use"
	if cmd.Verb == "suspend" {
		patience, late = leavePatience, "the announcement was sent, and not every peer has confirmed it"
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r := request{verb: cmd.Verb, suspend: cmd.For, done: make(chan error, 1)}
	select {
	case t.requests <- r:
	case <-ctx.Done():
		return errors.New("the link's task does not answer")
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("link %s: %s within %v: see `lever status`", cmd.Link, late, patience)
	}
}

// refuse answers a request for a link that is not set up.
func (t *task) refuse(r request) {
	switch {
	case r.verb == "down" && t.takenDown:
		r.done <- nil
	case r.verb == "down":
		err := t.takeDown()
		t.publish()
		r.done <- err
	case t.takenDown:
		r.done <- fmt.Errorf("link %s was taken down: restart the agent to secure it again", t.link.ID)
	default:
		r.done <- fmt.Errorf("link %s is not set up: see `lever status`", t.link.ID)
	}
}

// handle carries out a request on a link that is set up. done ends the session.
func (t *task) handle(r request) (done bool, err error) {
	if r.verb == "down" {
		if err := t.takeDown(); err != nil {
			r.done <- err
			if _, err := t.server.kernel.Device(t.link.Local.Secure); errors.Is(err, macsec.ErrNotExist) {
				return true, errAnew // it went as far as that
			}
			return false, nil
		}
		t.served = append(t.served, r.done)
		return true, nil
	}
	if r.verb == "suspend" {
		t.suspend(r)
		return false, nil
	}
	if err := t.port.CanRekey(); err != nil {
		r.done <- fmt.Errorf("link %s: %w", t.link.ID, err)
		return false, nil
	}
	t.waiting = append(t.waiting, r.done)
	t.step(mka.Event{Kind: mka.EventRekey})
	return false, nil
}

// wake has those answered who wait for a rekey: a new SAK is in use.
func (t *task) wake() {
	t.served = append(t.served, t.waiting...)
	t.waiting = nil
}

// reply answers those whose request was carried out. The status was published
// before, so that they find it there.
func (t *task) reply() {
	for _, done := range t.served {
		done <- nil
	}
	t.served = nil
}

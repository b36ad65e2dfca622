package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoAgent means that no agent answers in the run directory.
var ErrNoAgent = errors.New("no agent runs here")

// Client asks a running agent over its control socket.
type Client struct {
	runDir   string
	patience time.Duration // with an agent that is to answer from memory
	every    time.Duration // between looks at the kernel while the agent says nothing
}

// NewClient makes a Client for the agent of a run directory.
func NewClient(runDir string) *Client {
	if runDir == "" {
		runDir = DefaultRunDir
	}
	return &Client{runDir: runDir, patience: answerPatience, every: lookEvery}
}

// call sends one command and passes each answer to each, which may be called
// more than once for watch only.
func (c *Client) call(ctx context.Context, cmd command, each func(*answer) error) error {
	path := filepath.Join(c.runDir, socketName)
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("ask the agent at %s: %w: start it with `lever agent`, or name its directory with --run-dir", path, ErrNoAgent)
	case err != nil:
		return fmt.Errorf("ask the agent at %s: %w", path, err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(cmd); err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	in := json.NewDecoder(conn)
	for first := true; ; first = false {
		var a answer
		if err := in.Decode(&a); err != nil {
			if !first && (errors.Is(err, io.EOF) || ctx.Err() != nil) {
				return nil
			}
			return fmt.Errorf("the agent's answer: %w", err)
		}
		if a.Error != "" {
			return errors.New(a.Error)
		}
		if err := each(&a); err != nil {
			return err
		}
		if cmd.Verb != "watch" {
			return nil
		}
	}
}

// Status asks for the node's status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	err := c.call(ctx, command{Verb: "status"}, func(a *answer) error { st = *a.Status; return nil })
	return st, err
}

// Alive returns nil if the agent answers and nothing in it is stuck that only a
// restart of its process can mend.
func (c *Client) Alive(ctx context.Context) error {
	return c.call(ctx, command{Verb: "alive"}, func(*answer) error { return nil })
}

// Watch calls each with the status now and after every change, until ctx ends
// or the agent stops.
func (c *Client) Watch(ctx context.Context, each func(Status) error) error {
	return c.call(ctx, command{Verb: "watch"}, func(a *answer) error { return each(*a.Status) })
}

// Rekey has a link's SAK replaced and returns when the new one is in use.
func (c *Client) Rekey(ctx context.Context, link string) (LinkStatus, error) {
	var out LinkStatus
	err := c.call(ctx, command{Verb: "rekey", Link: link}, func(a *answer) error {
		for _, l := range a.Status.Links {
			if l.ID == link {
				out = l
			}
		}
		return nil
	})
	return out, err
}

// Suspend has every link announce that the agent will be away for up to d, and
// returns what came of it on each. Zero takes the announcement back.
func (c *Client) Suspend(ctx context.Context, d time.Duration) ([]Suspended, error) {
	var all []Suspended
	err := c.call(ctx, command{Verb: "suspend", For: d}, func(a *answer) error { all = a.Suspended; return nil })
	return all, err
}

// Down removes links from the kernel, the fence last: all that are encrypted
// when none is named. It works without an agent too, on what one has left. It
// returns the links that are down.
func (c *Client) Down(ctx context.Context, links []string) ([]string, error) {
	st, err := c.Status(ctx)
	if errors.Is(err, ErrNoAgent) {
		return downWithoutAgent(&linux, openKernel, c.runDir, links)
	}
	if err != nil {
		return nil, err
	}
	if len(links) == 0 {
		for _, l := range st.Links {
			if l.SecureInterface != "" {
				links = append(links, l.ID)
			}
		}
	}
	var done []string
	var errs []error
	for _, id := range links {
		if err := c.call(ctx, command{Verb: "down", Link: id}, func(*answer) error { return nil }); err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, id)
	}
	return done, errors.Join(errs...)
}

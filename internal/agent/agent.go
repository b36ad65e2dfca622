package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/dir"
	"github.com/lever-link/lever/internal/quiet"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec"
)

// Where an agent keeps what must outlive it, unless told otherwise.
const (
	DefaultRunDir   = "/run/lever"
	DefaultStateDir = "/var/lib/lever"
)

// Options are what `lever agent` is told.
type Options struct {
	Inventory string // file or directory
	Node      string
	RunDir    string // tmpfs: the control socket, and what a restart resumes from
	StateDir  string // disk: the epochs that must never come back
	Log       *slog.Logger
	// Ready, if set, is called once the control socket answers.
	Ready func()
}

// server is one running agent.
type server struct {
	opts     Options
	log      *slog.Logger
	policy   inventory.Policy
	kernel   macsec.Kernel
	platform platform
	links    *linkEvents
	dumps    dumps
	started  time.Time

	mu         sync.Mutex
	nodeFaults health.Set
	status     map[string]LinkStatus // by link id
	order      []string
	changed    chan struct{} // closed and replaced at every change of status
	tasks      map[string]*task
}

// Run keeps the node's links encrypted until ctx ends, and then leaves the
// encrypted path standing. An error means that it could not start.
func Run(ctx context.Context, opts Options) error {
	if opts.RunDir == "" {
		opts.RunDir = DefaultRunDir
	}
	if opts.StateDir == "" {
		opts.StateDir = DefaultStateDir
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	// A link that flaps, or that somebody floods, must not fill the disk.
	bounded := quiet.New(opts.Log.Handler(), quiet.Options{})
	defer func() { _ = bounded.Flush() }()
	opts.Log = slog.New(bounded)
	inv, err := inventory.Load(opts.Inventory)
	if err != nil {
		return err
	}
	links, err := inv.ForNode(opts.Node)
	if err != nil {
		return err
	}
	unlock, err := lockRunDir(opts.RunDir)
	if err != nil {
		return err
	}
	defer unlock()

	kernel, err := macsec.New()
	if err != nil {
		return fmt.Errorf("agent: talk to the kernel: %w", err)
	}
	defer func() { _ = kernel.Close() }()

	g, ctx := errgroup.WithContext(ctx)
	events, err := watchKernel(ctx, opts.Log)
	if err != nil {
		return err
	}
	s := newServer(opts, inv.Policy, linux, kernel, events)
	s.start(ctx, g, links, openChannels(inv, s.log))
	g.Go(func() error { return s.serve(ctx, opts.Ready) })
	err = g.Wait()
	s.log.Info("agent stops; the encrypted path stays", "node", opts.Node)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func newServer(opts Options, policy inventory.Policy, on platform, kernel macsec.Kernel, events *linkEvents) *server {
	return &server{
		opts: opts, log: opts.Log, policy: policy, platform: on, kernel: kernel, links: events, dumps: dumps{kernel: kernel}, started: time.Now(),
		status: map[string]LinkStatus{}, changed: make(chan struct{}), tasks: map[string]*task{},
	}
}

// start runs a task for each link that must be encrypted, and says of the
// others why they are left alone.
func (s *server) start(ctx context.Context, g *errgroup.Group, links []inventory.NodeLink, channels [2]keys.Channel) {
	store := keys.NewStore(s.opts.StateDir)
	store.Replace = s.platform.files.replace
	s.log.Info("agent starts", "node", s.opts.Node, "links", len(links))
	for _, l := range links {
		s.order = append(s.order, l.ID)
		if l.Verdict.Kind != inventory.Encrypt {
			s.setStatus(leftAlone(l, s.started))
			continue
		}
		t := newTask(s, l, channels, store)
		s.tasks[l.ID] = t
		s.setStatus(t.statusNow(time.Now()))
		g.Go(func() error { return t.run(ctx) })
	}
}

// openChannels makes the inventory's two channels. They share nothing.
func openChannels(inv *inventory.Inventory, log *slog.Logger) [2]keys.Channel {
	open := func(c inventory.Channel) keys.Channel {
		if c.Path == "" {
			return nil
		}
		return dir.New(c.Path, dir.Options{Log: log})
	}
	return [2]keys.Channel{keys.A: open(inv.Channels.A), keys.B: open(inv.Channels.B)}
}

// lockRunDir makes the run directory and takes it for this process: two agents
// with one set of message and key numbers would repeat them.
func lockRunDir(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Join(path, linksDir), 0o700); err != nil {
		return nil, fmt.Errorf("agent: make the run directory: %w", err)
	}
	name := filepath.Join(path, "agent.lock")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("agent: lock the run directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder := make([]byte, 64)
		n, _ := f.ReadAt(holder, 0)
		_ = f.Close()
		return nil, fmt.Errorf("agent: %s is held by another agent (process %s): stop it first, or give this one another --run-dir", name, holder[:n])
	}
	_ = f.Truncate(0)
	_, _ = f.WriteAt(fmt.Append(nil, os.Getpid()), 0)
	return func() { _ = f.Close() }, nil
}

// leftAlone is the status of a link that is not encrypted, and why.
func leftAlone(l inventory.NodeLink, now time.Time) LinkStatus {
	st := LinkStatus{ID: l.ID, Interface: l.Local.Interface, Verdict: l.Verdict.Kind.String(), Reason: l.Verdict.Reason, State: StateInside}
	if l.Verdict.Kind == inventory.Exempt {
		st.State = StateExempt
		if o := l.Override; o != nil {
			st.Faults = []health.Fault{health.Raise(health.Exempt, now,
				"until", o.Expires.Format(time.DateOnly), "reason", o.Reason, "approvers", o.Approvers)}
		}
	}
	return st
}

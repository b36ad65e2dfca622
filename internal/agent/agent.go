package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/quiet"
	"github.com/lever-link/lever/internal/watch"
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
	// Ready, if set, is called once the fence of each link was closed, or could not be,
	// and again when a reload has ended and the same is true of its links: what waits for
	// it may set interfaces up. What it is given asks the agent whether it lives, by the
	// control socket if that could be opened.
	Ready func(alive func(context.Context) error)
	// Reloading, if set, is called when a reload begins.
	Reloading func()
	// Reload, if set, has the inventory read again whatever its files look like.
	Reload <-chan os.Signal
	// Admit, if set, says whether this process can still open what a new inventory
	// names; what it cannot refuses that inventory.
	Admit func(paths ...string) error
	// Override reads the statement that lets a link go on with a key that is too old,
	// from a file unless it is set: where it lies and who must have signed it, the link, and the date. The
	// zero Override is none, which takes an earlier one back; an error leaves it. Until
	// when it holds is looked at here.
	Override func(where inventory.AgeOverride, link string, now time.Time) (keys.Override, error)
	// Observe, if set, runs beside the links until ctx ends, and may ask what the
	// agent knows as often as it likes.
	Observe func(ctx context.Context, observe func() Observation)
}

// server is one running agent.
type server struct {
	opts     Options
	log      *slog.Logger
	kernel   macsec.Kernel
	platform platform
	links    *linkEvents
	dumps    dumps
	started  time.Time
	answers  atomic.Bool // the control socket is open
	unfenced openFences
	atWork   chan struct{} // is closed when it has said for the first time that it is ready
	reloads  atomic.Uint64
	group    *errgroup.Group
	ctx      context.Context // of the agent's life
	store    keys.States
	channels [2]keys.Channel
	open     func(*inventory.Inventory, *slog.Logger) [2]keys.Channel
	wall     func() time.Time
	// inForce is inv for those who do not hold reconf.
	inForce atomic.Pointer[inventory.Inventory]

	// reconf is held while what there is to do is changed.
	reconf sync.Mutex
	inv    *inventory.Inventory // in force
	// at and named are its links at this node, by interface and by id.
	at, named map[string]*inventory.NodeLink
	judged    time.Time        // the latest date at which verdicts were judged
	files     []inventory.File // that inv was made of
	// grave is an inventory that interrupts links, and that must stay as it is for a
	// while since then.
	grave      *read
	graveSince time.Time
	begun      func() // ends the wait for the inventory that the agent was started with
	kept       map[string]*keeper
	left       map[string]*leftover
	behind     map[string]*inventory.EndChange // links whose task was stuck when the inventory changed

	mu         sync.Mutex
	nodeFaults health.Set
	accepted   *read                  // the inventory that is being kept for the next start
	status     map[string]LinkStatus  // by link id
	said       map[string]LinkStatus  // the same without the faults of keepers
	supervised map[string]*health.Set // the faults of keepers
	stuck      map[string]*wedge
	listed     map[string]bool     // the inventory's
	counted    map[string]Counters // by link id
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
	if opts.Override == nil {
		opts.Override = newOverrides().read
	}
	// A link that flaps, or that somebody floods, must not fill the disk.
	bounded := quiet.New(opts.Log.Handler(), quiet.Options{})
	defer func() { _ = bounded.Flush() }()
	opts.Log = slog.New(bounded)
	seen := watch.Signature(opts.Inventory)
	first, err := firstInventory(opts)
	if err != nil {
		return err
	}
	links, err := first.inv.ForNode(opts.Node)
	if err != nil {
		return err
	}
	unlock, err := lockRunDir(opts.RunDir)
	if err != nil {
		return err
	}
	defer unlock()

	kernel, err := macsec.NewLater() // the fences cannot wait for MACsec
	if err != nil {
		return fmt.Errorf("agent: talk to the kernel: %w", err)
	}
	defer func() { _ = kernel.Close() }()

	g, ctx := errgroup.WithContext(ctx)
	events, err := watchKernel(ctx, opts.Log)
	if err != nil {
		return err
	}
	s := newServer(opts, linux, kernel, events)
	s.judged = first.floor
	kicks, changed := make(chan struct{}, 1), make(chan struct{})
	g.Go(func() error { watch.Notify(ctx, opts.Inventory, s.log, kicks); return nil })
	g.Go(func() error { watch.Settled(ctx, opts.Inventory, seen, kicks, changed); return nil })
	s.start(ctx, g, first.inv, links)
	s.accept(first)
	g.Go(func() error { return s.follow(ctx, changed) })
	g.Go(func() error { return s.serve(ctx) })
	if opts.Observe != nil {
		g.Go(func() error { opts.Observe(ctx, s.observe); return nil })
	}
	err = g.Wait()
	s.log.Info("agent stops; the encrypted path stays", "node", opts.Node)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func newServer(opts Options, on platform, kernel macsec.Kernel, events *linkEvents) *server {
	s := &server{
		opts: opts, log: opts.Log, platform: on, kernel: kernel, links: events, dumps: dumps{kernel: kernel}, started: time.Now(),
		status: map[string]LinkStatus{}, changed: make(chan struct{}), tasks: map[string]*task{},
		said: map[string]LinkStatus{}, supervised: map[string]*health.Set{}, stuck: map[string]*wedge{},
		kept: map[string]*keeper{}, left: map[string]*leftover{}, behind: map[string]*inventory.EndChange{},
		wall: time.Now, atWork: make(chan struct{}),
	}
	s.open = s.openChannels
	return s
}

// start takes up the links of this node: those that must be encrypted get a task
// each, of the others it is said why they are left alone.
func (s *server) start(ctx context.Context, g *errgroup.Group, inv *inventory.Inventory, links []inventory.NodeLink) {
	s.ctx, s.group = ctx, g
	store := keys.NewStore(s.opts.StateDir)
	store.Replace = s.platform.files.replace
	remembers := newRecorder(store)
	remembers.wall = s.wall
	s.store = remembers
	s.inForce.Store(inv)
	s.channels = s.open(inv, s.log)
	s.log.Info("agent starts", "node", s.opts.Node, "links", len(links))
	s.begin(inv, links)
}

// lockRunDir makes the run directory and takes it for this process: two agents
// with one set of message and key numbers would repeat them. What is locked is the
// directory itself, so that one on a full disk can be taken as well.
func lockRunDir(path string) (unlock func(), err error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("agent: make the run directory: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("agent: lock the run directory: %w", err)
	}
	holder := filepath.Join(path, holderFile)
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		pid, _ := os.ReadFile(holder)
		return nil, fmt.Errorf("agent: %s is held by another agent (process %s): stop it first, or give this one another --run-dir", path, pid)
	}
	// For whoever is refused, and only for them: a disk that is full is no reason
	// to leave the links alone.
	_ = os.WriteFile(holder, fmt.Append(nil, os.Getpid()), 0o600)
	if err := os.MkdirAll(filepath.Join(path, linksDir), 0o700); err != nil && !noRoom(err) {
		_ = f.Close()
		return nil, fmt.Errorf("agent: make the run directory: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

// holderFile, in the run directory, says which process has taken it.
const holderFile = "agent.pid"

// noRoom tells trouble of a disk, which passes, from a path that cannot be used.
func noRoom(err error) bool {
	for _, e := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// leftAlone is the status of a link that is not encrypted, and why.
func leftAlone(l inventory.NodeLink, p inventory.Policy, since, now time.Time) LinkStatus {
	st := LinkStatus{ID: l.ID, Interface: l.Local.Interface, Verdict: l.Verdict.Kind.String(), Reason: l.Verdict.Reason, State: StateInside}
	if l.Verdict.Kind == inventory.Exempt {
		st.State = StateExempt
		if o := l.Override; o != nil {
			st.Faults = []health.Fault{health.Raise(health.Exempt, since,
				"until", o.Expires.Format(time.DateOnly), "reason", o.Reason, "approvers", o.Approvers)}
		}
	}
	for _, e := range l.Expiring(p, now, expiresWithin) {
		st.Faults = append(st.Faults, health.Raise(health.EvidenceExpiring, e.Expires.Add(-expiresWithin),
			"evidence", fmt.Sprintf("%s (%s)", e.Control, e.Evidence), "until", e.Expires.Format(time.DateOnly)))
	}
	return st
}

package bundle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/signed"
)

const (
	defaultIndexLife  = 24 * time.Hour
	defaultBundleLife = 30 * 24 * time.Hour
	// maxReported is how many nodes' errors are reported in full.
	maxReported = 20
)

// Options are for Issue.
type Options struct {
	// Issuer is the issuer's private directory; it is made if it is not there. It
	// serves one channel, Side, for good.
	Issuer string
	Side   keys.Side
	// Out is the tree to write; it serves one issuer for good.
	Out string
	// Key signs.
	Key *signed.Key

	// Links are all links, with ends on all their nodes. What is not among them gets
	// nothing new, and keeps what it has until that is retired; a node that is not on a
	// link any more loses what it has of it.
	Links []LinkSpec
	// Recipients are a node's public keys, from its inventory.
	Recipients func(node string) []string
	// Classical lets bundles be sealed to recipients that a quantum computer breaks.
	Classical bool

	// Epochs are to be issued, unless they are already. Those that were issued before
	// stay until Retire is beyond them: their seeds are erased, and no index lists
	// them any more, so that they must be out of use at all nodes. It is done also
	// when something else fails.
	Epochs []uint64
	Retire uint64
	// EpochLength is how long an epoch lasts, on a schedule. With it Retire does not
	// believe a clock that has jumped ahead, until what was issued after that has been
	// out for an epoch, or AfterPause says that there was a pause.
	EpochLength time.Duration
	AfterPause  bool
	// Reissue, Revoke and Readmit change what links and nodes have of them. Reissue and
	// Revoke may be given again if it is not known whether they were carried out. What
	// was revoked is replaced when its epoch is asked for again, by a next generation;
	// what nodes have that were revoked, when they are admitted again.
	Reissue []Reissue
	Revoke  Revocation
	Readmit []string

	// IndexLife is how long nodes believe that nothing was revoked since, 24 hours by
	// default; BundleLife how long after the start of its epoch a bundle may be used
	// to start with it, 30 days by default. Both are renewed at half time.
	IndexLife, BundleLife time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Progress is told how many of the nodes are done, from one goroutine at a time.
	Progress func(done, total int)

	// step is called before each change on disk, and stops what it returns an error
	// for; for tests.
	step func(what string) error
}

// Result is what Issue has done, also when it failed half way.
type Result struct {
	// Nodes is how many there are; Indexes and Bundles are what was written, of Octets
	// altogether. Keys were issued, one for each link, epoch and end; Kept those that
	// had been, whether or not their bundles were sealed again.
	Nodes, Indexes, Bundles, Keys, Kept int
	Octets                              int64
	// TakenBack: whatever was revoked or retired is gone from all indexes, although the
	// error says that there is a node to which nothing can be sealed.
	TakenBack bool
	// Retired is how many epochs are over now and were not before.
	Retired int
	// Warnings say what is not as safe as it should be.
	Warnings []string
}

// Issue brings the tree to what the options ask for: for each node its bundles, and
// its index last, each by rename. What is there already and says the same is left
// alone, so that Issue goes on where it was interrupted, and does nothing when there
// is nothing to do. A node that cannot be issued for keeps what it has; the others
// are issued for all the same, and the error names it.
func Issue(ctx context.Context, o Options) (Result, error) {
	var result Result
	fail := func(err error) (Result, error) {
		return result, fmt.Errorf("issuing channel %s into %s: %w", o.Side, o.Out, err)
	}
	if err := o.check(); err != nil {
		return fail(err)
	}
	l, err := openLedger(o.Issuer, o.Side, o.step)
	if err != nil {
		return fail(err)
	}
	defer l.close()
	if err := publicDir(o.Out); err != nil {
		return fail(err)
	}
	unlock, err := lockTree(o.Out)
	if err != nil {
		return fail(err)
	}
	defer unlock()
	if err := l.claim(ctx, o.Out, []signed.PublicKey{o.Key.Public()}); err != nil {
		return fail(err)
	}
	if err := l.sweep(); err != nil {
		return fail(err)
	}
	changed, err := l.decide(&o)
	if err != nil {
		return fail(err)
	}
	result.Retired, result.Warnings = l.retired, l.warnings
	if changed {
		if err := errors.Join(l.save(), l.sweep()); err != nil {
			return fail(err)
		}
	}
	if err := l.read(); err != nil {
		return fail(err)
	}
	w := newWriter(&o, l)
	w.result = result
	err = errors.Join(w.all(ctx), l.late)
	result = w.result
	if err != nil {
		return fail(err)
	}
	if len(l.Unfinished)+len(l.Left) > 0 {
		l.Unfinished, l.Left = nil, nil
		if err := l.save(); err != nil {
			return fail(err)
		}
	}
	return result, nil
}

// check fills in defaults and finds what cannot be issued for.
func (o *Options) check() error {
	if o.Key == nil {
		return errors.New("there is no key to sign with")
	}
	if o.Recipients == nil {
		return errors.New("there are no recipients to seal to")
	}
	if err := apart(o.Issuer, o.Out); err != nil {
		return err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.IndexLife <= 0 {
		o.IndexLife = defaultIndexLife
	}
	if o.BundleLife <= 0 {
		o.BundleLife = defaultBundleLife
	}
	o.Links = slices.SortedFunc(slices.Values(o.Links), func(a, b LinkSpec) int { return strings.Compare(a.ID, b.ID) })
	var errs []error
	for i, l := range o.Links {
		err := keys.ValidLink(l.ID)
		if err == nil {
			err = keys.Identity{Link: l.ID, Nodes: l.Nodes}.Validate()
		}
		for _, n := range l.Nodes {
			if err == nil {
				err = validNode(n)
			}
		}
		if err == nil && i > 0 && o.Links[i-1].ID == l.ID {
			err = fmt.Errorf("link %q is there twice", l.ID)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return several(errs)
}

// several joins errors, as far as anybody reads them.
func several(errs []error) error {
	if n := len(errs); n > maxReported {
		errs = append(errs[:maxReported:maxReported], fmt.Errorf("and %d more", n-maxReported))
	}
	return errors.Join(errs...)
}

// writer writes a tree.
type writer struct {
	*Options
	ledger  *ledger
	epochs  []uint64
	commits map[keys.Epoch]string
	revoked map[string]bool
	// links are, for each node, the places of its links in Options.Links; gone those of
	// links that the inventory no longer has.
	links map[string][]int32
	gone  map[string][]LinkSpec
	trust []signed.PublicKey
	now   time.Time

	mu       sync.Mutex
	result   Result
	sequence uint64 // of this run; 0 before something is written
	weak     []string
}

func newWriter(o *Options, l *ledger) *writer {
	w := &writer{
		Options: o, ledger: l, commits: make(map[keys.Epoch]string), revoked: make(map[string]bool),
		links: make(map[string][]int32), gone: make(map[string][]LinkSpec), trust: []signed.PublicKey{o.Key.Public()}, now: o.Now(),
	}
	for number := range l.Epochs {
		w.epochs = append(w.epochs, number)
	}
	slices.Sort(w.epochs)
	for e, seed := range l.seeds {
		w.commits[e] = commitment(seed)
	}
	for _, n := range l.RevokedNodes {
		w.revoked[n] = true
	}
	for i, link := range o.Links {
		for _, n := range link.Nodes {
			w.links[n] = append(w.links[n], int32(i))
		}
	}
	for _, id := range l.gone(o) {
		nodes := membersOf(l.Links[id])
		for _, n := range nodes {
			w.gone[n] = append(w.gone[n], LinkSpec{id, nodes})
		}
	}
	return w
}

// all writes every node's files, on all processors.
func (w *writer) all(ctx context.Context) error {
	nodes, err := w.nodes()
	if err != nil {
		return err
	}
	w.result.Nodes = len(nodes)
	var wg sync.WaitGroup
	work := make(chan string)
	var errs []error
	done, failed := 0, false
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for node := range work {
				err := w.node(ctx, node)
				w.mu.Lock()
				if err != nil {
					_, ok := errors.AsType[unsealable](err)
					failed = failed || !ok
					errs = append(errs, fmt.Errorf("node %q: %w", node, err))
				}
				done++
				if w.Progress != nil {
					w.Progress(done, len(nodes))
				}
				w.mu.Unlock()
			}
		})
	}
	for _, node := range nodes {
		if ctx.Err() != nil {
			break
		}
		work <- node
	}
	close(work)
	wg.Wait()
	w.result.TakenBack = ctx.Err() == nil && !failed
	if n := len(w.weak); n > 0 {
		slices.Sort(w.weak)
		w.result.Warnings = append(w.result.Warnings, fmt.Sprintf(
			"what is sealed to %d nodes is not safe from quantum computers, for their recipients are not (age1pq…): %q",
			n, w.weak[:min(n, maxReported)]))
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(ctx.Err(), several(errs))
}

// nodes are all that are to be issued for: those that have links, and those that
// have something in the tree, for nobody else takes it back.
func (w *writer) nodes() ([]string, error) {
	there, err := nodesOf(w.Out)
	if err != nil {
		return nil, err
	}
	for node := range w.links {
		there = append(there, node)
	}
	slices.Sort(there)
	return slices.Compact(there), nil
}

// nodesOf are the nodes that have a directory in a tree, sorted. It follows symbolic
// links, as those who read it do.
func nodesOf(tree string) ([]string, error) {
	names, err := os.ReadDir(tree)
	if err != nil {
		return nil, fmt.Errorf("listing the nodes of a tree of bundles: %w", err)
	}
	var nodes []string
	for _, n := range names {
		if validNode(n.Name()) != nil {
			continue
		}
		if info, err := os.Stat(filepath.Join(tree, n.Name())); err == nil && info.IsDir() {
			nodes = append(nodes, n.Name())
		}
	}
	return nodes, nil
}

// number is the sequence number of this run, which is in the journal before it is
// anywhere else. It follows the clock where that is ahead, so that what a new issuer
// issues is not older for nodes than what they have.
func (w *writer) number() (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sequence > 0 {
		return w.sequence, nil
	}
	w.ledger.Sequence = max(w.ledger.Sequence+1, uint64(max(w.now.Unix(), 0)))
	if err := w.ledger.save(); err != nil {
		return 0, err
	}
	w.sequence = w.ledger.Sequence
	return w.sequence, nil
}

// put publishes a signed statement.
func (w *writer) put(node, name string, s *signed.Statement) error {
	if err := s.Sign(w.Key); err != nil {
		return err
	}
	text := s.Text()
	if err := w.ledger.step(name); err != nil {
		return err
	}
	if err := keyfile.Publish(filepath.Join(w.Out, node, name), text); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.result.Octets += int64(len(text))
	return nil
}

package bundle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"filippo.io/age"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/signed"
	"github.com/lever-link/lever/internal/watch"
)

// defaultPoll is how often a URL is asked whether there is something new.
const defaultPoll = 10 * time.Second

// Config is for New.
type Config struct {
	// Source is a directory or an https URL; beneath it lie the nodes' directories.
	Source string
	// Node is whose bundles to read.
	Node string
	// Signers are the issuers' keys, Threshold how many of them must have signed.
	Signers   []signed.PublicKey
	Threshold int
	// CacheDir is where the sealed files are kept that were accepted, so that a
	// restart does without the source; it is made if it is not there. Empty: none.
	CacheDir string
	// Identities are what opens the bundles. It is called before each opening.
	Identities func() ([]age.Identity, error)
	// LinksDigest is this node's by its own inventory; nil, or empty: not compared.
	LinksDigest func() string
	// Poll is how often the source is looked at: 10 seconds for a URL, and two for a
	// directory, which is watched, too.
	Poll time.Duration
	// Ticks replaces the timer of Poll, for tests with their own time.
	Ticks <-chan time.Time
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Log gets one line a change of what is in force; nil discards.
	Log *slog.Logger
	// CA is a file with the certificates that a server's is checked against; empty:
	// the system's. HTTP replaces the client that is made from it.
	CA   string
	HTTP *http.Client
}

// Channel is a source of bundles as a distribution channel. One loop reads it for
// all links; it runs while there is somebody who watches.
type Channel struct {
	conf Config
	src  source
	reader

	mu   sync.Mutex
	subs map[*subscriber]bool
	// stop ends the loop that runs, ended is closed when the last one has ended.
	stop  context.CancelFunc
	ended chan struct{}
	// show wakes the loop that delivers.
	show chan struct{}
}

var _ keys.Channel = (*Channel)(nil)

// New makes the channel. The source need not be there yet.
func New(c Config) (*Channel, error) {
	fail := func(err error) (*Channel, error) {
		return nil, fmt.Errorf("opening the bundles of node %q at %s: %w", c.Node, c.Source, err)
	}
	if err := validNode(c.Node); err != nil {
		return fail(err)
	}
	if len(c.Signers) < max(c.Threshold, 1) {
		return fail(fmt.Errorf("%d signers are trusted, and %d must sign; name more of them, or lower the threshold", len(c.Signers), max(c.Threshold, 1)))
	}
	if c.Identities == nil {
		return fail(errors.New("there are no identities to open them with"))
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	ch := &Channel{conf: c, subs: make(map[*subscriber]bool), show: make(chan struct{}, 1)}
	if isURL(c.Source) {
		s, err := newServer(c.Source, c.Node, c.CA, c.HTTP)
		if err != nil {
			return fail(err)
		}
		ch.src = s
	} else {
		root, err := filepath.Abs(c.Source)
		if err != nil {
			return fail(err)
		}
		ch.src = directory{filepath.Join(root, c.Node)}
	}
	if c.Poll <= 0 {
		ch.conf.Poll = defaultPoll
		if _, ok := ch.src.(directory); ok {
			ch.conf.Poll = watch.Rescan
		}
	}
	ch.reader = reader{conf: &ch.conf, src: ch.src, bundles: make(map[uint64]*inForce)}
	return ch, nil
}

// Kind implements keys.Channel.
func (c *Channel) Kind() string { return "bundle" }

// Where implements keys.Channel: the place of the node, for bundles have all links
// of a node.
func (c *Channel) Where(string) string { return c.src.where() }

// Watch implements keys.Channel. The first delivery is what the cache has, if it
// has something, whatever becomes of the source.
func (c *Channel) Watch(ctx context.Context, link string, deliver func(keys.Snapshot)) error {
	if err := keys.ValidLink(link); err != nil {
		return err
	}
	s := c.join(link)
	defer c.leave(s)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.kick:
			if snapshot, ok := s.take(); ok {
				deliver(snapshot)
			}
		}
	}
}

// subscriber is a link that is watched, and the latest that it was not given yet:
// a link that does not come round must not hold up the others.
type subscriber struct {
	link string
	kick chan struct{}

	mu      sync.Mutex
	waiting bool
	next    keys.Snapshot
	// gone: nobody will take anything any more.
	gone bool
	// digest is of what was put last.
	digest string
}

// put replaces what is waiting, unless it says the same as what was put before.
func (s *subscriber) put(snapshot keys.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := snapshot.Digest()
	if d == s.digest || s.gone {
		snapshot.Erase()
		return
	}
	if s.waiting {
		s.next.Erase()
	}
	s.digest, s.next, s.waiting = d, snapshot, true
	select {
	case s.kick <- struct{}{}:
	default: // one is pending already
	}
}

func (s *subscriber) take() (keys.Snapshot, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ok := s.waiting
	snapshot := s.next
	s.waiting, s.next = false, keys.Snapshot{}
	return snapshot, ok
}

// fresh tells whether nothing was put yet.
func (s *subscriber) fresh() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.digest == ""
}

func (c *Channel) join(link string) *subscriber {
	s := &subscriber{link: link, kick: make(chan struct{}, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs[s] = true
	if c.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		before, ended := c.ended, make(chan struct{})
		c.stop, c.ended = cancel, ended
		go func() {
			defer close(ended)
			if before != nil {
				<-before
			}
			c.run(ctx)
		}()
	}
	c.wake()
	return s
}

// leave ends a subscription, and with the last one the loop; it returns only when
// that has ended.
func (c *Channel) leave(s *subscriber) {
	c.mu.Lock()
	delete(c.subs, s)
	var ended chan struct{}
	if len(c.subs) == 0 {
		c.stop()
		c.stop, ended = nil, c.ended
	}
	c.mu.Unlock()
	if ended != nil {
		<-ended
	}
	s.mu.Lock()
	s.gone = true
	s.mu.Unlock()
	if snapshot, ok := s.take(); ok {
		snapshot.Erase()
	}
}

func (c *Channel) wake() {
	select {
	case c.show <- struct{}{}:
	default: // one is pending already
	}
}

// run is the loop: one goroutine reads the source, which may take its time, and
// one delivers, which must not wait for that.
func (c *Channel) run(ctx context.Context) {
	defer c.src.close()
	c.guard("reading the cache of bundles", c.load)
	kicks := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	if d, ok := c.src.(directory); ok {
		wg.Go(func() { watch.Notify(ctx, d.path, c.conf.Log, kicks) })
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			c.guard("reading the source of bundles", func() { c.fetch(ctx, c.wake) })
			c.wake()
			c.wait(ctx, kicks)
		}
	})
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.show:
			c.guard("opening bundles", c.deliver)
		}
	}
}

// guard keeps a panic of a library or of ours away from the other links' tasks.
func (c *Channel) guard(what string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(fmt.Errorf("%s: panic: %v", what, p))
		}
	}()
	f()
}

// wait returns when the source is to be looked at again.
func (c *Channel) wait(ctx context.Context, kicks <-chan struct{}) {
	ticks := c.conf.Ticks
	if ticks == nil {
		wait := c.conf.Poll
		if next := c.next(); !next.IsZero() {
			wait = min(wait, max(next.Sub(c.conf.Now()), time.Second))
		}
		t := time.NewTimer(wait)
		defer t.Stop()
		ticks = t.C
	}
	select {
	case <-ctx.Done():
	case <-kicks:
	case <-ticks:
	}
}

// deliver gives every subscriber what there is now for its link, if something has
// changed, or it was given nothing yet.
func (c *Channel) deliver() {
	c.mu.Lock()
	var all, fresh []*subscriber
	for s := range c.subs {
		all = append(all, s)
		if s.fresh() {
			fresh = append(fresh, s)
		}
	}
	c.mu.Unlock()
	if c.changed() {
		fresh = all
	}
	if len(fresh) == 0 {
		return
	}
	v, ok := c.view()
	if !ok {
		return // nothing was looked at yet
	}
	defer v.erase()
	for _, s := range fresh {
		s.put(v.snapshot(s.link))
	}
}

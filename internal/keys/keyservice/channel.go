package keyservice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
)

const (
	// lookEvery is how often the clock, which may be set, and the service's own findings
	// are looked at although nothing happened.
	lookEvery = time.Minute
	// lapse is how long the keys of a link are kept that nobody watches. A link that is
	// set up anew watches again within a second, and would have to be given new keys.
	lapse = time.Minute
)

// Options are for the New functions of the channels.
type Options struct {
	// Side is which of the two channels it is.
	Side keys.Side
	// Node is this node's name, and by it the far ends know this one at their services.
	Node string
	// Nodes are the names of a link's nodes.
	Nodes func(link string) []string
	// Epoch is how long an epoch is: whole minutes, the same at both ends.
	Epoch time.Duration

	// URL is the key service's.
	URL string
	// CA, Certificate and Key are files in PEM: whom to trust, and what to show.
	CA, Certificate, Key string

	// StateDir is where it is kept which epochs were used; empty: nowhere.
	StateDir string
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Log gets a line a change, and should name the channel; nil discards.
	Log *slog.Logger
	// Transport takes the place of HTTPS, in tests.
	Transport http.RoundTripper
}

func (o Options) now() time.Time {
	if o.Now == nil {
		return time.Now()
	}
	return o.Now()
}

// Courier carries messages to the far end of a link and back, as far as they get: it
// may lose, repeat, reorder and invent them.
type Courier interface {
	// Send sends a message of at most MaxMessage octets.
	Send(message []byte) error
	// Receive is where messages come in. It is the same each time, and is not closed.
	Receive() <-chan []byte
}

// Channel is a key service as a distribution channel.
type Channel struct {
	opts    Options
	service Service
	log     *slog.Logger

	mu    sync.Mutex
	links map[string]*link
}

var _ keys.Channel = (*Channel)(nil)

// link is what outlives the watchers of a link.
type link struct {
	courier  Courier
	attached chan struct{} // closed and replaced when the courier is another
	watchers chan struct{} // held by the one that watches
	cancel   context.CancelFunc
	lapse    *time.Timer

	exchange *exchange // the watcher's
}

// New makes the channel of a service.
func New(service Service, o Options) (*Channel, error) {
	switch {
	case o.Node == "" || o.Nodes == nil:
		return nil, errors.New("a key service needs to know this node's name, and the nodes of each link")
	case o.Epoch < time.Minute || o.Epoch%time.Minute != 0:
		return nil, fmt.Errorf("a key service with epochs of %v: they are whole minutes, at least one", o.Epoch)
	case o.Side > keys.B:
		return nil, errors.New("a key service is channel a or b")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Channel{opts: o, service: service, log: o.Log.With("type", service.Kind()), links: map[string]*link{}}, nil
}

// Kind implements keys.Channel.
func (c *Channel) Kind() string { return c.service.Kind() }

// Where implements keys.Channel: the service's URL.
func (c *Channel) Where(string) string { return c.service.Where() }

// Attach gives the channel what carries messages on a link from now on. It may come
// before Watch, after it, and again.
func (c *Channel) Attach(id string, courier Courier) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link(id).attach(courier)
}

// Detach takes a courier away, unless another has taken its place meanwhile.
func (c *Channel) Detach(id string, courier Courier) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.link(id); l.courier == courier {
		l.attach(nil)
	}
}

// attach changes the courier; the channel's mu is held.
func (l *link) attach(courier Courier) {
	l.courier = courier
	close(l.attached)
	l.attached = make(chan struct{})
}

// link is a link's place; c.mu is held.
func (c *Channel) link(id string) *link {
	l := c.links[id]
	if l == nil {
		l = &link{attached: make(chan struct{}), watchers: make(chan struct{}, 1)}
		c.links[id] = l
	}
	return l
}

// far is the far node of a link.
func (c *Channel) far(id string) (string, error) {
	nodes := c.opts.Nodes(id)
	if len(nodes) != 2 || nodes[0] == nodes[1] || !slices.Contains(nodes, c.opts.Node) {
		return "", fmt.Errorf("a key service gives a key to two nodes, and link %q has %d, of which this one, %s, must be one: use a channel of another type for it", id, len(nodes), c.opts.Node)
	}
	if nodes[0] == c.opts.Node {
		return nodes[1], nil
	}
	return nodes[0], nil
}

// Watch implements keys.Channel. A later Watch of the same link ends an earlier one.
func (c *Channel) Watch(ctx context.Context, id string, deliver func(keys.Snapshot)) error {
	if err := keys.ValidLink(id); err != nil {
		return err
	}
	far, err := c.far(id)
	if err != nil {
		deliver(keys.Snapshot{
			Where: c.service.Where(), Unavailable: true,
			Findings: []keys.Finding{{Code: health.KeyServiceRefused, Detail: err.Error()}},
		})
		<-ctx.Done()
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.Lock()
	l := c.link(id)
	if l.cancel != nil {
		l.cancel()
	}
	l.cancel = cancel
	c.mu.Unlock()
	select {
	case l.watchers <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	defer c.unwatch(id, l)
	c.mu.Lock()
	if l.lapse != nil {
		l.lapse.Stop()
		l.lapse = nil
	}
	c.mu.Unlock()
	if l.exchange == nil || l.exchange.far != far {
		if l.exchange != nil {
			l.exchange.erase()
		}
		l.exchange = newExchange(id, c.opts.Side, c.opts.Node, far, c.opts.Epoch, openLedger(c.opts.StateDir, id, c.opts.Side))
	}
	w := &watch{Channel: c, link: l, exchange: l.exchange, deliver: deliver, log: c.log.With("link", id), results: make(chan result)}
	w.run(ctx)
	return nil
}

// unwatch leaves the link's keys to the next watcher, for a while.
func (c *Channel) unwatch(id string, l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.lapse = time.AfterFunc(lapse, func() { c.forget(id, l) })
	<-l.watchers
}

// forget erases the keys of a link that nobody watches.
func (c *Channel) forget(id string, l *link) {
	select {
	case l.watchers <- struct{}{}:
	default:
		return // somebody does
	}
	defer func() { <-l.watchers }()
	if l.exchange != nil {
		l.exchange.erase()
		l.exchange = nil
	}
	c.log.Info("keys of a link that nobody watches are erased", "link", id)
}

// Close erases the keys of links that nobody watches any more, at once. The channel
// must not be watched afterwards.
func (c *Channel) Close() {
	c.mu.Lock()
	links := maps.Clone(c.links)
	for _, l := range links {
		if l.lapse != nil {
			l.lapse.Stop()
		}
	}
	c.mu.Unlock()
	for id, l := range links {
		c.forget(id, l)
	}
}

// watch is one Watch.
type watch struct {
	*Channel
	link     *link
	exchange *exchange
	deliver  func(keys.Snapshot)
	log      *slog.Logger
	results  chan result
	digest   string
	said     string // the last trouble that was logged
}

// result is what came of a fetch.
type result struct {
	fetch fetch
	id    string
	key   secret.Key
	err   error
}

func (w *watch) run(ctx context.Context) {
	x := w.exchange
	defer func() { x.fetching, x.fetch, x.send = false, nil, nil }()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	x.changed = true
	for {
		now := w.opts.now()
		again := x.tick(now)
		courier, attached := w.courier()
		w.obey(ctx, courier)
		if x.changed {
			w.tell(now)
		}
		// Never at once.
		timer.Reset(max(min(again.Sub(w.opts.now()), lookEvery), time.Millisecond))
		var messages <-chan []byte
		if courier != nil {
			messages = courier.Receive()
		}
		select {
		case <-ctx.Done():
			return
		case <-attached:
			x.hurry(w.opts.now())
		case <-timer.C:
			x.changed = true
		case m := <-messages:
			x.receive(w.opts.now(), m)
		case r := <-w.results:
			w.report(r)
			x.fetched(w.opts.now(), r.fetch, r.id, r.key, r.err)
		}
	}
}

func (w *watch) courier() (Courier, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.link.courier, w.link.attached
}

// obey does what the exchange wants done.
func (w *watch) obey(ctx context.Context, courier Courier) {
	for _, m := range w.exchange.send {
		if courier == nil {
			break
		}
		if err := courier.Send(m); err != nil {
			w.log.Debug("message about a key not sent", "error", err)
		}
	}
	w.exchange.send = nil
	if f := w.exchange.fetch; f != nil {
		w.exchange.fetch = nil
		far := w.exchange.far
		go func() {
			r := w.call(ctx, far, *f)
			select {
			case w.results <- r:
			case <-ctx.Done():
				r.key.Erase()
			}
		}()
	}
}

// call asks the service. An answer that breaks this code must not take the agent
// along.
func (w *watch) call(ctx context.Context, far string, f fetch) (r result) {
	r = result{fetch: f, id: f.id}
	defer func() {
		if p := recover(); p != nil {
			r.err = fmt.Errorf("asking the key service: panic: %v", p)
		}
	}()
	if f.id == "" {
		r.id, r.key, r.err = w.service.New(ctx, far)
	} else {
		r.key, r.err = w.service.Get(ctx, far, f.id)
	}
	switch {
	case r.err != nil:
	case !ValidKeyID(r.id):
		r.key.Erase()
		r.err = Malformed("a key id that has other characters than it may, or is longer than %d", MaxKeyID)
	case r.key.Len() < MinKey || r.key.Len() > MaxKey:
		r.key.Erase()
		r.err = Malformed("a key of %d octets, want %d to %d", r.key.Len(), MinKey, MaxKey)
	}
	return r
}

// report logs what came of a call, troubles once.
func (w *watch) report(r result) {
	switch {
	case r.err == nil:
		w.said = ""
		w.log.Info("key service has given a key", "epoch", r.fetch.epoch.String(), "key_id", r.id)
	case r.err.Error() != w.said:
		w.said = r.err.Error()
		w.log.Warn("key service gives no key", "epoch", r.fetch.epoch.String(), "key_id", r.id, "error", r.err)
	}
}

// tell delivers a snapshot, if it says something new.
func (w *watch) tell(now time.Time) {
	w.exchange.changed = false
	s := w.exchange.snapshot(w.service.Where(), now, w.service.Findings())
	if d := s.Digest(); d != w.digest {
		w.digest = d
		w.deliver(s)
		return
	}
	s.Erase()
}

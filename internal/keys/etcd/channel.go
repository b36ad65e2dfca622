package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
)

// Config is what a node's channel needs to know.
type Config struct {
	// Endpoints are the cluster's members, as https URLs.
	Endpoints []string
	// Prefix is what the names of all keys begin with; empty means DefaultPrefix.
	Prefix string
	// Node is this node's name, which its certificate must have as Common Name.
	Node string
	// Nodes are the names of the nodes on a link, as the inventory has them now, in
	// any order; nil when it does not know the link. Values for other nodes are
	// refused. Without the function a value need only be for this node, among others.
	Nodes func(link string) []string
	// CA, Certificate and Key are paths of PEM files: whom this node trusts, and what
	// it shows. They are read again when they change.
	CA, Certificate, Key string
	// StateFile is where the channel remembers how far the cluster was, over a
	// restart; empty means not at all.
	StateFile string
	// Grace is how long the cluster may be out of reach before that is a fault; 0
	// means three seconds, within which another leader is chosen.
	Grace time.Duration
	// Now is the clock by which certificates and values are judged; nil means
	// time.Now.
	Now func() time.Time
	// Log gets one line when the cluster is lost and one when it is back; nil
	// discards.
	Log *slog.Logger
}

// Channel is a node's part of an etcd cluster as a distribution channel. All links
// share one connection and one watch, which live as long as somebody watches a link.
type Channel struct {
	cfg   Config
	names names
	files files
	// reads limits how many links are read at once.
	reads chan struct{}

	mu      sync.Mutex
	members map[*subscriber]bool
	session *session
	memory  *memory
	// The rest is what the session has found out.
	up bool
	// trouble is set once the cluster was out of reach for longer than the grace.
	trouble []keys.Finding
	// certificate is what is wrong with this node's own.
	certificate []keys.Finding
	// others are endpoints in trouble while the channel as a whole is not.
	others []keys.Finding
	// strange are names beneath the node's prefix that are no epochs, by link.
	strange map[string]map[string]bool
}

var _ keys.Channel = (*Channel)(nil)

// subscriber is one link's interest. A kick means: look again.
type subscriber struct {
	link string
	kick chan struct{}
}

func (s *subscriber) wake() {
	select {
	case s.kick <- struct{}{}:
	default: // One is pending already.
	}
}

// New makes the channel. It neither connects nor reads the certificate files: what
// is wrong with these, or with the cluster, is a finding of each link. An unusable
// state file is logged, and the channel goes on without.
func New(c Config) (*Channel, error) {
	n, err := newNames(c.Prefix)
	if err == nil {
		err = validName("node", c.Node)
	}
	if err == nil {
		err = checkEndpoints(c.Endpoints)
	}
	f := files{c.CA, c.Certificate, c.Key}
	if err == nil {
		err = f.check()
	}
	if err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Grace <= 0 {
		c.Grace = patience
	}
	m, err := openMemory(c.StateFile)
	if err != nil {
		c.Log.Warn("the etcd channel starts without memory", "error", err)
	}
	return &Channel{
		cfg: c, names: n, files: f, memory: m,
		reads:   make(chan struct{}, 16),
		members: make(map[*subscriber]bool),
		strange: make(map[string]map[string]bool),
	}, nil
}

// Kind implements keys.Channel.
func (c *Channel) Kind() string { return "etcd" }

// Where implements keys.Channel: the cluster's endpoints and what the link's keys
// begin with there.
func (c *Channel) Where(link string) string {
	return strings.Join(c.cfg.Endpoints, ",") + " " + c.names.link(c.cfg.Node, link)
}

// join begins a subscription, and with the first one the session.
func (c *Channel) join(link string) (*subscriber, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil {
		s, err := newSession(c)
		if err != nil {
			return nil, err
		}
		c.session = s
		c.up, c.trouble, c.others = false, nil, nil
		c.certificate = c.files.findings(c.cfg.Now())
		s.start()
	}
	s := &subscriber{link: link, kick: make(chan struct{}, 1)}
	c.members[s] = true
	return s, nil
}

// leave ends a subscription, and with the last one the session; it returns only when
// that has ended.
func (c *Channel) leave(s *subscriber) {
	c.mu.Lock()
	delete(c.members, s)
	var last *session
	if len(c.members) == 0 {
		last = c.session
	}
	c.mu.Unlock()
	if last == nil {
		return
	}
	last.end()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != last {
		return
	}
	c.session, c.up = nil, false
	if len(c.members) > 0 { // somebody came meanwhile, to a session that is no more
		if next, err := newSession(c); err == nil {
			c.session = next
			next.start()
		}
	}
}

// wakeAll has every link look again, wake the subscribers of one.
func (c *Channel) wakeAll() {
	for s := range c.members {
		s.wake()
	}
}

func (c *Channel) wake(link string) {
	for s := range c.members {
		if s.link == link {
			s.wake()
		}
	}
}

// view is what is known of a link without reading it.
type view struct {
	up       bool
	session  *session
	trouble  []keys.Finding
	findings []keys.Finding
	// have are the epochs that the cluster had at last, or has lost.
	have map[keys.Epoch]bool
	// revision is up to where have is known.
	revision int64
}

func (c *Channel) view(link string) view {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := view{up: c.up, session: c.session, trouble: c.trouble, have: make(map[keys.Epoch]bool), revision: c.memory.revision}
	for _, from := range []map[keys.Epoch]bool{c.memory.seen[link], c.memory.lost[link]} {
		for e := range from {
			v.have[e] = true
		}
	}
	v.findings = slices.Concat(c.certificate, c.others)
	if detail := c.memory.problem(link); detail != "" {
		v.findings = append(v.findings, keys.Finding{Code: health.EtcdRolledBack, Detail: detail})
	}
	for name := range c.strange[link] {
		v.findings = append(v.findings, keys.Finding{Code: health.EtcdValueMalformed, File: fileName(name), Detail: errName.Error()})
	}
	return v
}

// fileName is what a key of the cluster is called in findings.
func fileName(name string) string {
	if len(name) > 2*MaxValue {
		name = name[:2*MaxValue]
	}
	return "etcd:" + strings.ToValidUTF8(name, "?")
}

// Watch implements keys.Channel. A new or a deleted value is delivered as soon as
// the cluster tells of it.
func (c *Channel) Watch(ctx context.Context, link string, deliver func(keys.Snapshot)) error {
	if err := validName("link", link); err != nil {
		return err
	}
	s, err := c.join(link)
	if err != nil {
		return fmt.Errorf("watching link %q: %w", link, err)
	}
	defer c.leave(s)
	w := watcher{c: c, link: link, deliver: deliver}
	for {
		again := w.look(ctx)
		timer := time.NewTimer(again)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.kick:
			timer.Stop()
		case <-timer.C:
		}
	}
}

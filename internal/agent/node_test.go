//go:build !kernel

package agent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
	"github.com/lever-link/lever/mka"
)

// channel is a keys.Channel in memory.
type channel struct {
	side keys.Side

	mu      sync.Mutex
	held    map[keys.Epoch][]byte
	away    bool // it cannot be asked
	changed chan struct{}
}

func newChannel(side keys.Side) *channel {
	return &channel{side: side, held: map[keys.Epoch][]byte{}, changed: make(chan struct{})}
}

// Kind implements keys.Channel.
func (*channel) Kind() string { return "memory" }

// Where implements keys.Channel.
func (c *channel) Where(link string) string { return "channel " + c.side.String() + " of " + link }

// Watch implements keys.Channel.
func (c *channel) Watch(ctx context.Context, link string, deliver func(keys.Snapshot)) error {
	for {
		c.mu.Lock()
		s, changed := keys.NewSnapshot(c.Where(link), c.held), c.changed
		if c.away {
			s = keys.Snapshot{Where: c.Where(link), Unavailable: true}
		}
		c.mu.Unlock()
		deliver(s)
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// cut takes the channel away, or gives it back.
func (c *channel) cut(away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = away
	close(c.changed)
	c.changed = make(chan struct{})
}

// put delivers material for an epoch; nil revokes it.
func (c *channel) put(e keys.Epoch, material []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if material == nil {
		delete(c.held, e)
	} else {
		c.held[e] = material
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// octets is material of an epoch: the same at every node, another per channel.
func octets(e keys.Epoch, side keys.Side) []byte {
	return []byte(strings.Repeat(fmt.Sprintf("material %s of %s|", e, side), 8)[:64])
}

func epoch(t testing.TB, s string) keys.Epoch {
	t.Helper()
	e, err := keys.ParseEpoch(s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// node is one end of the link l1 with the agent that runs there.
type node struct {
	*machine
	t        testing.TB
	port     *port
	link     inventory.NodeLink
	policy   inventory.Policy
	channels [2]*channel
	runDir   string
	stateDir string
	log      *record
	life     *life        // what the agent may do before it dies; nil: everything
	skew     atomic.Int64 // by how much the node's wall clock is ahead
	override func() (keys.Override, error)
	// service makes channel b anew with each agent, instead of channels[1].
	service func() keys.Channel

	server *server // of the agent that runs, or ran last
	stop   func()
}

// record is the log of a whole test.
type record struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(b)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

// pair are the two ends of a link and the wire between them. What must hold in
// every test is checked when it ends: no nonce twice, no secret in anything
// that was logged, published or left in the run directory.
type pair struct {
	*wire
	r1, r2 *node
}

// memoryDir is a directory in memory where there is one, as the run directory is: the
// tests write it a hundred thousand times.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "lever-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{wire: &wire{}}
	ends := []inventory.End{{Node: "r1", Interface: "eth4", Secure: "eth4-sec"}, {Node: "r2", Interface: "eth9", Secure: "eth9-sec"}}
	l := &inventory.Link{
		ID: "l1", Ends: ends, MKA: inventory.DefaultMKA(),
		Verdict: inventory.Verdict{Kind: inventory.Encrypt, Reason: "it crosses a leased wave"},
	}
	var nonces macsectest.NonceLog
	log := &record{}
	for i := range ends {
		n := &node{
			machine: newMachine(t, ends[i].Node), t: t, link: inventory.NodeLink{Link: l, Local: ends[i], Remote: ends[1-i : 2-i]},
			channels: [2]*channel{newChannel(keys.A), newChannel(keys.B)}, runDir: memoryDir(t), stateDir: t.TempDir(), log: log,
			policy: inventory.Policy{Mode: inventory.Enforce, SAKRekey: time.Hour},
		}
		if err := os.Mkdir(filepath.Join(n.runDir, linksDir), 0o700); err != nil {
			t.Fatal(err)
		}
		n.kernel.ShareNonces(&nonces)
		n.port = n.plug(ends[i].Interface, p.wire, mka.MAC{2, 0, 0, 0, 0, byte(i + 1)})
		if i == 0 {
			p.r1 = n
		} else {
			p.r2 = n
		}
	}
	t.Cleanup(func() {
		p.halt()
		for _, n := range nonces.Reused() {
			t.Errorf("used twice: %s", n)
		}
		p.checkSecrets(t)
		if t.Failed() {
			t.Logf("log:\n%s", log)
		}
	})
	return p
}

// change alters the link in both ends' inventories, before they start.
func (p *pair) change(change func(*inventory.Link)) {
	l := *p.r1.link.Link
	change(&l)
	p.r1.link.Link, p.r2.link.Link = &l, &l
}

func (p *pair) nodes() []*node { return []*node{p.r1, p.r2} }

// deliver puts an epoch into both channels of both ends.
func (p *pair) deliver(e keys.Epoch) {
	for _, n := range p.nodes() {
		for side, c := range n.channels {
			c.put(e, octets(e, keys.Side(side)))
		}
	}
}

// start starts an agent at both ends.
func (p *pair) start() {
	for _, n := range p.nodes() {
		n.start()
	}
}

func (p *pair) halt() {
	for _, n := range p.nodes() {
		n.halt()
	}
}

// secured waits until both ends say so, and nothing is amiss.
func (p *pair) secured(within time.Duration) {
	p.r1.t.Helper()
	for _, n := range p.nodes() {
		n.await(within, "secured without a fault", func(s LinkStatus) bool { return s.State == StateSecured && len(s.Faults) == 0 })
	}
}

// newSecuredPair is a link that carries traffic.
func newSecuredPair(t *testing.T) *pair {
	t.Helper()
	p := newPair(t)
	p.deliver(epoch(t, "1.0"))
	p.start()
	p.secured(time.Second)
	return p
}

// start starts an agent as Run does, but for the control socket.
func (n *node) start(links ...inventory.NodeLink) {
	ctx, cancel := context.WithCancel(n.t.Context())
	g, ctx := errgroup.WithContext(ctx)
	opts := Options{Node: n.name, RunDir: n.runDir, StateDir: n.stateDir}
	opts.Log = slog.New(slog.NewTextHandler(n.log, nil)).With("at", n.name)
	if n.override != nil {
		opts.Override = func(inventory.AgeOverride, string, time.Time) (keys.Override, error) { return n.override() }
	}
	on, kernel := n.platform(), macsec.Kernel(n.kernel)
	if n.life != nil {
		on, kernel = n.life.around(on, kernel)
	}
	n.server = newServer(opts, on, kernel, n.links)
	n.server.wall = func() time.Time { return time.Now().Add(time.Duration(n.skew.Load())) }
	n.server.open = func(*inventory.Inventory, *slog.Logger) [2]keys.Channel {
		if n.service != nil {
			return [2]keys.Channel{n.channels[0], n.service()}
		}
		return [2]keys.Channel{n.channels[0], n.channels[1]}
	}
	n.server.start(ctx, g, &inventory.Inventory{Policy: n.policy}, append(links, n.link))
	n.stop = func() {
		cancel()
		if err := g.Wait(); err != nil {
			n.t.Errorf("%s: %v", n.name, err)
		}
	}
}

// halt ends the agent, which leaves everything standing.
func (n *node) halt() {
	if n.stop != nil {
		n.stop()
		n.stop = nil
	}
}

func (n *node) status() LinkStatus {
	synctest.Wait()
	st, _ := n.server.snapshot()
	return st.Links[slices.IndexFunc(st.Links, func(l LinkStatus) bool { return l.ID == n.link.ID })]
}

// await lets time pass until the status is as wanted, and returns it.
func (n *node) await(within time.Duration, what string, ok func(LinkStatus) bool) LinkStatus {
	n.t.Helper()
	late := time.NewTimer(within)
	defer late.Stop()
	for {
		synctest.Wait()
		all, changed := n.server.snapshot()
		st := all.Links[len(all.Links)-1]
		if ok(st) {
			return st
		}
		select {
		case <-changed:
		case <-late.C:
			n.t.Fatalf("%s: not %s within %v: %+v", n.name, what, within, st)
		}
	}
}

func (n *node) awaitFault(within time.Duration, code health.Code) health.Fault {
	n.t.Helper()
	st := n.await(within, "showing "+string(code), func(s LinkStatus) bool { return has(s, code) })
	return st.Faults[slices.IndexFunc(st.Faults, func(f health.Fault) bool { return f.Code == code })]
}

func (n *node) awaitState(within time.Duration, want State) LinkStatus {
	n.t.Helper()
	return n.await(within, string(want), func(s LinkStatus) bool { return s.State == want })
}

func has(s LinkStatus, code health.Code) bool {
	return slices.ContainsFunc(s.Faults, func(f health.Fault) bool { return f.Code == code })
}

// ask is a verb as the control socket passes it on.
func (n *node) ask(verb string) error {
	return n.server.ask(n.t.Context(), command{Verb: verb, Link: n.link.ID})
}

func (n *node) device() *macsec.SecY {
	n.t.Helper()
	d, err := n.kernel.Device(n.link.Local.Secure)
	if err != nil {
		n.t.Fatal(err)
	}
	s, err := n.kernel.SecY(d.Index)
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

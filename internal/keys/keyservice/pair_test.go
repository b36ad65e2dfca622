package keyservice_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/etsi014"
	"github.com/lever-link/lever/internal/keys/keyservice"
	"github.com/lever-link/lever/internal/keys/keyservice/kmetest"
	"github.com/lever-link/lever/internal/keys/skip"
)

const testLink = "fra1-ams1-017"

// wire is the link between two couriers.
type wire struct {
	mu    sync.Mutex
	rand  *rand.Rand
	ends  [2]*courier
	loss  float64 // of each message
	twice float64
	late  time.Duration // the longest way, so that messages overtake each other
	cut   bool
	// tap, if set, sees each message that is sent and says whether it goes on.
	tap func(from int, m keyservice.Message) bool
}

// courier is one end of it.
type courier struct {
	wire *wire
	end  int
	in   chan []byte
}

var _ keyservice.Courier = (*courier)(nil)

// Send implements keyservice.Courier.
func (c *courier) Send(b []byte) error {
	m, err := keyservice.Decode(b)
	if err != nil {
		return fmt.Errorf("sent: %w", err)
	}
	w := c.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tap != nil && !w.tap(c.end, m) || w.cut {
		return nil
	}
	for n := 1; n > 0; n-- {
		if w.rand.Float64() < w.twice {
			n++
		}
		if w.rand.Float64() >= w.loss {
			w.carry(1-c.end, b)
		}
	}
	return nil
}

// Receive implements keyservice.Courier.
func (c *courier) Receive() <-chan []byte { return c.in }

// carry brings octets to an end.
func (w *wire) carry(to int, b []byte) {
	in, after := w.ends[to].in, time.Millisecond
	if w.late > 0 {
		after += time.Duration(w.rand.Int64N(int64(w.late)))
	}
	time.AfterFunc(after, func() {
		select {
		case in <- slices.Clone(b):
		default:
		}
	})
}

// inject is what somebody on the link writes.
func (w *wire) inject(to int, m keyservice.Message) {
	m.Link = keyservice.HashLink(testLink)
	if b, err := m.Encode(); err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.carry(to, b)
	}
}

// end is one node of the link, with its entity.
type end struct {
	t     *testing.T
	index int
	name  string
	kme   *kmetest.KME
	wire  *wire
	opts  keyservice.Options
	make  func(keyservice.Options) (*keyservice.Channel, error)

	channel *keyservice.Channel
	stop    func()

	mu          sync.Mutex
	last        keys.Snapshot
	fingerprint map[keys.Epoch]keys.Fingerprint // of all that was ever delivered
}

// pair are the two ends of a link; r1 asks.
type pair struct {
	*wire
	t      *testing.T
	r1, r2 *end
}

const epochLength = 10 * time.Minute

func newPair(t *testing.T, open func(keyservice.Options) (*keyservice.Channel, error)) *pair {
	t.Helper()
	w := &wire{rand: rand.New(rand.NewPCG(1, 2))}
	network := kmetest.NewNetwork()
	p := &pair{wire: w, t: t}
	for i, name := range []string{"r1", "r2"} {
		w.ends[i] = &courier{wire: w, end: i, in: newQueue()}
		e := &end{t: t, index: i, name: name, kme: network.KME(name), wire: w, make: open, fingerprint: map[keys.Epoch]keys.Fingerprint{}}
		e.opts = keyservice.Options{
			Side: keys.B, Node: name, Nodes: func(string) []string { return []string{"r2", "r1"} }, Epoch: epochLength,
			URL: "https://kme.example", StateDir: t.TempDir(), Transport: e.kme,
		}
		if i == 0 {
			p.r1 = e
		} else {
			p.r2 = e
		}
	}
	t.Cleanup(func() {
		p.r1.halt()
		p.r2.halt()
		p.agree()
	})
	return p
}

func newQueue() chan []byte { return make(chan []byte, 64) }

func (p *pair) start() {
	p.r1.start()
	p.r2.start()
}

// start starts an agent, with nothing in memory.
func (e *end) start() {
	c, err := e.make(e.opts)
	if err != nil {
		e.t.Fatal(err)
	}
	e.channel = c
	e.wire.mu.Lock()
	e.wire.ends[e.index] = &courier{wire: e.wire, end: e.index, in: newQueue()}
	c.Attach(testLink, e.wire.ends[e.index])
	e.wire.mu.Unlock()
	e.watch()
}

func (e *end) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := e.channel.Watch(ctx, testLink, e.deliver); err != nil {
			e.t.Errorf("%s: %v", e.name, err)
		}
	}()
	e.stop = func() {
		cancel()
		<-done
	}
}

// deliver keeps what a Ring would, and holds what must hold of each snapshot.
func (e *end) deliver(s keys.Snapshot) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for epoch, m := range s.Keys {
		fingerprint := m.Fingerprint()
		if was, ok := e.fingerprint[epoch]; ok && was != fingerprint {
			e.t.Errorf("%s: the material of %s has changed", e.name, epoch)
		}
		e.fingerprint[epoch] = fingerprint
	}
	if !s.Unavailable && !e.last.Unavailable {
		for epoch := range e.last.Keys {
			if _, ok := s.Keys[epoch]; !ok && !s.Present[epoch] {
				e.t.Errorf("%s: %s is revoked", e.name, epoch)
			}
		}
	}
	ahead := map[uint64]bool{}
	for epoch := range s.Keys {
		if epoch.Start().After(time.Now()) {
			ahead[epoch.Number] = true
		}
	}
	if len(ahead) > keys.MaxPrefetch {
		e.t.Errorf("%s: %d epochs that have not started", e.name, len(ahead))
	}
	e.last = s
}

// halt ends the agent, and with it all keys.
func (e *end) halt() {
	if e.stop != nil {
		e.stop()
		e.channel.Close()
		e.stop = nil
	}
}

func (e *end) restart() {
	e.halt()
	e.mu.Lock()
	e.last = keys.Snapshot{Unavailable: true}
	e.mu.Unlock()
	e.start()
}

// newest is the newest epoch of which there is a key.
func (e *end) newest() keys.Epoch {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	var n keys.Epoch
	for epoch := range e.last.Keys {
		if n.Less(epoch) {
			n = epoch
		}
	}
	return n
}

func (e *end) material(epoch keys.Epoch) keys.Material {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last.Keys[epoch]
}

func (e *end) finding(code health.Code) (keys.Finding, bool) {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range e.last.Findings {
		if f.Code == code {
			return f, true
		}
	}
	return keys.Finding{}, false
}

// await lets time pass until ok.
func (p *pair) await(within time.Duration, what string, ok func() bool) {
	p.t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("not %s within %v: r1 has %s and %v, r2 has %s and %v", what, within, p.r1.newest(), p.r1.last.Findings, p.r2.newest(), p.r2.last.Findings)
		}
	}
}

// same waits until both ends have the same key as their newest, which is of this
// number.
func (p *pair) same(within time.Duration, number uint64) keys.Epoch {
	p.t.Helper()
	p.await(within, fmt.Sprintf("agreed on %d", number), func() bool {
		a, b := p.r1.newest(), p.r2.newest()
		return a == b && a.Number == number
	})
	e := p.r1.newest()
	a, b := p.r1.material(e), p.r2.material(e)
	if a.KeyID != b.KeyID || !a.Key.Equal(b.Key) || a.Key.Len() != 32 || a.Key.IsZero() {
		p.t.Errorf("%s is %q at r1 and %q at r2, and the keys equal: %t", e, a.KeyID, b.KeyID, a.Key.Equal(b.Key))
	}
	return e
}

// agree holds both ends to one key an epoch, over the whole test.
func (p *pair) agree() {
	for e, a := range p.r1.fingerprint {
		if b, ok := p.r2.fingerprint[e]; ok && a != b {
			p.t.Errorf("the ends had different keys for %s", e)
		}
	}
}

func now() uint64 { return keys.ScheduledEpoch(time.Now(), epochLength).Number }

var protocols = []struct {
	name string
	open func(keyservice.Options) (*keyservice.Channel, error)
}{{"etsi014", etsi014.New}, {"skip", skip.New}}

// inTime runs a test of a pair in virtual time, with each protocol.
func inTime(t *testing.T, test func(t *testing.T, p *pair)) {
	for _, protocol := range protocols {
		t.Run(protocol.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, newPair(t, protocol.open)) })
		})
	}
}

//go:build !kernel

package agent

import (
	"bytes"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/etsi014"
	"github.com/lever-link/lever/internal/keys/keyservice"
	"github.com/lever-link/lever/internal/keys/keyservice/kmetest"
	"github.com/lever-link/lever/internal/pae"
	"github.com/lever-link/lever/mka"
)

// memoryAnnouncer is a pae.Announcements in memory, with as much room.
type memoryAnnouncer struct {
	machine *machine
	port    *port
	source  mka.MAC
	in      chan []byte
	closed  chan struct{}
	once    sync.Once
}

var _ announcer = (*memoryAnnouncer)(nil)

func (m *machine) openAnnouncements(index int, source mka.MAC) (a announcer, err error) {
	err = m.on("open announcements", index, func(p *port) error {
		o := &memoryAnnouncer{machine: m, port: p, source: source, in: make(chan []byte, 10), closed: make(chan struct{})}
		p.wire.mu.Lock()
		defer p.wire.mu.Unlock()
		p.wire.announcers = append(p.wire.announcers, o)
		a = o
		return nil
	})
	return a, err
}

// Read implements announcer.
func (a *memoryAnnouncer) Read(b *pae.Batch) error {
	b.Reset()
	select {
	case f := <-a.in:
		b.Add(f)
		return nil
	case <-a.closed:
		return net.ErrClosed
	}
}

// Send implements announcer.
func (a *memoryAnnouncer) Send(message []byte) error {
	f, err := pae.Announcement(a.source, message)
	if err != nil {
		return err
	}
	a.machine.mu.Lock()
	up := a.port.up && a.port.running
	a.machine.mu.Unlock()
	if !up {
		return pae.ErrDown
	}
	a.port.wire.announce(a, f)
	return nil
}

// announce brings a frame to all sockets but one, and to those of MKA, which must not
// take it.
func (w *wire) announce(from *memoryAnnouncer, frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.announced++
	if w.cut {
		return
	}
	for _, a := range w.announcers {
		if a != from {
			select {
			case a.in <- slices.Clone(frame):
			default: // a full socket buffer drops
			}
		}
	}
	for _, s := range w.sockets {
		s.deliver(frame)
	}
}

// Close implements announcer.
func (a *memoryAnnouncer) Close() error {
	a.once.Do(func() {
		close(a.closed)
		w := a.port.wire
		w.mu.Lock()
		defer w.mu.Unlock()
		w.announcers = slices.DeleteFunc(w.announcers, func(o *memoryAnnouncer) bool { return o == a })
	})
	return nil
}

const serviceEpoch = 10 * time.Minute

// newServicePair is a link whose channel b is a key service.
func newServicePair(t *testing.T) (*pair, map[*node]*kmetest.KME) {
	t.Helper()
	p, network, kmes := newPair(t), kmetest.NewNetwork(), map[*node]*kmetest.KME{}
	for _, n := range p.nodes() {
		kme := network.KME(n.name)
		kmes[n] = kme
		n.policy.CAKEpoch = serviceEpoch
		n.service = func() keys.Channel {
			c, err := etsi014.New(keyservice.Options{
				Side: keys.B, Node: n.name, Nodes: func(string) []string { return []string{"r1", "r2"} }, Epoch: serviceEpoch,
				URL: "https://kme.example", StateDir: n.stateDir, Transport: kme,
			})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
	}
	return p, kmes
}

// issueA puts the epoch of a time into channel a, which is no service.
func (p *pair) issueA(at time.Time) keys.Epoch {
	e := keys.ScheduledEpoch(at, serviceEpoch)
	for _, n := range p.nodes() {
		n.channels[keys.A].put(e, octets(e, keys.A))
	}
	return e
}

// TestKeyService secures a link with a key that the ends had to tell each other the id
// of, over some epochs and restarts, and after a session that was set up anew.
func TestKeyService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, kmes := newServicePair(t)
		p.issueA(time.Now())
		p.start()
		p.secured(10 * time.Second)
		for range 3 {
			next := p.issueA(time.Now().Add(serviceEpoch))
			time.Sleep(time.Until(next.Start().Add(10 * time.Second)))
			p.secured(10 * time.Second)
			for _, n := range p.nodes() {
				if got := n.status().Epoch; got != next.String() {
					t.Errorf("%s is on epoch %s, want %s", n.name, got, next)
				}
			}
		}
		if n := kmes[p.r1].Requests("new"); n != 4 {
			t.Errorf("four epochs cost %d keys", n)
		}

		// A session that is set up anew keeps its keys.
		before := kmes[p.r1].Requests("new")
		p.r1.unplug(p.r1.port)
		p.r1.awaitState(10*time.Second, StateFailed)
		p.r1.port = p.r1.plug(p.r1.link.Local.Interface, p.wire, mka.MAC{2, 0, 0, 0, 0, 1})
		p.secured(30 * time.Second)
		if n := kmes[p.r1].Requests("new"); n != before {
			t.Errorf("another session cost %d keys", n-before)
		}

		// An agent that is restarted does not.
		for _, n := range p.nodes() {
			n.halt()
			time.Sleep(time.Second)
			n.start()
			p.secured(time.Minute)
			time.Sleep(time.Minute)
		}
	})
}

// TestKeyServiceIsAway says what a service says, at the link.
func TestKeyServiceIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, kmes := newServicePair(t)
		kmes[p.r1].Set(kmetest.Faults{Empty: true})
		p.issueA(time.Now())
		p.start()
		f := p.r1.awaitFault(10*time.Second, health.KeyServiceRefused)
		if !strings.Contains(f.Text, "at https://kme.example gives no key: status 503 (Service Unavailable): no key is available") {
			t.Errorf("%s", f)
		}
		kmes[p.r1].Set(kmetest.Faults{})
		p.secured(time.Minute)
	})
}

// TestFloodOfAnnouncements has somebody write announcements as fast as he can. The link
// stays as it is, and gets its next key; what its channels send is bounded.
func TestFloodOfAnnouncements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := newServicePair(t)
		p.issueA(time.Now())
		p.start()
		p.secured(10 * time.Second)
		next := p.issueA(time.Now().Add(serviceEpoch))
		time.Sleep(time.Until(next.Start().Add(-2 * time.Minute)))
		p.mu.Lock()
		p.announced = 0
		p.mu.Unlock()
		flood := 0
		for i := 0; time.Now().Before(next.Start().Add(time.Minute)); i++ {
			m := keyservice.Message{Kind: keyservice.Kind(1 + i%3), Link: keyservice.HashLink("l1"), Side: keys.B, Epoch: next, KeyID: "bogus"}
			b, err := m.Encode()
			if i%2 > 0 || err != nil {
				b = bytes.Repeat([]byte{'x'}, pae.MaxAnnouncement)
			}
			f, err := pae.Announcement([6]byte{2, 6, 6, 6, 6, 6}, b)
			if err != nil {
				t.Fatal(err)
			}
			p.announce(nil, f)
			flood++
			time.Sleep(5 * time.Millisecond)
		}
		p.secured(10 * time.Second)
		for _, n := range p.nodes() {
			// Under which generation is up to the flood.
			if got := epoch(t, n.status().Epoch); got.Number != next.Number {
				t.Errorf("%s is on epoch %s, want %s", n.name, got, next)
			}
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if sent := p.announced - flood; sent > 3*60*10*2 {
			t.Errorf("%d announcements were sent in three minutes", sent)
		}
	})
}

// TestCourier holds the rates, and that a task that was left behind sends nothing and
// takes no courier away that is another's.
func TestCourier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		on := &memoryAnnouncer{machine: &machine{}, port: &port{parent: parent{up: true, running: true}, wire: &wire{}}, closed: make(chan struct{})}
		l := &lease{}
		c := &courier{on: &leasedAnnouncer{on, l}, mu: &sync.Mutex{}, budget: &time.Time{}}
		sent := 0
		for range 100 * 60 {
			if c.Send([]byte{1}) == nil {
				sent++
			}
			time.Sleep(10 * time.Millisecond)
		}
		if want := 60*10 + announceBurst; sent < want-2 || sent > want+2 || on.port.wire.announced != sent {
			t.Errorf("%d announcements a minute, %d arrived; want about %d", sent, on.port.wire.announced, want)
		}
		time.Sleep(time.Minute)
		l.end()
		if err := c.Send([]byte{1}); err == nil {
			t.Error("sent after the lease has ended")
		}
	})
}

// TestChannelsWithoutAFarEnd have no socket for announcements.
func TestChannelsWithoutAFarEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.announcers) > 0 {
			t.Errorf("%d sockets", len(p.announcers))
		}
	})
}

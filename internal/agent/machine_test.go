//go:build !kernel

package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/internal/pae"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
	"github.com/lever-link/lever/mka"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// machine is what an agent runs on, in memory: a kernel with MACsec, Ethernet
// interfaces on wires, their fences, and the sockets of MKA. It outlives the
// agents that a test starts and kills on it. Whatever is done to it goes into
// one journal, so that a test can hold the order over all of its parts.
type machine struct {
	t      testing.TB
	name   string
	kernel *macsectest.Kernel
	links  *linkEvents
	alias  map[int]string

	mu      sync.Mutex
	ports   []*port
	journal []string
	fail    map[string]error // by what the platform is asked for
	asked   map[string]int   // how often
}

// port is an Ethernet interface.
type port struct {
	parent
	wire      *wire
	fenced    bool
	counting  bool   // the fence, in mode monitor
	plain     uint64 // what the fence has counted
	foreign   []fence.Finding
	addresses map[int][]netip.Prefix
	sockets   []*socket
}

func newMachine(t testing.TB, name string) *machine {
	m := &machine{t: t, name: name, kernel: macsectest.New(), links: &linkEvents{}, alias: map[int]string{}, fail: map[string]error{}, asked: map[string]int{}}
	m.kernel.After(func(o macsectest.Operation) error {
		m.note("%s", o)
		if o.Op == macsec.OpUpdateDevice && o.DeviceUpdate.Up != nil && *o.DeviceUpdate.Up {
			m.carries(o.Index)
		}
		return nil
	})
	return m
}

// carries holds promise 1 at the moment at which traffic becomes possible.
func (m *machine) carries(device int) {
	s, err := m.kernel.SecY(device)
	if err != nil {
		m.t.Errorf("%s: %v", m.name, err)
		return
	}
	if sa := s.TxSC.SA(s.EncodingAN); sa == nil || !sa.Active || !s.Encrypt || !s.Protect || s.Validate != macsec.Strict {
		m.t.Errorf("%s: %s is set up before it can encrypt: %+v", m.name, s.Name, s)
	}
}

func (m *machine) note(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.journal = append(m.journal, fmt.Sprintf(format, args...))
}

// noted returns the journal since the last call.
func (m *machine) noted() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.journal
	m.journal = nil
	return j
}

// plug adds an Ethernet interface that is up and has a carrier.
func (m *machine) plug(name string, w *wire, mac mka.MAC) *port {
	p := &port{wire: w, addresses: map[int][]netip.Prefix{}}
	p.parent = parent{
		index: m.kernel.AddInterface(name, net.HardwareAddr(mac[:]), 1500), name: name, address: mac, mtu: 1500, up: true, running: true,
	}
	m.mu.Lock()
	m.ports = append(m.ports, p)
	m.mu.Unlock()
	m.links.signal(0)
	return p
}

// unplug removes an interface and with it, as the kernel does, what sits on it.
func (m *machine) unplug(p *port) {
	m.kernel.RemoveInterface(p.index)
	m.mu.Lock()
	m.ports = slices.DeleteFunc(m.ports, func(o *port) bool { return o == p })
	for _, s := range p.sockets {
		s.tell(pae.ErrGone)
	}
	m.mu.Unlock()
	m.links.signal(0)
}

// change alters an interface as an operator or a cable does.
func (m *machine) change(p *port, change func(*port)) {
	m.mu.Lock()
	wasUp := p.up
	change(p)
	if wasUp && !p.up {
		for _, s := range p.sockets {
			s.tell(pae.ErrDown)
		}
	}
	m.mu.Unlock()
	m.links.signal(0)
}

// now is the state of the machine's first interface.
func (m *machine) now() port {
	m.mu.Lock()
	defer m.mu.Unlock()
	return *m.ports[0]
}

// failing makes what the platform is asked for fail; nil ends that.
func (m *machine) failing(what string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail[what] = err
}

// on calls do with the interface of an index, unless what is to fail.
func (m *machine) on(what string, index int, do func(*port) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked[what]++
	if err := m.fail[what]; err != nil {
		return err
	}
	for _, p := range m.ports {
		if p.index == index {
			return do(p)
		}
	}
	return fmt.Errorf("%s: no interface %d", what, index)
}

func (m *machine) platform() platform {
	return platform{
		files:             osFiles,
		openAnnouncements: m.openAnnouncements,
		alias: func(index int) (string, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.alias[index], m.fail["alias"]
		},
		setAlias: func(index int, text string) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			if err := m.fail["set alias"]; err != nil {
				return err
			}
			m.alias[index] = text
			return nil
		},
		findParent: func(name string) (parent, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if err := m.fail["find parent"]; err != nil {
				return parent{}, err
			}
			for _, p := range m.ports {
				if p.name == name {
					return p.parent, nil
				}
			}
			return parent{}, &missingError{name}
		},
		findIndex: func(index int) (q parent, err error) {
			err = m.on("find", index, func(p *port) error { q = p.parent; return nil })
			return q, err
		},
		setMTU: func(index, mtu int) error {
			m.kernel.SetMTU(index, mtu)
			return nil
		},
		rename: func(index int, _ bool, name string) error {
			m.kernel.Rename(index, name)
			return nil
		},
		interfaceName: func(index int) string {
			name := fmt.Sprintf("interface %d", index)
			_ = m.on("name", index, func(p *port) error { name = p.name; return nil })
			return name
		},
		setUp: func(index int, up bool) error {
			return m.on("set up", index, func(p *port) error {
				p.up, p.running = up, up
				m.journal = append(m.journal, fmt.Sprintf("%s up=%t", p.name, up))
				return nil
			})
		},
		ensureAddresses: func(index int, prefixes []netip.Prefix) (added []netip.Prefix, err error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, p := range prefixes {
				if has := m.ports[0].addresses; !slices.Contains(has[index], p) {
					has[index] = append(has[index], p)
					added = append(added, p)
				}
			}
			return added, m.fail["addresses"]
		},
		closeFence: func(index int, o fence.Options) (done []fence.Change, err error) {
			err = m.on("close fence", index, func(p *port) error {
				if p.fenced == !o.Monitor && p.counting == o.Monitor {
					return nil
				}
				p.fenced, p.counting = !o.Monitor, o.Monitor
				done = []fence.Change{{Direction: fence.Egress, Priority: 5, Text: "gate put in place"}}
				if o.Monitor {
					m.journal = append(m.journal, "fence counts on "+p.name)
					return nil
				}
				m.journal = append(m.journal, fmt.Sprintf("fence closed on %s but for %04X", p.name, o.EtherType))
				return nil
			})
			return done, err
		},
		inspectFence: func(index int, o fence.Options) (s fence.State, err error) {
			err = m.on("inspect fence", index, func(p *port) error {
				s.InPlace = p.fenced != o.Monitor && p.counting == o.Monitor && len(p.foreign) == 0
				s.Closed, s.Findings = p.fenced && !o.Monitor, p.foreign
				s.DroppedEgress.Frames, s.DroppedIngress.Frames = p.plain, 2*p.plain
				if !p.fenced && !p.counting {
					s.Findings = append(slices.Clone(s.Findings), fence.Finding{Direction: fence.Egress, Problem: fence.Missing, Priority: 1, Text: "drop all else", Leak: true})
				}
				return nil
			})
			return s, err
		},
		openFence: func(index int) error {
			return m.on("open fence", index, func(p *port) error {
				p.fenced, p.counting = false, false
				m.journal = append(m.journal, "fence opened on "+p.name)
				return nil
			})
		},
		openMKA: func(index int, o pae.Options) (c mkaConn, err error) {
			err = m.on("open MKA", index, func(p *port) error {
				s := newSocket(m, p, o)
				p.sockets = append(p.sockets, s)
				p.wire.attach(s)
				m.journal = append(m.journal, "MKA on "+p.name)
				c = s
				return nil
			})
			return c, err
		},
	}
}

// travel is how long an MKPDU is under way. Frames of data take no time at all,
// so that a stream finds every moment at which the ends differ.
const travel = 5 * time.Millisecond

// wire is a shared segment: each MKPDU reaches all sockets but the sender's, in
// order.
type wire struct {
	mu      sync.Mutex
	sockets []*socket
	cut     bool
	heard   *lab.Heard // what passes by, if not nil
	// announcers are the sockets for announcements, and announced the frames that came.
	announcers []*memoryAnnouncer
	announced  int
}

func (w *wire) attach(s *socket) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sockets = append(w.sockets, s)
}

// sever loses every MKPDU until it is mended.
func (w *wire) sever(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
}

func (w *wire) carry(from *socket, frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.heard != nil && from != nil {
		w.heard.Keep(frame)
	}
	for _, s := range w.sockets {
		if s == from || w.cut {
			continue
		}
		s.deliver(frame)
	}
}

// socket is a pae.Conn in memory.
type socket struct {
	machine *machine
	port    *port
	opts    pae.Options
	lanes   [pae.Lanes]lane
	once    sync.Once

	mu    sync.Mutex
	focus pae.Focus
}

// lane is one of its queues, with about as much room as the kernel's has.
type lane struct {
	frames  chan arriving
	state   chan error // what the next read says
	next    arriving   // the reader's
	dropped atomic.Int64
}

var laneRoom = [pae.Lanes]int{pae.Peers: 4096, pae.Known: 1024, pae.Strangers: 16}

type arriving struct {
	at    time.Time
	frame []byte
}

var _ mkaConn = (*socket)(nil)

func newSocket(m *machine, p *port, o pae.Options) *socket {
	s := &socket{machine: m, port: p, opts: o}
	for l := range s.lanes {
		s.lanes[l].frames = make(chan arriving, laneRoom[l])
		s.lanes[l].state = make(chan error, 8)
	}
	return s
}

func (s *socket) deliver(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.focus.Lane(frame, s.opts)
	if !ok {
		return
	}
	select {
	case s.lanes[l].frames <- arriving{time.Now().Add(travel), slices.Clone(frame)}:
	default: // a full socket buffer drops
		s.lanes[l].dropped.Add(1)
	}
}

// Focus implements mkaConn.
func (s *socket) Focus(f pae.Focus) error {
	return s.machine.on("focus", s.port.index, func(*port) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.focus = f
		return nil
	})
}

func (s *socket) tell(err error) {
	for l := range s.lanes {
		s.lanes[l].tell(err)
	}
}

func (l *lane) tell(err error) {
	select {
	case l.state <- err:
	default:
	}
}

// ReadFrames implements mkaConn.
func (s *socket) ReadFrames(which pae.Lane, b *pae.Batch) error {
	b.Reset()
	l := &s.lanes[which]
	for {
		if l.next.frame == nil {
			select {
			case err := <-l.state:
				return l.said(err)
			case l.next = <-l.frames:
			}
		}
		if until := time.Until(l.next.at); until > 0 && b.Len() > 0 {
			return nil
		} else if until > 0 {
			wait := time.NewTimer(until)
			select {
			case err := <-l.state:
				wait.Stop()
				return l.said(err)
			case <-wait.C:
			}
		}
		f := l.next.frame
		l.next = arriving{}
		if s.up() {
			b.Add(f)
		}
		if b.Full() || b.Len() > 0 && len(l.frames) == 0 {
			return nil
		}
	}
}

func (l *lane) said(err error) error {
	if !errors.Is(err, pae.ErrDown) {
		l.tell(err) // for good
	}
	return err
}

func (s *socket) up() bool {
	s.machine.mu.Lock()
	defer s.machine.mu.Unlock()
	return s.port.up && s.port.running
}

// WriteFrame implements mkaConn.
func (s *socket) WriteFrame(frame []byte) error {
	if typ := binary.BigEndian.Uint16(frame[12:]); typ != s.opts.EtherType {
		s.machine.t.Errorf("%s: EtherType %04X leaves by the socket for %04X", s.machine.name, typ, s.opts.EtherType)
	}
	if !s.up() {
		return pae.ErrDown
	}
	s.machine.mu.Lock()
	if j := s.machine.journal; len(j) == 0 || j[len(j)-1] != "MKPDU" {
		s.machine.journal = append(j, "MKPDU")
	}
	s.machine.mu.Unlock()
	s.port.wire.carry(s, frame)
	return nil
}

// Dropped implements mkaConn.
func (s *socket) Dropped() (n [pae.Lanes]uint64) {
	for l := range s.lanes {
		n[l] = uint64(s.lanes[l].dropped.Load())
	}
	return n
}

// Close implements mkaConn.
func (s *socket) Close() error {
	s.once.Do(func() {
		w := s.port.wire
		w.mu.Lock()
		w.sockets = slices.DeleteFunc(w.sockets, func(o *socket) bool { return o == s })
		w.mu.Unlock()
		s.tell(net.ErrClosed)
	})
	return nil
}

// inOrder checks that want occurs in got in this order, each line as a prefix.
func inOrder(t *testing.T, who string, got []string, want ...string) {
	t.Helper()
	rest := got
	for _, w := range want {
		i := slices.IndexFunc(rest, func(g string) bool { return strings.HasPrefix(g, w) })
		if i < 0 {
			t.Fatalf("%s: %q is not there, or not in its place:\n%s", who, w, strings.Join(got, "\n"))
		}
		rest = rest[i+1:]
	}
}

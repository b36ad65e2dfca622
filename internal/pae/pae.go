// Package pae sends and receives the EAPOL frames of MKA on an interface (IEEE
// 802.1X calls what does that a port access entity), and beside them, on links
// whose keys come from a key service, announcements that carry key ids.
//
// Frames go in and out whole, Ethernet header included. The kernel drops
// everything that cannot be an MKPDU before it is queued, and sorts the rest
// into lanes by what can be seen without a key, so that a flood costs little
// and drowns nobody. What comes in may still be garbage.
//
// What belongs here: the packet sockets. What does not: what a frame means
// (package mka), and letting it through the fence (package fence), behind which
// this socket receives.
package pae

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// MaxFrame is the size of the largest frame that ReadFrames returns and
// WriteFrame takes: an Ethernet header and 1500 octets.
const MaxFrame = 1514

const (
	defaultEtherType = 0x888e
	headerLen        = 14
)

// Errors of a Conn; use errors.Is. The kernel's own error is wrapped as well.
var (
	// ErrDown means that the interface is down. The Conn works again as soon
	// as it is up.
	ErrDown = errors.New("interface is down")
	// ErrGone means that the interface does not exist, or no more. The Conn is
	// of no further use.
	ErrGone = errors.New("interface is gone")
	// ErrFrame means that WriteFrame was given something that is no frame of
	// the Conn's EtherType.
	ErrFrame = errors.New("not a frame of this protocol")
)

// Options of a Conn; the zero value is the standard's.
type Options struct {
	// EtherType of the frames; 0 means 888E.
	EtherType uint16
	// Groups are the multicast addresses to receive; none means
	// 01-80-C2-00-00-03, the nearest non-TPMR bridge group.
	Groups [][6]byte
}

// orDefaults fills in the standard's values.
func (o Options) orDefaults() Options {
	if o.EtherType == 0 {
		o.EtherType = defaultEtherType
	}
	if len(o.Groups) == 0 {
		o.Groups = [][6]byte{{0x01, 0x80, 0xc2, 0x00, 0x00, 0x03}}
	}
	return o
}

// Conn is an open interface. Each lane may be read by one goroutine while
// others call WriteFrame, Focus and Close.
type Conn struct {
	ifindex   int
	etherType uint16
	groups    [][6]byte
	lanes     [Lanes]*socket
	closed    atomic.Bool

	mu      sync.Mutex
	focus   Focus
	dropped [Lanes]uint64
}

// Open opens the interface in the network namespace of the calling thread. It
// has no Focus yet. An interface that is down can be opened; reading says
// ErrDown then, once a lane.
func Open(ifindex int, opts Options) (*Conn, error) {
	opts = opts.orDefaults()
	c := &Conn{ifindex: ifindex, etherType: opts.EtherType, groups: opts.Groups}
	if c.etherType < 0x600 {
		return nil, fmt.Errorf("open interface %d for MKA: %04X is a length, no EtherType", ifindex, c.etherType)
	}
	if len(c.groups) > maxGroups {
		return nil, fmt.Errorf("open interface %d for MKA: %d groups, the filter has room for %d", ifindex, len(c.groups), maxGroups)
	}
	for l := range c.lanes {
		if err := c.open(Lane(l)); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	for _, g := range c.groups {
		if err := c.lanes[Peers].join(ifindex, g); err != nil {
			return nil, errors.Join(c.wrap("join the group "+net.HardwareAddr(g[:]).String(), err), c.close())
		}
	}
	return c, nil
}

func (c *Conn) open(l Lane) error {
	s, err := newSocket()
	if err != nil {
		return c.wrap("open for MKA", err)
	}
	c.lanes[l] = s
	if err := c.attach(l, c.focus); err != nil {
		return err
	}
	if err := s.limitQueue(queueLimit[l]); err != nil {
		return c.wrap("limit the queue of "+l.String(), err)
	}
	if err := s.ignoreOutgoing(); err != nil {
		return c.wrap("ignore outgoing frames", err)
	}
	// Bind (packet_do_bind) needs the index only.
	if err := s.bind(c.ifindex, c.etherType); err != nil {
		return c.wrap("open for MKA", err)
	}
	return nil
}

// attach replaces a lane's filter.
func (c *Conn) attach(l Lane, f Focus) error {
	filter, err := bpf.Assemble(c.program(l, f))
	if err != nil {
		return fmt.Errorf("focus on interface %d: assemble the filter for %v: %w", c.ifindex, l, err)
	}
	if err := c.lanes[l].filter(filter); err != nil {
		return c.wrap("focus "+l.String(), err)
	}
	return nil
}

// WriteFrame sends a whole frame, whose header must have the Conn's EtherType:
// nothing else may leave in the clear by this way. The kernel pads it.
func (c *Conn) WriteFrame(frame []byte) error {
	if len(frame) < headerLen || len(frame) > MaxFrame {
		return fmt.Errorf("send on interface %d: %w: %d octets, want %d to %d", c.ifindex, ErrFrame, len(frame), headerLen, MaxFrame)
	}
	if typ := binary.BigEndian.Uint16(frame[12:]); typ != c.etherType {
		return fmt.Errorf("send on interface %d: %w: EtherType %04X, want %04X", c.ifindex, ErrFrame, typ, c.etherType)
	}
	if err := c.lanes[Peers].send(c.ifindex, frame); err != nil {
		return c.wrap("send", err)
	}
	return nil
}

// Close closes the sockets; a ReadFrames that waits returns net.ErrClosed.
func (c *Conn) Close() error {
	c.closed.Store(true)
	if err := c.close(); err != nil {
		return fmt.Errorf("close on interface %d: %w", c.ifindex, err)
	}
	return nil
}

func (c *Conn) close() error {
	var errs []error
	for _, s := range c.lanes {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	return errors.Join(errs...)
}

// wrap says what was attempted where, and gives the errors that callers branch
// on their names.
func (c *Conn) wrap(what string, err error) error {
	return wrap(what, c.ifindex, c.closed.Load(), err)
}

func wrap(what string, ifindex int, closed bool, err error) error {
	switch {
	case closed: // the errors for it are many, and not all exported
		return fmt.Errorf("%s on interface %d: %w", what, ifindex, net.ErrClosed)
	case errors.Is(err, unix.ENETDOWN):
		return fmt.Errorf("%s on interface %d: %w: %w", what, ifindex, ErrDown, err)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%s on interface %d: %w: %w", what, ifindex, ErrGone, err)
	}
	return fmt.Errorf("%s on interface %d: %w", what, ifindex, err)
}

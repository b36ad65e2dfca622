// Package pae sends and receives the EAPOL frames of MKA on an interface (IEEE
// 802.1X calls what does that a port access entity).
//
// Frames go in and out whole, Ethernet header included. The kernel drops
// everything that cannot be an MKPDU before it is queued, so that a flood of
// other frames costs little; what is left may still be garbage.
//
// What belongs here: the packet socket. What does not: what a frame means
// (package mka), and letting it through the fence (package fence), behind which
// this socket receives.
package pae

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// MaxFrame is the size of the largest frame that ReadFrame returns and
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

// Conn is an open interface. ReadFrame may be called by one goroutine while
// others call WriteFrame and Close.
type Conn struct {
	ifindex   int
	etherType uint16
	conn      *packet.Conn
	down      atomic.Bool // the last read said so
	closed    atomic.Bool
}

// Open opens the interface in the network namespace of the calling thread.
// An interface that is down can be opened; reading says ErrDown then, once.
func Open(ifindex int, opts Options) (*Conn, error) {
	c := &Conn{ifindex: ifindex, etherType: opts.EtherType}
	if c.etherType == 0 {
		c.etherType = defaultEtherType
	}
	if c.etherType < 0x600 {
		return nil, fmt.Errorf("open interface %d for MKA: %04X is a length, no EtherType", ifindex, c.etherType)
	}
	groups := opts.Groups
	if len(groups) == 0 {
		groups = [][6]byte{{0x01, 0x80, 0xc2, 0x00, 0x00, 0x03}}
	}
	filter, err := bpf.Assemble(append(ours(), mkpdu(c.etherType)...))
	if err != nil {
		return nil, fmt.Errorf("open interface %d for MKA: assemble the filter: %w", ifindex, err)
	}
	// Bind (packet_do_bind) needs the index only.
	c.conn, err = packet.Listen(&net.Interface{Index: ifindex}, packet.Raw, int(c.etherType), &packet.Config{Filter: filter})
	if err != nil {
		return nil, c.wrap("open for MKA", err)
	}
	if err := c.setUp(groups); err != nil {
		return nil, errors.Join(err, c.conn.Close())
	}
	return c, nil
}

func (c *Conn) setUp(groups [][6]byte) error {
	err := c.control(func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	})
	if err != nil {
		return c.wrap("ignore outgoing frames", err)
	}
	for _, g := range groups {
		if err := c.conn.JoinGroup(g[:]); err != nil {
			return c.wrap("join the group "+net.HardwareAddr(g[:]).String(), err)
		}
	}
	return nil
}

// ReadFrame waits for a frame and reads it into buf, which should have MaxFrame
// octets: what does not fit is cut off. The error is ErrDown, ErrGone,
// net.ErrClosed after Close, or some other one that a retry may cure.
func (c *Conn) ReadFrame(buf []byte) (int, error) {
	for {
		var deadline time.Time
		if c.down.Load() {
			// Going down is reported; that the interface is then removed is
			// not (packet_notifier), and has to be looked for.
			deadline = time.Now().Add(time.Second)
		}
		if err := c.conn.SetReadDeadline(deadline); err != nil {
			return 0, c.wrap("receive", err)
		}
		n, _, err := c.conn.ReadFrom(buf)
		switch {
		case err == nil:
			c.down.Store(false)
			return n, nil
		case errors.Is(err, unix.ENETDOWN):
			c.down.Store(true)
			if c.removed() {
				return 0, c.wrap("receive", unix.ENODEV)
			}
			return 0, c.wrap("receive", err)
		case errors.Is(err, os.ErrDeadlineExceeded):
			if c.removed() {
				return 0, c.wrap("receive", unix.ENODEV)
			}
		default:
			return 0, c.wrap("receive", err)
		}
	}
}

// removed tells whether the socket has lost its interface for good: the kernel
// then unbinds it (packet_notifier, NETDEV_UNREGISTER).
func (c *Conn) removed() bool {
	removed := false
	err := c.control(func(fd int) error {
		sa, err := unix.Getsockname(fd)
		if ll, ok := sa.(*unix.SockaddrLinklayer); ok {
			removed = ll.Ifindex != c.ifindex
		}
		return err
	})
	return err == nil && removed
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
	if _, err := c.conn.WriteTo(frame, &packet.Addr{HardwareAddr: net.HardwareAddr(frame[:6])}); err != nil {
		return c.wrap("send", err)
	}
	return nil
}

// Close closes the socket; a ReadFrame that waits returns net.ErrClosed.
func (c *Conn) Close() error {
	c.closed.Store(true)
	if err := c.conn.Close(); err != nil {
		return fmt.Errorf("close on interface %d: %w", c.ifindex, err)
	}
	return nil
}

func (c *Conn) control(f func(fd int) error) error {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// wrap says what was attempted where, and gives the errors that callers branch
// on their names.
func (c *Conn) wrap(what string, err error) error {
	switch {
	case c.closed.Load(): // the errors for it are many, and not all exported
		return fmt.Errorf("%s on interface %d: %w", what, c.ifindex, net.ErrClosed)
	case errors.Is(err, unix.ENETDOWN):
		return fmt.Errorf("%s on interface %d: %w: %w", what, c.ifindex, ErrDown, err)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%s on interface %d: %w: %w", what, c.ifindex, ErrGone, err)
	}
	return fmt.Errorf("%s on interface %d: %w", what, c.ifindex, err)
}

package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// A Capture sees every frame that an interface sends, after the egress filters,
// and every one that comes in, before the ingress filters: what is on the wire.
type Capture struct {
	where string
	conn  *packet.Conn
	done  chan struct{}

	mu      sync.Mutex
	count   WireCount
	dropped int // by the socket, for want of room
	kernel  int // that the socket has taken or dropped
	pcap    *pcapWriter
	err     error

	observers []func(frame []byte, at time.Time)
}

// StartCapture opens the socket in the namespace and reads from it until stop.
// What it sees goes to pcap too, unless that is nil, and to the observers, which
// may not keep the frame.
func StartCapture(ns *Netspace, iface string, pcap io.Writer, observers ...func(frame []byte, at time.Time)) (*Capture, error) {
	c := &Capture{where: ns.Name + "/" + iface, done: make(chan struct{}), observers: observers}
	if pcap != nil {
		var err error
		if c.pcap, err = newPcapWriter(pcap); err != nil {
			return nil, fmt.Errorf("write the capture: %w", err)
		}
	}
	err := ns.Do(func() error {
		ifi, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		c.conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("capture on %s: %w", c.where, err)
	}
	raw, err := c.conn.SyscallConn()
	if err == nil {
		err = control(raw, func(fd int) error {
			// Room for seconds of traffic, so that a busy machine loses none.
			return errors.Join(
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up the capture on %s: %w", c.where, err), c.conn.Close())
	}
	go c.read(raw)
	return c, nil
}

// read is the capture's goroutine; it ends when the socket is closed.
func (c *Capture) read(raw syscall.RawConn) {
	defer close(c.done)
	batch := newArrivals(captureBatch)
	for {
		var n int
		var recvErr error
		err := raw.Read(func(fd uintptr) bool {
			n, recvErr = batch.receive(int(fd))
			return !errors.Is(recvErr, unix.EAGAIN)
		})
		switch {
		case err != nil:
			return // closed
		case errors.Is(recvErr, unix.EINTR), errors.Is(recvErr, unix.ENETDOWN):
			continue // packet_notifier says once that the interface went down
		case recvErr != nil:
			c.mu.Lock()
			c.err = errors.Join(c.err, fmt.Errorf("capture on %s: %w", c.where, recvErr))
			c.mu.Unlock()
			return
		}
		c.mu.Lock()
		for i := range n {
			frame, oob := batch.message(i)
			c.note(frame, timestamp(oob))
		}
		c.mu.Unlock()
	}
}

// note takes a frame in, under the lock.
func (c *Capture) note(frame []byte, at time.Time) {
	c.count.note(frame, at)
	for _, note := range c.observers {
		note(frame, at)
	}
	if c.pcap == nil {
		return
	}
	if err := c.pcap.write(frame, at); err != nil {
		c.err = errors.Join(c.err, fmt.Errorf("write the capture: %w", err))
		c.pcap = nil
	}
}

// captureBatch is how many frames are read with one call of the kernel.
const captureBatch = 32

// arrivals is room for messages that recvmmsg(2) brings at once.
type arrivals struct {
	headers []mmsghdr
	frames  [][]byte
	control [][]byte
	vectors []unix.Iovec
}

func newArrivals(n int) *arrivals {
	a := &arrivals{headers: make([]mmsghdr, n), frames: make([][]byte, n), control: make([][]byte, n), vectors: make([]unix.Iovec, n)}
	for i := range n {
		a.frames[i], a.control[i] = make([]byte, 1<<16), make([]byte, 128)
		a.vectors[i].Base = &a.frames[i][0]
		a.vectors[i].SetLen(len(a.frames[i]))
		h := &a.headers[i].header
		h.Iov = &a.vectors[i]
		h.SetIovlen(1)
		h.Control = &a.control[i][0]
	}
	return a
}

// receive takes what is there, and waits for nothing.
func (a *arrivals) receive(fd int) (int, error) {
	for i := range a.headers {
		a.headers[i].header.SetControllen(len(a.control[i]))
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&a.headers[0])), uintptr(len(a.headers)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// message is one of those received.
func (a *arrivals) message(i int) (frame, control []byte) {
	return a.frames[i][:a.headers[i].length], a.control[i][:a.headers[i].header.Controllen]
}

// timestamp is when the kernel saw the frame.
func timestamp(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err == nil {
		for _, m := range messages {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
				return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
			}
		}
	}
	return time.Now()
}

// Look calls fn with the count as it stands.
func (c *Capture) Look(fn func(*WireCount)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn(&c.count)
}

// Drained reports whether every frame that the kernel gave the socket has been
// counted, and how many it had no room for.
func (c *Capture) Drained() (bool, int, error) {
	stats, err := c.conn.Stats() // reading resets them (packet(7))
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		return false, c.dropped, fmt.Errorf("statistics of the capture on %s: %w", c.where, err)
	}
	c.kernel += int(stats.Packets)
	c.dropped += int(stats.Drops)
	return c.count.Total() >= c.kernel-c.dropped, c.dropped, c.err
}

// Stop ends the capture; the count stays.
func (c *Capture) Stop() error {
	err := c.conn.Close()
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.err, err)
}

// control calls fn with a socket's descriptor.
func control(raw syscall.RawConn, fn func(fd int) error) error {
	var err error
	if ctlErr := raw.Control(func(fd uintptr) { err = fn(int(fd)) }); ctlErr != nil {
		return ctlErr
	}
	return err
}

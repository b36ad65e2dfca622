package pae

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// Batch is frames that were read at once, one after the other in memory that is
// used again and again.
type Batch struct {
	buf  []byte
	used int
	ends []int
}

// NewBatch makes a Batch with room for so many frames of the largest size.
func NewBatch(frames int) *Batch { return &Batch{buf: make([]byte, frames*MaxFrame)} }

// Reset empties b.
func (b *Batch) Reset() { b.used, b.ends = 0, b.ends[:0] }

// Len is how many frames there are.
func (b *Batch) Len() int { return len(b.ends) }

// Frame is one of them. It is valid until b is filled again.
func (b *Batch) Frame(i int) []byte {
	start := 0
	if i > 0 {
		start = b.ends[i-1]
	}
	return b.buf[start:b.ends[i]:b.ends[i]]
}

// Full says whether there is no room for another frame of the largest size.
func (b *Batch) Full() bool { return b.used+MaxFrame > len(b.buf) }

// Add copies a frame into b, which must not be full. Of a frame that is too
// large it takes the first MaxFrame octets.
func (b *Batch) Add(frame []byte) {
	b.took(copy(b.buf[b.used:b.used+MaxFrame], frame))
}

func (b *Batch) took(n int) {
	b.used += n
	b.ends = append(b.ends, b.used)
}

// socket is one lane's.
type socket struct {
	conn *packet.Conn
	raw  syscall.RawConn

	// The reader's.
	batch *Batch // to fill
	fill  func(fd uintptr) bool
	err   error // of the last fill
	timed bool  // a read deadline is set
	down  bool  // the last read said so
}

func newSocket(conn *packet.Conn) (*socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn, raw: raw}
	s.fill = s.readAll // once, since each method value is an allocation
	return s, nil
}

// readAll reads what waits, until b is full. It says whether there is anything
// to return; if not the runtime calls it again when there may be.
func (s *socket) readAll(fd uintptr) bool {
	b := s.batch
	for !b.Full() {
		n, err := unix.Read(int(fd), b.buf[b.used:b.used+MaxFrame])
		switch {
		case err == nil:
			b.took(n)
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return b.Len() > 0
		default:
			s.err = err
			return true
		}
	}
	return true
}

// ReadFrames waits for frames of a lane and fills b with those that are there.
// The error is ErrDown, ErrGone, net.ErrClosed after Close, or some other one
// that a retry may cure; b then holds what was read before it. One goroutine at
// a time may read a lane.
func (c *Conn) ReadFrames(l Lane, b *Batch) error {
	if l < 0 || l >= Lanes {
		return fmt.Errorf("receive on interface %d: there is no lane %d", c.ifindex, l)
	}
	s := c.lanes[l]
	b.Reset()
	for {
		if err := s.limit(); err != nil {
			return c.wrap("receive", err)
		}
		s.batch, s.err = b, nil
		err := s.raw.Read(s.fill)
		s.batch = nil
		if err == nil {
			err = s.err
		}
		switch {
		case err == nil:
			s.down = false
			return nil
		case errors.Is(err, unix.ENETDOWN):
			s.down = true
			if s.removed(c.ifindex) {
				err = unix.ENODEV
			}
			return c.wrap("receive", err)
		case errors.Is(err, os.ErrDeadlineExceeded):
			if s.removed(c.ifindex) {
				return c.wrap("receive", unix.ENODEV)
			}
		default:
			return c.wrap("receive", err)
		}
	}
}

// limit has the next read end after a while if the interface is down: that it
// goes down is reported; that it is then removed is not (packet_notifier), and
// has to be looked for.
func (s *socket) limit() error {
	var deadline time.Time
	switch {
	case s.down:
		deadline = time.Now().Add(time.Second)
	case !s.timed:
		return nil
	}
	s.timed = s.down
	return s.conn.SetReadDeadline(deadline)
}

// removed tells whether the socket has lost its interface for good: the kernel
// then unbinds it (packet_notifier, NETDEV_UNREGISTER).
func (s *socket) removed(ifindex int) bool {
	removed := false
	err := s.control(func(fd int) error {
		sa, err := unix.Getsockname(fd)
		if ll, ok := sa.(*unix.SockaddrLinklayer); ok {
			removed = ll.Ifindex != ifindex
		}
		return err
	})
	return err == nil && removed
}

func (s *socket) control(f func(fd int) error) error {
	var inner error
	if err := s.raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

package pae

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Batch is frames that were read at once, into memory that is used again and
// again.
type Batch struct {
	buf  []byte // a slot of MaxFrame octets for each
	lens []int

	// What recvmmsg(2) is told of the slots.
	vectors []unix.Iovec
	headers []mmsghdr
}

// mmsghdr is the kernel's struct of this name.
type mmsghdr struct {
	header unix.Msghdr
	octets uint32
}

// NewBatch makes a Batch with room for so many frames.
func NewBatch(frames int) *Batch {
	b := &Batch{
		buf: make([]byte, frames*MaxFrame), lens: make([]int, 0, frames),
		vectors: make([]unix.Iovec, frames), headers: make([]mmsghdr, frames),
	}
	for i := range b.headers {
		v := &b.vectors[i]
		v.Base = &b.buf[i*MaxFrame]
		v.SetLen(MaxFrame)
		b.headers[i].header.Iov = v
		b.headers[i].header.SetIovlen(1)
	}
	return b
}

// Reset empties b.
func (b *Batch) Reset() { b.lens = b.lens[:0] }

// Len is how many frames there are.
func (b *Batch) Len() int { return len(b.lens) }

// Frame is one of them. It is valid until b is filled again.
func (b *Batch) Frame(i int) []byte {
	return b.buf[i*MaxFrame : i*MaxFrame+b.lens[i] : (i+1)*MaxFrame]
}

// Full says whether there is no room for another frame.
func (b *Batch) Full() bool { return len(b.lens) == cap(b.lens) }

// Add copies a frame into b, which must not be full. Of a frame that is too
// large it takes the first MaxFrame octets.
func (b *Batch) Add(frame []byte) {
	at := len(b.lens) * MaxFrame
	b.lens = append(b.lens, copy(b.buf[at:at+MaxFrame], frame))
}

// receive fills b, which is empty, with what waits at a socket, in one call: a
// call for each frame would be most of what a flood costs. It says EAGAIN if
// there is nothing.
func (b *Batch) receive(fd int) error {
	for {
		// It never blocks, so the scheduler need not know. If it did, it would
		// take our processor for another thread, and we would wait for a turn
		// of it after each batch: on a busy machine that is ten milliseconds.
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[0])),
			uintptr(len(b.headers)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			for i := range b.headers[:n] {
				b.lens = append(b.lens, int(b.headers[i].octets))
			}
			return nil
		case unix.EINTR:
		default:
			return os.NewSyscallError("recvmmsg", errno)
		}
	}
}

// ReadFrames waits for frames of a lane and fills b with those that are there.
// What comes in between two calls wakes nobody up. The error is ErrDown,
// ErrGone, net.ErrClosed after Close, or some other one that a retry may cure.
// One goroutine at a time may read a lane.
func (c *Conn) ReadFrames(l Lane, b *Batch) error {
	if l < 0 || l >= Lanes {
		return fmt.Errorf("receive on interface %d: there is no lane %d", c.ifindex, l)
	}
	if err := c.lanes[l].receive(c.ifindex, b); err != nil {
		return c.wrap("receive", err)
	}
	return nil
}

// receive waits for frames and fills b with those that are there. It says ENETDOWN
// of an interface that is down, and ENODEV of one that is gone.
func (s *socket) receive(ifindex int, b *Batch) error {
	b.Reset()
	for {
		if !s.more {
			if err := s.wait(); err != nil {
				return err
			}
		}
		err := s.fill(b)
		s.more = b.Full()
		switch {
		case err == nil:
			s.down = false
			return nil
		case errors.Is(err, unix.EAGAIN):
			if s.down && s.removed(ifindex) {
				return unix.ENODEV
			}
		case errors.Is(err, unix.ENETDOWN):
			s.down = true
			if s.removed(ifindex) {
				return unix.ENODEV
			}
			return err
		default:
			return err
		}
	}
}

package pae

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// socket is one lane's. The runtime's poller would learn of every frame that
// comes in, read or not, since it is told of edges: each frame of a flood would
// wake the process up. So the socket is watched by an epoll instance of its own
// that tells once and is then silent until somebody waits again
// (EPOLLONESHOT); the runtime's poller watches that.
type socket struct {
	watch *os.File
	raw   syscall.RawConn // of watch

	mu sync.RWMutex // held to close fd
	fd int          // -1: closed

	// The reader's.
	down  bool // the last read said so
	more  bool // the last read left some behind
	timed bool // a read deadline is set on watch
	// Made once, since each closure is an allocation.
	arm    func(epfd uintptr)
	armErr error
	ready  func(epfd uintptr) bool
	event  [1]unix.EpollEvent
}

func newSocket() (_ *socket, err error) {
	// Without a protocol nothing comes in before it is bound.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &socket{fd: fd}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(epfd, true); err != nil { // or os.NewFile has it block a thread
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(epfd))
	}
	s.watch = os.NewFile(uintptr(epfd), "epoll")
	if s.raw, err = s.watch.SyscallConn(); err != nil {
		return nil, err
	}
	if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: int32(fd)}); err != nil {
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	s.arm = func(epfd uintptr) {
		s.event[0] = unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(s.fd)}
		s.armErr = os.NewSyscallError("epoll_ctl", unix.EpollCtl(int(epfd), unix.EPOLL_CTL_MOD, s.fd, &s.event[0]))
	}
	s.ready = func(epfd uintptr) bool {
		n, err := unix.EpollWait(int(epfd), s.event[:], 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	}
	return s, nil
}

// bind makes frames come in.
func (s *socket) bind(ifindex int, etherType uint16) error {
	return s.use(func(fd int) error {
		return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(etherType), Ifindex: ifindex}))
	})
}

// bigEndian is v as it lies in the kernel's memory.
func bigEndian(v uint16) uint16 {
	b := [2]byte{byte(v >> 8), byte(v)}
	return *(*uint16)(unsafe.Pointer(&b))
}

// filter replaces the filter, which the kernel does from one frame to the next
// (sk_attach_filter).
func (s *socket) filter(p []bpf.RawInstruction) error {
	f := make([]unix.SockFilter, len(p))
	for i, x := range p {
		f[i] = unix.SockFilter{Code: x.Op, Jt: x.Jt, Jf: x.Jf, K: x.K}
	}
	return s.use(func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(f)), Filter: unsafe.SliceData(f)}))
	})
}

// limitQueue bounds what waits. The force needs CAP_NET_ADMIN, without which
// net.core.rmem_max is the most.
func (s *socket) limitQueue(octets int) error {
	return s.use(func(fd int) error {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, octets) == nil {
			return nil
		}
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, octets))
	})
}

func (s *socket) ignoreOutgoing() error {
	return s.use(func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
	})
}

// join has the interface receive a group. One membership is enough, for it is
// the interface's (packet_mc_add).
func (s *socket) join(ifindex int, group [6]byte) error {
	mreq := unix.PacketMreq{Ifindex: int32(ifindex), Type: unix.PACKET_MR_MULTICAST, Alen: uint16(len(group))}
	copy(mreq.Address[:], group[:])
	return s.use(func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mreq))
	})
}

// send sends a whole frame.
func (s *socket) send(ifindex int, frame []byte) error {
	return s.use(func(fd int) error {
		err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifindex, Protocol: bigEndian(uint16(frame[12])<<8 | uint16(frame[13]))})
		if errors.Is(err, unix.ENETDOWN) {
			// That may be how it was, kept for whoever calls the socket next
			// (sock_alloc_send_pskb); only the second answer is of now.
			err = unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifindex, Protocol: bigEndian(uint16(frame[12])<<8 | uint16(frame[13]))})
		}
		return os.NewSyscallError("sendto", err)
	})
}

// fill reads what there is into b, which is empty, and waits for nothing.
func (s *socket) fill(b *Batch) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return os.ErrClosed
	}
	return b.receive(s.fd)
}

// wait returns when there is something to read, or an error. If the interface
// is down, it returns after a while: that it goes down is reported; that it is
// then removed is not (packet_notifier), and has to be looked for.
func (s *socket) wait() error {
	if s.down || s.timed {
		var deadline time.Time
		if s.down {
			deadline = time.Now().Add(time.Second)
		}
		s.timed = s.down
		if err := s.watch.SetReadDeadline(deadline); err != nil {
			return err
		}
	}
	if err := s.rearm(); err != nil {
		return err
	}
	err := s.raw.Read(s.ready)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

func (s *socket) rearm() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return os.ErrClosed
	}
	if err := s.raw.Control(s.arm); err != nil {
		return err
	}
	return s.armErr
}

// removed tells whether the socket has lost its interface for good: the kernel
// then unbinds it (packet_notifier, NETDEV_UNREGISTER).
func (s *socket) removed(ifindex int) bool {
	removed := false
	err := s.use(func(fd int) error {
		sa, err := unix.Getsockname(fd)
		if ll, ok := sa.(*unix.SockaddrLinklayer); ok {
			removed = ll.Ifindex != ifindex
		}
		return err
	})
	return err == nil && removed
}

// use calls f with the descriptor, which nobody closes meanwhile.
func (s *socket) use(f func(fd int) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return os.ErrClosed
	}
	return f(s.fd)
}

func (s *socket) close() error {
	var errs []error
	if s.watch != nil {
		errs = append(errs, s.watch.Close()) // ends a wait
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return fmt.Errorf("close: %w", os.ErrClosed)
	}
	errs = append(errs, os.NewSyscallError("close", unix.Close(s.fd)))
	s.fd = -1
	return errors.Join(errs...)
}

package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Flood sends frames on interfaces until it is stopped.
type Flood struct {
	fds    []int
	cancel context.CancelFunc
	done   sync.WaitGroup
	began  time.Time

	// What came of it, once it is stopped.
	Sent    int // on each interface
	Refused int // by our own kernel, for want of room
	Ran     time.Duration
}

// StartFlood sends what next makes, rate frames a second on each interface, or
// with 0 as many as go, until ctx ends and, if most is not 0, no more than that.
func StartFlood(ctx context.Context, ns *Netspace, ifaces []string, rate, most int, next func() []byte) (*Flood, error) {
	f := &Flood{began: time.Now()}
	for _, iface := range ifaces {
		err := ns.Do(func() error {
			fd, err := packetSocket(iface, 0)
			if err == nil {
				f.fds = append(f.fds, fd)
			}
			return err
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("flood %s in %s: %w", iface, ns.Name, err), f.close())
		}
	}
	ctx, f.cancel = context.WithCancel(ctx)
	f.done.Go(func() {
		defer func() { f.Ran = time.Since(f.began) }()
		for ctx.Err() == nil && (most == 0 || f.Sent < most) {
			n := floodBurst
			if rate > 0 {
				n = int(time.Since(f.began).Seconds()*float64(rate)) - f.Sent
			}
			if most > 0 {
				n = min(n, most-f.Sent)
			}
			if n <= 0 {
				time.Sleep(time.Millisecond)
				continue
			}
			f.burst(min(n, floodBurst), next)
		}
	})
	return f, nil
}

// floodBurst is how many frames are sent with one call: a call for each would
// cost the attacker more than the frame costs anybody else.
const floodBurst = 64

// burst sends n frames on each interface.
func (f *Flood) burst(n int, next func() []byte) {
	headers, vectors := make([]mmsghdr, n), make([]unix.Iovec, n)
	for i := range n {
		frame := bytes.Clone(next())
		vectors[i].Base = &frame[0]
		vectors[i].SetLen(len(frame))
		headers[i].header.Iov = &vectors[i]
		headers[i].header.SetIovlen(1)
	}
	for _, fd := range f.fds {
		for at := 0; at < n; {
			sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&headers[at])), uintptr(n-at), 0, 0, 0)
			if errno != 0 {
				f.Refused++
				sent = 1 // the first of them is what it did not like
			}
			at += int(sent)
		}
	}
	f.Sent += n
}

// mmsghdr is the kernel's struct of this name.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

// Stop ends it.
func (f *Flood) Stop() error {
	f.cancel()
	return f.Wait()
}

// Wait returns when it has ended by itself.
func (f *Flood) Wait() error {
	f.done.Wait()
	f.cancel()
	return f.close()
}

func (f *Flood) close() error {
	var errs []error
	for _, fd := range f.fds {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}

// String is the account in one line.
func (f *Flood) String() string {
	return fmt.Sprintf("%d frames in %v, %.0f a second, of which %d were refused", f.Sent, f.Ran.Round(time.Millisecond), float64(f.Sent)/f.Ran.Seconds(), f.Refused)
}

// packetSocket opens one on an interface of the thread's namespace.
func packetSocket(iface string, etherType uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	ifreq, err := unix.NewIfreq(iface)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifreq)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: etherType>>8 | etherType<<8, Ifindex: int(ifreq.Uint32())})
	}
	if err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// Overhear listens on an interface until it has heard as many frames of an
// EtherType come by, in whichever direction.
func Overhear(ns *Netspace, iface string, etherType uint16, frames int, limit time.Duration) (*Heard, error) {
	var fd int
	err := ns.Do(func() (err error) {
		// What comes in on a port of a bridge, only those hear who listen to all.
		fd, err = packetSocket(iface, unix.ETH_P_ALL)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s in %s: %w", iface, ns.Name, err)
	}
	defer unix.Close(fd)
	patience := unix.NsecToTimeval(limit.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return nil, fmt.Errorf("listen on %s in %s: %w", iface, ns.Name, err)
	}
	h, buf := &Heard{}, make([]byte, 2048)
	for len(h.Frames()) < frames {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, fmt.Errorf("listen on %s in %s: %d of %d frames heard, then nothing for %v: %w", iface, ns.Name, len(h.Frames()), frames, limit, err)
		case n > 14 && binary.BigEndian.Uint16(buf[12:]) == etherType:
			h.Keep(buf[:n])
		}
	}
	return h, nil
}

// PID is the process of the router's agent.
func (r *Router) PID() (int, error) {
	text, err := os.ReadFile(r.Path(filepath.Join(RunDir, "agent.pid")))
	if err != nil {
		return 0, fmt.Errorf("find the agent of %s: %w", r.Name, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("find the agent of %s: its lock has no process: %w", r.Name, err)
	}
	return pid, nil
}

// Resident is how much memory the router's agent has in use, in octets.
func (r *Router) Resident() (int, error) {
	pid, err := r.PID()
	if err != nil {
		return 0, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("look at the agent of %s: %w", r.Name, err)
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			kB, err := strconv.Atoi(string(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte(" kB"))))
			if err != nil {
				return 0, fmt.Errorf("look at the agent of %s: %w", r.Name, err)
			}
			return kB << 10, nil
		}
	}
	return 0, fmt.Errorf("look at the agent of %s: process %d has no VmRSS", r.Name, pid)
}

// LogLines is how many lines its agents have logged.
func (r *Router) LogLines() (int, error) {
	b, err := os.ReadFile(r.Path(LogFile))
	if err != nil {
		return 0, fmt.Errorf("read the log of %s: %w", r.Name, err)
	}
	return bytes.Count(b, []byte("\n")), nil
}

package lab

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A PlainSender is a process on a router that keeps trying to send plain frames
// on an interface, whatever becomes of that: renamed, replaced, taken down.
// Nothing of it may reach the wire.
type PlainSender struct {
	fd     int
	cancel context.CancelFunc
	done   sync.WaitGroup

	tried atomic.Int64
}

// StartPlainSender makes one that sends rate frames a second to everybody.
func StartPlainSender(ns *Netspace, iface string, rate int) (*PlainSender, error) {
	p := &PlainSender{}
	err := ns.Do(func() (err error) {
		p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("send plain frames on %s in %s: %w", iface, ns.Name, err)
	}
	frame := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0x66, 0x08, 0x00}
	frame = append(append(frame, PayloadMark...), make([]byte, 32)...)
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.done.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		index := 0
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			// Under another name it is the same interface: then the index holds.
			if req, err := unix.NewIfreq(iface); err == nil && unix.IoctlIfreq(p.fd, unix.SIOCGIFINDEX, req) == nil {
				index = int(req.Uint32())
			}
			p.tried.Add(1)
			// The fence's drop comes back as ENOBUFS (net_xmit_errno).
			_ = unix.Sendto(p.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index, Halen: 6})
		}
	})
	return p, nil
}

// Stop ends it, and says how many frames it tried to send.
func (p *PlainSender) Stop() (tried int, err error) {
	p.cancel()
	p.done.Wait()
	return int(p.tried.Load()), unix.Close(p.fd)
}

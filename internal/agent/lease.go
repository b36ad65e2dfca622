package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/pae"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// errLeft is what a task hears of everything that it wants done after it was left
// behind.
var errLeft = errors.New("this task was left behind: another has its link")

// lease is a task's right to touch the kernel, the run directory, the state
// directory, the wire and the status.
type lease struct {
	mu     sync.Mutex
	over   bool
	inside []string // the calls under way

	conn atomic.Pointer[mkaConn] // the socket of the session
}

// enter begins a call, unless the lease has ended.
func (l *lease) enter(call string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return errLeft
	}
	l.inside = append(l.inside, call)
	return nil
}

// leave ends the call that was begun last: a task makes one at a time.
func (l *lease) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inside = l.inside[:len(l.inside)-1]
}

// end ends the lease: no call begins from now on. It says which is under way, and
// whether none is.
func (l *lease) end() (call string, out bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if len(l.inside) == 0 {
		return "", true
	}
	return l.inside[len(l.inside)-1], false
}

func (l *lease) do(call string, f func() error) error {
	if err := l.enter(call); err != nil {
		return err
	}
	defer l.leave()
	return f()
}

// get is do for a call with a result.
func get[T any](l *lease, call string, f func() (T, error)) (T, error) {
	if err := l.enter(call); err != nil {
		var zero T
		return zero, err
	}
	defer l.leave()
	return f()
}

// leased is the server as a task sees it: all that leaves a trace goes through
// the task's lease.
type leased struct {
	*server
	kernel   macsec.Kernel
	platform platform
	lease    *lease
}

func newLeased(s *server, l *lease) *leased {
	return &leased{server: s, kernel: &leasedKernel{s.kernel, l}, platform: leasedPlatform(s.platform, l), lease: l}
}

// setStatus publishes the link's status, unless another task does that by now.
func (s *leased) setStatus(st LinkStatus) {
	_ = s.lease.do("publish", func() error { s.server.setStatus(st); return nil })
}

// leasedPlatform is a platform behind a lease.
func leasedPlatform(p platform, l *lease) platform {
	q := p
	q.findParent = func(name string) (parent, error) {
		return get(l, "look up "+name, func() (parent, error) { return p.findParent(name) })
	}
	q.findIndex = func(index int) (parent, error) {
		return get(l, "look up an interface", func() (parent, error) { return p.findIndex(index) })
	}
	q.rename = func(index int, up bool, name string) error {
		return l.do("rename an interface", func() error { return p.rename(index, up, name) })
	}
	q.setMTU = func(index, mtu int) error {
		return l.do("set an MTU", func() error { return p.setMTU(index, mtu) })
	}
	q.interfaceName = func(index int) string {
		name, err := get(l, "look up an interface", func() (string, error) { return p.interfaceName(index), nil })
		if err != nil {
			return fmt.Sprintf("interface %d", index)
		}
		return name
	}
	q.alias = func(index int) (string, error) {
		return get(l, "read an alias", func() (string, error) { return p.alias(index) })
	}
	q.setAlias = func(index int, text string) error {
		return l.do("set an alias", func() error { return p.setAlias(index, text) })
	}
	q.setUp = func(index int, up bool) error {
		return l.do("set interface up or down", func() error { return p.setUp(index, up) })
	}
	q.ensureAddresses = func(index int, prefixes []netip.Prefix) ([]netip.Prefix, error) {
		return get(l, "add addresses", func() ([]netip.Prefix, error) { return p.ensureAddresses(index, prefixes) })
	}
	q.closeFence = func(index int, opts fence.Options) ([]fence.Change, error) {
		return get(l, "close the fence", func() ([]fence.Change, error) { return p.closeFence(index, opts) })
	}
	q.inspectFence = func(index int, opts fence.Options) (fence.State, error) {
		return get(l, "look at the fence", func() (fence.State, error) { return p.inspectFence(index, opts) })
	}
	q.openFence = func(index int) error {
		return l.do("open the fence", func() error { return p.openFence(index) })
	}
	q.openMKA = func(index int, opts pae.Options) (mkaConn, error) {
		return get(l, "open the socket for MKA", func() (mkaConn, error) {
			c, err := p.openMKA(index, opts)
			if err != nil {
				return nil, err
			}
			c = &leasedConn{c, l}
			l.conn.Store(&c)
			return c, nil
		})
	}
	q.openAnnouncements = func(index int, source mka.MAC) (announcer, error) {
		return get(l, "open the socket for announcements", func() (announcer, error) {
			a, err := p.openAnnouncements(index, source)
			if err != nil {
				return nil, err
			}
			return &leasedAnnouncer{a, l}, nil
		})
	}
	q.files = p.files.behind(l)
	return q
}

// behind are files behind a lease.
func (f files) behind(l *lease) files {
	g := f
	g.write = func(path string, text []byte) error {
		return l.do("write "+path, func() error { return f.write(path, text) })
	}
	g.rename = func(from, to string) error { return l.do("rename "+from, func() error { return f.rename(from, to) }) }
	if f.replace != nil {
		g.replace = func(path string, text []byte) error {
			return l.do("write "+path, func() error { return f.replace(path, text) })
		}
	}
	g.remove = func(path string) error { return l.do("remove "+path, func() error { return f.remove(path) }) }
	return g
}

// leasedConn is a socket behind a lease. Reading and closing change nothing.
type leasedConn struct {
	mkaConn
	lease *lease
}

// WriteFrame implements mkaConn.
func (c *leasedConn) WriteFrame(frame []byte) error {
	return c.lease.do("send an MKPDU", func() error { return c.mkaConn.WriteFrame(frame) })
}

// Focus implements mkaConn.
func (c *leasedConn) Focus(f pae.Focus) error {
	return c.lease.do("set the filters of the socket", func() error { return c.mkaConn.Focus(f) })
}

// leasedKernel is a kernel behind a lease.
type leasedKernel struct {
	next  macsec.Kernel
	lease *lease
}

var _ macsec.Kernel = (*leasedKernel)(nil)

// CreateDevice implements macsec.Kernel.
func (k *leasedKernel) CreateDevice(parent int, name string, cfg macsec.DeviceConfig) (*macsec.Device, error) {
	return get(k.lease, macsec.OpCreateDevice, func() (*macsec.Device, error) { return k.next.CreateDevice(parent, name, cfg) })
}

// Device implements macsec.Kernel.
func (k *leasedKernel) Device(name string) (*macsec.Device, error) {
	return get(k.lease, "Device", func() (*macsec.Device, error) { return k.next.Device(name) })
}

// Devices implements macsec.Kernel.
func (k *leasedKernel) Devices() ([]macsec.Device, error) {
	return get(k.lease, "Devices", k.next.Devices)
}

// UpdateDevice implements macsec.Kernel.
func (k *leasedKernel) UpdateDevice(index int, u macsec.DeviceUpdate) error {
	return k.lease.do(macsec.OpUpdateDevice, func() error { return k.next.UpdateDevice(index, u) })
}

// DeleteDevice implements macsec.Kernel.
func (k *leasedKernel) DeleteDevice(index int) error {
	return k.lease.do(macsec.OpDeleteDevice, func() error { return k.next.DeleteDevice(index) })
}

// SecY implements macsec.Kernel.
func (k *leasedKernel) SecY(index int) (*macsec.SecY, error) {
	return get(k.lease, "SecY", func() (*macsec.SecY, error) { return k.next.SecY(index) })
}

// SecYs implements macsec.Kernel.
func (k *leasedKernel) SecYs() ([]macsec.SecY, error) { return get(k.lease, "SecYs", k.next.SecYs) }

// AddRxSC implements macsec.Kernel.
func (k *leasedKernel) AddRxSC(index int, sci macsec.SCI, active bool) error {
	return k.lease.do(macsec.OpAddRxSC, func() error { return k.next.AddRxSC(index, sci, active) })
}

// UpdateRxSC implements macsec.Kernel.
func (k *leasedKernel) UpdateRxSC(index int, sci macsec.SCI, active bool) error {
	return k.lease.do(macsec.OpUpdateRxSC, func() error { return k.next.UpdateRxSC(index, sci, active) })
}

// DeleteRxSC implements macsec.Kernel.
func (k *leasedKernel) DeleteRxSC(index int, sci macsec.SCI) error {
	return k.lease.do(macsec.OpDeleteRxSC, func() error { return k.next.DeleteRxSC(index, sci) })
}

// AddRxSA implements macsec.Kernel.
func (k *leasedKernel) AddRxSA(index int, sci macsec.SCI, sa macsec.SA) error {
	return k.lease.do(macsec.OpAddRxSA, func() error { return k.next.AddRxSA(index, sci, sa) })
}

// UpdateRxSA implements macsec.Kernel.
func (k *leasedKernel) UpdateRxSA(index int, sci macsec.SCI, an macsec.AN, u macsec.SAUpdate) error {
	return k.lease.do(macsec.OpUpdateRxSA, func() error { return k.next.UpdateRxSA(index, sci, an, u) })
}

// DeleteRxSA implements macsec.Kernel.
func (k *leasedKernel) DeleteRxSA(index int, sci macsec.SCI, an macsec.AN) error {
	return k.lease.do(macsec.OpDeleteRxSA, func() error { return k.next.DeleteRxSA(index, sci, an) })
}

// AddTxSA implements macsec.Kernel.
func (k *leasedKernel) AddTxSA(index int, sa macsec.SA) error {
	return k.lease.do(macsec.OpAddTxSA, func() error { return k.next.AddTxSA(index, sa) })
}

// UpdateTxSA implements macsec.Kernel.
func (k *leasedKernel) UpdateTxSA(index int, an macsec.AN, u macsec.SAUpdate) error {
	return k.lease.do(macsec.OpUpdateTxSA, func() error { return k.next.UpdateTxSA(index, an, u) })
}

// DeleteTxSA implements macsec.Kernel.
func (k *leasedKernel) DeleteTxSA(index int, an macsec.AN) error {
	return k.lease.do(macsec.OpDeleteTxSA, func() error { return k.next.DeleteTxSA(index, an) })
}

// SetOffload implements macsec.Kernel.
func (k *leasedKernel) SetOffload(index int, o macsec.Offload) error {
	return k.lease.do(macsec.OpSetOffload, func() error { return k.next.SetOffload(index, o) })
}

// Close implements macsec.Kernel. The kernel is the server's to close.
func (*leasedKernel) Close() error { return nil }

// leasedStates are what keys remember, behind a lease.
type leasedStates struct {
	next  keys.States
	lease *lease
}

// Load implements keys.States.
func (s *leasedStates) Load(link string) (keys.State, error) {
	return get(s.lease, "read the confirmed epoch", func() (keys.State, error) { return s.next.Load(link) })
}

// Durable implements keys.States.
func (s *leasedStates) Durable(link string) error { return s.next.Durable(link) }

// Save implements keys.States.
func (s *leasedStates) Save(link string, state keys.State) error {
	return s.lease.do("record the confirmed epoch", func() error { return s.next.Save(link, state) })
}

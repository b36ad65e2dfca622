// Package macsectest is a Linux kernel's MACsec in memory, behind the interface
// of package macsec, for tests and simulations.
//
// It answers as drivers/net/macsec.c does (read at 6.1), errno for errno, and
// package conformance holds it to a real kernel. It seals and opens real frames,
// so that simulated links carry real traffic, and it tells when a nonce was used
// twice, which no kernel does.
//
// What belongs here: the kernel's behaviour, faults to inject, and what only a
// test can see. What does not: time, links between kernels, and MKA.
package macsectest

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"

	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/internal/pnguard"
)

// Kernel is a machine's kernel. Use New. It is safe for concurrent use.
//
// It stands for the kernel and the client at once and survives Close, so that a
// test can end an agent and start another on what the first one left.
type Kernel struct {
	mu         sync.Mutex
	last       int
	interfaces map[int]*iface
	devices    map[int]*device
	spent      pnguard.Memory
	nonces     *NonceLog
	onNonce    func(Nonce, bool)

	hooks hooks
}

var _ macsec.Kernel = (*Kernel)(nil)

// New is a kernel without interfaces.
func New() *Kernel {
	return &Kernel{interfaces: map[int]*iface{}, devices: map[int]*device{}, nonces: &NonceLog{}}
}

// iface is an Ethernet interface: the parent of devices.
type iface struct {
	name     string
	mac      net.HardwareAddr
	mtu      int
	enslaved bool
	// devices in the order of their creation: receiving asks them in it.
	devices []*device
}

// device is a MACsec device with its SecY.
type device struct {
	macsec.Device
	parent      *iface
	window      uint32 // shown while replay protection is on only
	operational bool
	tx          [macsec.NumAN]*association
	txStats     macsec.TxSCStats
	rx          []*channel
	stats       macsec.SecYStats
}

type channel struct {
	sci    macsec.SCI
	active bool
	sa     [macsec.NumAN]*association
	stats  macsec.RxSCStats
}

// association is an SA, its key turned into a cipher as the kernel does.
type association struct {
	macsec.SA
	cipher *gcm
}

// AddInterface makes an Ethernet interface and returns its index.
func (k *Kernel) AddInterface(name string, mac net.HardwareAddr, mtu int) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last++
	k.interfaces[k.last] = &iface{name: name, mac: slices.Clone(mac), mtu: mtu}
	return k.last
}

// RemoveInterface unregisters an interface and with it the devices on it.
func (k *Kernel) RemoveInterface(index int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.interfaces[index]; p != nil {
		for _, d := range slices.Clone(p.devices) {
			k.remove(d)
		}
		delete(k.interfaces, index)
	}
}

// SetMTU changes the MTU of an interface. That of the devices on it shrinks
// along and never grows back. One of those has room for no more than its parent
// leaves it.
func (k *Kernel) SetMTU(index, mtu int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.devices[index]; d != nil {
		d.MTU = min(mtu, d.parent.mtu-d.overhead())
		return
	}
	p := k.interfaces[index]
	if p == nil {
		return
	}
	p.mtu = mtu
	for _, d := range p.devices {
		d.MTU = min(d.MTU, max(0, mtu-d.overhead()))
	}
}

// Rename gives a device another name.
func (k *Kernel) Rename(index int, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.devices[index]; d != nil {
		d.Name = name
	}
}

// Enslave makes an interface a bridge port or bond slave, or frees it.
func (k *Kernel) Enslave(index int, enslaved bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.interfaces[index]; p != nil {
		p.enslaved = enslaved
	}
}

func (d *device) overhead() int { return int(d.ICVLen) + tagLen(true) }

// CreateDevice implements macsec.Kernel.
func (k *Kernel) CreateDevice(parent int, name string, cfg macsec.DeviceConfig) (*macsec.Device, error) {
	var dev *macsec.Device
	err := k.do(Operation{Op: macsec.OpCreateDevice, Interface: name, Parent: parent, Config: &cfg}, func() error {
		d, err := k.create(parent, name, cfg)
		if err == nil {
			dev = d.shown()
		}
		return err
	})
	return dev, err
}

// create is macsec_validate_attr, then macsec_newlink.
func (k *Kernel) create(parent int, name string, cfg macsec.DeviceConfig) (*device, error) {
	if name == "" || len(name) > 15 {
		return nil, syscall.ERANGE
	}
	if cfg.CipherSuite == 0 {
		cfg.CipherSuite = macsec.GCMAES128
	}
	if cfg.ICVLen == 0 {
		cfg.ICVLen = macsec.DefaultICVLen
	}
	if !cfg.CipherSuite.Valid() || !validICVLen(cfg.ICVLen) || cfg.EncodingAN >= macsec.NumAN || cfg.Validate > macsec.Strict ||
		cfg.IncludeSCI && (cfg.SCB || cfg.EndStation) || cfg.SCB && cfg.EndStation {
		return nil, syscall.EINVAL
	}
	if k.named(name) {
		return nil, syscall.EEXIST
	}
	p := k.interfaces[parent]
	explicit := [6]byte(cfg.SCI[:6]) != [6]byte{}
	switch {
	case p == nil:
		return nil, syscall.ENODEV
	case cfg.Offload != macsec.Off:
		return nil, fmt.Errorf("%w: %w", macsec.ErrOffloadUnsupported, syscall.EOPNOTSUPP)
	case explicit && !cfg.IncludeSCI:
		return nil, syscall.EINVAL
	case p.enslaved:
		return nil, syscall.EBUSY
	}
	if !explicit {
		cfg.SCI = macsec.NewSCI(p.mac, max(1, cfg.SCI.Port()))
	}
	for _, d := range p.devices {
		if d.SCI == cfg.SCI {
			return nil, syscall.EBUSY
		}
	}
	if cfg.CipherSuite.XPN() && cfg.ReplayWindow > macsec.MaxXPNWindow {
		return nil, syscall.EINVAL
	}
	k.last++
	d := &device{
		Device: macsec.Device{
			Index: k.last, Name: name, Parent: parent, MAC: slices.Clone(p.mac), DeviceConfig: cfg,
		},
		parent: p, window: cfg.ReplayWindow,
	}
	d.MTU = max(0, p.mtu-d.overhead())
	k.devices[d.Index] = d
	p.devices = append(p.devices, d)
	return d, nil
}

// validICVLen is what the kernel's gcm accepts within MACsec's 8 to 16.
func validICVLen(n uint8) bool { return n == 8 || n >= 12 && n <= 16 }

func (k *Kernel) named(name string) bool {
	for _, p := range k.interfaces {
		if p.name == name {
			return true
		}
	}
	for _, d := range k.devices {
		if d.Name == name {
			return true
		}
	}
	return false
}

// shown is the device as the kernel describes it.
func (d *device) shown() *macsec.Device {
	dev := d.Device
	dev.MAC = slices.Clone(d.MAC)
	dev.ReplayWindow = 0
	if d.ReplayProtect {
		dev.ReplayWindow = d.window
	}
	return &dev
}

// Device implements macsec.Kernel.
func (k *Kernel) Device(name string) (*macsec.Device, error) {
	var dev *macsec.Device
	err := k.do(Operation{Op: macsec.OpDevice, Interface: name}, func() error {
		for _, d := range k.devices {
			if d.Name == name {
				dev = d.shown()
				return nil
			}
		}
		return syscall.ENODEV
	})
	return dev, err
}

// Devices implements macsec.Kernel.
func (k *Kernel) Devices() ([]macsec.Device, error) {
	var devs []macsec.Device
	err := k.do(Operation{Op: macsec.OpDevices}, func() error {
		for _, d := range k.sorted() {
			devs = append(devs, *d.shown())
		}
		return nil
	})
	return devs, err
}

func (k *Kernel) sorted() []*device {
	all := make([]*device, 0, len(k.devices))
	for _, d := range k.devices {
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b *device) int { return a.Index - b.Index })
	return all
}

// UpdateDevice implements macsec.Kernel.
func (k *Kernel) UpdateDevice(index int, u macsec.DeviceUpdate) error {
	return k.do(Operation{Op: macsec.OpUpdateDevice, Index: index, DeviceUpdate: &u}, func() error {
		d := k.devices[index]
		if d == nil {
			return syscall.ENODEV
		}
		return d.update(u)
	})
}

// update is macsec_validate_attr, then macsec_changelink.
func (d *device) update(u macsec.DeviceUpdate) error {
	on := func(b *bool) bool { return b != nil && *b }
	switch {
	case u.EncodingAN != nil && *u.EncodingAN >= macsec.NumAN,
		u.Validate != nil && *u.Validate > macsec.Strict,
		on(u.IncludeSCI) && (on(u.SCB) || on(u.EndStation)), on(u.SCB) && on(u.EndStation),
		on(u.ReplayProtect) && u.ReplayWindow == nil,
		u.ReplayWindow != nil && d.CipherSuite.XPN() && *u.ReplayWindow > macsec.MaxXPNWindow:
		return syscall.EINVAL
	}
	set(&d.Encrypt, u.Encrypt)
	set(&d.Protect, u.Protect)
	set(&d.IncludeSCI, u.IncludeSCI)
	set(&d.EndStation, u.EndStation)
	set(&d.SCB, u.SCB)
	set(&d.Validate, u.Validate)
	set(&d.ReplayProtect, u.ReplayProtect)
	set(&d.window, u.ReplayWindow)
	set(&d.Up, u.Up)
	if u.EncodingAN != nil {
		d.EncodingAN = *u.EncodingAN
		sa := d.tx[d.EncodingAN]
		d.operational = sa != nil && sa.Active
	}
	return nil
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// DeleteDevice implements macsec.Kernel.
func (k *Kernel) DeleteDevice(index int) error {
	return k.do(Operation{Op: macsec.OpDeleteDevice, Index: index}, func() error {
		d := k.devices[index]
		if d == nil {
			return syscall.ENODEV
		}
		for _, sa := range d.tx {
			if sa != nil {
				k.spent.Retire(d.SCI, sa.KeyID, pnguard.Exhausted)
			}
		}
		k.remove(d)
		return nil
	})
}

func (k *Kernel) remove(d *device) {
	delete(k.devices, d.Index)
	d.parent.devices = slices.DeleteFunc(d.parent.devices, func(o *device) bool { return o == d })
}

// SetOffload implements macsec.Kernel. No interface here offloads anything.
func (k *Kernel) SetOffload(index int, o macsec.Offload) error {
	return k.do(Operation{Op: macsec.OpSetOffload, Index: index, Offload: &o}, func() error {
		d := k.devices[index]
		if d == nil {
			return syscall.ENODEV
		}
		if o != d.Offload {
			return syscall.EOPNOTSUPP
		}
		return nil
	})
}

// Close implements macsec.Kernel: it does nothing, as closing a socket does to
// the state of a kernel.
func (k *Kernel) Close() error { return nil }

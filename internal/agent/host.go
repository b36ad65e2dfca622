package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/pae"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// platform is what a link needs of its machine besides MACsec. There is one,
// linux; a test drives whole links on one in memory.
type platform struct {
	findParent      func(name string) (parent, error)
	findIndex       func(index int) (parent, error)
	interfaceName   func(index int) string
	setUp           func(index int, up bool) error
	ensureAddresses func(index int, prefixes []netip.Prefix) (added []netip.Prefix, err error)
	closeFence      func(index int, opts fence.Options) ([]fence.Change, error)
	inspectFence    func(index int, opts fence.Options) (fence.State, error)
	openFence       func(index int) error
	rename          func(index int, up bool, name string) error
	setMTU          func(index, mtu int) error
	alias           func(index int) (string, error)
	setAlias        func(index int, text string) error
	openMKA         func(index int, opts pae.Options) (mkaConn, error)
	files           files
	// openAnnouncements opens the interface for messages between channels; source is
	// its address.
	openAnnouncements func(index int, source mka.MAC) (announcer, error)
}

// mkaConn is a pae.Conn.
type mkaConn interface {
	ReadFrames(l pae.Lane, b *pae.Batch) error
	Focus(f pae.Focus) error
	WriteFrame(frame []byte) error
	Dropped() [pae.Lanes]uint64
	Close() error
}

var linux = platform{
	findParent: findParent, findIndex: findIndex, rename: rename, setMTU: setMTU, interfaceName: interfaceName, setUp: setUp, ensureAddresses: ensureAddresses,
	closeFence: fence.Close, inspectFence: fence.Inspect, openFence: fence.Open,
	openMKA: func(index int, opts pae.Options) (mkaConn, error) {
		c, err := pae.Open(index, opts)
		if err != nil {
			return nil, err
		}
		return c, nil
	},
	openAnnouncements: openAnnouncements,
	alias:             alias, setAlias: setAlias, files: osFiles,
}

// parent is the interface beneath a link, as it is now.
type parent struct {
	index   int
	name    string
	address mka.MAC
	mtu     int
	up      bool // administratively
	running bool // and the carrier is there
	master  int
	known   macsec.SCI // as which the far end knows it; zero: by its address
}

// findParent looks an interface up in the agent's network namespace.
func findParent(name string) (parent, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
			return parent{}, &missingError{name}
		}
		return parent{}, fmt.Errorf("look up interface %s: %w", name, err)
	}
	return asParent(l)
}

// findIndex is findParent for one that may have another name by now.
func findIndex(index int) (parent, error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return parent{}, fmt.Errorf("look up interface %d: %w", index, err)
	}
	return asParent(l)
}

func asParent(l netlink.Link) (parent, error) {
	a := l.Attrs()
	if len(a.HardwareAddr) != len(mka.MAC{}) {
		return parent{}, &notEthernetError{a.Name, a.Index}
	}
	master := a.MasterIndex
	if master != 0 {
		// A VRF is about routes and takes no frame away from MACsec, as a bridge, bond,
		// team or Open vSwitch does (rx_handler).
		if m, err := netlink.LinkByIndex(master); err == nil && m.Type() == "vrf" {
			master = 0
		}
	}
	return parent{
		index: a.Index, name: a.Name, address: mka.MAC(a.HardwareAddr), mtu: a.MTU,
		up: a.Flags&net.FlagUp != 0, running: a.RawFlags&unix.IFF_LOWER_UP != 0, master: master,
	}, nil
}

type notEthernetError struct {
	name  string
	index int
}

func (e *notEthernetError) Error() string {
	return fmt.Sprintf("interface %s has no Ethernet address: MACsec needs an Ethernet link", e.name)
}

type missingError struct{ name string }

func (e *missingError) Error() string { return fmt.Sprintf("there is no interface %s", e.name) }

func setUp(index int, up bool) error {
	l := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
	if up {
		return netlink.LinkSetUp(l)
	}
	return netlink.LinkSetDown(l)
}

func setMTU(index, mtu int) error {
	return netlink.LinkSetMTU(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, mtu)
}

// rename gives an interface a name, and sets it down for that if it must: kernels
// before 6.2 do not rename one that is up (dev_change_name).
func rename(index int, up bool, name string) error {
	l := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
	err := netlink.LinkSetName(l, name)
	if errors.Is(err, unix.EBUSY) && up {
		if err := netlink.LinkSetDown(l); err != nil {
			return err
		}
		return netlink.LinkSetName(l, name)
	}
	return err
}

// alias is what an interface is called for people (IFLA_IFALIAS).
func alias(index int) (string, error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return "", fmt.Errorf("look up interface %d: %w", index, err)
	}
	return l.Attrs().Alias, nil
}

func setAlias(index int, text string) error {
	return netlink.LinkSetAlias(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, text)
}

func interfaceName(index int) string {
	if l, err := netlink.LinkByIndex(index); err == nil {
		return l.Attrs().Name
	}
	return fmt.Sprintf("interface %d", index)
}

// ensureAddresses adds what of prefixes the device lacks, and removes nothing. It
// returns what it has added.
func ensureAddresses(index int, prefixes []netip.Prefix) (added []netip.Prefix, err error) {
	if len(prefixes) == 0 {
		return nil, nil
	}
	l := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
	have, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w", interfaceName(index), err)
	}
	var errs []error
	for _, p := range prefixes {
		want := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
		if slices.ContainsFunc(have, func(a netlink.Addr) bool { return a.IPNet.String() == want.String() }) {
			continue
		}
		if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: want}); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("add address %v to %s: %w", p, interfaceName(index), err))
			continue
		}
		added = append(added, p)
	}
	return added, errors.Join(errs...)
}

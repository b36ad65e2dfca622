package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespaceDir is where ip-netns(8) looks for names.
const namespaceDir = "/run/netns"

// A Netspace is a network namespace with a name that ip-netns(8) knows.
type Netspace struct {
	Name   string
	Handle netns.NsHandle
	Links  *netlink.Handle
}

// NewNetspace makes one, with lo up and without IPv6 unless somebody asks for
// it: what a router's uplinks look like, and nothing speaks on a bare link by
// itself.
func NewNetspace(name string) (*Netspace, error) {
	if _, err := os.Lstat(filepath.Join(namespaceDir, name)); err == nil {
		return nil, fmt.Errorf("make network namespace %s: it is there already, from a demo or test that was kept or killed; end what runs in it (ip netns pids %[1]s) and remove it (ip netns del %[1]s)", name)
	}
	n := &Netspace{Name: name}
	err := onOwnThread(func() (err error) {
		n.Handle, err = netns.NewNamed(name)
		return err
	})
	if err != nil {
		// Left behind if the name could be made and not be mounted on.
		_ = os.Remove(filepath.Join(namespaceDir, name))
		return nil, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	if n.Links, err = netlink.NewHandleAt(n.Handle, unix.NETLINK_ROUTE); err != nil {
		return nil, errors.Join(fmt.Errorf("open rtnetlink in network namespace %s: %w", name, err), n.Close(true))
	}
	if err = n.Up("lo"); err != nil {
		return nil, errors.Join(err, n.Close(true))
	}
	return n, nil
}

// Here is the namespace that this process is in. Close it without removing it.
func Here() (*Netspace, error) {
	handle, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open the network namespace that we are in: %w", err)
	}
	links, err := netlink.NewHandleAt(handle, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open rtnetlink: %w", err), handle.Close())
	}
	return &Netspace{Name: "here", Handle: handle, Links: links}, nil
}

// Do runs fn on a thread that is in the namespace. Sockets that fn opens and
// processes that it starts stay there.
func (n *Netspace) Do(fn func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(int(n.Handle), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", n.Name, err)
		}
		return fn()
	})
}

// onOwnThread runs fn on a thread that ends with it, so that no other goroutine
// ever finds itself in a strange namespace.
func onOwnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- fn()
	}()
	return <-done
}

// Up sets an interface up.
func (n *Netspace) Up(name string) error {
	l, err := n.Links.LinkByName(name)
	if err == nil {
		err = n.Links.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("set %s up in %s: %w", name, n.Name, err)
	}
	return nil
}

// Silence keeps the kernel from speaking IPv6 on an interface by itself, as an
// operator does on an uplink that carries encrypted frames only.
func (n *Netspace) Silence(iface string) error {
	return n.Do(func() error {
		path := filepath.Join("/proc/sys/net/ipv6/conf", iface, "disable_ipv6")
		// /proc/sys/net shows the namespace of the thread that opens it.
		err := os.WriteFile(path, []byte("1\n"), 0)
		if errors.Is(err, os.ErrNotExist) {
			return nil // a kernel without IPv6 is silent as it is
		}
		return err
	})
}

// Address gives an interface an address and, so that nobody needs to ask for it
// in a broadcast, the neighbour on the other end of the wire.
func (n *Netspace) Address(iface string, addr *net.IPNet, neighbour net.IP, mac net.HardwareAddr) error {
	l, err := n.Links.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("find %s in %s: %w", iface, n.Name, err)
	}
	if err := n.Links.AddrAdd(l, &netlink.Addr{IPNet: addr}); err != nil {
		return fmt.Errorf("give %s in %s the address %s: %w", iface, n.Name, addr, err)
	}
	return n.Neighbour(iface, neighbour, mac)
}

// Neighbour tells an interface where an address is.
func (n *Netspace) Neighbour(iface string, neighbour net.IP, mac net.HardwareAddr) error {
	l, err := n.Links.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("find %s in %s: %w", iface, n.Name, err)
	}
	err = n.Links.NeighSet(&netlink.Neigh{
		LinkIndex: l.Attrs().Index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
		IP: neighbour, HardwareAddr: mac,
	})
	if err != nil {
		return fmt.Errorf("tell %s in %s where %s is: %w", iface, n.Name, neighbour, err)
	}
	return nil
}

// MAC is an interface's address.
func (n *Netspace) MAC(iface string) (net.HardwareAddr, error) {
	l, err := n.Links.LinkByName(iface)
	if err != nil {
		return nil, fmt.Errorf("find %s in %s: %w", iface, n.Name, err)
	}
	return l.Attrs().HardwareAddr, nil
}

// Close lets go of the namespace and, if remove, of its name, with which the
// kernel takes down all that is in it.
func (n *Netspace) Close(remove bool) error {
	if n.Links != nil {
		n.Links.Close()
	}
	err := n.Handle.Close()
	if remove {
		if rmErr := netns.DeleteNamed(n.Name); rmErr != nil {
			err = errors.Join(err, fmt.Errorf("remove network namespace %s: %w", n.Name, rmErr))
		}
	}
	return err
}

// Unplug takes an interface out, and its peer with it, at once: the kernel takes down
// what is in a namespace some time after it was closed.
func (n *Netspace) Unplug(name string) error {
	l, err := n.Links.LinkByName(name)
	if err == nil {
		err = n.Links.LinkDel(l)
	}
	if err != nil {
		return fmt.Errorf("take %s out of %s: %w", name, n.Name, err)
	}
	return nil
}

// Wire joins an interface in one namespace to one in another, both up.
func Wire(a *Netspace, aName string, z *Netspace, zName string) error {
	if err := WireDown(a, aName, z, zName); err != nil {
		return err
	}
	return errors.Join(a.Up(aName), z.Up(zName))
}

// WireDown is Wire, but leaves both ends down, as a driver leaves an interface
// that was plugged in.
func WireDown(a *Netspace, aName string, z *Netspace, zName string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = aName
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: zName, PeerNamespace: netlink.NsFd(int(z.Handle))}
	if err := a.Links.LinkAdd(veth); err != nil {
		return fmt.Errorf("join %s in %s to %s in %s: %w", aName, a.Name, zName, z.Name, err)
	}
	for _, end := range []struct {
		Space *Netspace
		Name  string
	}{{a, aName}, {z, zName}} {
		if err := end.Space.Silence(end.Name); err != nil {
			return fmt.Errorf("turn IPv6 off on %s in %s: %w", end.Name, end.Space.Name, err)
		}
	}
	return nil
}

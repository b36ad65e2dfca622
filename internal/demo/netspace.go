package demo

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

// A netspace is a network namespace with a name that ip-netns(8) knows.
type netspace struct {
	name   string
	handle netns.NsHandle
	links  *netlink.Handle
}

// newNetspace makes one, with lo up and without IPv6 unless somebody asks for
// it: what a router's uplinks look like, and nothing speaks on a bare link by
// itself.
func newNetspace(name string) (*netspace, error) {
	if _, err := os.Lstat(filepath.Join(namespaceDir, name)); err == nil {
		return nil, fmt.Errorf("make network namespace %s: it is there already, from a demo that was kept or killed; end what runs in it (ip netns pids %[1]s) and remove it (ip netns del %[1]s)", name)
	}
	n := &netspace{name: name}
	err := onOwnThread(func() (err error) {
		n.handle, err = netns.NewNamed(name)
		return err
	})
	if err != nil {
		// Left behind if the name could be made and not be mounted on.
		_ = os.Remove(filepath.Join(namespaceDir, name))
		return nil, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	if n.links, err = netlink.NewHandleAt(n.handle, unix.NETLINK_ROUTE); err != nil {
		return nil, errors.Join(fmt.Errorf("open rtnetlink in network namespace %s: %w", name, err), n.close(true))
	}
	if err = n.up("lo"); err != nil {
		return nil, errors.Join(err, n.close(true))
	}
	return n, nil
}

// do runs fn on a thread that is in the namespace. Sockets that fn opens and
// processes that it starts stay there.
func (n *netspace) do(fn func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(int(n.handle), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", n.name, err)
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

// up sets an interface up.
func (n *netspace) up(name string) error {
	l, err := n.links.LinkByName(name)
	if err == nil {
		err = n.links.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("set %s up in %s: %w", name, n.name, err)
	}
	return nil
}

// silence keeps the kernel from speaking IPv6 on an interface by itself, as an
// operator does on an uplink that carries encrypted frames only.
func (n *netspace) silence(iface string) error {
	return n.do(func() error {
		path := filepath.Join("/proc/sys/net/ipv6/conf", iface, "disable_ipv6")
		// /proc/sys/net shows the namespace of the thread that opens it.
		err := os.WriteFile(path, []byte("1\n"), 0)
		if errors.Is(err, os.ErrNotExist) {
			return nil // a kernel without IPv6 is silent as it is
		}
		return err
	})
}

// address gives an interface an address and, so that nobody needs to ask for it
// in a broadcast, the neighbour on the other end of the wire.
func (n *netspace) address(iface string, addr *net.IPNet, neighbour net.IP, mac net.HardwareAddr) error {
	l, err := n.links.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("find %s in %s: %w", iface, n.name, err)
	}
	if err := n.links.AddrAdd(l, &netlink.Addr{IPNet: addr}); err != nil {
		return fmt.Errorf("give %s in %s the address %s: %w", iface, n.name, addr, err)
	}
	err = n.links.NeighSet(&netlink.Neigh{
		LinkIndex: l.Attrs().Index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
		IP: neighbour, HardwareAddr: mac,
	})
	if err != nil {
		return fmt.Errorf("tell %s in %s where %s is: %w", iface, n.name, neighbour, err)
	}
	return nil
}

// mac is an interface's address.
func (n *netspace) mac(iface string) (net.HardwareAddr, error) {
	l, err := n.links.LinkByName(iface)
	if err != nil {
		return nil, fmt.Errorf("find %s in %s: %w", iface, n.name, err)
	}
	return l.Attrs().HardwareAddr, nil
}

// close lets go of the namespace and, if remove, of its name, with which the
// kernel takes down all that is in it.
func (n *netspace) close(remove bool) error {
	if n.links != nil {
		n.links.Close()
	}
	err := n.handle.Close()
	if remove {
		if rmErr := netns.DeleteNamed(n.name); rmErr != nil {
			err = errors.Join(err, fmt.Errorf("remove network namespace %s: %w", n.name, rmErr))
		}
	}
	return err
}

// wire joins an interface in one namespace to one in another, both up.
func wire(a *netspace, aName string, z *netspace, zName string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = aName
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: zName, PeerNamespace: netlink.NsFd(int(z.handle))}
	if err := a.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("join %s in %s to %s in %s: %w", aName, a.name, zName, z.name, err)
	}
	for _, end := range []struct {
		ns   *netspace
		name string
	}{{a, aName}, {z, zName}} {
		if err := end.ns.silence(end.name); err != nil {
			return fmt.Errorf("turn IPv6 off on %s in %s: %w", end.name, end.ns.name, err)
		}
	}
	return errors.Join(a.up(aName), z.up(zName))
}

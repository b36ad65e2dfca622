package audit

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/macsec"
)

// machine is the Host that this process runs on, in the network namespace of the
// calling thread.
type machine struct{}

// Linux is the machine that this process runs on.
func Linux() Host { return machine{} }

// Interfaces implements Host.
func (machine) Interfaces() ([]Interface, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	found := make([]Interface, 0, len(links))
	for _, l := range links {
		a := l.Attrs()
		x := Interface{
			Index: a.Index, Name: a.Name, Others: a.AltNames, Kind: l.Type(), Up: a.Flags&net.FlagUp != 0, Running: a.RawFlags&unix.IFF_LOWER_UP != 0,
			Master: a.MasterIndex, XDP: a.Xdp != nil && a.Xdp.Attached,
		}
		// IFLA_LINK_NETNSID says that the index is one of another namespace.
		if a.NetNsID < 0 {
			x.Lower = a.ParentIndex
		}
		found = append(found, x)
	}
	return found, nil
}

// SecYs implements Host.
func (machine) SecYs() (all []macsec.SecY, err error) {
	k, err := macsec.New()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	return k.SecYs()
}

// Fence implements Host.
func (machine) Fence(index int, opts fence.Options) (fence.State, error) {
	return fence.Inspect(index, opts)
}

// TCX implements Host.
func (machine) TCX(index int) (int, error) {
	total := 0
	for _, hook := range []uint32{unix.BPF_TCX_INGRESS, unix.BPF_TCX_EGRESS} {
		n, err := countPrograms(index, hook)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// countPrograms asks how many programs a hook of an interface has; none where the kernel
// has no such hook, or no bpf.
func countPrograms(index int, hook uint32) (int, error) {
	// The part of union bpf_attr for BPF_PROG_QUERY, as far as it is asked for.
	query := struct {
		index, hook, flags, attached uint32
		ids                          uint64
		count, _                     uint32
		_                            [4]uint64
	}{index: uint32(index), hook: hook}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&query)), unsafe.Sizeof(query))
	switch {
	case errno == 0:
		return int(query.count), nil
	case errno == unix.EINVAL, errno == unix.ENOSYS, errno == unix.EPERM && before(6, 6):
		return 0, nil
	}
	return 0, errno
}

// before tells whether the kernel is older than a version.
func before(major, minor int) bool {
	var u unix.Utsname
	var x, y int
	if err := unix.Uname(&u); err != nil {
		return false
	}
	if n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &x, &y); n != 2 {
		return false
	}
	return x < major || x == major && y < minor
}

// Addresses implements Host.
func (machine) Addresses(index int) ([]netip.Prefix, error) {
	all, err := netlink.AddrList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	found := make([]netip.Prefix, 0, len(all))
	for _, a := range all {
		addr, ok := netip.AddrFromSlice(a.IP)
		ones, _ := a.Mask.Size()
		if !ok {
			return nil, fmt.Errorf("the kernel gives %v as an address", a.IPNet)
		}
		found = append(found, netip.PrefixFrom(addr.Unmap(), ones))
	}
	return found, nil
}

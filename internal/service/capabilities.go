package service

import (
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// capabilities is a set, as capabilities(7) numbers them.
type capabilities uint64

func (c capabilities) has(number int) bool { return c&(1<<number) != 0 }

// String names the two that matter here, and others by their number.
func (c capabilities) String() string {
	var names []string
	for n := range 64 {
		switch {
		case !c.has(n):
		case n == unix.CAP_NET_ADMIN:
			names = append(names, "CAP_NET_ADMIN")
		case n == unix.CAP_NET_RAW:
			names = append(names, "CAP_NET_RAW")
		default:
			names = append(names, fmt.Sprint(n))
		}
	}
	return strings.Join(names, ", ")
}

// capabilitySets are those of a thread that capget tells.
type capabilitySets struct{ effective, permitted, inheritable capabilities }

func ownCapabilities() (capabilitySets, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // of 32 capabilities each
	if err := unix.Capget(&header, &data[0]); err != nil {
		return capabilitySets{}, fmt.Errorf("capget: %w", err)
	}
	join := func(low, high uint32) capabilities { return capabilities(high)<<32 | capabilities(low) }
	return capabilitySets{
		effective:   join(data[0].Effective, data[1].Effective),
		permitted:   join(data[0].Permitted, data[1].Permitted),
		inheritable: join(data[0].Inheritable, data[1].Inheritable),
	}, nil
}

// dropCapabilities leaves the needed ones of those that the process has, in
// every set. With no_new_privs set no execve brings the others back, not even as
// root; that the bounding set goes as well, where it may, is for kernels and
// modules that look at nothing else.
func dropCapabilities() error {
	have, err := ownCapabilities()
	if err != nil {
		return err
	}
	if have.effective.has(unix.CAP_SETPCAP) {
		if err := shrinkBoundingSet(); err != nil {
			return err
		}
	}
	keep := have.permitted & needed
	if have.permitted == keep && have.effective == keep && have.inheritable == 0 {
		return nil // and with nothing inheritable, nothing is ambient
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	// Nothing inheritable clears the ambient set as well (capabilities(7)).
	data := [2]unix.CapUserData{{Effective: uint32(keep), Permitted: uint32(keep)}}
	_, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	if errno != 0 {
		return fmt.Errorf("capset: %w", errno)
	}
	return nil
}

func shrinkBoundingSet() error {
	for n := 0; ; n++ {
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
		if err != nil {
			return nil // past the last that this kernel knows
		}
		if in == 0 || needed.has(n) {
			continue
		}
		if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0, 0); errno != 0 {
			return fmt.Errorf("drop capability %d from the bounding set: %w", n, errno)
		}
	}
}

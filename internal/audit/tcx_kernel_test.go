//go:build kernel

package audit_test

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/internal/audit"
	"github.com/lever-link/lever/internal/fence"
)

func bpf[T any](command uintptr, attr *T) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
	if errno != 0 {
		return 0, errno
	}
	return int(fd), nil
}

// passAll attaches a program by tcx that says TCX_PASS of each frame, and returns the
// descriptor that holds it.
func passAll(index int, hook uint32) (int, error) {
	code := [2]uint64{0xb7, 0x95} // r0 = 0; exit
	license := [4]byte{'G', 'P', 'L'}
	load := struct {
		kind, instructions uint32
		code, license      uint64
		_                  [12]uint64
	}{kind: unix.BPF_PROG_TYPE_SCHED_CLS, instructions: 2, code: uint64(uintptr(unsafe.Pointer(&code))), license: uint64(uintptr(unsafe.Pointer(&license)))}
	program, err := bpf(unix.BPF_PROG_LOAD, &load)
	runtime.KeepAlive(&code)
	runtime.KeepAlive(&license)
	if err != nil {
		return 0, err
	}
	defer unix.Close(program)
	link := struct {
		program, index, hook, flags uint32
		_                           [4]uint64
	}{program: uint32(program), index: uint32(index), hook: hook}
	return bpf(unix.BPF_LINK_CREATE, &link)
}

// A program of tcx takes frames past a fence in which nothing is wrong, and the audit
// sees it.
func TestProgramOfTCX(t *testing.T) {
	runtime.LockOSThread() // and never unlocked: the thread ends in there
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth4"}, PeerName: "far0"}))
	var index [2]int
	for i, name := range []string{"eth4", "far0"} {
		l, err := netlink.LinkByName(name)
		must(err)
		must(netlink.LinkSetUp(l))
		index[i] = l.Attrs().Index
	}
	_, err = fence.Close(index[0], fence.Options{})
	must(err)
	socket := func(i int, protocol uint16) int {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		must(err)
		t.Cleanup(func() { unix.Close(fd) })
		must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200000}))
		must(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: index[i]}))
		return fd
	}
	in, out := socket(1, 0x0800), socket(0, 0)
	leaves := func() bool {
		t.Helper()
		frame := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}, make([]byte, 46)...)
		for range 20 { // until the interface has a carrier
			if err := unix.Sendto(out, frame, 0, &unix.SockaddrLinklayer{Ifindex: index[0]}); err != nil && !errors.Is(err, unix.ENOBUFS) {
				t.Fatal(err)
			}
			if n, _, _ := unix.Recvfrom(in, make([]byte, 128), 0); n == len(frame) {
				return true
			}
		}
		return false
	}
	count := func() int {
		t.Helper()
		n, err := audit.Linux().TCX(index[0])
		must(err)
		return n
	}
	if n := count(); n != 0 || leaves() {
		t.Fatalf("%d programs, and a plain frame passes the fence: %v", n, leaves())
	}
	link, err := passAll(index[0], unix.BPF_TCX_EGRESS)
	if errors.Is(err, unix.EINVAL) {
		// Nobody can come before the fence by it: only a kernel before 6.6 may say so.
		var u unix.Utsname
		must(unix.Uname(&u))
		var major, minor int
		_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
		if err != nil || major > 6 || major == 6 && minor >= 6 {
			t.Errorf("Linux %s refuses a program of tcx: %v", u.Release[:], err)
		}
		return
	}
	must(err)
	defer unix.Close(link)
	st, err := fence.Inspect(index[0], fence.Options{})
	must(err)
	if n, out := count(), leaves(); n != 1 || !out || !st.Closed {
		t.Errorf("%d programs, a plain frame leaves %v, the fence is closed %v; want 1, true, true", n, out, st.Closed)
	}
}

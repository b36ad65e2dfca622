package uml

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// KernelVariable names the environment variable that, when set, is the path of
// the user-mode Linux kernel to use, whatever else there is.
const KernelVariable = "LEVER_UML"

// Kernel is a kernel with MACsec: the host's own, or a user-mode one.
type Kernel struct {
	// Native is true for the kernel that this process runs on; the other
	// fields but Release are then empty.
	Native bool
	// Path is the linux.uml executable.
	Path string
	// Modules is the directory of its modules, the one with modules.dep.
	Modules string
	// Release is what uname -r says on it.
	Release string
}

// String names the kernel for people.
func (k Kernel) String() string {
	if k.Native {
		return "the host's kernel " + k.Release
	}
	return "user-mode Linux " + k.Release + " (" + k.Path + ")"
}

// Find looks for a kernel with MACsec: $LEVER_UML, the host's own if we are
// root and a MACsec device can really be made, /usr/bin/linux.uml, and
// lever/uml in the user's cache directory, where the Makefile unpacks the
// package. The error says what was found and what to install.
func Find() (Kernel, error) {
	if path := os.Getenv(KernelVariable); path != "" {
		k, err := userMode(path)
		if err != nil {
			return Kernel{}, fmt.Errorf("find a kernel with MACsec: %s: %w", KernelVariable, err)
		}
		return k, nil
	}
	nativeErr := nativeMACsec()
	if nativeErr == nil {
		return Kernel{Native: true, Release: release()}, nil
	}
	tried := []string{"/usr/bin/linux.uml"}
	if cache, err := os.UserCacheDir(); err == nil {
		tried = append(tried, filepath.Join(cache, "lever", "uml", "usr", "bin", "linux.uml"))
	}
	var found []error
	for _, path := range tried {
		k, err := userMode(path)
		if err == nil {
			return k, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			found = append(found, err)
		}
	}
	return Kernel{}, &NoKernelError{Native: nativeErr, Tried: tried, Broken: errors.Join(found...)}
}

// NoKernelError says why no kernel with MACsec was found, and what to do.
type NoKernelError struct {
	// Native is why the host's own kernel will not do.
	Native error
	// Tried are the places where a user-mode kernel was looked for.
	Tried []string
	// Broken is what was wrong with those that exist; nil if none does.
	Broken error
}

// Error implements error.
func (e *NoKernelError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "find a kernel with MACsec: the host's own: %v; no user-mode kernel at %s", e.Native, strings.Join(e.Tried, " or "))
	if e.Broken != nil {
		fmt.Fprintf(&b, " (%v)", e.Broken)
	}
	b.WriteString("; install the package user-mode-linux (apt-get install user-mode-linux), run `make kernel`, which needs no root, or set " + KernelVariable + " to a linux.uml")
	return b.String()
}

// Unwrap gives the reasons.
func (e *NoKernelError) Unwrap() []error {
	if e.Broken == nil {
		return []error{e.Native}
	}
	return []error{e.Native, e.Broken}
}

// userMode checks that the executable runs here, and finds its modules: where
// the package has them relative to it, or where the installed package does.
func userMode(path string) (Kernel, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Kernel{}, err
	}
	if _, err := os.Stat(path); err != nil {
		return Kernel{}, err
	}
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return Kernel{}, fmt.Errorf("%s --version: %w", path, err)
	}
	k := Kernel{Path: path, Release: strings.TrimSpace(string(out))}
	beside := filepath.Join(filepath.Dir(filepath.Dir(path)), "lib", "uml", "modules", k.Release)
	installed := filepath.Join("/usr/lib/uml/modules", k.Release)
	for _, dir := range []string{beside, installed} {
		if _, err := os.Stat(filepath.Join(dir, "modules.dep")); err == nil {
			k.Modules = dir
			return k, nil
		}
	}
	return Kernel{}, fmt.Errorf("%s is kernel %s, but neither %s nor %s has a modules.dep: unpack the whole package", path, k.Release, beside, installed)
}

// nativeMACsec reports why the host's kernel cannot run a job, nil if it can.
// The answer cannot change while the process lives as who it is.
var nativeMACsec = sync.OnceValue(func() error {
	if os.Geteuid() != 0 {
		return errors.New("we are not root")
	}
	// The macsec family checks CAP_NET_ADMIN in the initial user namespace
	// (GENL_ADMIN_PERM), so that root in another can make a device but no SA.
	if m, err := os.ReadFile("/proc/self/uid_map"); err != nil {
		return fmt.Errorf("which user namespace we are in: %w", err)
	} else if f := strings.Fields(string(m)); len(f) != 3 || f[0] != "0" || f[1] != "0" || f[2] != "4294967295" {
		return errors.New("we are root in a user namespace only")
	}
	done := make(chan error)
	go func() {
		// Never unlocked: the thread, and with it the namespace and all that
		// was made there, ends with this goroutine.
		runtime.LockOSThread()
		done <- tryMACsec()
	}()
	return <-done
})

// tryMACsec makes a MACsec device on a veth in a new network namespace of the
// calling thread; the kernel loads the module if it has one.
func tryMACsec() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v1"}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make a veth pair: %w", err)
	}
	parent, err := netlink.LinkByName("v0")
	if err != nil {
		return fmt.Errorf("find the veth just made: %w", err)
	}
	sec := &netlink.GenericLink{
		LinkAttrs: netlink.LinkAttrs{Name: "m0", ParentIndex: parent.Attrs().Index},
		LinkType:  "macsec",
	}
	if err := netlink.LinkAdd(sec); err != nil {
		return fmt.Errorf("make a MACsec device: %w", err)
	}
	return nil
}

// release is uname -r of the kernel that this process runs on.
func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil { // fails for a bad pointer only
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

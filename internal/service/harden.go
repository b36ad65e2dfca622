package service

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Harden takes from the process what it does not need and keys could leak by:
// core files, ptrace and /proc/PID/mem for anybody but root, swap, capabilities
// besides CAP_NET_ADMIN and CAP_NET_RAW, and new privileges by execve. It must
// run before the first key is read.
//
// What the machine refuses is one warning each and no error: an agent with less
// armour still encrypts.
func Harden(log *slog.Logger) {
	var inForce []string
	for _, measure := range []struct {
		name, next string
		take       func() error
	}{
		{"no core files", "", noCore},
		{"not dumpable", "", notDumpable},
		{"memory locked", "give the service LimitMEMLOCK=infinity, or run ulimit -l unlimited first", lockMemory},
		{"no new privileges", "", noNewPrivileges},
		{"capabilities net_admin and net_raw only", "run it as the packaged unit does", dropCapabilities},
	} {
		err := measure.take()
		if err == nil {
			inForce = append(inForce, measure.name)
			continue
		}
		args := []any{"measure", measure.name, "error", err}
		if measure.next != "" {
			args = append(args, "next", measure.next)
		}
		log.Warn("a hardening measure is not in force", args...)
	}
	log.Info("process hardened", "in_force", strings.Join(inForce, ", "))
}

// The unit has done some of it already, and its filter of system calls refuses
// those that do it: what is in force is not asked for.

func noCore() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err == nil && limit.Max == 0 {
		return nil
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("set RLIMIT_CORE to 0: %w", err)
	}
	return nil
}

// notDumpable also gives /proc/PID to root: ptrace_may_access asks for
// CAP_SYS_PTRACE of everybody else, whatever their user id.
func notDumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl PR_SET_DUMPABLE: %w", err)
	}
	return nil
}

// lockMemory keeps all pages out of swap as they come into use. Without
// MCL_ONFAULT the kernel would also fill the large ranges that the Go runtime
// reserves and never touches.
func lockMemory() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return fmt.Errorf("read RLIMIT_MEMLOCK: %w", err)
	}
	if limit.Cur != unix.RLIM_INFINITY {
		unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		// Under a finite limit MCL_FUTURE would make the runtime's next mmap fail, and
		// that ends a Go program.
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited); err != nil {
			return fmt.Errorf("RLIMIT_MEMLOCK is %d octets and may not be raised: %w", limit.Cur, err)
		}
	}
	err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	if err != nil {
		return fmt.Errorf("mlockall: %w", err)
	}
	return nil
}

// noNewPrivileges and dropCapabilities work on threads, not on processes: psx
// does each call on all of them, in programs with cgo (the tests, for the race
// detector) and without.
func noNewPrivileges() error {
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("prctl PR_SET_NO_NEW_PRIVS: %w", errno)
	}
	return nil
}

// needed are the capabilities of an agent: netlink of macsec, tc and links asks
// for the first, the packet socket of MKA for the second.
const needed capabilities = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW

// ErrNotPrivileged means that the process lacks what no agent can do without.
var ErrNotPrivileged = errors.New("an agent needs CAP_NET_ADMIN and CAP_NET_RAW")

// CheckPrivileges returns ErrNotPrivileged if the process cannot be an agent.
func CheckPrivileges() error {
	have, err := ownCapabilities()
	if err != nil {
		return err
	}
	if missing := needed &^ have.effective; missing != 0 {
		return fmt.Errorf("%w: this process lacks %v: run it as root or by its systemd unit", ErrNotPrivileged, missing)
	}
	return nil
}

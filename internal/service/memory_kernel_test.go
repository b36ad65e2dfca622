//go:build kernel

package service

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/internal/lab"
)

func init() { attacks["thief"] = thief }

// loot is what a process got out of another one.
type loot map[string]string

// thief tries to get at the memory of the process that its input names.
func thief() {
	in := bufio.NewScanner(os.Stdin)
	in.Scan()
	pid, err := strconv.Atoi(in.Text())
	if err != nil {
		panic(err)
	}
	got := loot{}
	try := func(way string, err error) {
		got[way] = "done"
		if err != nil {
			got[way] = err.Error()
		}
	}
	for _, file := range []string{"mem", "environ", "maps", "auxv", "fd", "stack"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err == nil {
			_, err = f.Readdirnames(0)
			if file != "fd" {
				_, err = f.ReadAt(make([]byte, 1), 0)
			}
			if file == "mem" {
				err = nil // there is nothing at 0; being let in is enough
			}
		}
		try(file, err)
	}
	to := make([]byte, 1)
	_, err = unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &to[0], Len: 1}}, []unix.RemoteIovec{{Base: 0x400000, Len: 1}}, 0)
	try("process_vm_readv", err)
	// gcore(1) and a debugger begin with this.
	try("ptrace", unix.PtraceSeize(pid))
	_ = json.NewEncoder(os.Stdout).Encode(got)
}

// steal lets a user try everything on a process.
func steal(t *testing.T, user uint32, victim int) loot {
	t.Helper()
	var got loot
	startChild(t, "thief", user, &got, strconv.Itoa(victim)).end()
	return got
}

// Nobody but root gets at the memory of a hardened process, not even the user
// that it runs as. That the same user gets at one that is not shows that the ways
// tried are ways.
func TestMemoryIsOutOfReach(t *testing.T) {
	const other = 65533
	var h any
	for _, c := range []struct {
		victim      string
		uid, thief  uint32
		wayIsBarred bool
	}{
		{"plain", nobody, nobody, false},
		{"hardened", nobody, nobody, true},
		{"hardened", nobody, other, true},
		{"hardened", 0, nobody, true},
	} {
		victim := startChild(t, c.victim, c.uid, &h)
		for way, outcome := range steal(t, c.thief, victim.Process.Pid) {
			if way == "stack" && !c.wayIsBarred {
				continue // root's alone in any case
			}
			if barred := outcome != "done"; barred != c.wayIsBarred {
				t.Errorf("user %d on a %s process of user %d: %s: %s", c.thief, c.victim, c.uid, way, outcome)
			}
		}
		victim.end()
	}
}

// A hardened process leaves no core, whatever limit it was started with.
func TestNoCoreFile(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &before); err != nil {
		t.Fatal(err)
	}
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unlimited); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_CORE, &before) }()
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/sys/kernel/core_pattern", []byte(t.TempDir()+"/core.%p"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.WriteFile("/proc/sys/kernel/core_pattern", pattern, 0o600) }()
	t.Setenv("GOTRACEBACK", "crash") // the runtime ends with a core where it may
	for name, want := range map[string]bool{"plain": true, "hardened": false} {
		var h any
		c := startChild(t, name, 0, &h)
		if err := c.Process.Signal(syscall.SIGQUIT); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait()
		if status := c.ProcessState.Sys().(syscall.WaitStatus); status.CoreDump() != want {
			t.Errorf("the %s process ended by %v, core dumped: %v", name, status.Signal(), status.CoreDump())
		}
	}
}

// Network namespaces are nodes of their own, as in the demo.
func TestHoldIsForOneNetworkNamespace(t *testing.T) {
	log, said := testLog()
	for _, name := range []string{"hold-1", "hold-2"} {
		ns, err := lab.NewNetspace(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ns.Close(true) })
		err = ns.Do(func() error {
			release, err := Hold(Holder{PID: os.Getpid(), RunDir: name}, log)
			t.Cleanup(release)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		err = ns.Do(func() error { _, err := Hold(Holder{RunDir: "second"}, log); return err })
		if held, ok := errors.AsType[*HeldError](err); !ok || held.Holder.RunDir != name {
			t.Errorf("a second agent in %s: %v", name, err)
		}
	}
	if said.Len() > 0 {
		t.Error(said)
	}
}

// An ordinary user cannot keep an agent from starting.
func TestHoldAgainstASquatter(t *testing.T) {
	name := testHoldName(t)
	var refused string
	squatter := startChild(t, "held", nobody, &refused, name)
	if refused != "" {
		t.Fatal(refused)
	}
	log, said := testLog()
	release, err := hold(name, Holder{PID: os.Getpid()}, log)
	if err != nil {
		t.Fatal(err)
	}
	release()
	for _, want := range []string{"level=WARN", fmt.Sprint(squatter.Process.Pid), fmt.Sprint(nobody)} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("nothing says %s: %s", want, said)
		}
	}
}

//go:build kernel

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/lab"
)

// An agent is closed to everybody but root, however it is started, and all
// that it is meant to do it does with what it has left.
func TestAgentIsHardened(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.start()
	s.deliver(1, "ab")
	s.secured()
	s.pings(0, 1)
	pid := s.agentPID(0)
	status := s.proc(pid, "status")
	for name, want := range map[string]string{
		"NoNewPrivs": "1", "CapInh": "0000000000000000", "CapPrm": "0000000000003000", "CapEff": "0000000000003000",
		"CapBnd": "0000000000003000", "CapAmb": "0000000000000000",
	} {
		if got := field(status, name); got != want {
			t.Errorf("%s of the agent is %q, want %q", name, got, want)
		}
	}
	if locked := field(status, "VmLck"); locked == "" || locked == "0 kB" {
		t.Errorf("VmLck of the agent is %q", locked)
	}
	if limits := s.proc(pid, "limits"); !strings.Contains(strings.Join(strings.Fields(limits), " "), "Max core file size 0 0 ") {
		t.Errorf("the agent may write a core:\n%s", limits)
	}
	// What the kernel gives to root of a process that is not dumpable is its
	// /proc directory; its memory is refused to everybody without CAP_SYS_PTRACE.
	const nobody = 65534
	for _, file := range []string{"mem", "environ", "maps"} {
		cmd := exec.Command("/bin/cat", fmt.Sprintf("/proc/%d/%s", pid, file))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "Permission denied") {
			t.Errorf("an ordinary user reads %s of the agent: %v: %.100q", file, err, out)
		}
	}
	if log := s.readLog(0); strings.Contains(log, "hardening measure") {
		t.Errorf("a hardening measure is not in force:\n%s", log)
	}
	// A rekey, a new epoch and a restart need nothing that is gone.
	s.lever(0, "rekey", theLink)
	key := s.secured()
	s.deliver(2, "ab")
	s.securedAnew(key)
	s.kill(0)
	s.start(0)
	s.secured()
	s.pings(0, 1)
}

// An address for metrics that cannot be had is no reason to leave links alone.
func TestMetricsAddressThatIsTaken(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.deliver(1, "ab")
	s.routers[0].Args = []string{"--metrics", "192.0.2.77:9100"}     // nobody's here
	s.routers[1].Args = []string{"--metrics", "nobody.invalid:9100"} // nobody to ask for the name
	s.start()
	s.secured()
	for i, address := range []string{"192.0.2.77:9100", "nobody.invalid:9100"} {
		if log := s.readLog(i); !strings.Contains(log, "metrics are not served") || !strings.Contains(log, address) {
			t.Errorf("nothing is said of metrics:\n%s", log)
		}
	}
}

// Root without its capabilities is a user like others: what belongs to somebody
// else and is closed it cannot open, and says which.
func TestKeysInAnotherUsersDirectory(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.deliver(1, "ab")
	keys := s.routers[0].Path("keys")
	s.must(os.Chmod(keys, 0o700))
	s.must(os.Chown(keys, 1000, 1000))
	s.start()
	s.fault(0, health.ChannelUnreadable, filepath.Join(keys, "a"), "permission denied")
	s.must(os.Chown(keys, 0, 0))
	s.secured()
	s.noFault(0, health.ChannelUnreadable)
}

// There is one agent in a network namespace, whatever directories it is given.
func TestSecondAgentIsRefused(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.start()
	s.deliver(1, "ab")
	s.secured()
	second, err := lab.NewRouter("r1", filepath.Join(s.dir, "second"), s.routers[0].Binary, []byte(pairInventory("")), s.routers[0].Space)
	s.must(err)
	defer func() { s.mustNot(second.Close(false)) }()
	for name, runDir := range map[string]string{
		"with a run directory of its own": second.Path(lab.RunDir),
		"with the same run directory":     s.routers[0].Path(lab.RunDir),
	} {
		ctx, cancel := context.WithTimeout(s.ctx(), patience)
		cmd := exec.CommandContext(ctx, second.Binary, "agent", "--inventory", second.Path(lab.InventoryFile), "--node", "r1",
			"--run-dir", runDir, "--state-dir", second.Path(lab.StateDir))
		var out strings.Builder
		cmd.Stderr = &out
		s.must(second.Space.Do(cmd.Start))
		err := cmd.Wait()
		cancel()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
			t.Fatalf("a second agent %s: %v\n%s", name, err, &out)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		refusal := lines[len(lines)-1]
		for _, word := range []string{fmt.Sprintf("process %d", s.agentPID(0)), "node r1", s.routers[0].Path(lab.RunDir), "stop"} {
			if !strings.Contains(refusal, word) {
				t.Errorf("the refusal does not say %q: %s", word, refusal)
			}
		}
	}
	s.pings(0, 1)
}

// A service manager hears that the agent serves, that it lives, reloads and stops.
func TestServiceManagerIsTold(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.start(1)
	s.deliver(1, "ab")
	path := filepath.Join(s.dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	s.must(err)
	defer func() { _ = manager.Close() }()
	told := make(chan string, 1000)
	go func() {
		defer close(told)
		for buf := make([]byte, 1000); ; {
			n, err := manager.Read(buf)
			if err != nil {
				return
			}
			told <- string(buf[:n])
		}
	}()
	r := s.routers[0]
	cmd := exec.Command(r.Binary, "agent", "--inventory", r.Path(lab.InventoryFile), "--node", r.Name,
		"--run-dir", r.Path(lab.RunDir), "--state-dir", r.Path(lab.StateDir))
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=300000")
	var out strings.Builder
	cmd.Stderr = &out
	s.must(r.Space.Do(cmd.Start))
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	hear := func(want string) {
		t.Helper()
		limit := time.After(patience)
		for {
			select {
			case got := <-told:
				if strings.HasPrefix(got, want) {
					return
				}
			case <-limit:
				t.Fatalf("the manager did not hear %q:\n%s", want, &out)
			}
		}
	}
	if first := <-told; first != "READY=1" {
		t.Errorf("the first thing that the manager hears is %q", first)
	}
	hear("WATCHDOG=1")
	hear("STATUS=1 of 1 links that must be encrypted are secured")
	hear("WATCHDOG=1")
	s.must(cmd.Process.Signal(syscall.SIGHUP))
	hear("RELOADING=1\nMONOTONIC_USEC=")
	hear("READY=1")
	s.must(cmd.Process.Signal(syscall.SIGTERM))
	hear("STOPPING=1")
	s.must(<-ended)
	s.pings(0, 1) // the encrypted path stays
}

// agentPID is the process of a router's agent.
func (s *site) agentPID(i int) int {
	s.Helper()
	text, err := os.ReadFile(s.routers[i].Path(filepath.Join(lab.RunDir, "agent.pid")))
	s.must(err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	s.must(err)
	return pid
}

func (s *site) proc(pid int, file string) string {
	s.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	s.must(err)
	return string(text)
}

func (s *site) readLog(i int) string {
	s.Helper()
	text, err := os.ReadFile(s.routers[i].Path(lab.LogFile))
	s.must(err)
	return string(text)
}

// field is one of /proc/PID/status.
func field(status, name string) string {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

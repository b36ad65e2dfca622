//go:build kernel

package uml

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// These tests run on the host, without -exec, and boot kernels themselves. Run
// under -exec, where the kernel has MACsec and we are root, they test the
// native way.

const jobVariable = "UML_TEST_JOB"

// The test program is also the job of some tests.
func init() {
	switch os.Getenv(jobVariable) {
	case "macsec":
		if err := tryMACsec(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Printf("uid %d, MACsec device made", os.Getuid())
		os.Exit(0)
	case "caller":
		Init()
		_, err := Run(context.Background(), Job{Args: []string{"/bin/sh", "-c", spin}, Stdout: os.Stdout})
		fmt.Println("unexpected end:", err)
		os.Exit(1)
	}
}

// spin is a job with a process that runs and one that sleeps, the two that a
// dying kernel could leave behind.
const spin = "sleep 1000 & echo started; while :; do :; done"

// sandbox gives the test a directory of its own for all temporary files, and
// returns a function that checks that nothing is left: no file in it, and no
// process that knows of it.
func sandbox(t *testing.T) (dir string, clean func()) {
	t.Helper()
	dir = t.TempDir()
	t.Setenv("TMPDIR", dir)
	return dir, func() {
		t.Helper()
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range left {
			t.Errorf("left behind: %s", filepath.Join(dir, e.Name()))
		}
		for _, pid := range processes(t, dir) {
			t.Errorf("left behind: process %d", pid)
		}
	}
}

// processes lists the other processes with the text in arguments or environment.
func processes(t *testing.T, text string) []int {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no processes in /proc: %v", err)
	}
	var pids []int
	for _, d := range dirs {
		args, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		env, _ := os.ReadFile(filepath.Join(d, "environ"))
		var pid int
		fmt.Sscanf(filepath.Base(d), "%d", &pid)
		if pid != os.Getpid() && (bytes.Contains(args, []byte(text)) || bytes.Contains(env, []byte(text))) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func shell(script string) []string { return []string{"/bin/sh", "-c", script} }

func TestRunHasMACsec(t *testing.T) {
	_, clean := sandbox(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	res, err := Run(t.Context(), Job{Args: []string{self}, Env: []string{jobVariable + "=macsec"}, Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "uid 0, MACsec device made"; res.ExitCode != 0 || got != want {
		t.Errorf("exit status %d, output %q, want 0 and %q", res.ExitCode, got, want)
	}
	if res.Kernel == "" || res.Boot <= 0 {
		t.Errorf("result says nothing about the kernel: %+v", res)
	}
	t.Logf("kernel %s, native %t, boot to job in %v", res.Kernel, res.Native, res.Boot)
	clean()
}

func TestExitStatus(t *testing.T) {
	_, clean := sandbox(t)
	for script, want := range map[string]int{"exit 0": 0, "exit 255": 255, "kill -9 $$": 137} {
		t.Run(script, func(t *testing.T) {
			res, err := Run(t.Context(), Job{Args: shell(script)})
			if err != nil || res.ExitCode != want {
				t.Errorf("exit status %d, error %v, want %d and none", res.ExitCode, err, want)
			}
		})
	}
	clean()
}

func TestMachine(t *testing.T) {
	dir := t.TempDir()
	_, clean := sandbox(t)
	if err := os.WriteFile(filepath.Join(dir, "here"), []byte("on the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, script, want string }{
		{"root", "id -u", "0"},
		{"directory and host file", "cat here", "on the host"},
		{"environment", "echo $HOME $TMPDIR $GIVEN", "/tmp /tmp a b"},
		{"empty standard input", "wc -c", "0"},
		{"no terminal", "test -t 1 || test -t 2 || echo none", "none"},
		{"lo is up", "cat /sys/class/net/lo/flags", "0x9"},
		{"only lo", "ls /sys/class/net", "lo"},
		{"run is empty", "ls -A /run", ""},
		{"null device", "echo x >/dev/null && echo fine", "fine"},
		{"orphans are reaped", "sleep 0 & echo fine", "fine"},
	}
	// One machine for all of them, each answer after its question.
	var script, want strings.Builder
	for _, tt := range tests {
		fmt.Fprintf(&script, "echo '%s:' $(%s)\n", tt.name, tt.script)
		fmt.Fprintln(&want, strings.TrimSpace(tt.name+": "+tt.want))
	}
	var out, errs strings.Builder
	res, err := Run(t.Context(), Job{Args: shell(script.String()), Dir: dir, Env: []string{"GIVEN=a b", "HOME=/nowhere"}, Stdout: &out, Stderr: &errs})
	if err != nil {
		t.Fatal(err)
	}
	if res.ExitCode != 0 || out.String() != want.String() {
		t.Errorf("exit status %d, errors %q, output:\n%swant:\n%s", res.ExitCode, errs.String(), out.String(), want.String())
	}
	clean()
}

func TestStreamsAreExactAndApart(t *testing.T) {
	_, clean := sandbox(t)
	var out, errs bytes.Buffer
	res, err := Run(t.Context(), Job{
		Args:   shell("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo trouble >&2; head -c 3000000 /dev/zero; printf '\\003\\004\\r\\n\\t'"),
		Stdout: &out, Stderr: &errs,
	})
	if err != nil || res.ExitCode != 0 {
		t.Fatalf("exit status %d, error %v", res.ExitCode, err)
	}
	var want bytes.Buffer
	for i := range 2000 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	want.Write(make([]byte, 3000000))
	want.WriteString("\003\004\r\n\t")
	if !bytes.Equal(out.Bytes(), want.Bytes()) {
		t.Errorf("standard output differs: %d octets, want %d", out.Len(), want.Len())
	}
	if errs.String() != "trouble\n" {
		t.Errorf("standard error %q, want the one line", errs.String())
	}
	clean()
}

// TestSignalAndLiveOutput would wait for ever if output came at the end only.
func TestSignalAndLiveOutput(t *testing.T) {
	_, clean := sandbox(t)
	r, w := io.Pipe()
	signals := make(chan os.Signal)
	go func() {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			if lines.Text() == "ready" {
				signals <- syscall.SIGTERM
			}
		}
	}()
	res, err := Run(t.Context(), Job{
		Args:   shell("trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"),
		Stdout: w, Signals: signals,
	})
	if err != nil || res.ExitCode != 9 {
		t.Errorf("exit status %d, error %v, want 9 and none", res.ExitCode, err)
	}
	clean()
}

func TestResults(t *testing.T) {
	_, clean := sandbox(t)
	tests := []struct {
		name, script string
		results      []string
		want         map[string]string
		err          string
	}{
		{"file", "echo hello >/tmp/f", []string{"/tmp/f"}, map[string]string{"f": "hello\n"}, ""},
		{"directory", "mkdir -p /tmp/d/e; echo 1 >/tmp/d/a; echo 2 >/tmp/d/e/b", []string{"/tmp/d"}, map[string]string{"d/a": "1\n", "d/e/b": "2\n"}, ""},
		{"missing", "echo hello >/tmp/f", []string{"/tmp/f", "/tmp/g"}, map[string]string{"f": "hello\n"}, "result file /tmp/g"},
		{"missing after failure", "exit 3", []string{"/tmp/g"}, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			results := map[string]string{}
			for _, r := range tt.results {
				results[r] = filepath.Join(dir, filepath.Base(r))
			}
			_, err := Run(t.Context(), Job{Args: shell(tt.script), Results: results})
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			for name, want := range tt.want {
				if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
					t.Errorf("%s: %q, %v, want %q", name, b, err, want)
				}
			}
		})
	}
	clean()
}

func TestCancelKillsTheGuest(t *testing.T) {
	_, clean := sandbox(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("the test has seen enough")
	r, w := io.Pipe()
	go func() {
		bufio.NewReader(r).ReadString('\n')
		cancel(enough)
		io.Copy(io.Discard, r)
	}()
	res, err := Run(ctx, Job{Args: shell(spin), Stdout: w})
	if !errors.Is(err, enough) {
		t.Errorf("result %+v, error %v, want the cause of the cancellation", res, err)
	}
	clean()
}

func TestKilledCallerLeavesNothing(t *testing.T) {
	dir, clean := sandbox(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	caller := exec.Command(self)
	caller.Env = append(os.Environ(), jobVariable+"=caller")
	out, err := caller.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := caller.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "started\n" {
		t.Fatalf("the job said %q, %v", line, err)
	}
	var waiting []unix.PollFd
	for _, pid := range processes(t, dir) {
		if pid == caller.Process.Pid {
			continue
		}
		if fd, err := unix.PidfdOpen(pid, 0); err == nil { // else it has just ended
			defer unix.Close(fd)
			waiting = append(waiting, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	if len(waiting) < 2 {
		t.Fatalf("found %d processes of the guest, want at least the supervisor and the kernel", len(waiting))
	}
	if err := caller.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = caller.Wait() // "signal: killed"
	for i := range waiting {
		for {
			if _, err := unix.Poll(waiting[i:i+1], -1); !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
	clean()
}

// TestDeadGuestIsAnError kills the guest's first process, on which a kernel
// panics, and natively the namespace ends.
func TestDeadGuestIsAnError(t *testing.T) {
	_, clean := sandbox(t)
	kernel, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	want := "goroutine"
	if !kernel.Native {
		want = "Kernel panic"
	}
	_, err = Run(t.Context(), Job{Args: shell("kill -QUIT 1; sleep 1000")})
	if err == nil || !strings.Contains(err.Error(), "without an exit status") || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want one with the console's %q", err, want)
	}
	clean()
}

func TestRunRefuses(t *testing.T) {
	_, clean := sandbox(t)
	tests := []struct {
		name string
		job  Job
		want string
	}{
		{"no program", Job{}, "Args is empty"},
		{"unknown program", Job{Args: []string{"/no/such/program"}}, "/no/such/program"},
		{"no directory", Job{Args: shell("true"), Dir: "/no/such/dir"}, "/no/such/dir"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Run(t.Context(), tt.job); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	clean()
}

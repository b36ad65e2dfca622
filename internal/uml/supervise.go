package uml

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process of this executable learns from the environment that it is not the
// program itself.
const (
	roleVariable   = "LEVER_UML_ROLE"
	roleSupervisor = "supervisor"
	// planVariable is a kernel parameter that the guest's kernel hands to
	// its first process, as it does with each KEY=value it does not know.
	planVariable = "LEVER_UML_PLAN"

	planFile   = "plan.json"
	statusFile = "status.json"
	resultsDir = "results"
)

// supervise is the life of the supervisor. Its descriptors: 0 the plan, then
// orders, and at its end the caller's; 1 and 2 the job's output; 3 the report.
func supervise() {
	report := os.NewFile(3, "report")
	unix.CloseOnExec(3)
	in := json.NewDecoder(os.Stdin)
	var out outcome
	var p plan
	if err := in.Decode(&p); err != nil {
		out.Err = fmt.Sprintf("read the plan: %v", err)
	} else if out.Status, err = oversee(p, in); err != nil {
		out.Err = err.Error()
	}
	// A caller that is gone does not read it, and there is nobody to tell.
	_ = json.NewEncoder(report).Encode(out)
	os.Exit(0)
}

// oversee runs the plan in a directory that it makes and removes.
func oversee(p plan, orders *json.Decoder) (_ status, err error) {
	p.WorkDir, err = os.MkdirTemp(workBase(), "lever-uml-")
	if err != nil {
		return status{}, fmt.Errorf("make a working directory: %w", err)
	}
	defer func() {
		if rmErr := os.RemoveAll(p.WorkDir); rmErr != nil {
			err = errors.Join(err, fmt.Errorf("remove the working directory: %w", rmErr))
		}
	}()
	if err := os.Mkdir(filepath.Join(p.WorkDir, resultsDir), 0o700); err != nil {
		return status{}, err
	}
	p.Started = time.Now()
	b, err := json.Marshal(p)
	if err != nil {
		return status{}, err
	}
	if err := os.WriteFile(filepath.Join(p.WorkDir, planFile), b, 0o600); err != nil {
		return status{}, err
	}
	console, err := boot(p, orders)
	st, stErr := readStatus(p.WorkDir)
	switch {
	case err != nil:
		return status{}, withConsole(err, console)
	case stErr != nil:
		return status{}, withConsole(fmt.Errorf("the guest ended without an exit status (a kernel panic?): %w", stErr), console)
	case st.Err != "":
		return status{}, errors.New("in the guest: " + st.Err)
	}
	return st, fetch(p, st)
}

// workBase is where the working directory goes: short, because the path of
// user-mode Linux's control socket in it may have 107 octets, and plain,
// because it appears on the kernel's command line.
func workBase() string {
	if dir := os.TempDir(); filepath.IsAbs(dir) && len(dir) <= 60 && !strings.ContainsAny(dir, " \t\n\"'\\,") {
		return dir
	}
	return "/tmp"
}

func readStatus(workDir string) (status, error) {
	var st status
	b, err := os.ReadFile(filepath.Join(workDir, statusFile))
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(b, &st)
}

// withConsole adds the last lines of the kernel's console to an error, from a
// little before a panic if there was one: its call trace is long.
func withConsole(err error, console string) error {
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(console, "\r", "")), "\n")
	const keep, before = 40, 10
	from := max(0, len(lines)-keep)
	if i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "Kernel panic") }); i >= 0 {
		from = max(0, min(from, i-before))
	}
	if lines = lines[from:]; len(lines) == 1 && lines[0] == "" {
		return err
	}
	return fmt.Errorf("%w; the kernel's last lines:\n  %s", err, strings.Join(lines, "\n  "))
}

// boot starts the kernel, or natively the namespaces, with the guest's first
// process, and returns when all of it has ended. The error is about what the
// host did; how the guest fared is in its status file.
func boot(p plan, orders *json.Decoder) (console string, err error) {
	// Pdeathsig is about the thread that forks, not about the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// A kernel that panics dumps its core, all of the guest's memory.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return "", fmt.Errorf("forbid core dumps: %w", err)
	}
	controlR, controlW, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer controlW.Close()
	defer controlR.Close()

	var tail tailBuffer
	cmd, err := p.command()
	if err != nil {
		return "", err
	}
	cmd.Dir = p.WorkDir
	cmd.Stdout, cmd.Stderr = &tail, &tail
	cmd.ExtraFiles = []*os.File{os.Stdout, os.Stderr, controlR}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start %s: %w", p.Kernel, err)
	}
	controlR.Close()

	// The whole group: the kernel's main process, killed alone, leaves those
	// of its own processes running that were running just then.
	kill := func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			var o order
			if orders.Decode(&o) != nil {
				kill()
				return
			}
			fmt.Fprintf(controlW, "%d\n", o.Signal)
		}
	}()
	waitErr := cmd.Wait()
	// Whatever the kernel forgot; the group stays ours until it is empty.
	kill()
	select {
	case <-gone:
		return tail.String(), errors.New("killed, because its caller has gone or cancelled")
	default:
	}
	// User-mode Linux exits with 0 after power off; a status file from before
	// a crash on the way down is as good.
	if waitErr != nil && !errors.As(waitErr, new(*exec.ExitError)) {
		return tail.String(), fmt.Errorf("wait for %s: %w", p.Kernel, waitErr)
	}
	return tail.String(), nil
}

// command is what to start: this executable as first process of new
// namespaces, or of a new kernel.
func (p plan) command() (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	handOver := planVariable + "=" + p.WorkDir
	if p.Kernel.Native {
		cmd := exec.Command(self)
		cmd.Env = []string{handOver}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Setpgid:    true,
			Pdeathsig:  syscall.SIGKILL, // and with it all of its namespace
			Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		}
		return cmd, nil
	}
	// A link, because the executable's own path may have a space in it.
	first := filepath.Join(p.WorkDir, "init")
	if err := os.Symlink(self, first); err != nil {
		return nil, err
	}
	cmd := exec.Command(p.Kernel.Path,
		"rootfstype=hostfs", "root=/dev/root", "rw",
		fmt.Sprintf("mem=%dM", p.MemoryMB),
		"init="+first, handOver,
		// con0 is the kernel's own; the job's streams are consoles as well,
		// since nothing else leads out of the guest while it runs.
		"con=null", "con0=null,fd:1", "con1=null,fd:3", "con2=null,fd:4", "con3=fd:5,null",
		"oops=panic", // a kernel that is broken proves nothing
		"uml_dir="+p.WorkDir, "umid=guest",
	)
	cmd.Env = []string{"TMPDIR=" + memoryDir(p)}
	// The kernel takes its processes along on SIGTERM; they would survive a
	// SIGKILL. This is for a supervisor that is itself killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	return cmd, nil
}

// memoryDir is where the kernel puts the file that is its memory, which it
// unlinks at once: /dev/shm, if all of it fits there and may be executed.
func memoryDir(p plan) string {
	const shm = "/dev/shm"
	var fs unix.Statfs_t
	if unix.Statfs(shm, &fs) == nil && fs.Flags&unix.ST_NOEXEC == 0 &&
		fs.Bavail*uint64(fs.Bsize) > uint64(p.MemoryMB+64)<<20 && unix.Access(shm, unix.W_OK) == nil {
		return shm
	}
	return p.WorkDir
}

// fetch moves the result files to where the caller wants them.
func fetch(p plan, st status) error {
	var errs []error
	for i, r := range p.Results {
		if msg := st.Results[i]; msg != "" {
			if st.ExitCode == 0 {
				errs = append(errs, fmt.Errorf("result file %s: %s", r.Guest, msg))
			}
			continue
		}
		if err := copyTree(r.Host, filepath.Join(p.WorkDir, resultsDir, fmt.Sprint(i))); err != nil {
			errs = append(errs, fmt.Errorf("result file %s: %w", r.Guest, err))
		}
	}
	return errors.Join(errs...)
}

// copyTree copies a file over a file, or a directory's content into one.
func copyTree(dst, src string) error {
	info, err := os.Stat(src)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.CopyFS(dst, os.DirFS(src))
	}
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// A tailBuffer keeps the last part of what is written to it.
type tailBuffer struct {
	mu sync.Mutex
	b  []byte
}

func (t *tailBuffer) Write(p []byte) (int, error) {
	const most = 32 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > 2*most {
		t.b = append([]byte(nil), t.b[len(t.b)-most:]...)
	}
	return len(p), nil
}

func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

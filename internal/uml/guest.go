package uml

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A status is what the guest leaves in the working directory for the
// supervisor.
type status struct {
	ExitCode int
	Release  string
	Boot     time.Duration
	// Results has an entry for each result file of the plan: empty, or why
	// it is not there.
	Results []string
	// Err is set if the job could not be run.
	Err string
}

var initCalled bool

// Init must be the first statement of main (or TestMain) of every program that
// calls Run. In the program itself it returns at once. In the processes that
// Run starts from the same executable, the supervisor and the guest's first
// process, it does their work and does not return.
func Init() {
	initCalled = true
	if os.Getpid() == 1 {
		if workDir := os.Getenv(planVariable); workDir != "" {
			guest(workDir)
		}
	}
	if os.Getenv(roleVariable) == roleSupervisor {
		os.Unsetenv(roleVariable)
		supervise()
	}
}

// guest is the life of the first process in there.
func guest(workDir string) {
	var p plan
	b, err := os.ReadFile(filepath.Join(workDir, planFile))
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	st := status{Release: release()}
	var streams consoles
	if err == nil {
		streams, err = prepare(p)
	}
	if err == nil {
		st.Boot = time.Since(p.Started)
		st.ExitCode, err = streams.run(p)
	}
	if err != nil {
		st.Err = err.Error()
	} else {
		for i, r := range p.Results {
			msg := ""
			if err := copyTree(filepath.Join(workDir, resultsDir, strconv.Itoa(i)), r.Guest); err != nil {
				msg = err.Error()
			}
			st.Results = append(st.Results, msg)
		}
	}
	if b, err = json.Marshal(st); err == nil {
		err = os.WriteFile(filepath.Join(workDir, statusFile), b, 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "write the status:", err) // the kernel's console
	}
	if p.Kernel.Native {
		os.Exit(0)
	}
	unix.Sync()
	err = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Fprintln(os.Stderr, "power off:", err)
	os.Exit(1) // the kernel panics when its first process ends
}

// prepare turns the bare kernel into a machine that programs expect.
func prepare(p plan) (consoles, error) {
	if err := mounts(p); err != nil {
		return consoles{}, err
	}
	streams := consoles{out: os.NewFile(3, "stdout"), err: os.NewFile(4, "stderr"), control: os.NewFile(5, "control")}
	if p.Kernel.Native {
		for fd := 3; fd <= 5; fd++ {
			unix.CloseOnExec(fd)
		}
	} else {
		var err error
		if streams, err = openConsoles(); err != nil {
			return consoles{}, err
		}
		if err := loadModules(p.Kernel.Modules, append(modules(), p.Modules...)); err != nil {
			return consoles{}, err
		}
		if err := os.Symlink(p.Kernel.Modules, guestModules); err != nil {
			return consoles{}, err
		}
	}
	return streams, upLoopback()
}

// mounts gives the guest its own /proc, /sys, /tmp and /run.
func mounts(p plan) error {
	if p.Kernel.Native {
		// Nothing mounted here may be seen by the host.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
	}
	for _, m := range []struct{ kind, at string }{{"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := unix.Mount(m.kind, m.at, m.kind, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	if !p.Kernel.Native {
		if err := devices(); err != nil {
			return err
		}
	}
	needed := []string{p.WorkDir, p.Dir, p.Kernel.Modules}
	for _, kv := range p.Env {
		if path, ok := strings.CutPrefix(kv, "PATH="); ok {
			needed = append(needed, filepath.SplitList(path)...)
		}
	}
	for _, arg := range p.Args {
		if _, value, ok := strings.Cut(arg, "="); ok {
			needed = append(needed, value) // -flag=path
		}
		needed = append(needed, arg)
	}
	for _, at := range []string{"/tmp", "/run"} {
		if err := scratch(at, needed); err != nil {
			return err
		}
	}
	return nil
}

// devices completes /dev, which the kernel has mounted already if it was told
// to when it was built.
func devices() error {
	if err := unix.Mount("devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount /dev: %w", err)
	}
	for _, m := range []struct{ kind, at string }{{"devpts", "/dev/pts"}, {"tmpfs", "/dev/shm"}} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", m.at, err)
		}
		if err := unix.Mount(m.kind, m.at, m.kind, unix.MS_NOSUID|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if err := os.Symlink(target, filepath.Join("/dev", name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// scratch mounts a tmpfs and, because that hides what the host has there,
// brings back those entries that hold one of the paths: `go test` builds its
// programs below /tmp, and the checkout may be there as well.
func scratch(at string, needed []string) error {
	type entry struct {
		path string
		dir  bool
		file *os.File
	}
	var keep []entry
	seen := map[string]bool{}
	for _, n := range needed {
		rest, below := strings.CutPrefix(filepath.Clean(n), at+"/")
		if !below {
			continue
		}
		first, _, _ := strings.Cut(rest, "/")
		path := filepath.Join(at, first)
		if seen[path] {
			continue
		}
		seen[path] = true
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			continue // an argument that only looks like a path, or is to be made
		}
		if err != nil {
			return fmt.Errorf("keep %s: %w", path, err)
		}
		f := os.NewFile(uintptr(fd), path)
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return fmt.Errorf("keep %s: %w", path, err)
		}
		keep = append(keep, entry{path, info.IsDir(), f})
	}
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return fmt.Errorf("mount %s: %w", at, err)
	}
	for _, e := range keep {
		if err := placeholder(e.path, e.dir); err != nil {
			return fmt.Errorf("keep %s: %w", e.path, err)
		}
		if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", e.file.Fd()), e.path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("keep %s: %w", e.path, err)
		}
	}
	return nil
}

// placeholder makes what a bind mount of its kind can be mounted on.
func placeholder(path string, dir bool) error {
	if dir {
		return os.Mkdir(path, 0o700)
	}
	return os.WriteFile(path, nil, 0o600)
}

// upLoopback sets lo up, which no new network namespace has done for it.
func upLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// consoles are the job's streams, and the one on which signals for it arrive.
type consoles struct {
	out, err, control *os.File
}

// openConsoles opens the terminals that the kernel's command line has tied to
// the supervisor's descriptors, as plain pipes of octets.
func openConsoles() (consoles, error) {
	open := func(n, flag int) (*os.File, error) {
		f, err := os.OpenFile(fmt.Sprintf("/dev/tty%d", n), flag|unix.O_NOCTTY, 0)
		if err != nil {
			return nil, err
		}
		t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		t.Oflag &^= unix.OPOST // no carriage returns
		t.Lflag &^= unix.ECHO | unix.ISIG
		if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		return f, nil
	}
	var c consoles
	var errs [3]error
	c.out, errs[0] = open(1, os.O_WRONLY)
	c.err, errs[1] = open(2, os.O_WRONLY)
	c.control, errs[2] = open(3, os.O_RDONLY)
	if err := errors.Join(errs[:]...); err != nil {
		return consoles{}, fmt.Errorf("open the consoles: %w", err)
	}
	return c, nil
}

// run starts the job, forwards signals to it, reaps what it and its children
// leave, and returns its exit status.
func (c consoles) run(p plan) (int, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	// Pipes in between: a program that finds a terminal behaves otherwise.
	outR, outW, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	proc, err := os.StartProcess(p.Args[0], p.Args, &os.ProcAttr{
		Dir:   p.Dir,
		Env:   environment(p.Env),
		Files: []*os.File{null, outW, errW},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	outW.Close()
	errW.Close()
	if err != nil {
		return 0, fmt.Errorf("start the program: %w", err)
	}
	drained := make(chan error, 2)
	go func() { _, err := io.Copy(c.out, outR); drained <- err }()
	go func() { _, err := io.Copy(c.err, errR); drained <- err }()
	go func() {
		for lines := bufio.NewScanner(c.control); lines.Scan(); {
			if n, err := strconv.Atoi(lines.Text()); err == nil {
				_ = unix.Kill(proc.Pid, unix.Signal(n)) // may have ended
			}
		}
	}()
	code, err := reap(proc.Pid)
	if err != nil {
		return 0, err
	}
	// A grandchild that lives on holds the pipes; what the job wrote itself
	// is out long before this ends.
	patience := time.After(2 * time.Second)
	for range 2 {
		select {
		case err := <-drained:
			if err != nil {
				return code, fmt.Errorf("pass on the program's output: %w", err)
			}
		case <-patience:
		}
	}
	if !p.Kernel.Native {
		for _, f := range []*os.File{c.out, c.err} {
			// TCSBRK with a non-zero argument is tcdrain(3).
			if err := unix.IoctlSetInt(int(f.Fd()), unix.TCSBRK, 1); err != nil {
				return code, fmt.Errorf("drain %s: %w", f.Name(), err)
			}
		}
	}
	return code, nil
}

// reap waits for every process that ends, because orphans become the first
// process's children, until it is the job.
func reap(job int) (int, error) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for the program: %w", err)
		case pid != job:
		case ws.Exited():
			return ws.ExitStatus(), nil
		case ws.Signaled():
			return 128 + int(ws.Signal()), nil
		}
	}
}

// environment is the job's: the caller's, on top of what every program needs,
// but for what names directories of the host's user. Each name is there once:
// of two, a shell takes the last and Go the first.
func environment(extra []string) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "USER=root", "LANG=C.UTF-8"}
	for _, kv := range extra {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "HOME", "TMPDIR", "USER", "LOGNAME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME":
			continue
		}
		env = slices.DeleteFunc(env, func(o string) bool { return strings.HasPrefix(o, name+"=") })
		env = append(env, kv)
	}
	return append(env, "HOME=/tmp", "TMPDIR=/tmp")
}

// Package uml runs a program as root on a real Linux kernel with MACsec.
//
// Where the host's own kernel has MACsec and we are root, the program runs
// natively, in throw-away network, mount and process namespaces. Everywhere
// else it runs in user-mode Linux: a whole kernel that is an ordinary process
// of an ordinary user, on the host's own file system. In both cases it finds
// the same machine: it is root, lo is up, /tmp and /run are empty tmpfs, and
// nothing that it does to the network reaches the host.
//
// Three processes take part. Run, in the caller, starts a supervisor, which
// owns the temporary directory and the guest's processes and removes both at
// the end, also when the caller was killed. The supervisor starts the kernel,
// whose first process mounts, loads modules and starts the job. All three are
// the same executable, which is why Init must be the first statement of main
// in every program that calls Run. A program built with -race can do all that
// natively only: the race detector finds no room in a user-mode guest.
//
// What belongs here: finding a kernel, booting it, running one job, and
// leaving nothing behind. What does not: what the job does there, and
// installing kernels (the Makefile does that).
package uml

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Job is one program to run on a kernel with MACsec.
type Job struct {
	// Args is the program, as a path on the host, and its arguments.
	Args []string
	// Env is added to the guest's own PATH, HOME=/tmp and TMPDIR=/tmp; HOME
	// and TMPDIR in it are ignored, since the host's mean nothing there.
	Env []string
	// Dir is the working directory, a path on the host; empty means the
	// caller's.
	Dir string
	// Stdout and Stderr receive the program's output while it runs; nil
	// discards. Its standard input is /dev/null.
	Stdout, Stderr io.Writer
	// Results names files or directories in the guest that are copied to
	// the host after the program has ended: guest path to host path. One
	// that is missing is an error if the program exited with 0.
	Results map[string]string
	// Signals are forwarded to the program as they arrive; nil forwards none.
	Signals <-chan os.Signal
	// MemoryMB is the guest's memory in MiB; 0 means 1024. It is backed by a
	// sparse file, so only what the guest touches is taken.
	MemoryMB int
	// Modules are kernel modules to load besides the ones that MACsec, the
	// fence and test networks need; dependencies are found.
	Modules []string
}

// Result says how a Job ended.
type Result struct {
	// ExitCode is the program's exit status, or 128 plus the number of the
	// signal that ended it.
	ExitCode int
	// Kernel is the release of the kernel that it ran on, as in uname -r.
	Kernel string
	// Native is true if that was the host's own.
	Native bool
	// Boot is the time from the start of the kernel to the start of the
	// program.
	Boot time.Duration
}

// A plan is everything the supervisor and the guest need to know; the caller
// writes it to the supervisor's standard input as one JSON value.
type plan struct {
	Kernel   Kernel
	Args     []string
	Env      []string
	Dir      string
	Results  []resultFile
	MemoryMB int
	Modules  []string
	// WorkDir and Tty are filled in by the supervisor.
	WorkDir string
	Started time.Time
}

type resultFile struct{ Guest, Host string }

// An outcome is what the supervisor reports back.
type outcome struct {
	Status status
	Err    string
}

// Run runs the job and waits for its end. An error means that the job could
// not be run or that its end is not known; a job that ran and failed is no
// error but an ExitCode. When ctx ends, the guest and all its processes are
// killed.
func Run(ctx context.Context, j Job) (Result, error) {
	if !initCalled {
		return Result{}, errors.New("run a job on a MACsec kernel: uml.Init must be the first statement of main, and was not called")
	}
	kernel, err := Find()
	if err != nil {
		return Result{}, err
	}
	p, err := newPlan(kernel, j)
	if err != nil {
		return Result{}, err
	}
	out, err := supervised(ctx, p, j)
	if err != nil {
		return Result{}, fmt.Errorf("run %s on %s: %w", j.Args[0], kernel, err)
	}
	res := Result{
		ExitCode: out.Status.ExitCode,
		Kernel:   out.Status.Release,
		Native:   kernel.Native,
		Boot:     out.Status.Boot,
	}
	if out.Err != "" {
		return res, fmt.Errorf("run %s on %s: %s", j.Args[0], kernel, out.Err)
	}
	return res, nil
}

// newPlan makes every path of the job absolute, because the supervisor and
// the guest have other working directories.
func newPlan(kernel Kernel, j Job) (plan, error) {
	if len(j.Args) == 0 {
		return plan{}, errors.New("run a job on a MACsec kernel: Job.Args is empty, name a program")
	}
	prog, err := exec.LookPath(j.Args[0])
	if err != nil {
		return plan{}, fmt.Errorf("run a job on a MACsec kernel: %w", err)
	}
	if prog, err = filepath.Abs(prog); err != nil {
		return plan{}, fmt.Errorf("run a job on a MACsec kernel: %w", err)
	}
	dir, err := filepath.Abs(j.Dir)
	if err != nil {
		return plan{}, fmt.Errorf("run a job on a MACsec kernel: %w", err)
	}
	if info, err := os.Stat(dir); err != nil {
		return plan{}, fmt.Errorf("run a job on a MACsec kernel: its directory: %w", err)
	} else if !info.IsDir() {
		return plan{}, fmt.Errorf("run a job on a MACsec kernel: Job.Dir %s is no directory", dir)
	}
	p := plan{
		Kernel:   kernel,
		Args:     append([]string{prog}, j.Args[1:]...),
		Env:      j.Env,
		Dir:      dir,
		MemoryMB: j.MemoryMB,
		Modules:  j.Modules,
	}
	if p.MemoryMB == 0 {
		p.MemoryMB = 1024
	}
	for guest, host := range j.Results {
		abs, err := filepath.Abs(host)
		if err != nil {
			return plan{}, fmt.Errorf("result file %s: %w", host, err)
		}
		p.Results = append(p.Results, resultFile{guest, abs})
	}
	return p, nil
}

// supervised starts the supervisor, feeds it the plan, and holds its standard
// input open: the end of that stream, whether from a cancelled ctx or because
// this process is no more, tells it to kill the guest.
func supervised(ctx context.Context, p plan, j Job) (outcome, error) {
	self, err := os.Executable()
	if err != nil {
		return outcome{}, err
	}
	reportR, reportW, err := os.Pipe()
	if err != nil {
		return outcome{}, err
	}
	defer reportR.Close()
	defer reportW.Close()

	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVariable+"="+roleSupervisor)
	cmd.ExtraFiles = []*os.File{reportW}
	// Own process group: a Ctrl-C on the terminal is for the caller, which
	// decides, and not for the process that has to clean up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// User-mode Linux makes its consoles non-blocking, which must not happen
	// to a file that the caller shares with others: hence a pipe, always.
	cmd.Stdout, cmd.Stderr = piped(j.Stdout), piped(j.Stderr)
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		return outcome{}, err
	}
	if err := cmd.Start(); err != nil {
		return outcome{}, fmt.Errorf("start the supervisor: %w", err)
	}
	reportW.Close()

	var writing sync.Mutex // a signal may arrive while the plan is written
	enc := json.NewEncoder(lifeline)
	send := func(v any) error {
		writing.Lock()
		defer writing.Unlock()
		return enc.Encode(v)
	}
	sendErr := send(p)

	ended := make(chan struct{})
	var watchers sync.WaitGroup
	watchers.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-ctx.Done():
				lifeline.Close()
				return
			case sig, ok := <-j.Signals:
				if !ok {
					j.Signals = nil
				} else if n, ok := sig.(syscall.Signal); ok {
					_ = send(order{Signal: int(n)}) // fails only if all is over
				}
			}
		}
	})
	var out outcome
	decodeErr := json.NewDecoder(reportR).Decode(&out)
	waitErr := cmd.Wait()
	close(ended)
	watchers.Wait()

	if err := context.Cause(ctx); err != nil && out.Err != "" {
		return outcome{}, fmt.Errorf("the guest was killed: %w", err)
	}
	if decodeErr != nil {
		return outcome{}, fmt.Errorf("the supervisor ended without a report: %w", errors.Join(sendErr, waitErr, decodeErr))
	}
	return out, nil
}

// An order follows the plan on the supervisor's standard input.
type order struct{ Signal int }

// piped hides a file from exec.Cmd, which would hand it on as it is.
func piped(w io.Writer) io.Writer {
	if w == nil {
		w = io.Discard
	}
	return struct{ io.Writer }{w}
}

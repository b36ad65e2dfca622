package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/lever-link/lever/macsec"
)

// A Router is one node: its namespace, its own copy of the inventory and of the
// keys, and its agent, a process.
type Router struct {
	Name   string
	Space  *Netspace
	Dir    string // holds inventory, keys, run and state directories, and log
	Binary string
	Args   []string // of the agent, besides those that every one gets
	kernel *macsec.Client
	agent  process
	log    *os.File
	logged int64 // what earlier lives of the agent have logged

	mu      sync.Mutex
	watcher *watcher
}

// The names in a router's directory.
const (
	InventoryFile = "lever.yaml"
	RunDir        = "run"
	StateDir      = "state"
	LogFile       = "agent.log"
)

// NewRouter makes the directory and opens what is read of the kernel's own view.
func NewRouter(name, dir, binary string, inventory []byte, ns *Netspace) (*Router, error) {
	r := &Router{Name: name, Space: ns, Dir: dir, Binary: binary, agent: process{name: "the agent of " + name}}
	for _, d := range []string{dir, filepath.Join(dir, RunDir), filepath.Join(dir, StateDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("make the directory of %s: %w", name, err)
		}
	}
	if err := os.WriteFile(r.Path(InventoryFile), inventory, 0o600); err != nil {
		return nil, fmt.Errorf("give %s the inventory: %w", name, err)
	}
	var err error
	if r.log, err = os.OpenFile(r.Path(LogFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	if r.kernel, err = macsec.NewNetNS(int(ns.Handle)); err != nil {
		return nil, errors.Join(err, r.log.Close())
	}
	return r, nil
}

// Path is where something of the router's is.
func (r *Router) Path(name string) string { return filepath.Join(r.Dir, name) }

// Start starts the agent and returns when its process exists.
func (r *Router) Start() error {
	cmd := exec.Command(r.Binary, append([]string{
		"agent",
		"--inventory", r.Path(InventoryFile), "--node", r.Name,
		"--run-dir", r.Path(RunDir), "--state-dir", r.Path(StateDir),
	}, r.Args...)...)
	cmd.Stdout, cmd.Stderr = r.log, r.log
	info, err := r.log.Stat()
	if err != nil {
		return fmt.Errorf("look how long the log of %s is: %w", r.Name, err)
	}
	r.logged = info.Size()
	return r.agent.start(r.Space, cmd)
}

// Alive returns an error if the agent was started and has ended.
func (r *Router) Alive() error { return r.agent.alive() }

// Kill ends the agent as a crash would, and returns when it is gone.
func (r *Router) Kill() error { return r.End(syscall.SIGKILL, killPatience) }

// End sends a signal to the agent, if it runs, and waits for its end.
func (r *Router) End(sig syscall.Signal, patience time.Duration) error {
	return r.agent.end(sig, patience)
}

// Signal sends a signal to the agent, if it runs. SIGHUP waits until the agent
// handles it, as systemd does: before that it ends any program.
func (r *Router) Signal(sig syscall.Signal) error {
	if sig == syscall.SIGHUP {
		if err := r.awaitLog("process hardened", "to handle signals"); err != nil {
			return err
		}
	}
	return r.agent.signal(sig)
}

// AwaitReady waits until the agent, if it runs, says that it is: that the fence of
// each of its links is closed.
func (r *Router) AwaitReady() error { return r.awaitLog("msg=\"ready", "to be ready") }

// awaitLog waits until the agent has logged something since it was started, or has
// ended.
func (r *Router) awaitLog(words, what string) error {
	return Await(context.Background(), 2*killPatience, "the agent of "+r.Name+" "+what, func() (bool, string) {
		text, err := os.ReadFile(r.Path(LogFile))
		if err != nil {
			return false, err.Error()
		}
		text = text[min(r.logged, int64(len(text))):]
		return bytes.Contains(text, []byte(words)) || r.Alive() != nil, string(text)
	})
}

// SetInventory gives the router another inventory, by a rename.
func (r *Router) SetInventory(text []byte) error {
	tmp := r.Path("." + InventoryFile)
	err := os.WriteFile(tmp, text, 0o600)
	if err == nil {
		err = os.Rename(tmp, r.Path(InventoryFile))
	}
	if err != nil {
		return fmt.Errorf("give %s another inventory: %w", r.Name, err)
	}
	return nil
}

// Close ends the agent and lets go of what is open. With keep, the agent runs
// on.
func (r *Router) Close(keep bool) error {
	var errs []error
	r.mu.Lock()
	w := r.watcher
	r.mu.Unlock()
	if w != nil {
		w.Stop()
	}
	if !keep {
		if err := r.End(syscall.SIGTERM, killPatience); err != nil {
			errs = append(errs, err, r.Kill())
		}
	}
	return errors.Join(append(errs, r.kernel.Close(), r.log.Close())...)
}

// Lever runs a verb of the binary on this router, for the agent's run directory.
func (r *Router) Lever(ctx context.Context, args ...string) ([]byte, error) {
	return runLever(ctx, r.Space, 15*time.Second, r.Binary, append(args, "--run-dir", r.Path(RunDir))...)
}

// RunLever runs the binary and returns its standard output; what it says on
// standard error is in the error.
func RunLever(ctx context.Context, binary string, args ...string) ([]byte, error) {
	return runLever(ctx, nil, 15*time.Second, binary, args...)
}

// RunLeverIn is RunLever in a namespace, with time for what speaks to a cluster.
func RunLeverIn(ctx context.Context, ns *Netspace, binary string, args ...string) ([]byte, error) {
	return runLever(ctx, ns, 2*time.Minute, binary, args...)
}

// runLever is RunLever in a namespace, or where we are.
func runLever(ctx context.Context, ns *Netspace, patience time.Duration, binary string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := cmd.Start
	if ns != nil {
		start = func() error { return ns.Do(cmd.Start) }
	}
	err := start()
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		if ctxErr := context.Cause(ctx); ctxErr != nil {
			err = ctxErr
		}
		return nil, fmt.Errorf("lever %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

// LastLines returns the end of the agent's log.
func (r *Router) LastLines(n int) []string { return lastLines(r.Path(LogFile), n) }

// lastLines returns the end of a file, however long the file is.
func lastLines(path string, n int) []string {
	f, err := os.Open(path)
	if err != nil {
		return []string{err.Error()}
	}
	defer f.Close()
	const most = 16 << 10
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return []string{err.Error()}
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return []string{err.Error()}
	}
	text := strings.TrimSpace(string(b))
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	return lines[max(0, len(lines)-n):]
}

package demo

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

// A router is one node: its namespace, its own copy of the inventory and of the
// keys, and its agent, a process.
type router struct {
	name   string
	ns     *netspace
	dir    string // holds inventory, keys, run and state directories, and log
	binary string
	kernel *macsec.Client

	mu      sync.Mutex
	agent   *exec.Cmd
	ended   chan struct{} // closed when the agent has
	waitErr error
	log     *os.File
}

// The names in a router's directory.
const (
	inventoryFile = "lever.yaml"
	runDir        = "run"
	stateDir      = "state"
	logFile       = "agent.log"
)

// newRouter makes the directory and opens what the demo needs of the kernel.
func newRouter(name, dir, binary string, inventory []byte, ns *netspace) (*router, error) {
	r := &router{name: name, ns: ns, dir: dir, binary: binary}
	for _, d := range []string{dir, filepath.Join(dir, runDir), filepath.Join(dir, stateDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("make the directory of %s: %w", name, err)
		}
	}
	if err := os.WriteFile(r.path(inventoryFile), inventory, 0o600); err != nil {
		return nil, fmt.Errorf("give %s the inventory: %w", name, err)
	}
	var err error
	if r.log, err = os.OpenFile(r.path(logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	if r.kernel, err = macsec.NewNetNS(int(ns.handle)); err != nil {
		return nil, errors.Join(err, r.log.Close())
	}
	return r, nil
}

func (r *router) path(name string) string { return filepath.Join(r.dir, name) }

// start starts the agent and returns when its process exists.
func (r *router) start() error {
	cmd := exec.Command(r.binary, "agent",
		"--inventory", r.path(inventoryFile), "--node", r.name,
		"--run-dir", r.path(runDir), "--state-dir", r.path(stateDir))
	cmd.Stdout, cmd.Stderr = r.log, r.log
	// A group of its own: a Ctrl-C on the terminal is for the demo, which then
	// ends its agents in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.ns.do(cmd.Start); err != nil {
		return fmt.Errorf("start the agent of %s: %w", r.name, err)
	}
	ended := make(chan struct{})
	r.mu.Lock()
	r.agent, r.ended = cmd, ended
	r.mu.Unlock()
	go func() {
		err := cmd.Wait()
		r.mu.Lock()
		r.waitErr = err
		r.mu.Unlock()
		close(ended)
	}()
	return nil
}

// alive returns an error if the agent was started and has ended.
func (r *router) alive() error {
	r.mu.Lock()
	ended := r.ended
	r.mu.Unlock()
	if ended == nil {
		return nil
	}
	select {
	case <-ended:
		r.mu.Lock()
		defer r.mu.Unlock()
		return fmt.Errorf("the agent of %s has ended: %w", r.name, orExit(r.waitErr))
	default:
		return nil
	}
}

func orExit(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// kill ends the agent as a crash would, and returns when it is gone.
func (r *router) kill() error { return r.end(syscall.SIGKILL, 5*time.Second) }

// end sends a signal to the agent, if it runs, and waits for its end.
func (r *router) end(sig syscall.Signal, patience time.Duration) error {
	r.mu.Lock()
	cmd, ended := r.agent, r.ended
	r.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end the agent of %s: %w", r.name, err)
	}
	select {
	case <-ended:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("the agent of %s still runs %v after %v", r.name, patience, sig)
	}
}

// close ends the agent and lets go of what is open. With keep, the agent runs
// on.
func (r *router) close(keep bool) error {
	var errs []error
	if !keep {
		if err := r.end(syscall.SIGTERM, 3*time.Second); err != nil {
			errs = append(errs, err, r.kill())
		}
	}
	return errors.Join(append(errs, r.kernel.Close(), r.log.Close())...)
}

// lever runs a verb of the binary against this router's agent.
func (r *router) lever(ctx context.Context, args ...string) ([]byte, error) {
	return runLever(ctx, r.binary, append(args, "--run-dir", r.path(runDir))...)
}

// runLever runs the binary and returns its standard output; what it says on
// standard error is in the error.
func runLever(ctx context.Context, binary string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctxErr := context.Cause(ctx); ctxErr != nil {
			err = ctxErr
		}
		return nil, fmt.Errorf("lever %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

// lastLines returns the end of the agent's log.
func (r *router) lastLines(n int) []string {
	f, err := os.Open(r.path(logFile))
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

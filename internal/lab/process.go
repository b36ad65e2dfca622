package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A process is a program that is started, ended and started again in a
// namespace: an agent, or somebody else's.
type process struct {
	name string // for errors

	mu      sync.Mutex
	cmd     *exec.Cmd
	ended   chan struct{} // closed when it has
	waitErr error
	life    int // counts the starts
}

// start starts cmd in the namespace and returns when its process exists.
func (p *process) start(ns *Netspace, cmd *exec.Cmd) error {
	// A group of its own: a Ctrl-C on the terminal is for whoever runs the
	// laboratory, and ends what runs in it in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := ns.Do(cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	ended := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.ended = cmd, ended
	p.life++
	p.mu.Unlock()
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.waitErr = err
		p.mu.Unlock()
		close(ended)
	}()
	return nil
}

// lifeNow is which of the starts was the last.
func (p *process) lifeNow() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.life
}

// alive returns an error if the process was started and has ended.
func (p *process) alive() error {
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	if ended == nil {
		return nil
	}
	select {
	case <-ended:
		p.mu.Lock()
		defer p.mu.Unlock()
		return fmt.Errorf("%s has ended: %w", p.name, orExit(p.waitErr))
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

// end sends a signal to the process, if it runs, and waits for its end.
func (p *process) end(sig syscall.Signal, patience time.Duration) error {
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	if ended == nil {
		return nil
	}
	if err := p.signal(sig); err != nil {
		return err
	}
	select {
	case <-ended:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s still runs %v after %v", p.name, patience, sig)
	}
}

// signal sends a signal to the process, if it runs. SIGHUP waits until the process
// has begun to catch it: before that it ends any program, and whoever has an agent
// reload sends it to one that is ready, as systemd does.
func (p *process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	cmd := p.cmd
	p.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if sig == syscall.SIGHUP {
		err := Await(context.Background(), killPatience, p.name+" to catch SIGHUP", func() (bool, string) {
			caught, ended := catches(cmd.Process.Pid, sig)
			return caught || ended, "it does not"
		})
		if err != nil {
			return err
		}
	}
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %v to %s: %w", sig, p.name, err)
	}
	return nil
}

// catches tells whether a process has a handler for a signal, by the mask in
// proc_pid_status(5), or has ended.
func catches(pid int, sig syscall.Signal) (caught, ended bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false, true
	}
	for line := range strings.Lines(string(text)) {
		if mask, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return err == nil && bits&(1<<(sig-1)) != 0, false
		}
	}
	return false, false
}

// killPatience is for a machine that is very busy.
const killPatience = 15 * time.Second

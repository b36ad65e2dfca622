package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
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

// signal sends a signal to the process, if it runs.
func (p *process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	cmd := p.cmd
	p.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %v to %s: %w", sig, p.name, err)
	}
	return nil
}

// killPatience is for a machine that is very busy.
const killPatience = 15 * time.Second

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// An Issuer is a lever keys serve: of one channel, as a process.
type Issuer struct {
	Args    []string // after lever keys serve
	space   *Netspace
	binary  string
	logFile string
	daemon  process
}

// NewIssuer makes one that is not started yet.
func NewIssuer(name string, ns *Netspace, binary, logFile string, args ...string) *Issuer {
	return &Issuer{Args: args, space: ns, binary: binary, logFile: logFile, daemon: process{name: name}}
}

// Start starts it and returns when its process exists.
func (i *Issuer) Start() error {
	log, err := os.OpenFile(i.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", i.daemon.name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(i.binary, append([]string{"keys", "serve"}, i.Args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	return i.daemon.start(i.space, cmd)
}

// Kill ends it as a crash would, and returns when it is gone.
func (i *Issuer) Kill() error { return i.daemon.end(syscall.SIGKILL, killPatience) }

// LastLines returns the end of its log.
func (i *Issuer) LastLines(n int) []string { return lastLines(i.logFile, n) }

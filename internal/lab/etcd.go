package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

// An Etcd is a real etcd cluster of three members in a namespace, with TLS and
// client certificates, and the means to let its members die. It is another
// program, of a module of its own: see internal/keys/etcd/etcdtest/cmd/etcdcluster.
type Etcd struct {
	Endpoints         []string
	CA                string
	RootCert, RootKey string

	daemon process
	mu     sync.Mutex
	in     io.WriteCloser
	out    *bufio.Reader
}

// EtcdAnswer is what came of a request.
type EtcdAnswer struct {
	OK               bool
	Error            string
	Member           int
	Certificate, Key string
}

// StartEtcd starts the members and returns when they serve. Dir holds all that is
// theirs, addresses are separated by commas.
func StartEtcd(ns *Netspace, program, dir, addresses string) (*Etcd, error) {
	log, err := os.Create(dir + "/etcd.log")
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(program, "-dir", dir, "-address", addresses)
	cmd.Stderr = log
	e := &Etcd{daemon: process{name: "etcd"}}
	if e.in, err = cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	// Not StdoutPipe, which is closed as soon as the process has ended.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	cmd.Stdout = w
	e.out = bufio.NewReader(r)
	err = e.daemon.start(ns, cmd)
	_ = w.Close()
	if err != nil {
		return nil, err
	}
	var hello struct {
		Endpoints []string
		CA        string
		Root      struct{ Certificate, Key string }
	}
	if err := e.read(&hello); err != nil {
		return nil, errors.Join(fmt.Errorf("start etcd (see %s): %w", log.Name(), err), e.Close())
	}
	e.Endpoints, e.CA, e.RootCert, e.RootKey = hello.Endpoints, hello.CA, hello.Root.Certificate, hello.Root.Key
	return e, nil
}

func (e *Etcd) read(v any) error {
	line, err := e.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("it says nothing: %w", err)
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("it says %q: %w", line, err)
	}
	return nil
}

// Do has the cluster do something, such as {"do": "kill", "member": 1}.
func (e *Etcd) Do(request map[string]any) (a EtcdAnswer, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	text, err := json.Marshal(request)
	if err == nil {
		_, err = e.in.Write(append(text, '\n'))
	}
	if err == nil {
		err = e.read(&a)
	}
	if err == nil && !a.OK {
		err = errors.New(a.Error)
	}
	if err != nil {
		return a, fmt.Errorf("have etcd do %s: %w", text, err)
	}
	return a, nil
}

// Close ends the members.
func (e *Etcd) Close() error { return e.daemon.end(syscall.SIGTERM, killPatience) }

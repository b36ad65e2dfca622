package etcdtest

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Options are for Start.
type Options struct {
	// Dir is where everything is; it is made.
	Dir string
	// Members is how many there are; 0 means three.
	Members int
	// Addresses are where they listen for clients: one for all of them, or one each;
	// none means 127.0.0.1. They speak to each other over 127.0.0.1.
	Addresses []string
	// Port is the first member's for clients, the next one's is one more; 0 means
	// whatever is free.
	Port int
	// Classical has them agree on keys without ML-KEM.
	Classical bool
}

// Cluster is a running cluster. Its methods are for one goroutine.
type Cluster struct {
	// CA is whom members and clients trust.
	CA *CA
	// Root is the certificate of etcd's user root.
	Root Pair

	dir     string
	members []*member
}

type member struct {
	config memberConfig
	// The rest is of the running process.
	cmd    *exec.Cmd
	stdin  io.Closer
	ready  chan error
	exited chan struct{}
}

// Start starts a cluster and waits until it has a leader.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if o.Members == 0 {
		o.Members = 3
	}
	if len(o.Addresses) == 0 {
		o.Addresses = []string{"127.0.0.1"}
	}
	c := &Cluster{dir: o.Dir}
	err := os.MkdirAll(o.Dir, 0o700)
	if err == nil {
		c.CA, err = NewCA(o.Dir, "ca")
	}
	var pair Pair
	if err == nil {
		pair, err = c.CA.Server(o.Dir, "server", append([]string{"127.0.0.1"}, o.Addresses...)...)
	}
	if err == nil {
		c.Root, err = c.CA.Client(o.Dir, "root", time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour))
	}
	if err != nil {
		return nil, fmt.Errorf("preparing an etcd cluster in %s: %w", o.Dir, err)
	}
	ports, err := freePorts(3 * o.Members)
	if err != nil {
		return nil, err
	}
	var all []string
	for i := range o.Members {
		port := ports[3*i]
		if o.Port != 0 {
			port = o.Port + i
		}
		m := &member{config: memberConfig{
			Name: "m" + strconv.Itoa(i), CA: c.CA.File, Pair: pair, Classical: o.Classical,
			Client: "https://" + net.JoinHostPort(o.Addresses[min(i, len(o.Addresses)-1)], strconv.Itoa(port)),
			Peer:   "https://127.0.0.1:" + strconv.Itoa(ports[3*i+1]),
			HTTP:   "https://127.0.0.1:" + strconv.Itoa(ports[3*i+2]),
		}}
		m.config.Dir, m.config.Log = c.data(i), filepath.Join(o.Dir, m.config.Name+".log")
		all = append(all, m.config.Name+"="+m.config.Peer)
		c.members = append(c.members, m)
	}
	for _, m := range c.members {
		m.config.Cluster = strings.Join(all, ",")
	}
	if err := c.StartAll(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) data(i int) string { return filepath.Join(c.dir, "m"+strconv.Itoa(i)+".etcd") }

func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("looking for free ports: %w", err)
		}
		defer func() { _ = l.Close() }() // all of them after the last
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// Size is the number of members.
func (c *Cluster) Size() int { return len(c.members) }

// Endpoints are the members' URLs for clients.
func (c *Cluster) Endpoints() (urls []string) {
	for _, m := range c.members {
		urls = append(urls, m.config.Client)
	}
	return urls
}

// Client makes a client's certificate that is valid for a while from now on, in dir,
// or in the cluster's own directory for clients. With a negative time it has ended.
func (c *Cluster) Client(dir, name string, valid time.Duration) (Pair, error) {
	if dir == "" {
		dir = filepath.Join(c.dir, "clients")
	}
	now := time.Now()
	from := now.Add(-time.Second)
	if valid < 0 {
		from = now.Add(2 * valid)
	}
	return c.CA.Client(dir, name, from, now.Add(valid))
}

// PIDs are the members' process ids, 0 of those that do not run.
func (c *Cluster) PIDs() (ids []int) {
	for _, m := range c.members {
		if m.cmd == nil {
			ids = append(ids, 0)
		} else {
			ids = append(ids, m.cmd.Process.Pid)
		}
	}
	return ids
}

// StartMember starts a member that does not run, without waiting for it.
func (c *Cluster) StartMember(i int) error {
	m := c.members[i]
	if m.cmd != nil {
		return fmt.Errorf("starting member %d: it runs", i)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("starting member %d: %w", i, err)
	}
	config, err := json.Marshal(m.config)
	if err != nil {
		return fmt.Errorf("starting member %d: %w", i, err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), memberEnv+"="+string(config))
	log, err := os.OpenFile(m.config.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("starting member %d: %w", i, err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("starting member %d: %w", i, err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("starting member %d: %w", i, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting member %d: %w", i, err)
	}
	m.cmd, m.stdin, m.ready, m.exited = cmd, stdin, make(chan error, 1), make(chan struct{})
	go func(ready chan<- error, exited chan<- struct{}) {
		lines := bufio.NewScanner(stdout)
		if lines.Scan() && lines.Text() == "ready" {
			ready <- nil
			_, _ = io.Copy(io.Discard, stdout)
		}
		err := cmd.Wait()
		select {
		case ready <- fmt.Errorf("member %d has ended (%w); see %s", i, err, m.config.Log):
		default:
		}
		close(exited)
	}(m.ready, m.exited)
	return nil
}

// AwaitMember waits until a started member serves.
func (c *Cluster) AwaitMember(ctx context.Context, i int) error {
	m := c.members[i]
	if m.cmd == nil {
		return fmt.Errorf("waiting for member %d: it was not started", i)
	}
	select {
	case err := <-m.ready:
		if err != nil {
			return err
		}
		m.ready <- nil
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for member %d: %w", i, ctx.Err())
	}
}

// StartAll starts the members that do not run and waits for all of them.
func (c *Cluster) StartAll(ctx context.Context) error {
	for i, m := range c.members {
		if m.cmd == nil {
			if err := c.StartMember(i); err != nil {
				return err
			}
		}
	}
	for i := range c.members {
		if err := c.AwaitMember(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// Kill kills a member as a crash would (SIGKILL), and waits until it is gone.
func (c *Cluster) Kill(i int) error {
	m := c.members[i]
	if m.cmd == nil {
		return nil
	}
	_ = m.cmd.Process.Kill()
	<-m.exited
	_ = m.stdin.Close()
	m.cmd = nil
	return nil
}

// Stop ends a member in an orderly way.
func (c *Cluster) Stop(i int) error {
	m := c.members[i]
	if m.cmd == nil {
		return nil
	}
	_ = m.stdin.Close()
	<-m.exited
	m.cmd = nil
	return nil
}

// Pause hangs a member (SIGSTOP), Resume has it go on.
func (c *Cluster) Pause(i int) error { return c.signal(i, syscall.SIGSTOP) }

// Resume has a member go on that was paused.
func (c *Cluster) Resume(i int) error { return c.signal(i, syscall.SIGCONT) }

func (c *Cluster) signal(i int, s syscall.Signal) error {
	if c.members[i].cmd == nil {
		return fmt.Errorf("sending %s to member %d: it does not run", s, i)
	}
	return c.members[i].cmd.Process.Signal(s)
}

// Backup keeps what the cluster holds now, for Restore. All members are restarted.
func (c *Cluster) Backup(ctx context.Context) error {
	return c.copyAll(ctx, func(i int) (from, to string) { return c.data(i), c.data(i) + ".backup" })
}

// Restore puts back what Backup has kept.
func (c *Cluster) Restore(ctx context.Context) error {
	return c.copyAll(ctx, func(i int) (from, to string) { return c.data(i) + ".backup", c.data(i) })
}

func (c *Cluster) copyAll(ctx context.Context, what func(int) (from, to string)) error {
	c.KillAll()
	for i := range c.members {
		from, to := what(i)
		err := os.RemoveAll(to)
		if err == nil {
			err = os.CopyFS(to, os.DirFS(from))
		}
		if err == nil {
			// CopyFS makes files that others may read, which etcd refuses of directories.
			err = filepath.Walk(to, func(path string, info os.FileInfo, err error) error {
				if err == nil && info.IsDir() {
					err = os.Chmod(path, 0o700)
				}
				return err
			})
		}
		if err != nil {
			return fmt.Errorf("copying member %d: %w", i, err)
		}
	}
	return c.StartAll(ctx)
}

// KillAll kills every member at once.
func (c *Cluster) KillAll() {
	var wg sync.WaitGroup
	for i := range c.members {
		wg.Go(func() { _ = c.Kill(i) })
	}
	wg.Wait()
}

// Close kills all members. The directory stays.
func (c *Cluster) Close() error {
	c.KillAll()
	return nil
}

// Admin is a client of one member, or of all with none given, as root. The caller
// closes it.
func (c *Cluster) Admin(endpoints ...string) (*clientv3.Client, error) {
	return c.ClientAs(c.Root, endpoints...)
}

// ClientAs is a client with a certificate.
func (c *Cluster) ClientAs(pair Pair, endpoints ...string) (*clientv3.Client, error) {
	if len(endpoints) == 0 {
		endpoints = c.Endpoints()
	}
	ca, err := os.ReadFile(c.CA.File)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	own, err := tls.LoadX509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return clientv3.New(clientv3.Config{
		Endpoints: endpoints, Logger: zap.NewNop(),
		TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS13},
	})
}

// status asks one member.
func (c *Cluster) status(ctx context.Context, i int) (*clientv3.StatusResponse, error) {
	client, err := c.Admin(c.members[i].config.Client)
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }()
	return client.Status(ctx, c.members[i].config.Client)
}

// Leader is which member leads. It waits until one does.
func (c *Cluster) Leader(ctx context.Context) (int, error) {
	for {
		for i, m := range c.members {
			if m.cmd == nil {
				continue
			}
			try, cancel := context.WithTimeout(ctx, 2*time.Second)
			s, err := c.status(try, i)
			cancel()
			if err == nil && s.Leader != 0 && s.Leader == s.Header.MemberId {
				return i, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("looking for the leader: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Revision is the cluster's.
func (c *Cluster) Revision(ctx context.Context) (int64, error) {
	client, err := c.Admin()
	if err != nil {
		return 0, err
	}
	defer func() { _ = client.Close() }()
	answer, err := client.Get(ctx, "lever")
	if err != nil {
		return 0, fmt.Errorf("asking for the revision: %w", err)
	}
	return answer.Header.Revision, nil
}

// Compact forgets what was before a revision; 0 means the present one.
func (c *Cluster) Compact(ctx context.Context, revision int64) error {
	if revision == 0 {
		var err error
		if revision, err = c.Revision(ctx); err != nil {
			return err
		}
	}
	client, err := c.Admin()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	if _, err = client.Compact(ctx, revision, clientv3.WithCompactPhysical()); err != nil {
		return fmt.Errorf("compacting at revision %d: %w", revision, err)
	}
	return nil
}

// Defragment has every running member defragment its store, during which it answers
// nothing.
func (c *Cluster) Defragment(ctx context.Context) error {
	for i, m := range c.members {
		if m.cmd == nil {
			continue
		}
		client, err := c.Admin(m.config.Client)
		if err != nil {
			return err
		}
		_, err = client.Defragment(ctx, m.config.Client)
		_ = client.Close()
		if err != nil {
			return fmt.Errorf("defragmenting member %d: %w", i, err)
		}
	}
	return nil
}

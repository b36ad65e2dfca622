// Command etcdcluster runs an etcd cluster of three members on this machine, with
// TLS and client certificates, for tests that need a real one. What belongs here is
// the protocol by which it is told what to do; the cluster is package etcdtest.
//
//	etcdcluster -dir DIR [-address IP[,IP,IP]] [-port N] [-members 3] [-classical]
//
// It prints one line of JSON when the cluster serves:
//
//	{"endpoints":["https://…",…],"ca":"PATH","root":{"certificate":"PATH","key":"PATH"},"pid":[N,N,N]}
//
// and then reads one request a line on its standard input, and answers each with one
// line: {"ok":true, …} or {"error":"…"}. Members count from 0.
//
//	{"do":"kill","member":0}       SIGKILL, and wait until it is gone
//	{"do":"stop","member":0}       an orderly end
//	{"do":"start","member":0}      start it again; "wait":false does not wait until it serves
//	{"do":"pause","member":0}      SIGSTOP: it hangs          {"do":"resume","member":0}
//	{"do":"leader"}                {"ok":true,"member":1}; waits until there is one
//	{"do":"revision"}              {"ok":true,"revision":42}
//	{"do":"compact","revision":0}  forget what was before; 0 means the present revision
//	{"do":"defragment"}            every running member
//	{"do":"cert","name":"r1","seconds":60}
//	                               a client's certificate with that Common Name, in the
//	                               place of DIR/clients/r1.crt and .key; "ok" comes with
//	                               "certificate" and "key". Seconds may be negative: it
//	                               has ended already. "dir" puts it elsewhere.
//	{"do":"backup"}                keep what the cluster holds {"do":"restore"} put it back;
//	                               all members are restarted
//	{"do":"quit"}                  kill all members and end
//
// A request takes 60 seconds at most, or its "timeout" in seconds. When the standard
// input ends, or on SIGTERM or SIGINT, all members are killed; when etcdcluster itself
// is killed they end too. Access control is off until somebody grants access (lever
// keys grant with root's certificate).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/lever-link/lever/internal/keys/etcd/etcdtest"
)

type request struct {
	Do       string `json:"do"`
	Member   int    `json:"member"`
	Wait     *bool  `json:"wait"`
	Revision int64  `json:"revision"`
	Name     string `json:"name"`
	Seconds  int64  `json:"seconds"`
	Dir      string `json:"dir"`
	Timeout  int64  `json:"timeout"`
}

type answer struct {
	OK          bool   `json:"ok,omitempty"`
	Error       string `json:"error,omitempty"`
	Member      *int   `json:"member,omitempty"`
	Revision    int64  `json:"revision,omitempty"`
	Certificate string `json:"certificate,omitempty"`
	Key         string `json:"key,omitempty"`
}

type hello struct {
	Endpoints []string      `json:"endpoints"`
	CA        string        `json:"ca"`
	Root      etcdtest.Pair `json:"root"`
	PID       []int         `json:"pid"`
}

func main() {
	etcdtest.MemberMain()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "etcdcluster:", err)
		os.Exit(1)
	}
}

func run() error {
	dir := flag.String("dir", "", "where everything is")
	address := flag.String("address", "127.0.0.1", "where members listen for clients: one address, or one each")
	port := flag.Int("port", 0, "the first member's port for clients, the next one's is one more; 0: whatever is free")
	members := flag.Int("members", 3, "how many members")
	classical := flag.Bool("classical", false, "agree on keys without ML-KEM")
	flag.Parse()
	if *dir == "" || flag.NArg() != 0 {
		return fmt.Errorf("-dir is needed, and nothing else; see -help")
	}
	abs, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	starting, end := context.WithTimeout(ctx, 2*time.Minute)
	c, err := etcdtest.Start(starting, etcdtest.Options{
		Dir: abs, Members: *members, Addresses: strings.Split(*address, ","), Port: *port, Classical: *classical,
	})
	end()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(hello{c.Endpoints(), c.CA.File, c.Root, c.PIDs()}); err != nil {
		return err
	}
	lines := make(chan []byte)
	go func() {
		defer close(lines)
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			lines <- []byte(in.Text())
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case line, ok := <-lines:
			if !ok {
				return nil
			}
			var r request
			a, quit := answer{}, false
			if err := json.Unmarshal(line, &r); err != nil {
				a.Error = "no request: " + err.Error()
			} else {
				a, quit = obey(ctx, c, r)
			}
			if err := out.Encode(a); err != nil || quit {
				return err
			}
		}
	}
}

// obey does what a request asks for.
func obey(ctx context.Context, c *etcdtest.Cluster, r request) (a answer, quit bool) {
	if r.Timeout == 0 {
		r.Timeout = 60
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.Timeout)*time.Second)
	defer cancel()
	var err error
	if r.Member < 0 || r.Member >= c.Size() {
		return answer{Error: fmt.Sprintf("there is no member %d", r.Member)}, false
	}
	switch r.Do {
	case "kill":
		err = c.Kill(r.Member)
	case "stop":
		err = c.Stop(r.Member)
	case "start":
		if err = c.StartMember(r.Member); err == nil && (r.Wait == nil || *r.Wait) {
			err = c.AwaitMember(ctx, r.Member)
		}
	case "pause":
		err = c.Pause(r.Member)
	case "resume":
		err = c.Resume(r.Member)
	case "leader":
		var i int
		i, err = c.Leader(ctx)
		a.Member = &i
	case "revision":
		a.Revision, err = c.Revision(ctx)
	case "compact":
		err = c.Compact(ctx, r.Revision)
	case "defragment":
		err = c.Defragment(ctx)
	case "cert":
		var p etcdtest.Pair
		valid := time.Duration(r.Seconds) * time.Second
		p, err = c.Client(r.Dir, r.Name, valid)
		a.Certificate, a.Key = p.Certificate, p.Key
	case "backup":
		err = c.Backup(ctx)
	case "restore":
		err = c.Restore(ctx)
	case "quit":
		quit = true
	default:
		err = fmt.Errorf("unknown request %q", r.Do)
	}
	if err != nil {
		return answer{Error: err.Error()}, quit
	}
	a.OK = true
	return a, quit
}

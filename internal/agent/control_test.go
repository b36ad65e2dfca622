//go:build !kernel

package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec/macsectest"
)

// newServing is an agent of links that are left alone, with its control socket.
func newServing(t *testing.T) *server {
	t.Helper()
	opts := Options{Node: "r1", RunDir: newRunDir(t), StateDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	ready := make(chan struct{})
	opts.Ready = func(func(context.Context) error) { close(ready) }
	s := newServer(opts, newMachine(t, "r1").platform(), macsectest.New(), &linkEvents{})
	ctx, cancel := context.WithCancel(t.Context())
	g, ctx := errgroup.WithContext(ctx)
	s.start(ctx, g, &inventory.Inventory{}, []inventory.NodeLink{{
		Link:  &inventory.Link{ID: "l0", Verdict: inventory.Verdict{Kind: inventory.Inside, Reason: "it stays in building A"}},
		Local: inventory.End{Interface: "eth0"},
	}})
	g.Go(func() error { return s.serve(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	<-ready
	return s
}

// What waits for the agent, the network at boot, may set interfaces up as soon as it
// is ready: so that it is when every fence was closed, or could not be, and not before.
func TestReadyWhenFenced(t *testing.T) {
	opts := Options{Node: "r1", RunDir: newRunDir(t), StateDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	ready, entered, release := make(chan struct{}), make(chan struct{}), make(chan struct{})
	opts.Ready = func(func(context.Context) error) { close(ready) }
	on := newMachine(t, "r1").platform()
	on.findParent = func(name string) (parent, error) {
		if name == "eth1" {
			return parent{}, errors.New("there is no interface eth1")
		}
		return parent{index: 7, name: name}, nil
	}
	enter := sync.OnceFunc(func() { close(entered) })
	on.closeFence = func(int, fence.Options) ([]fence.Change, error) {
		enter()
		<-release
		return nil, errors.New("the kernel has no tc filters")
	}
	on.inspectFence = func(int, fence.Options) (fence.State, error) {
		return fence.State{}, errors.New("nor does it show any")
	}
	on.setUp = func(int, bool) error { return nil }
	s := newServer(opts, on, macsectest.New(), &linkEvents{})
	s.open = func(*inventory.Inventory, *slog.Logger) [2]keys.Channel { return [2]keys.Channel{} }
	ctx, cancel := context.WithCancel(t.Context())
	g, ctx := errgroup.WithContext(ctx)
	var links []inventory.NodeLink
	for _, name := range []string{"eth0", "eth1"} {
		links = append(links, inventory.NodeLink{
			Link:  &inventory.Link{ID: "l-" + name, Verdict: inventory.Verdict{Kind: inventory.Encrypt, Reason: "it leaves the building"}},
			Local: inventory.End{Interface: name, Secure: name + "-sec"},
		})
	}
	s.start(ctx, g, &inventory.Inventory{}, links)
	g.Go(func() error { return s.serve(ctx) })
	<-entered
	for _, err := NewClient(opts.RunDir).Status(t.Context()); err != nil; { // until it listens
		_, err = NewClient(opts.RunDir).Status(t.Context())
	}
	select {
	case <-ready:
		t.Error("the agent is ready, and a fence is open")
	default:
	}
	close(release)
	<-ready
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestSocketIsForItsOwnerOnly(t *testing.T) {
	s := newServing(t)
	info, err := os.Stat(filepath.Join(s.opts.RunDir, socketName))
	if err != nil || info.Mode().Type() != os.ModeSocket || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestSocketAnswers(t *testing.T) {
	s := newServing(t)
	for _, c := range []struct{ name, line, want string }{
		{"bad JSON", "status please", `{"error":"the request is not one line of JSON`},
		{"not an object", "[1]", `{"error":"the request is not one line of JSON`},
		{"empty line", "", `{"error":"the request is not one line of JSON`},
		{"unknown verb", `{"verb":"reboot"}`, `{"error":"this agent does not know the verb \"reboot\""}`},
		{"no verb", `{}`, `{"error":"this agent does not know the verb \"\""}`},
		{"unknown link", `{"verb":"rekey","link":"l9"}`, "{\"error\":\"node r1 has no link \\\"l9\\\": `lever status` lists those that it has\"}"},
		{"no link", `{"verb":"down"}`, `{"error":"node r1 has no link \"\"`},
		{"link left alone", `{"verb":"rekey","link":"l0"}`, `{"error":"link l0 is not encrypted here (inside: it stays in building A): there is nothing to rekey"}`},
		{"link left alone, down", `{"verb":"down","link":"l0"}`, `there is nothing to down`},
		{"an absence that is too long", `{"verb":"suspend","for":121000000000}`, `{"error":"MKA can announce an absence of up to 2m0s; found 2m1s"}`},
		{"an absence that is over", `{"verb":"suspend","for":-1}`, `{"error":"MKA can announce`},
		{"nothing to suspend", `{"verb":"suspend","for":60000000000}`, `{}`},
		{"status", `{"verb":"status"}`, `{"status":{"node":"r1","faults":[],"links":[{"id":"l0"`},
		{"unknown fields are for later versions", `{"verb":"status","colour":"red"}`, `{"status":{"node":"r1"`},
		{"a line without end", strings.Repeat("x", 5000), ""},
	} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", filepath.Join(s.opts.RunDir, socketName))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte(c.line + "\n"))
		got, err := bufio.NewReader(conn).ReadString('\n')
		if !strings.Contains(got, c.want) || (err != nil) != (c.want == "") {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
		_ = conn.Close()
	}
}

func TestClient(t *testing.T) {
	s := newServing(t)
	c := NewClient(s.opts.RunDir)
	st, err := c.Status(t.Context())
	if err != nil || st.Node != "r1" || len(st.Links) != 1 || st.Links[0].State != StateInside {
		t.Errorf("status %+v, %v", st, err)
	}
	if _, err := c.Rekey(t.Context(), "l0"); err == nil || !strings.Contains(err.Error(), "not encrypted here") {
		t.Errorf("rekey: %v", err)
	}
	if all, err := c.Suspend(t.Context(), time.Minute); err != nil || len(all) != 0 {
		t.Errorf("suspend where nothing is encrypted: %+v, %v", all, err)
	}
	if done, err := c.Down(t.Context(), nil); err != nil || len(done) != 0 {
		t.Errorf("down of everything where nothing is encrypted: %q, %v", done, err)
	}
	if done, err := c.Down(t.Context(), []string{"l0", "l9"}); len(done) != 0 || err == nil ||
		!strings.Contains(err.Error(), "link l0") || !strings.Contains(err.Error(), `"l9"`) {
		t.Errorf("down: %q, %v", done, err)
	}

	// Watch: what is now, and then every change, until the caller has enough.
	enough := errors.New("enough")
	seen := 0
	err = c.Watch(t.Context(), func(st Status) error {
		if seen++; seen == 3 {
			return enough
		}
		l := st.Links[0]
		l.Rekeys = uint64(seen)
		s.setStatus(l)
		return nil
	})
	if !errors.Is(err, enough) || seen != 3 {
		t.Errorf("watch: %d statuses, %v", seen, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.Watch(ctx, func(Status) error { cancel(); return nil }); err != nil {
		t.Errorf("a watch that is cancelled: %v", err)
	}
}

func TestClientWithoutAgent(t *testing.T) {
	dir := newRunDir(t)
	for _, stale := range []bool{false, true} {
		if stale { // as after a kill
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, socketName))
			if err != nil {
				t.Fatal(err)
			}
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			_ = l.Close()
		}
		_, err := NewClient(dir).Status(t.Context())
		if !errors.Is(err, ErrNoAgent) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "--run-dir") {
			t.Errorf("stale socket %v: %v", stale, err)
		}
	}
}

// talk connects to the agent in the bubble and returns the far end.
func (n *node) talk(line string) (conn net.Conn, answered <-chan struct{}) {
	here, there := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.server.answer(n.t.Context(), there)
		_ = there.Close()
	}()
	if line != "" {
		if _, err := here.Write([]byte(line + "\n")); err != nil {
			n.t.Error(err)
		}
	}
	return here, done
}

func ended(c <-chan struct{}) bool {
	synctest.Wait()
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestWatchEndsWhenTheCallerHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		conn, done := p.r1.talk(`{"verb":"watch"}`)
		in := json.NewDecoder(conn)
		var a answer
		if err := in.Decode(&a); err != nil || a.Status == nil || a.Status.Links[0].State != StateSecured {
			t.Fatalf("%+v, %v", a, err)
		}
		p.r1.change(p.r1.port, func(x *port) { x.running = false })
		for a.Status.Links[0].Faults == nil || len(a.Status.Links[0].Faults) == 0 {
			a = answer{}
			if err := in.Decode(&a); err != nil {
				t.Fatal(err)
			}
		}
		if ended(done) {
			t.Fatal("the watch ended by itself")
		}
		_ = conn.Close()
		if !ended(done) {
			t.Error("nobody listens, and the watch goes on")
		}
	})
}

func TestCallerThatSaysNothingIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		conn, done := p.r1.talk("")
		time.Sleep(4 * time.Second)
		if ended(done) {
			t.Error("dropped at once")
		}
		time.Sleep(2 * time.Second)
		if !ended(done) {
			t.Error("it is waited for without end")
		}
		_ = conn.Close()
	})
}

func TestRekeyOverTheSocketAnswersWhenTheSAKIsInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		before := p.r1.status()
		conn, done := p.r1.talk(`{"verb":"rekey","link":"l1"}`)
		var a answer
		if err := json.NewDecoder(conn).Decode(&a); err != nil || a.Error != "" || a.Status.Links[0].KN == before.KN {
			t.Errorf("%+v, %v", a, err)
		}
		_ = conn.Close()
		if !ended(done) {
			t.Error("the answer is given, and it goes on")
		}
		// Nobody who waits is forgotten when the link is lost meanwhile.
		p.sever(true)
		conn, _ = p.r1.talk(`{"verb":"rekey","link":"l1"}`)
		synctest.Wait()
		p.r1.unplug(p.r1.port)
		a = answer{}
		if err := json.NewDecoder(conn).Decode(&a); err != nil || !strings.Contains(a.Error, "the link was lost") {
			t.Errorf("%+v, %v", a, err)
		}
		_ = conn.Close()
	})
}

// Whoever is answered finds the outcome in the status.
func TestStatusIsPublishedBeforeTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		s := newServer(Options{Log: slog.New(slog.DiscardHandler)}, p.r1.platform(), p.r1.kernel, &linkEvents{})
		tk := newTask(s, spec{link: p.r1.link, policy: p.r1.policy})
		caller := make(chan error) // who does not take the answer yet
		tk.served, tk.takenDown = []chan error{caller}, true
		go tk.publish()
		synctest.Wait()
		s.mu.Lock()
		if st := s.status["l1"]; st.State != StateDown {
			t.Errorf("the caller is answered while the status is %+v", st)
		}
		s.mu.Unlock()
		if err := <-caller; err != nil {
			t.Error(err)
		}
	})
}

func TestRekeyThatTakesTooLongIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.change(func(l *inventory.Link) { l.MKA.Life = time.Hour }) // nobody is lost
		p.deliver(epoch(t, "1.0"))
		p.start()
		p.secured(time.Second)
		p.sever(true)
		began := time.Now()
		err := p.r1.ask("rekey")
		if err == nil || !strings.Contains(err.Error(), "no new SAK came into use within 20s") || time.Since(began) != rekeyPatience {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestSecondAgentInARunDirectoryIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lever.yaml")
	text := "apiVersion: lever/v1\nsites: {a: {custody: controlled-building}}\nnodes: {r1: {site: a}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "run")
	unlock, err := lockRunDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	opts := Options{Inventory: file, Node: "r1", RunDir: dir, StateDir: t.TempDir()}
	err = Run(t.Context(), opts)
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "is held by another agent (process "+strconv.Itoa(os.Getpid())+")") || !strings.Contains(err.Error(), "--run-dir") {
		t.Errorf("a second agent: %v", err)
	}
	if _, err := downWithoutAgent(&platform{}, nil, dir, nil); err == nil || !strings.Contains(err.Error(), "held by another agent") {
		t.Errorf("down beside an agent whose socket is gone: %v", err)
	}
	unlock()
	again, err := lockRunDir(dir)
	if err != nil {
		t.Fatalf("after the first one ended: %v", err)
	}
	again()
	opts.Node = "r9"
	if err := Run(t.Context(), opts); err == nil || !strings.Contains(err.Error(), `"r9"`) {
		t.Errorf("an unknown node: %v", err)
	}
	opts.Inventory = filepath.Join(dir, "nothing.yaml")
	if err := Run(t.Context(), opts); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no inventory: %v", err)
	}
}

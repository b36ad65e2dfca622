package metrics

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/lever-link/lever/internal/agent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a server of the example until the test ends.
func serve(t *testing.T, address string, observe func() agent.Observation) *Server {
	t.Helper()
	s, err := Listen(t.Context(), address, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(ctx, observe)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s
}

// get asks over whatever the server listens on.
func get(t *testing.T, s *Server, path string) (status int, body string) {
	t.Helper()
	to := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, s.listener.Addr().Network(), s.Address())
		},
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://lever"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := to.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestScrape(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "metrics.sock")
	for _, address := range []string{"127.0.0.1:0", "unix:" + socket} {
		s := serve(t, address, example)
		status, body := get(t, s, "/metrics")
		if status != http.StatusOK || !strings.Contains(body, `lever_link_state{link="fra1-ams1-017",state="secured"} 1`) {
			t.Errorf("%s: %d: %s", address, status, body)
		}
		if status, _ := get(t, s, "/"); status != http.StatusNotFound {
			t.Errorf("%s: there is something else: %d", address, status)
		}
	}
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := Listen(t.Context(), "unix:"+socket, nil); err == nil || !strings.Contains(err.Error(), "somebody else answers there") {
		t.Errorf("a second server on the socket: %v", err)
	}
}

func TestListenRefuses(t *testing.T) {
	taken := serve(t, "127.0.0.1:0", example).Address()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		taken:                 "address already in use",
		"nonsense":            "missing port",
		"127.0.0.1:http!":     "lookup",
		"nobody.invalid:9100": "lookup",
		"unix:relative":       "begins with /",
		"unix:" + file:        "is no socket",
		"unix:" + file + "/x": "not a directory",
	} {
		s, err := Listen(t.Context(), address, nil)
		if err == nil {
			t.Errorf("%s: listens at %s", address, s.Address())
			_ = s.Close()
			continue
		}
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "--metrics") {
			t.Errorf("%s: %v", address, err)
		}
		if malformed := address == "nonsense" || address == "unix:relative"; errors.Is(err, ErrMalformed) != malformed {
			t.Errorf("%s: malformed, and not for now: %t, want %t", address, !malformed, malformed)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("somebody else's file: %v", err)
	}
}

// A socket that a killed agent has left is taken over.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	if status, _ := get(t, serve(t, "unix:"+path, example), "/metrics"); status != http.StatusOK {
		t.Errorf("%d", status)
	}
}

// Scrapes that pile up are turned away; they wait for nobody.
func TestManyScrapes(t *testing.T) {
	var inside sync.WaitGroup
	inside.Add(maxScrapes)
	release := make(chan struct{})
	s := serve(t, "127.0.0.1:0", func() agent.Observation {
		inside.Done()
		<-release
		return example()
	})
	var scrapes sync.WaitGroup
	for range maxScrapes {
		scrapes.Go(func() {
			if status, _ := get(t, s, "/metrics"); status != http.StatusOK {
				t.Errorf("%d", status)
			}
		})
	}
	inside.Wait()
	if status, body := get(t, s, "/metrics"); status != http.StatusServiceUnavailable {
		t.Errorf("%d: %s", status, body)
	}
	close(release)
	scrapes.Wait()
}

// broken is a listener that ends by itself.
type broken struct{ net.Listener }

func (broken) Accept() (net.Conn, error) { return nil, errors.New("too many open files") }

// What becomes of the metrics is no reason to end an agent.
func TestServeEndsQuietly(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s := &Server{broken{l}, slog.New(slog.NewTextHandler(&log, nil))}
	s.Serve(t.Context(), example)
	if !strings.Contains(log.String(), "metrics are no longer served") || !strings.Contains(log.String(), "too many open files") {
		t.Errorf("%s", log.String())
	}
}

// Whoever holds connections open does not use up the agent's descriptors: further ones
// wait in the kernel.
func TestManyConnections(t *testing.T) {
	s := serve(t, "127.0.0.1:0", example)
	held := make([]net.Conn, maxClients)
	for i := range held {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Address())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		// Answered, and kept: the server has accepted it.
		if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		held[i] = c
	}
	var room atomic.Bool
	answered := make(chan bool)
	go func() {
		_, _ = get(t, s, "/metrics")
		answered <- room.Load()
	}()
	for range 100 { // give the scrape every chance
		runtime.Gosched()
	}
	room.Store(true)
	_ = held[0].Close()
	if !<-answered {
		t.Errorf("a scrape was answered beside %d connections", maxClients)
	}
}

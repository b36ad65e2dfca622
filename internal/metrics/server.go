package metrics

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"github.com/lever-link/lever/internal/agent"
)

// Whoever scrapes is not trusted to be quick, nor to be one.
const (
	readTimeout  = 5 * time.Second
	writeTimeout = 10 * time.Second
	idleTimeout  = 2 * time.Minute
	maxHeader    = 16 << 10
	maxScrapes   = 4  // at once
	maxClients   = 32 // connections, so that nobody uses up the agent's descriptors
)

// unixPrefix marks an address that is a socket's path.
const unixPrefix = "unix:"

// lookupPatience is how long a host's name may take to be looked up: at boot there may
// be no network yet to ask.
const lookupPatience = 2 * time.Second

// ErrMalformed is of what is no address, on whatever machine and at whatever time.
var ErrMalformed = errors.New("not HOST:PORT, nor unix:PATH")

// Server answers scrapes at /metrics.
type Server struct {
	listener net.Listener
	log      *slog.Logger
}

// Listen opens an address: HOST:PORT, or unix:PATH for a socket that its owner
// and group may use. A socket's path that nobody answers at is taken over. Every other
// error than ErrMalformed may pass.
func Listen(ctx context.Context, address string, log *slog.Logger) (*Server, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l, err := listen(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("metrics: listen at %s: %w: name another address with --metrics, HOST:PORT or unix:PATH", address, err)
	}
	return &Server{listener: netutil.LimitListener(l, maxClients), log: log}, nil
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	path, isPath := strings.CutPrefix(address, unixPrefix)
	if !isPath {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		ctx, cancel := context.WithTimeout(ctx, lookupPatience)
		defer cancel()
		return (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	}
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("%w: the path of a socket begins with /", ErrMalformed)
	}
	if err := clearStale(ctx, path); err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// clearStale removes a socket that an agent has left which was killed, and
// nothing else.
func clearStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket", path)
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close()
		return errors.New("somebody else answers there")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// Address is where it listens; the port is the one that was found for port 0.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Close stops listening; for a server that Serve is never called on.
func (s *Server) Close() error { return s.listener.Close() }

// Serve answers until ctx ends. Nothing that goes wrong with it may end an agent:
// it is logged.
func (s *Server) Serve(ctx context.Context, observe func() agent.Observation) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(NewCollector(observe, ThisBuild()))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes, Timeout: writeTimeout - time.Second,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}))
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = server.Close() // a scrape that is cut off is asked for again
	})
	s.log.Info("metrics are served", "address", s.Address())
	if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		s.log.Error("metrics are no longer served", "address", s.Address(), "error", err)
	}
	if !stop() {
		<-done
	}
}

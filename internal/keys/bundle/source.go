package bundle

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/lever-link/lever/internal/health"
)

// source is where a node's files come from. It is untrusted.
type source interface {
	// where is the place of the node's files, file that of one of them.
	where() string
	file(name string) string
	// get reads a file of no more than most octets; a refusal is about the file,
	// another error about the source.
	get(ctx context.Context, name string, most int) ([]byte, error)
	// lost is the fault of a source that cannot be read.
	lost() health.Code
	// keep names the files that will be asked for again soon.
	keep(names map[string]bool)
	// close gives up what it holds open.
	close()
}

// read reads a file of no more than most octets.
func read(r io.Reader, most int) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	if err == nil && len(text) > most {
		err = refuse(health.BundleMalformed, "it is larger than the %d octets that it may have", most)
	}
	return text, err
}

// directory is a source that somebody else fills.
type directory struct{ path string }

func (d directory) where() string           { return d.path }
func (d directory) file(name string) string { return filepath.Join(d.path, name) }
func (d directory) lost() health.Code       { return health.ChannelUnreadable }
func (d directory) keep(map[string]bool)    {}
func (d directory) close()                  {}

// get follows symbolic links, as checkouts and mounts have them: what counts is
// who has signed the content, not who owns the file.
func (d directory) get(_ context.Context, name string, most int) ([]byte, error) {
	// O_NONBLOCK: opening a FIFO must not wait for its writer.
	f, err := os.OpenFile(d.file(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, reason(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		return nil, refuse(health.BundleMalformed, "it is not a regular file (%s)", info.Mode())
	}
	if err != nil {
		return nil, reason(err)
	}
	text, err := read(f, most)
	return text, reason(err)
}

// reason is an error without the path, which a finding has already.
func reason(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

// server is a source behind an https URL.
type server struct {
	base *url.URL // ends with the node
	ca   string
	// given is the client of the Config; client is it, or ours.
	given *http.Client

	mu     sync.Mutex
	client *http.Client
	// seen is what was read last, which a server need not send again.
	seen map[string]answer
}

type answer struct {
	tag, modified string
	text          []byte
}

// isURL tells a URL from a directory.
func isURL(source string) bool { return strings.Contains(source, "://") }

func newServer(base, node, ca string, given *http.Client) (*server, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("the URL of the bundles: %w", err)
	}
	if u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("the URL of the bundles is %q: it must be https://HOST/PATH", base)
	}
	return &server{base: u.JoinPath(url.PathEscape(node)), ca: ca, given: given, seen: make(map[string]answer)}, nil
}

func (s *server) where() string           { return s.base.String() }
func (s *server) file(name string) string { return s.base.JoinPath(name).String() }
func (s *server) lost() health.Code       { return health.ChannelUnreachable }

func (s *server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil && s.given == nil {
		s.client.CloseIdleConnections()
	}
	s.client = nil
	clear(s.seen)
}

// dial makes the client when it is first needed, so that a CA that cannot be read
// is a fault that passes.
func (s *server) dial() (*http.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		return s.client, nil
	}
	if s.given != nil {
		c := *s.given
		c.CheckRedirect = onlyHTTPS
		s.client = &c
		return s.client, nil
	}
	// What is fetched is sealed already; hybrid key exchange hides from recorders
	// who fetches what, where the server knows it.
	conf := &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256}}
	if s.ca != "" {
		pem, err := os.ReadFile(s.ca)
		if err != nil {
			return nil, fmt.Errorf("reading the CA of its server: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the CA of its server, %s, holds no certificate in PEM", s.ca)
		}
	}
	s.client = &http.Client{
		Timeout:       time.Minute,
		CheckRedirect: onlyHTTPS,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: conf, TLSHandshakeTimeout: 10 * time.Second,
			ResponseHeaderTimeout: 20 * time.Second, IdleConnTimeout: 90 * time.Second, ForceAttemptHTTP2: true,
			MaxResponseHeaderBytes: 64 << 10,
		},
	}
	return s.client, nil
}

func onlyHTTPS(to *http.Request, via []*http.Request) error {
	switch {
	case to.URL.Scheme != "https":
		return fmt.Errorf("it redirects to %s, which is not https", to.URL.Redacted())
	case len(via) > 5:
		return errors.New("it redirects more than five times")
	}
	return nil
}

func (s *server) get(ctx context.Context, name string, most int) ([]byte, error) {
	client, err := s.dial()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.file(name), nil)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	old, have := s.seen[name]
	s.mu.Unlock()
	if have && old.tag != "" {
		req.Header.Set("If-None-Match", old.tag)
	} else if have {
		req.Header.Set("If-Modified-Since", old.modified)
	}
	res, err := client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // without the address, which a finding has already
		}
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if have && res.StatusCode == http.StatusNotModified {
		return old.text, nil
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("its server answers %s", strings.TrimSpace(res.Status))
	}
	text, err := read(res.Body, most)
	if err != nil {
		return nil, err
	}
	a := answer{res.Header.Get("ETag"), res.Header.Get("Last-Modified"), text}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.tag != "" || a.modified != "" {
		s.seen[name] = a
	} else {
		delete(s.seen, name)
	}
	return text, nil
}

// keep drops what was read last of all files but the named ones.
func (s *server) keep(names map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.seen {
		if !names[name] {
			delete(s.seen, name)
		}
	}
}

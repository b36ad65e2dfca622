package keyservice

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyfile"
)

const (
	// maxAnswer bounds an answer's body.
	maxAnswer = 64 << 10
	// timeout bounds a request, from the connection on.
	timeout = 10 * time.Second
)

// Client speaks HTTPS to one key service: TLS 1.3, with certificates on both sides.
// Files are read with each connection, so that new ones are taken up by themselves;
// a connection stands for a minute at most.
type Client struct {
	base                     *url.URL
	ca, certificate, keyFile string
	now                      func() time.Time
	http                     http.Client

	mu    sync.Mutex
	group tls.CurveID // by which the last connection's keys were agreed on; 0: none yet
}

// NewClient makes the client of the service that the options name.
func NewClient(o Options) (*Client, error) {
	base, err := url.Parse(o.URL)
	fail := func(why string) (*Client, error) {
		return nil, fmt.Errorf("key service %q: %s; write it as https://HOST or https://HOST:PORT, with a path if it has one", o.URL, why)
	}
	switch {
	case err != nil:
		return fail("it is not a URL")
	case base.Scheme != "https":
		return fail("it is not an https URL, and keys go nowhere in the clear")
	case base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "":
		return fail("a URL of a service has a host and perhaps a path, and nothing else")
	}
	base.Path = strings.TrimSuffix(base.Path, "/")
	c := &Client{base: base, ca: o.CA, certificate: o.Certificate, keyFile: o.Key, now: o.now}
	c.http = http.Client{
		Transport: o.Transport, Timeout: timeout,
		// Where a service sends us is not where the inventory does.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if c.http.Transport == nil {
		c.http.Transport = &http.Transport{
			DialTLSContext: c.dial, MaxConnsPerHost: 4, IdleConnTimeout: time.Minute,
			MaxResponseHeaderBytes: 16 << 10, DisableCompression: true,
		}
	}
	return c, nil
}

// Where is the service's URL.
func (c *Client) Where() string { return c.base.String() }

// Answer is what a service has answered. Its body may hold a key.
type Answer struct {
	Status int
	Body   []byte
}

// Erase overwrites the body.
func (a Answer) Erase() { clear(a.Body) }

// Do makes one request for a path beneath the service's URL, which is escaped
// already, and returns the answer whatever its status. What the HTTP and TLS
// packages keep of the answer in buffers of theirs cannot be erased.
func (c *Client) Do(ctx context.Context, method, path, query string, body []byte) (Answer, error) {
	target := c.base.String() + path
	if query != "" {
		target += "?" + query
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return Answer{}, fmt.Errorf("make a request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return Answer{}, unreachable(err)
	}
	defer func() { _ = resp.Body.Close() }()
	// Whole at once: a buffer that grows leaves copies behind.
	buf := make([]byte, maxAnswer+1)
	n, err := io.ReadFull(resp.Body, buf)
	switch {
	case err == nil:
		clear(buf)
		return Answer{}, Malformed("it is longer than %d octets", maxAnswer)
	case !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF):
		clear(buf)
		return Answer{}, unreachable(err)
	case resp.ContentLength >= 0 && int64(n) != resp.ContentLength:
		clear(buf)
		return Answer{}, Malformed("it is cut off after %d octets", n)
	}
	return Answer{Status: resp.StatusCode, Body: buf[:n]}, nil
}

// localError is trouble with this node's own files; it quotes nobody else.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

// unreachable is an error of the HTTP client in the words that matter. It may quote
// what the far side sent.
func unreachable(err error) error {
	if local, ok := errors.AsType[localError](err); ok {
		return local
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		if u.Timeout() {
			return fmt.Errorf("no answer within %v", timeout)
		}
		err = u.Err
	}
	return errors.New(Quote(err.Error()))
}

func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	config, err := c.tls()
	if err != nil {
		return nil, localError{err}
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.group = conn.(*tls.Conn).ConnectionState().CurveID
	c.mu.Unlock()
	return conn, nil
}

// tls is read from files each time.
func (c *Client) tls() (*tls.Config, error) {
	authorities, err := keyfile.ReadPEM(c.ca)
	if err != nil {
		return nil, fmt.Errorf("reading whom to trust: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("reading whom to trust: there is no certificate in %s", c.ca)
	}
	chain, err := keyfile.ReadPEM(c.certificate)
	if err != nil {
		return nil, fmt.Errorf("reading this node's certificate: %w", err)
	}
	private, err := keyfile.ReadPrivatePEM(c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the key of this node's certificate: %w", err)
	}
	defer clear(private)
	pair, err := tls.X509KeyPair(chain, private)
	if err != nil {
		return nil, fmt.Errorf("reading this node's certificate: %s and %s do not belong together, or are not in PEM", c.certificate, c.keyFile)
	}
	// The groups are Go's own, of which the first is X25519MLKEM768. Key services
	// speak classical TLS mostly: that is taken, and said (Findings).
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: []tls.Certificate{pair}, ServerName: c.base.Hostname()}, nil
}

// Findings implements Service: a certificate that has ended, or of whose life less than
// a third is left, and a connection whose keys were agreed on without ML-KEM.
func (c *Client) Findings() []keys.Finding {
	var found []keys.Finding
	if leaf := first(c.certificate); leaf != nil {
		f := keys.Finding{File: c.certificate, Until: leaf.NotAfter.UTC()}
		switch left := leaf.NotAfter.Sub(c.now()); {
		case left <= 0:
			f.Code = health.CertificateExpired
		case left < leaf.NotAfter.Sub(leaf.NotBefore)/3:
			f.Code = health.CertificateEnding
		}
		if f.Code != "" {
			found = append(found, f)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.group != 0 && c.group != tls.X25519MLKEM768 {
		found = append(found, keys.Finding{
			Code:   health.ChannelNotHybrid,
			Detail: fmt.Sprintf("TLS 1.3 with %v was agreed on, and no better; keys are fetched all the same, so that what is recorded today gives this channel's keys away once there are such computers, and the other channel's alone keep the link", c.group),
		})
	}
	return found
}

// first is the first certificate in a file, which is the node's own; nil if there is
// none: a connection says why.
func first(file string) *x509.Certificate {
	text, err := keyfile.ReadPEM(file)
	if err != nil {
		return nil
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return cert
}

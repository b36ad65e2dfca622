package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/lever-link/lever/internal/health"
)

// errNotHybrid is a server that does not agree on keys by X25519MLKEM768.
var errNotHybrid = errors.New("it does not speak TLS 1.3 with X25519MLKEM768")

// errRefused is a server that refuses this node's certificate.
var errRefused = errors.New("it refuses this node's certificate")

// transport makes the TLS connections of a channel. It reads the files for each of
// them, so that a renewed certificate is taken up by the next one, and remembers of
// each server what went wrong last, which gRPC would tell in words only.
type transport struct {
	files files
	now   func() time.Time
	state *servers
}

// servers are what went wrong with each server's last connection, by address.
type servers struct {
	mu       sync.Mutex
	problems map[string]error
	// hosts, if any, are all servers that there are; hope ends, with the reason as its
	// cause, while each of them has a problem that does not go by itself.
	hosts []string
	hope  context.Context
	end   context.CancelCauseFunc
}

// lasting tells problems that somebody has to do something about.
func lasting(err error) bool {
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	return untrusted || errors.Is(err, errRefused) || errors.Is(err, errNotHybrid)
}

// judge ends hope, or gives it back.
func (s *servers) judge() {
	var all []string
	for _, host := range s.hosts {
		err := s.problems[host]
		if !lasting(err) {
			if s.hope.Err() != nil {
				s.hope, s.end = context.WithCancelCause(context.Background())
			}
			return
		}
		all = append(all, host+": "+reason(err))
	}
	if len(all) > 0 {
		s.end(fmt.Errorf("%w: %s", ErrRefused, strings.Join(all, "; ")))
	}
}

// hoping ends when no server will do.
func (s *servers) hoping() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hope
}

func (s *servers) note(server string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.problems == nil {
		s.problems = make(map[string]error)
	}
	if err == nil {
		delete(s.problems, server)
	} else {
		s.problems[server] = err
	}
	s.judge()
}

func (s *servers) all() map[string]error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.problems)
}

func newTransport(f files, now func() time.Time) *transport {
	s := &servers{}
	s.hope, s.end = context.WithCancelCause(context.Background())
	return &transport{files: f, now: now, state: s}
}

// ClientHandshake implements credentials.TransportCredentials.
func (t *transport) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := t.handshake(ctx, authority, raw)
	if err != nil {
		err = diagnose(err)
		t.state.note(authority, err)
		return nil, nil, err
	}
	t.state.note(authority, nil)
	return &watchedConn{Conn: conn, server: authority, state: t.state}, info, nil
}

func (t *transport) handshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	id, err := t.files.load()
	if err != nil {
		return nil, nil, err
	}
	host, _, err := net.SplitHostPort(authority)
	if err != nil {
		host = authority
	}
	config := &tls.Config{
		ServerName:       host,
		RootCAs:          id.roots,
		MinVersion:       tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768},
		Time:             t.now,
		// Not Certificates: of these crypto/tls shows none when it thinks that the
		// server will not like it, and the server then has nothing to say why.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id.pair, nil },
	}
	conn, info, err := credentials.NewTLS(config).ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, err
	}
	// It cannot be otherwise; but this is a promise, so that it is looked at.
	if state, ok := info.(credentials.TLSInfo); !ok || state.State.Version != tls.VersionTLS13 || state.State.CurveID != tls.X25519MLKEM768 {
		_ = conn.Close()
		return nil, nil, errNotHybrid
	}
	return conn, info, nil
}

// diagnose tells the reasons for which a handshake fails that operators can do
// something about.
func diagnose(err error) error {
	if alert, ok := remoteAlert(err); ok {
		switch alert {
		case "tls: handshake failure", "tls: protocol version not supported", "tls: insufficient security level", "tls: illegal parameter":
			return fmt.Errorf("%w: it answers %q", errNotHybrid, alert)
		case "tls: bad certificate", "tls: unsupported certificate", "tls: revoked certificate", "tls: expired certificate",
			"tls: unknown certificate", "tls: unknown certificate authority", "tls: access denied", "tls: certificate required":
			return fmt.Errorf("%w: it answers %q", errRefused, alert)
		}
	}
	return err
}

// remoteAlert is the alert by which the other end has ended the connection:
// crypto/tls tells of them in an error of a type that it keeps to itself.
func remoteAlert(err error) (string, bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" || op.Err == nil {
		return "", false
	}
	return op.Err.Error(), true
}

// watchedConn sees the server's alert about this node's certificate, which with TLS
// 1.3 comes after the client's handshake is done.
type watchedConn struct {
	net.Conn
	server string
	state  *servers
}

// Read implements net.Conn.
func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		if d := diagnose(err); errors.Is(d, errRefused) {
			c.state.note(c.server, d)
		}
	}
	return n, err
}

// ServerHandshake implements credentials.TransportCredentials.
func (t *transport) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("this end is a client")
}

// Info implements credentials.TransportCredentials.
func (t *transport) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls", SecurityVersion: "1.3"}
}

// Clone implements credentials.TransportCredentials. Clones share what they know of
// the servers.
func (t *transport) Clone() credentials.TransportCredentials {
	return &transport{files: t.files, now: t.now, state: t.state}
}

// OverrideServerName implements credentials.TransportCredentials: a server's name is
// that of its endpoint.
func (t *transport) OverrideServerName(string) error { return nil }

// classify is the fault that an error of a handshake is.
func classify(err error) health.Code {
	switch {
	case errors.Is(err, errNotHybrid):
		return health.ChannelNotHybrid
	case errors.Is(err, errRefused):
		return health.ChannelDenied
	}
	return health.ChannelUnreachable
}

// reason words what is wrong with a server's connection, without the noise.
func reason(err error) string {
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return "its certificate is not from the channel's CA (" + err.Error() + ")"
	default:
		return err.Error()
	}
}

package etcdtest_test

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/etcd"
	"github.com/lever-link/lever/internal/keys/etcd/etcdtest"
)

// A second run of Grant has nothing to do, only root may, and a node reads what is
// its own and nothing else.
func TestAccess(t *testing.T) {
	s := theSite(t)
	ctx := within(t)
	root, issuer := s.admin(t, s.c.Root), s.issuer(t)
	nodes, issuers := []string{"r1", "r2", "r3"}, []string{"issuer"}
	if changes := do[[]string](t)(root.Grant(ctx, nodes, issuers)); len(changes) != 0 {
		t.Errorf("a second run changed %q", changes)
	}
	if changes, err := issuer.Grant(ctx, nodes, issuers); !errors.Is(err, etcd.ErrDenied) || len(changes) > 0 {
		t.Errorf("an issuer changed access: %q, %v", changes, err)
	}
	if _, err := root.Grant(ctx, []string{"root"}, nil); err == nil {
		t.Error("a node may be called root")
	}
	if _, err := root.Grant(ctx, []string{"issuer"}, issuers); err == nil {
		t.Error("a node may be an issuer")
	}
	do[etcd.Progress](t)(issuer.Issue(ctx, between("access"), []uint64{1}, life, nil))

	node := do[*clientv3.Client](t)(s.c.ClientAs(s.pair(t, "r1")))
	defer func() { _ = node.Close() }()
	own := do[*clientv3.GetResponse](t)(node.Get(ctx, "lever/nodes/r1/", clientv3.WithPrefix(), clientv3.WithCountOnly()))
	if own.Count == 0 {
		t.Error("a node finds nothing of its own")
	}
	for name, err := range map[string]error{
		"reading another node's prefix": second(node.Get(ctx, "lever/nodes/r2/", clientv3.WithPrefix())),
		"reading another node's key":    second(node.Get(ctx, "lever/nodes/r2/links/access/1.0")),
		"reading all nodes":             second(node.Get(ctx, "lever/nodes/", clientv3.WithPrefix())),
		"reading everything":            second(node.Get(ctx, "", clientv3.WithFromKey())),
		"reading marks":                 second(node.Get(ctx, "lever/revoked/access/1.0")),
		"writing its own key":           second(node.Put(ctx, "lever/nodes/r1/links/access/1.0", "x")),
		"deleting its own key":          second(node.Delete(ctx, "lever/nodes/r1/links/access/1.0")),
		"listing users":                 second(node.UserList(ctx)),
	} {
		if !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("%s: %v, want that it is denied", name, err)
		}
	}
	watch := <-node.Watch(ctx, "lever/nodes/r2/", clientv3.WithPrefix())
	if err := watch.Err(); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("watching another node's prefix: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// A node that was revoked loses its keys, its peers lose theirs of the same links,
// and its certificate opens nothing any more.
func TestRevokedNode(t *testing.T) {
	s := theSite(t)
	ctx := within(t)
	issuer, root := s.issuer(t), s.admin(t, s.c.Root)
	do[[]string](t)(root.Grant(ctx, []string{"r1", "r2", "r3", "gone"}, []string{"issuer"}))
	links := append(between("stays"), etcd.LinkSpec{ID: "goes", Nodes: []string{"gone", "r1"}})
	do[etcd.Progress](t)(issuer.Issue(ctx, links, []uint64{1, 2}, life, nil))
	config := s.config(t, "r1")
	config.Nodes = nil
	c := do[*etcd.Channel](t)(etcd.New(config))
	stays, goes := follow(t, c, "stays"), follow(t, c, "goes")
	config = s.config(t, "gone")
	config.Nodes = nil
	former := follow(t, do[*etcd.Channel](t)(etcd.New(config)), "goes")
	stays.epochs("1.0 2.0")
	goes.epochs("1.0 2.0")
	former.epochs("1.0 2.0")

	p := do[etcd.Progress](t)(issuer.RevokeNode(ctx, "gone", links, nil))
	if p.Keys != 4 || p.Total != 1 {
		t.Errorf("%+v", p)
	}
	goes.epochs("")
	former.epochs("")
	if !do[bool](t)(root.RevokeAccess(ctx, "gone")) {
		t.Error("there was no access to revoke")
	}
	if do[bool](t)(root.RevokeAccess(ctx, "gone")) {
		t.Error("access was revoked twice")
	}
	former.stop()
	former = follow(t, do[*etcd.Channel](t)(etcd.New(config)), "goes")
	if x := former.finding(health.ChannelDenied); !x.unavailable {
		t.Error(x)
	}
	// Nor is anything issued for it again, until somebody says so; and then under other
	// names.
	if p := do[etcd.Progress](t)(issuer.Issue(ctx, links, []uint64{1, 2}, life, nil)); p.Revoked != 2 || p.Present != 2 {
		t.Errorf("%+v", p)
	}
	if changes := do[[]string](t)(root.Grant(ctx, []string{"r1", "r2", "r3", "gone"}, []string{"issuer"})); len(changes) > 0 {
		t.Errorf("granted in spite of the revocation: %q", changes)
	}
	if !do[bool](t)(issuer.Readmit(ctx, "gone")) || do[bool](t)(issuer.Readmit(ctx, "gone")) {
		t.Error("it was not readmitted, or twice")
	}
	if p := do[etcd.Progress](t)(issuer.Issue(ctx, links, []uint64{1, 2}, life, nil)); p.Issued != 2 || p.Present != 2 {
		t.Errorf("%+v", p)
	}
	goes.epochs("1.1 2.1")
	if len(stays.heap) > 0 {
		t.Errorf("the other link heard of it: %s", <-stays.heap)
	}
}

// Whom the other end does not trust, at either end, has a fault with the reason.
func TestWrongCA(t *testing.T) {
	s := theSite(t)
	other := do[*etcdtest.CA](t)(etcdtest.NewCA(t.TempDir(), "other"))
	config := s.config(t, "r1")
	config.CA = other.File
	f := follow(t, do[*etcd.Channel](t)(etcd.New(config)), "ca")
	if x := f.finding(health.ChannelUnreachable); !x.unavailable || !strings.Contains(x.findings[0].Detail, "CA") {
		t.Error(x)
	}
	config = s.config(t, "r1")
	p := do[etcdtest.Pair](t)(other.Client(t.TempDir(), "r1", time.Now().Add(-time.Hour), time.Now().Add(time.Hour)))
	config.Certificate, config.Key = p.Certificate, p.Key
	f = follow(t, do[*etcd.Channel](t)(etcd.New(config)), "ca")
	if x := f.finding(health.ChannelDenied); !x.unavailable || !strings.Contains(x.findings[0].Detail, "certificate") {
		t.Error(x)
	}
}

// An issuer whom no server accepts, or who accepts no server, is told why, and not
// after trying for as long as a cluster may take to come back.
func TestIssuerIsRefused(t *testing.T) {
	s := theSite(t)
	other := do[*etcdtest.CA](t)(etcdtest.NewCA(t.TempDir(), "other"))
	good := s.pair(t, "issuer")
	past := do[etcdtest.Pair](t)(s.c.CA.Client(t.TempDir(), "issuer", time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)))
	strange := do[etcdtest.Pair](t)(other.Client(t.TempDir(), "issuer", time.Now().Add(-time.Hour), time.Now().Add(time.Hour)))
	for name, test := range map[string]struct {
		ca   string
		pair etcdtest.Pair
		want string
	}{
		"expired":           {s.c.CA.File, past, "certificate"},
		"of another CA":     {s.c.CA.File, strange, "certificate"},
		"with the wrong CA": {other.File, good, "is not from the channel's CA"},
	} {
		t.Run(name, func(t *testing.T) {
			var log lines
			a := do[*etcd.Admin](t)(etcd.OpenAdmin(etcd.AdminConfig{
				Endpoints: s.c.Endpoints(), CA: test.ca, Certificate: test.pair.Certificate, Key: test.pair.Key, Log: log.log(),
			}))
			defer func() { must(t, a.Close()) }()
			_, err := a.List(within(t), nil)
			if !errors.Is(err, etcd.ErrRefused) || errors.Is(err, etcd.ErrUnreachable) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			for _, e := range s.c.Endpoints() {
				if !strings.Contains(err.Error(), strings.TrimPrefix(e, "https://")) {
					t.Errorf("%v does not name %s", err, e)
				}
			}
			if log.String() != "" {
				t.Errorf("it was tried again:\n%s", &log)
			}
		})
	}
}

// Access control is turned on by root alone, or whoever does it has shut himself out.
func TestGrantTakesRoot(t *testing.T) {
	c := do[*etcdtest.Cluster](t)(etcdtest.Start(within(t), etcdtest.Options{Dir: t.TempDir(), Members: 1}))
	t.Cleanup(func() { _ = c.Close() })
	s := &site{c}
	if changes, err := s.issuer(t).Grant(within(t), []string{"r1"}, []string{"issuer"}); !errors.Is(err, etcd.ErrDenied) || len(changes) > 0 || !strings.Contains(err.Error(), "issuer") {
		t.Errorf("an issuer changed %q, %v", changes, err)
	}
	changes := do[[]string](t)(s.admin(t, c.Root).Grant(within(t), []string{"r1"}, []string{"issuer"}))
	if len(changes) == 0 || changes[len(changes)-1] != "turned access control on" {
		t.Errorf("root changed %q", changes)
	}
}

// Servers that agree on keys in the classical way only are refused, whether with TLS
// 1.3 or before.
func TestNotHybrid(t *testing.T) {
	s := theSite(t)
	member := do[etcdtest.Pair](t)(s.c.CA.Server(t.TempDir(), "classical", "127.0.0.1"))
	pair := do[tls.Certificate](t)(tls.LoadX509KeyPair(member.Certificate, member.Key))
	for name, server := range map[string]*tls.Config{
		"classical": {Certificates: []tls.Certificate{pair}, CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256}},
		"TLS 1.2":   {Certificates: []tls.Certificate{pair}, MaxVersion: tls.VersionTLS12},
	} {
		t.Run(name, func(t *testing.T) {
			l := do[net.Listener](t)(tls.Listen("tcp", "127.0.0.1:0", server))
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_ = conn.(*tls.Conn).Handshake()
					_ = conn.Close()
				}
			})
			t.Cleanup(func() { _ = l.Close(); wg.Wait() })
			config := s.config(t, "r1")
			config.Endpoints = []string{"https://" + l.Addr().String()}
			f := follow(t, do[*etcd.Channel](t)(etcd.New(config)), "hybrid")
			if x := f.finding(health.ChannelNotHybrid); !x.unavailable {
				t.Error(x)
			}
			// With another member that does, the channel works, and it is said.
			config.Endpoints = append(config.Endpoints, s.c.Endpoints()[0])
			f = follow(t, do[*etcd.Channel](t)(etcd.New(config)), "hybrid")
			f.await("a warning", func(x seen) bool { return !x.unavailable && x.has(health.ChannelNotHybrid) })
		})
	}
}

// A cluster whose members are classical is a real one that is refused.
func TestClassicalCluster(t *testing.T) {
	dir := t.TempDir()
	c := do[*etcdtest.Cluster](t)(etcdtest.Start(within(t), etcdtest.Options{Dir: dir, Members: 1, Classical: true}))
	t.Cleanup(func() { _ = c.Close() })
	s := &site{c}
	f := follow(t, do[*etcd.Channel](t)(etcd.New(s.config(t, "r1"))), "classical")
	f.finding(health.ChannelNotHybrid)
}

// A recording of the connection shows the hybrid group, and no other on offer.
func TestHandshakeIsHybrid(t *testing.T) {
	s := theSite(t)
	p := newProxy(t, s.c.Endpoints()[0])
	config := s.config(t, "r1")
	config.Endpoints = []string{p.endpoint()}
	f := follow(t, do[*etcd.Channel](t)(etcd.New(config)), "capture")
	do[etcd.Progress](t)(s.issuer(t).Issue(within(t), between("capture"), []uint64{1}, life, nil))
	x := f.epochs("1.0")
	up, down := p.tape()
	const x25519MLKEM768 = 0x11EC // draft-ietf-tls-ecdhe-mlkem, IANA's TLS Supported Groups
	groups := extension(t, up, 1, 10)
	if n := binary.BigEndian.Uint16(groups); n != 2 || binary.BigEndian.Uint16(groups[2:]) != x25519MLKEM768 {
		t.Errorf("the client offers groups %x", groups)
	}
	share := extension(t, up, 1, 51)
	if binary.BigEndian.Uint16(share[2:]) != x25519MLKEM768 || binary.BigEndian.Uint16(share[4:]) != 1184+32 {
		t.Errorf("the client's key share is %x…", share[:8])
	}
	share = extension(t, down, 2, 51)
	if binary.BigEndian.Uint16(share) != x25519MLKEM768 || binary.BigEndian.Uint16(share[2:]) != 1088+32 {
		t.Errorf("the server's key share is %x…", share[:8])
	}
	if version := extension(t, down, 2, 43); binary.BigEndian.Uint16(version) != tls.VersionTLS13 {
		t.Errorf("the server has chosen version %x", version)
	}
	for _, tape := range [][]byte{up, down} {
		if strings.Contains(string(tape), "lever-key/1") || strings.Contains(string(tape), "capture") {
			t.Error("the recording has names or values in the clear")
		}
	}
	if len(x.keys) != 1 || (x.keys[keys.Epoch{Number: 1}] == keys.Fingerprint{}) {
		t.Error(x)
	}
}

// extension finds an extension of a ClientHello (message type 1) or ServerHello (2)
// in the octets that a connection began with (RFC 8446 4.1.2, 4.1.3, 5.1).
func extension(t *testing.T, tape []byte, message byte, kind uint16) []byte {
	t.Helper()
	var hello []byte
	for len(tape) >= 5 && tape[0] == 22 && len(tape) >= 5+int(binary.BigEndian.Uint16(tape[3:])) {
		n := int(binary.BigEndian.Uint16(tape[3:]))
		hello, tape = append(hello, tape[5:5+n]...), tape[5+n:]
	}
	if len(hello) < 39 || hello[0] != message {
		t.Fatalf("the recording does not begin with message %d: %x…", message, hello[:min(len(hello), 8)])
	}
	b := hello[4+2+32:]
	b = b[1+int(b[0]):] // session id
	if message == 1 {
		b = b[2+int(binary.BigEndian.Uint16(b)):] // cipher suites
		b = b[1+int(b[0]):]                       // compression methods
	} else {
		b = b[2+1:]
	}
	b = b[2 : 2+int(binary.BigEndian.Uint16(b))]
	for len(b) >= 4 {
		n := int(binary.BigEndian.Uint16(b[2:]))
		if binary.BigEndian.Uint16(b) == kind {
			return b[4 : 4+n]
		}
		b = b[4+n:]
	}
	t.Fatalf("message %d has no extension %d", message, kind)
	return nil
}

// What nobody answers is out of reach.
func TestNobodyAnswers(t *testing.T) {
	s := theSite(t)
	config := s.config(t, "r1")
	config.Endpoints = []string{blackhole(t)}
	config.StateFile = filepath.Join(t.TempDir(), "etcd.json")
	f := follow(t, do[*etcd.Channel](t)(etcd.New(config)), "nobody")
	if x := f.finding(health.ChannelUnreachable); !x.unavailable {
		t.Error(x)
	}
}

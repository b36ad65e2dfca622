package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lever-link/lever/internal/keys"
)

// AdminConfig is what the issuer's side needs to know.
type AdminConfig struct {
	// Endpoints, Prefix, CA, Certificate and Key are as in Config; the certificate is
	// an issuer's, or root's for Grant and RevokeAccess.
	Endpoints            []string
	Prefix               string
	CA, Certificate, Key string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log gets a line when a request has to be made again; nil discards.
	Log *slog.Logger
}

// Admin is the issuer's side of the channel. It may be used from several goroutines.
type Admin struct {
	cfg    AdminConfig
	names  names
	client *clientv3.Client
	kv     pb.KVClient
	tls    *transport
}

// LinkSpec is a link as its keys are bound to it.
type LinkSpec struct {
	ID    string
	Nodes []string
}

// spec is a LinkSpec that was checked, its nodes sorted.
func spec(l LinkSpec) (LinkSpec, error) {
	l.Nodes = slices.Sorted(slices.Values(l.Nodes))
	if err := validName("link", l.ID); err != nil {
		return l, err
	}
	if len(l.Nodes) < 2 {
		return l, fmt.Errorf("link %q has %d nodes, and at least two are needed", l.ID, len(l.Nodes))
	}
	for i, n := range l.Nodes {
		if err := validName("node", n); err != nil {
			return l, fmt.Errorf("link %q: %w", l.ID, err)
		}
		if i > 0 && n == l.Nodes[i-1] {
			return l, fmt.Errorf("link %q has node %q twice", l.ID, n)
		}
	}
	return l, nil
}

// OpenAdmin makes the issuer's side. It reads the certificate files, so that what is
// wrong with them is said at once, and does not connect yet.
func OpenAdmin(c AdminConfig) (*Admin, error) {
	n, err := newNames(c.Prefix)
	if err == nil {
		err = checkEndpoints(c.Endpoints)
	}
	f := files{c.CA, c.Certificate, c.Key}
	if err == nil {
		err = f.check()
	}
	if err == nil {
		_, err = f.load()
	}
	if err != nil {
		return nil, fmt.Errorf("opening the etcd channel: %w", err)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	t := newTransport(f, c.Now)
	for _, e := range c.Endpoints {
		t.state.hosts = append(t.state.hosts, strings.TrimPrefix(e, "https://"))
	}
	client, err := dial(c.Endpoints, t)
	if err != nil {
		return nil, err
	}
	return &Admin{cfg: c, names: n, client: client, kv: pb.NewKVClient(client.ActiveConnection()), tls: t}, nil
}

// Close ends the connections.
func (a *Admin) Close() error {
	if err := a.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("closing the etcd channel: %w", err)
	}
	return nil
}

// persistence is how long one request is made again while the cluster has no leader
// or cannot be reached.
const (
	persistence = 30 * time.Second
	// attempt is how long one try may take: an issuer keeps the cluster busy itself.
	attempt = 5 * time.Second
)

// ErrUnreachable is a cluster that has not answered for so long that it makes no
// sense to go on.
var ErrUnreachable = errors.New("the cluster does not answer")

// ErrRefused is a cluster of which no server can be spoken to, for a reason that does
// not go by itself, such as a certificate that is over.
var ErrRefused = errors.New("no server of the cluster will do")

// persist makes a request until it is answered. Each request here can be made twice:
// what it does depends on what is there.
func (a *Admin) persist(ctx context.Context, what string, request func(context.Context) error) error {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, persistence)
	defer cancel()
	var last error
	for wait := soonest; ; wait = min(2*wait, slowest) {
		try, end := context.WithTimeout(ctx, attempt)
		hope := a.tls.state.hoping()
		stop := context.AfterFunc(hope, end)
		err := request(try)
		stop()
		end()
		if err == nil {
			return nil
		}
		if hope.Err() != nil {
			return fmt.Errorf("%s: %w", what, context.Cause(hope))
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		if !passing(err) {
			return a.explain(what, last)
		}
		a.cfg.Log.Info("a request to etcd is made again", "request", what, "error", err)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			if whole.Err() == nil {
				last = fmt.Errorf("%w for %s: %w", ErrUnreachable, persistence, last)
			}
			return a.explain(what, last)
		case <-timer.C:
		}
	}
}

// passing tells errors that may go by themselves.
func passing(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errMoved) {
		return true
	}
	switch codeOf(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted:
		return true
	default:
		return false
	}
}

// codeOf is gRPC's code of an error, also of one that clientv3 has made its own.
func codeOf(err error) codes.Code {
	if own, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return own.Code()
	}
	return status.Code(err)
}

// ErrDenied is a request that etcd's access control refuses.
var ErrDenied = errors.New("this certificate's user may not do that")

// explain says what was tried, and what the servers' connections know of the reason.
func (a *Admin) explain(what string, err error) error {
	if codeOf(err) == codes.PermissionDenied {
		return fmt.Errorf("%s: %w: use the issuer's certificate, or root's for users and roles", what, ErrDenied)
	}
	problems := a.tls.state.all()
	for _, server := range slices.Sorted(maps.Keys(problems)) {
		err = fmt.Errorf("%w; %s: %w", err, server, problems[server])
	}
	return fmt.Errorf("%s: %w", what, err)
}

// pageSize is how many values are read at once.
const pageSize = 2000

// pages reads everything whose name begins with prefix, page by page, as it was at
// one revision, and erases each page afterwards.
func (a *Admin) pages(ctx context.Context, prefix string, namesOnly bool, each func(name string, text []byte)) error {
	key, end, revision := prefix, clientv3.GetPrefixRangeEnd(prefix), int64(0)
	for {
		opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(revision)}
		if namesOnly {
			opts = append(opts, clientv3.WithKeysOnly())
		}
		var answer *clientv3.GetResponse
		err := a.persist(ctx, "reading "+prefix, func(ctx context.Context) (err error) {
			answer, err = a.client.Get(ctx, key, opts...)
			return err
		})
		if err != nil {
			return err
		}
		revision = answer.Header.Revision
		for _, kv := range answer.Kvs {
			each(string(kv.Key), kv.Value)
		}
		scrub((*pb.RangeResponse)(answer))
		if !answer.More || len(answer.Kvs) == 0 {
			return nil
		}
		key = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
}

// epochsOf are the epochs of a link that its nodes have, and those that were revoked.
func (a *Admin) epochsOf(ctx context.Context, l LinkSpec) (have map[keys.Epoch][]string, revoked map[keys.Epoch]bool, err error) {
	have = make(map[keys.Epoch][]string)
	for _, node := range l.Nodes {
		err := a.pages(ctx, a.names.link(node, l.ID), true, func(name string, _ []byte) {
			if at, err := a.names.parse(name); err == nil {
				have[at.epoch] = append(have[at.epoch], node)
			}
		})
		if err != nil {
			return nil, nil, err
		}
	}
	revoked, err = a.marks(ctx, l)
	return have, revoked, err
}

// marks are the epochs of a link that were revoked.
func (a *Admin) marks(ctx context.Context, l LinkSpec) (map[keys.Epoch]bool, error) {
	revoked := make(map[keys.Epoch]bool)
	err := a.pages(ctx, a.names.revoked(l.ID), true, func(name string, _ []byte) {
		if e, err := keys.ParseEpoch(name[len(a.names.revoked(l.ID)):]); err == nil {
			revoked[e] = true
		}
	})
	return revoked, err
}

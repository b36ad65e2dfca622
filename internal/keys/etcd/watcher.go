package etcd

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
)

// lookAgain is the longest that a watcher waits: what is due by the wall clock, which
// can be set, is looked for once a minute.
const lookAgain = time.Minute

// watcher follows one link for one receiver.
type watcher struct {
	c       *Channel
	link    string
	deliver func(keys.Snapshot)

	// delivered is the digest of the last Snapshot, had are its epochs.
	delivered string
	had       map[keys.Epoch]bool
	// revision is that of the last values read: the watch may be behind it.
	revision int64
	failures int
}

// look delivers what has changed and returns when to look again, though nothing is
// heard.
func (w *watcher) look(ctx context.Context) time.Duration {
	v := w.c.view(w.link)
	if v.up {
		s, due, err := w.read(ctx, v)
		if err == nil {
			w.failures = 0
			w.send(s)
			return due
		}
		if ctx.Err() != nil {
			return lookAgain
		}
		w.failures++
		if errors.Is(err, errOlder) || status.Code(err) == codes.PermissionDenied {
			v.session.again() // a watch that stands notices neither
		}
	}
	// What the watch has told stays true when the values cannot be read any more,
	// above all what was revoked: the rest is there, as far as is known.
	if v.revision >= w.revision && slices.ContainsFunc(slices.Collect(maps.Keys(w.had)), func(e keys.Epoch) bool { return !v.have[e] }) {
		s := keys.Snapshot{Where: w.c.Where(w.link), Present: v.have, Findings: slices.Concat(v.findings, v.trouble)}
		_ = s.LimitPrefetch(w.c.cfg.Now())
		w.send(s)
	}
	if v.trouble != nil {
		w.send(keys.Snapshot{Where: w.c.Where(w.link), Unavailable: true, Findings: slices.Concat(v.findings, v.trouble)})
	}
	if !v.up {
		return lookAgain // the session kicks when it knows more
	}
	return min(100*time.Millisecond<<min(w.failures, 5), slowest)
}

// send delivers a Snapshot unless it says what the last one said.
func (w *watcher) send(s keys.Snapshot) {
	slices.SortFunc(s.Findings, func(a, b keys.Finding) int {
		return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.File, b.File), a.Epoch.Compare(b.Epoch))
	})
	d := s.Digest()
	if d == w.delivered {
		s.Erase()
		return
	}
	w.delivered = d
	if !s.Unavailable {
		w.had = make(map[keys.Epoch]bool, len(s.Keys)+len(s.Present))
		for e := range s.Keys {
			w.had[e] = true
		}
		for e := range s.Present {
			w.had[e] = true
		}
	}
	w.deliver(s)
}

// errOlder is an answer of a cluster that has gone back, which the session must see
// first.
var errOlder = errors.New("the cluster has gone back")

// read makes the link's Snapshot, and tells how long it is true if nothing is heard.
func (w *watcher) read(ctx context.Context, v view) (keys.Snapshot, time.Duration, error) {
	c := w.c
	select {
	case c.reads <- struct{}{}:
		defer func() { <-c.reads }()
	case <-ctx.Done():
		return keys.Snapshot{}, 0, ctx.Err()
	}
	answer, err := v.session.get(ctx, c.names.link(c.cfg.Node, w.link), false)
	if err != nil {
		return keys.Snapshot{}, 0, err
	}
	c.mu.Lock()
	older := c.memory.older(answer.Header.ClusterId, answer.Header.Revision)
	c.mu.Unlock()
	if older {
		scrub(answer)
		return keys.Snapshot{}, 0, errOlder
	}
	s := keys.Snapshot{
		Where: c.Where(w.link), Findings: v.findings,
		Keys: make(map[keys.Epoch]keys.Material), Present: make(map[keys.Epoch]bool),
	}
	now := c.cfg.Now()
	w.revision = answer.Header.Revision
	due := now.Add(lookAgain)
	secret.Do(func() {
		for _, kv := range answer.Kvs {
			if until := w.take(&s, kv.Key, kv.Value, now); !until.IsZero() && until.Before(due) {
				due = until
			}
		}
	})
	scrub(answer)
	c.mu.Lock()
	for e := range c.memory.lost[w.link] {
		if _, ok := s.Keys[e]; !ok {
			s.Present[e] = true
		}
	}
	c.mu.Unlock()
	if again := s.LimitPrefetch(now); !again.IsZero() && again.Before(due) {
		due = again
	}
	return s, max(due.Sub(now), time.Millisecond), nil
}

// take adds one value to a Snapshot and returns when it ends.
func (w *watcher) take(s *keys.Snapshot, name, text []byte, now time.Time) time.Time {
	at, err := w.c.names.parse(string(name))
	if err != nil || at.link != w.link {
		return time.Time{} // the session knows of it
	}
	var nodes []string
	if w.c.cfg.Nodes != nil {
		nodes = slices.Sorted(slices.Values(w.c.cfg.Nodes(w.link)))
	}
	v, err := open(text, at, nodes, now)
	if err != nil {
		s.Present[at.epoch] = true
		f := keys.Finding{Epoch: at.epoch, File: fileName(string(name))}
		if refused, ok := errors.AsType[*Refusal](err); ok {
			f.Code, f.Detail = refused.Code, refused.Detail
		}
		s.Findings = append(s.Findings, f)
		return time.Time{}
	}
	if v.issued.After(s.AsOf) {
		s.AsOf = v.issued
	}
	s.Keys[at.epoch] = keys.Material{KeyID: at.epoch.String(), Key: v.key, File: fileName(string(name))}
	return v.expires
}

// scrub overwrites the values of an answer.
func scrub(answer *pb.RangeResponse) {
	for _, kv := range answer.Kvs {
		clear(kv.Value)
	}
}

// maxAnswer is the most octets that are taken of a server at once: the names of all
// values of a node with some ten thousand links.
const maxAnswer = 32 << 20

// get reads everything whose name begins with prefix, as the cluster's majority has
// it.
func (s *session) get(ctx context.Context, prefix string, namesOnly bool) (*pb.RangeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// Not the client's own KV: that waits for a connection, and then knows only that
	// it has waited.
	return s.kv.Range(ctx, &pb.RangeRequest{
		Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix)), KeysOnly: namesOnly,
	}, grpc.WaitForReady(false), grpc.MaxCallRecvMsgSize(maxAnswer))
}

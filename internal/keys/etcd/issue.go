package etcd

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
)

// Options are how to issue.
type Options struct {
	// Lifetime is how long material may be used, from the start of its epoch or from
	// now on, whichever is later. It must be positive.
	Lifetime time.Duration
	// Workers is how many requests are under way at once; 0 means 128.
	Workers int

	// there is told when what is there was issued.
	there func(time.Time)
}

func (o Options) check() error {
	if o.Lifetime < time.Second {
		return fmt.Errorf("issuing with a lifetime of %s: it must be a second at least, and should be a policy's max_age", o.Lifetime)
	}
	return nil
}

// maxRevoked is how often an epoch may be revoked and issued again.
const maxRevoked = 64

// Issue writes new random material for each link and each epoch's number, as its
// first generation that was not revoked, in one transaction each: for all nodes of
// the link, if none has any. What is there already stays as it is; where some of the
// nodes lack it, it is copied to them. So it can be made again after it was ended at
// any moment, without a duplicate or a gap. Links of nodes that were revoked get
// nothing.
//
// What was issued when a link had other nodes is bound to these. The link gets the
// next generation of it, and then the former one is deleted everywhere, also at nodes
// that have left.
//
// A link that cannot be issued for does not hold up the others; the error tells of
// the first ones. Progress is called from one goroutine at a time and may be nil.
func (a *Admin) Issue(ctx context.Context, links []LinkSpec, numbers []uint64, o Options, progress func(Progress)) (Progress, error) {
	if err := o.check(); err != nil {
		return Progress{}, err
	}
	gone, err := a.RevokedNodes(ctx)
	if err != nil {
		return Progress{}, err
	}
	others, err := a.strangers(ctx, links)
	if err != nil {
		return Progress{}, err
	}
	var mu sync.Mutex
	var since time.Time
	o.there = func(at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		if since.IsZero() || at.Before(since) {
			since = at
		}
	}
	changed, whole := make(map[string]bool), make(map[string]int)
	total := len(links) * len(numbers)
	p, err := a.work(ctx, "issuing", total, o.Workers, progress, func(ctx context.Context, i int) (outcome, error) {
		// Number by number, so that all links have the next epoch before one has the
		// one after.
		l, err := spec(links[i%len(links)])
		if err != nil {
			return 0, err
		}
		if onAny(l, gone) {
			return revoked, nil
		}
		e := keys.Epoch{Number: numbers[i/len(links)]}
		for ; e.Generation < maxRevoked; e.Generation++ {
			if others[l.ID][e] != nil {
				continue
			}
			done, err := a.issue(ctx, l, e, o)
			if forOtherNodes(err) {
				mu.Lock()
				changed[l.ID] = true
				mu.Unlock()
				continue
			}
			if err == nil && done != revoked {
				mu.Lock()
				whole[l.ID]++
				mu.Unlock()
			}
			if err != nil || done != revoked {
				return done, err
			}
		}
		return 0, fmt.Errorf("issuing epoch %d of link %q: it was revoked %d times; wait for the next one", e.Number, l.ID, maxRevoked)
	})
	p.Since = since
	// The former keys of a link stay until it has all of the others.
	links = slices.DeleteFunc(slices.Clone(links), func(l LinkSpec) bool { return whole[l.ID] < len(numbers) })
	err = errors.Join(err, a.replace(ctx, links, others, changed, &p))
	return p, err
}

// Reissue writes new random material for a number under the generation that follows
// the highest that was issued, or revoked, for the link. Each call makes another
// generation of what it gets to.
func (a *Admin) Reissue(ctx context.Context, links []LinkSpec, number uint64, o Options, progress func(Progress)) (Progress, error) {
	if err := o.check(); err != nil {
		return Progress{}, err
	}
	gone, err := a.RevokedNodes(ctx)
	if err != nil {
		return Progress{}, err
	}
	others, err := a.strangers(ctx, links)
	if err != nil {
		return Progress{}, err
	}
	return a.work(ctx, "reissuing", len(links), o.Workers, progress, func(ctx context.Context, i int) (outcome, error) {
		l, err := spec(links[i])
		if err != nil {
			return 0, err
		}
		if onAny(l, gone) {
			return revoked, nil
		}
		have, marked, err := a.epochsOf(ctx, l)
		if err != nil {
			return 0, err
		}
		next, found := keys.Epoch{Number: number}, false
		note := func(e keys.Epoch) {
			if e.Number == number && e.Generation < math.MaxUint32 {
				next.Generation, found = max(next.Generation, e.Generation+1), true
			}
		}
		for e := range have {
			note(e)
		}
		for e := range marked {
			note(e)
		}
		for e := range others[l.ID] {
			note(e)
		}
		if !found {
			return 0, fmt.Errorf("reissuing epoch %d of link %q: it was never issued; issue it first", number, l.ID)
		}
		return a.issue(ctx, l, next, o)
	})
}

// issue sees that all nodes of a link have the same material for an epoch.
func (a *Admin) issue(ctx context.Context, l LinkSpec, e keys.Epoch, o Options) (done outcome, err error) {
	what := fmt.Sprintf("issuing epoch %s of link %q", e, l.ID)
	if e.Number == 0 {
		return 0, fmt.Errorf("%s: epochs count from 1", what)
	}
	now := a.cfg.Now()
	v := value{link: l.ID, nodes: l.Nodes, epoch: e, issued: now.UTC().Truncate(time.Second), key: secret.New(make([]byte, materialLen))}
	defer v.key.Erase()
	if v.expires = v.issued; e.Start().After(v.expires) {
		v.expires = e.Start().UTC()
	}
	if v.expires = v.expires.Add(o.Lifetime).Truncate(time.Second); v.expires.Year() > 9999 {
		return 0, fmt.Errorf("%s: it would end in the year %d; is the number that of minutes since 1970?", what, v.expires.Year())
	}
	// crypto/rand never fails: it ends the process instead.
	_, _ = rand.Read(v.key.Bytes())
	var text []byte
	secret.Do(func() { text, err = v.encode() })
	if err != nil {
		return 0, err
	}
	defer clear(text)
	err = a.persist(ctx, what, func(ctx context.Context) (err error) {
		done, err = a.ensure(ctx, l, e, text, o.there)
		return err
	})
	return done, err
}

// errMoved is an epoch that changed while it was looked at.
var errMoved = errors.New("somebody else writes at the same time")

// ensure puts a text for all nodes of a link, unless there is one.
func (a *Admin) ensure(ctx context.Context, l LinkSpec, e keys.Epoch, text []byte, there func(time.Time)) (outcome, error) {
	var t pb.TxnRequest
	for _, node := range l.Nodes {
		name := a.names.key(node, l.ID, e)
		t.Compare = append(t.Compare, absent(name))
		t.Success = append(t.Success, put(name, text))
		t.Failure = append(t.Failure, get(name))
	}
	mark := a.names.mark(l.ID, e)
	t.Compare = append(t.Compare, absent(mark))
	t.Failure = append(t.Failure, get(mark))
	answer, err := a.kv.Txn(ctx, &t, grpc.WaitForReady(true))
	if err != nil {
		return 0, err
	}
	if answer.Succeeded {
		return issued, nil
	}
	defer scrubAll(answer.Responses)
	return a.repair(ctx, l, e, text, answer.Responses, there)
}

// repair copies what some nodes have to those that lack it.
func (a *Admin) repair(ctx context.Context, l LinkSpec, e keys.Epoch, ours []byte, found []*pb.ResponseOp, there func(time.Time)) (outcome, error) {
	mark := len(l.Nodes)
	if len(found) <= mark {
		return 0, fmt.Errorf("asking for epoch %s of link %q: the cluster answered %d questions of %d", e, l.ID, len(found), mark+1)
	}
	if len(found[mark].GetResponseRange().GetKvs()) > 0 {
		return revoked, nil
	}
	var text []byte
	var issuedAt time.Time
	var lack []string
	var t pb.TxnRequest
	for i, node := range l.Nodes {
		name := a.names.key(node, l.ID, e)
		kvs := found[i].GetResponseRange().GetKvs()
		if len(kvs) == 0 {
			lack = append(lack, name)
			t.Compare = append(t.Compare, absent(name))
			continue
		}
		t.Compare = append(t.Compare, unchanged(name, kvs[0].ModRevision))
		v, err := open(kvs[0].Value, place{node: node, link: l.ID, epoch: e}, l.Nodes, a.cfg.Now())
		v.key.Erase()
		if err != nil {
			return 0, fmt.Errorf("epoch %s of link %q is there at node %s, but %w; revoke it and issue another generation", e, l.ID, node, err)
		}
		if text != nil && !bytes.Equal(text, kvs[0].Value) {
			return 0, fmt.Errorf("epoch %s of link %q is there, but its nodes have different values; revoke it and issue another generation", e, l.ID)
		}
		text, issuedAt = kvs[0].Value, v.issued
	}
	switch {
	case text == nil:
		return 0, errMoved
	case len(lack) == 0 && bytes.Equal(text, ours):
		return issued, nil // by a request whose answer was lost
	}
	if there != nil {
		there(issuedAt)
	}
	if len(lack) == 0 {
		return present, nil
	}
	for _, name := range lack {
		t.Success = append(t.Success, put(name, text))
	}
	t.Compare = append(t.Compare, absent(a.names.mark(l.ID, e)))
	answer, err := a.kv.Txn(ctx, &t, grpc.WaitForReady(true))
	switch {
	case err != nil:
		return 0, err
	case !answer.Succeeded:
		return 0, errMoved
	}
	return repaired, nil
}

// What transactions are made of. This is etcd's protocol and not clientv3's Op, which
// takes values as strings: nobody can erase a string.

func put(name string, text []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(name), Value: text}}}
}

func get(name string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(name)}}}
}

func absent(name string) *pb.Compare {
	return &pb.Compare{Key: []byte(name), Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0}}
}

func unchanged(name string, revision int64) *pb.Compare {
	return &pb.Compare{Key: []byte(name), Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: revision}}
}

func scrubAll(found []*pb.ResponseOp) {
	for _, r := range found {
		if answer := r.GetResponseRange(); answer != nil {
			scrub(answer)
		}
	}
}

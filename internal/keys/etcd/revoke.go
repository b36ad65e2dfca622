package etcd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/lever-link/lever/internal/keys"
)

// maxOps is how many operations etcd allows in a transaction, unless it is told
// otherwise.
const maxOps = 128

// Revoke deletes the epochs of links that match, at all nodes that have them at once,
// also at such as are no longer on the link, and leaves marks, so that they are not
// issued again. Nil matches all of them. Progress.Revoked counts the links that had
// any, Present those that had none, and Already those of which all was revoked before.
func (a *Admin) Revoke(ctx context.Context, links []LinkSpec, match func(keys.Epoch) bool, progress func(Progress)) (Progress, error) {
	if match == nil {
		match = func(keys.Epoch) bool { return true }
	}
	specs := byLink(links)
	have, err := a.holders(ctx, func(at place) bool {
		_, ok := specs[at.link]
		return ok && match(at.epoch)
	})
	if err != nil {
		return Progress{}, err
	}
	return a.revoke(ctx, links, have, match, progress)
}

// revoke deletes of links what is given of them.
func (a *Admin) revoke(ctx context.Context, links []LinkSpec, have holders, match func(keys.Epoch) bool, progress func(Progress)) (Progress, error) {
	var already atomic.Int64
	p, err := a.workKeys(ctx, "revoking", len(links), 0, progress, func(ctx context.Context, i int) (outcome, int, error) {
		l, err := spec(links[i])
		if err != nil {
			return 0, 0, err
		}
		n, err := a.erase(ctx, l, have[l.ID])
		if err != nil {
			return 0, n, fmt.Errorf("revoking keys of link %q: %w", l.ID, err)
		}
		if n > 0 {
			return revoked, n, nil
		}
		marks, err := a.marks(ctx, l)
		if err != nil {
			return 0, 0, fmt.Errorf("revoking keys of link %q: %w", l.ID, err)
		}
		for e := range marks {
			if match(e) {
				already.Add(1)
				break
			}
		}
		return present, 0, nil
	})
	p.Already = int(already.Load())
	return p, err
}

func countDeleted(found []*pb.ResponseOp) (n int) {
	for _, r := range found {
		n += int(r.GetResponseDeleteRange().GetDeleted())
	}
	return n
}

// RevokeNode deletes every key of the links that the node is on, at all of their
// ends, and whatever else the node has, and leaves a mark so that nothing is issued
// for these links any more until Readmit. The links are those of the inventory; others
// are left alone. Progress.Already is 1 if the node was revoked before. Its access is for RevokeAccess, which
// takes root's certificate.
func (a *Admin) RevokeNode(ctx context.Context, node string, links []LinkSpec, progress func(Progress)) (Progress, error) {
	if err := validName("node", node); err != nil {
		return Progress{}, err
	}
	// The mark first: nothing is to be issued in between.
	again := false
	err := a.persist(ctx, "marking node "+node, func(ctx context.Context) error {
		answer, err := a.client.Put(ctx, a.names.goneNode(node), "revoked "+stamp(a.cfg.Now())+"\n", clientv3.WithPrevKV())
		if err == nil {
			again = answer.PrevKv != nil
		}
		return err
	})
	if err != nil {
		return Progress{}, fmt.Errorf("revoking node %q: %w", node, err)
	}
	specs := byLink(links)
	have, err := a.holders(ctx, func(at place) bool {
		l, ok := specs[at.link]
		return ok && (at.node == node || slices.Contains(l.Nodes, node))
	})
	if err != nil {
		return Progress{}, fmt.Errorf("revoking node %q: %w", node, err)
	}
	// Of a link that the node has left, the far ends may still use what it has.
	own := slices.DeleteFunc(slices.Clone(links), func(l LinkSpec) bool { return have[l.ID] == nil && !slices.Contains(l.Nodes, node) })
	p, err := a.revoke(ctx, own, have, func(keys.Epoch) bool { return true }, progress)
	if p.Already = 0; again {
		p.Already = 1
	}
	if err != nil {
		return p, fmt.Errorf("revoking node %q: %w", node, err)
	}
	err = a.persist(ctx, "deleting what node "+node+" has", func(ctx context.Context) error {
		answer, err := a.client.Delete(ctx, a.names.node(node), clientv3.WithPrefix())
		if err == nil {
			p.Keys += int(answer.Deleted)
		}
		return err
	})
	if err != nil {
		return p, fmt.Errorf("revoking node %q: %w", node, err)
	}
	return p, nil
}

// RevokedNodes are the nodes that RevokeNode has marked, sorted.
func (a *Admin) RevokedNodes(ctx context.Context) (nodes []string, err error) {
	err = a.pages(ctx, a.names.goneNodes(), true, func(name string, _ []byte) {
		nodes = append(nodes, strings.TrimPrefix(name, a.names.goneNodes()))
	})
	if err != nil {
		return nil, fmt.Errorf("looking which nodes were revoked: %w", err)
	}
	return nodes, nil
}

// onAny reports whether a link is on one of the nodes.
func onAny(l LinkSpec, nodes []string) bool {
	return slices.ContainsFunc(l.Nodes, func(n string) bool { return slices.Contains(nodes, n) })
}

// Readmit takes the mark of a revoked node away, and reports whether there was one.
// It gets access back by Grant, and keys by Issue.
func (a *Admin) Readmit(ctx context.Context, node string) (existed bool, err error) {
	if err := validName("node", node); err != nil {
		return false, err
	}
	err = a.persist(ctx, "readmitting node "+node, func(ctx context.Context) error {
		answer, err := a.client.Delete(ctx, a.names.goneNode(node))
		if err == nil {
			existed = existed || answer.Deleted > 0
		}
		return err
	})
	return existed, err
}

// Retire deletes epochs whose number is lower than before, with the marks of such,
// and returns how many values it has deleted. A node's newest number of a link stays
// in any case: what has no successor is not over.
func (a *Admin) Retire(ctx context.Context, before uint64) (deleted int, err error) {
	fail := func(err error) (int, error) {
		return deleted, fmt.Errorf("retiring epochs before %d: %w", before, err)
	}
	var victims []string
	var group []place
	flush := func() {
		if len(group) == 0 {
			return
		}
		newest := slices.MaxFunc(group, func(x, y place) int { return x.epoch.Compare(y.epoch) }).epoch.Number
		for _, at := range group {
			if at.epoch.Number < min(before, newest) {
				victims = append(victims, a.names.key(at.node, at.link, at.epoch))
			}
		}
		group = group[:0]
	}
	err = a.pages(ctx, a.names.nodes(), true, func(name string, _ []byte) {
		at, err := a.names.parse(name)
		if err != nil {
			return
		}
		if len(group) > 0 && (group[0].node != at.node || group[0].link != at.link) {
			flush()
		}
		group = append(group, at)
	})
	if err != nil {
		return fail(err)
	}
	flush()
	if err := a.pages(ctx, a.names.prefix+"/revoked/", true, func(name string, _ []byte) {
		if _, e, ok := a.names.parseMark(name); ok && e.Number < before {
			victims = append(victims, name)
		}
	}); err != nil {
		return fail(err)
	}
	for chunk := range slices.Chunk(victims, maxOps) {
		ops := make([]clientv3.Op, len(chunk))
		for i, name := range chunk {
			ops[i] = clientv3.OpDelete(name)
		}
		err := a.persist(ctx, "deleting keys", func(ctx context.Context) error {
			answer, err := a.client.Txn(ctx).Then(ops...).Commit()
			if err == nil {
				deleted += countDeleted(answer.Responses)
			}
			return err
		})
		if err != nil {
			return fail(err)
		}
	}
	return deleted, nil
}

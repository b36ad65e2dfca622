package etcd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/lever-link/lever/internal/keys"
)

// maxOps is how many operations etcd allows in a transaction, unless it is told
// otherwise.
const maxOps = 128

// Revoke deletes the epochs of links that match, at all of their nodes at once, and
// leaves marks, so that they are not issued again. Nil matches all of them.
// Progress.Revoked counts the links that had any, Present those that had none.
func (a *Admin) Revoke(ctx context.Context, links []LinkSpec, match func(keys.Epoch) bool, progress func(Progress)) (Progress, error) {
	return a.workKeys(ctx, "revoking", len(links), 0, progress, func(ctx context.Context, i int) (outcome, int, error) {
		l, err := spec(links[i])
		if err != nil {
			return 0, 0, err
		}
		n, err := a.revoke(ctx, l, match)
		if err != nil {
			return 0, n, fmt.Errorf("revoking keys of link %q: %w", l.ID, err)
		}
		if n == 0 {
			return present, 0, nil
		}
		return revoked, n, nil
	})
}

// revoke deletes a link's epochs and returns how many values there were.
func (a *Admin) revoke(ctx context.Context, l LinkSpec, match func(keys.Epoch) bool) (deleted int, err error) {
	have, _, err := a.epochsOf(ctx, l)
	if err != nil {
		return 0, err
	}
	var ops []clientv3.Op
	flush := func() error {
		if len(ops) == 0 {
			return nil
		}
		err := a.persist(ctx, "deleting keys of link "+l.ID, func(ctx context.Context) error {
			answer, err := a.client.Txn(ctx).Then(ops...).Commit()
			if err == nil {
				deleted += countDeleted(answer.Responses)
			}
			return err
		})
		ops = nil
		return err
	}
	for e := range have {
		if match != nil && !match(e) {
			continue
		}
		if len(ops)+1+len(l.Nodes) > maxOps {
			if err := flush(); err != nil {
				return deleted, err
			}
		}
		// Mark and deletion together: a crash in between would free the number.
		ops = append(ops, clientv3.OpPut(a.names.mark(l.ID, e), "revoked "+stamp(a.cfg.Now())+"\n"))
		for _, node := range l.Nodes {
			ops = append(ops, clientv3.OpDelete(a.names.key(node, l.ID, e)))
		}
	}
	return deleted, flush()
}

func countDeleted(found []*pb.ResponseOp) (n int) {
	for _, r := range found {
		n += int(r.GetResponseDeleteRange().GetDeleted())
	}
	return n
}

// RevokeNode deletes every key of the links that the node is on, at all of their
// ends, and whatever else the node has, and leaves a mark so that nothing is issued
// for these links any more until Readmit. The links are those of the inventory as it
// was with the node; others are left alone. Its access is for RevokeAccess, which
// takes root's certificate.
func (a *Admin) RevokeNode(ctx context.Context, node string, links []LinkSpec, progress func(Progress)) (Progress, error) {
	if err := validName("node", node); err != nil {
		return Progress{}, err
	}
	// The mark first: nothing is to be issued in between.
	err := a.persist(ctx, "marking node "+node, func(ctx context.Context) error {
		_, err := a.client.Put(ctx, a.names.goneNode(node), "revoked "+stamp(a.cfg.Now())+"\n")
		return err
	})
	if err != nil {
		return Progress{}, fmt.Errorf("revoking node %q: %w", node, err)
	}
	own := slices.DeleteFunc(slices.Clone(links), func(l LinkSpec) bool { return !slices.Contains(l.Nodes, node) })
	p, err := a.Revoke(ctx, own, nil, progress)
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

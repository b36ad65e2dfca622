package etcd

import (
	"context"
	"fmt"
	"maps"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
)

// holders are the nodes that have a value, by link and epoch.
type holders map[string]map[keys.Epoch][]string

func (h holders) add(at place) {
	if h[at.link] == nil {
		h[at.link] = make(map[keys.Epoch][]string)
	}
	h[at.link][at.epoch] = append(h[at.link][at.epoch], at.node)
}

// holders finds those of all values that are wanted, by their names.
func (a *Admin) holders(ctx context.Context, want func(place) bool) (holders, error) {
	h := make(holders)
	err := a.pages(ctx, a.names.nodes(), true, func(name string, _ []byte) {
		if at, err := a.names.parse(name); err == nil && want(at) {
			h.add(at)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("looking which nodes have keys: %w", err)
	}
	return h, nil
}

// byLink are links as they are looked up.
func byLink(links []LinkSpec) map[string]LinkSpec {
	m := make(map[string]LinkSpec, len(links))
	for _, l := range links {
		m[l.ID] = l
	}
	return m
}

// strangers are the nodes that have values of a link and are not on it: they left it
// after these were issued.
func (a *Admin) strangers(ctx context.Context, links []LinkSpec) (holders, error) {
	specs := byLink(links)
	return a.holders(ctx, func(at place) bool {
		l, ok := specs[at.link]
		return ok && !slices.Contains(l.Nodes, at.node)
	})
}

// replace takes back what was issued when links had other nodes, at all nodes at once:
// what strangers have, and what the nodes of the links that changed have. It comes
// after the epochs that take their place, so that the nodes that stay have these.
func (a *Admin) replace(ctx context.Context, links []LinkSpec, strangers holders, changed map[string]bool, p *Progress) error {
	for _, l := range links {
		if strangers[l.ID] == nil && !changed[l.ID] {
			continue
		}
		l, err := spec(l)
		if err != nil {
			return err
		}
		former, err := a.former(ctx, l)
		if err != nil {
			return err
		}
		maps.Copy(former, strangers[l.ID])
		n, err := a.erase(ctx, l, former)
		p.Keys += n
		if err != nil {
			return fmt.Errorf("taking back what other nodes of link %q have: %w", l.ID, err)
		}
		p.Replaced += len(former)
	}
	return nil
}

// former are the epochs of a link that were issued when it had other nodes.
func (a *Admin) former(ctx context.Context, l LinkSpec) (map[keys.Epoch][]string, error) {
	found := make(holders)
	for _, node := range l.Nodes {
		err := a.pages(ctx, a.names.link(node, l.ID), false, func(name string, text []byte) {
			at, err := a.names.parse(name)
			if err != nil {
				return
			}
			secret.Do(func() {
				v, err := open(text, at, l.Nodes, a.cfg.Now())
				v.key.Erase()
				if forOtherNodes(err) {
					found.add(at)
				}
			})
		})
		if err != nil {
			return nil, err
		}
	}
	if found[l.ID] == nil {
		return make(map[keys.Epoch][]string), nil
	}
	return found[l.ID], nil
}

// erase deletes epochs of a link, at its nodes and at those given with each, and
// leaves marks, so that they are not issued again. It returns how many values there
// were.
func (a *Admin) erase(ctx context.Context, l LinkSpec, epochs map[keys.Epoch][]string) (deleted int, err error) {
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
	for e, others := range epochs {
		nodes := slices.Compact(slices.Sorted(slices.Values(slices.Concat(l.Nodes, others))))
		if len(ops)+1+len(nodes) > maxOps {
			if err := flush(); err != nil {
				return deleted, err
			}
		}
		// Mark and deletion together: a crash in between would free the number.
		ops = append(ops, clientv3.OpPut(a.names.mark(l.ID, e), "revoked "+stamp(a.cfg.Now())+"\n"))
		for _, node := range nodes {
			ops = append(ops, clientv3.OpDelete(a.names.key(node, l.ID, e)))
		}
	}
	return deleted, flush()
}

package issue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/etcd"
	"github.com/lever-link/lever/inventory"
)

// etcdChannel is a channel of type etcd.
type etcdChannel struct {
	inv   *inventory.Inventory
	admin *etcd.Admin
	links []etcd.LinkSpec
}

func openEtcd(inv *inventory.Inventory, c inventory.Channel, o Options) (Channel, error) {
	admin, err := etcd.OpenAdmin(etcd.AdminConfig{
		Endpoints: c.Endpoints, Prefix: c.Prefix, CA: o.CA, Certificate: o.Certificate, Key: o.Key, Now: o.Now, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	e := &etcdChannel{inv: inv, admin: admin}
	for _, l := range inv.KeyedLinks() {
		e.links = append(e.links, etcd.LinkSpec{ID: l.ID, Nodes: nodesOf(l)})
	}
	return e, nil
}

// Close implements Channel.
func (e *etcdChannel) Close() error { return e.admin.Close() }

// of are the links named, or all.
func (e *etcdChannel) of(names []string) []etcd.LinkSpec {
	if len(names) == 0 {
		return e.links
	}
	var some []etcd.LinkSpec
	for _, l := range e.links {
		if slices.Contains(names, l.ID) {
			some = append(some, l)
		}
	}
	return some
}

// Issue implements Channel.
func (e *etcdChannel) Issue(ctx context.Context, r Request) (Result, error) {
	o := etcd.Options{Lifetime: e.inv.Policy.MaxAge + e.inv.Policy.CAKEpoch}
	tell := func(p etcd.Progress) {
		if r.Progress != nil {
			r.Progress(p.Done, p.Total)
		}
	}
	var p etcd.Progress
	var err error
	if r.Reissue != 0 {
		p, err = e.admin.Reissue(ctx, e.of(r.Links), r.Reissue, o, tell)
	} else {
		p, err = e.admin.Issue(ctx, e.of(r.Links), r.Epochs, o, tell)
	}
	res := Result{Written: p.Issued, Kept: p.Present, Since: p.Since}
	if p.Repaired > 0 {
		res.Notes = append(res.Notes, fmt.Sprintf("%d were missing at some of their nodes, and were copied there", p.Repaired))
	}
	if p.Replaced > 0 {
		res.Notes = append(res.Notes, fmt.Sprintf("%d epochs of links whose nodes have changed were replaced by others: %d values are gone", p.Replaced, p.Keys))
	}
	if p.Revoked > 0 {
		res.Warnings = append(res.Warnings, fmt.Sprintf("%d are not issued, for a node of theirs was revoked; take it out of the inventory", p.Revoked))
	}
	return res, err
}

// List implements Channel.
func (e *etcdChannel) List(ctx context.Context, links []string) ([]Row, error) {
	entries, err := e.admin.List(ctx, e.of(links))
	rows := []Row{}
	for _, x := range entries {
		if len(links) == 0 || slices.Contains(links, x.Link) {
			rows = append(rows, rowOf(x))
		}
	}
	return rows, err
}

func rowOf(x etcd.Entry) Row {
	r := Row{Link: x.Link, Epoch: x.Epoch.String(), Modified: x.Issued, State: "ok", Detail: x.Detail, File: strings.Join(x.Nodes, ", ")}
	if x.Fingerprint != (keys.Fingerprint{}) {
		r.Fingerprint = x.Fingerprint.Short()
	}
	if x.State != etcd.Complete {
		r.State = string(x.State)
	}
	return r
}

// Verify implements Channel.
func (e *etcdChannel) Verify(ctx context.Context) (looked int, problems []string, err error) {
	looked, wrong, err := e.admin.Verify(ctx, e.links)
	for _, x := range wrong {
		if x.State == etcd.Absent {
			problems = append(problems, x.Link+": "+x.Detail)
			continue
		}
		problems = append(problems, fmt.Sprintf("epoch %s of link %s: %s: %s", x.Epoch, x.Link, x.State, x.Detail))
	}
	return looked, problems, err
}

// Revoke implements Channel.
func (e *etcdChannel) Revoke(ctx context.Context, t Target) (done []string, err error) {
	if t.Node != "" {
		p, err := e.admin.RevokeNode(ctx, t.Node, e.links, nil)
		if err != nil {
			return nil, err
		}
		if p.Already > 0 && p.Keys == 0 {
			done = append(done, alreadyRevoked(t))
		} else {
			done = append(done, fmt.Sprintf("revoked %s: %d values of %d links are gone", t, p.Keys, p.Revoked))
		}
		switch existed, err := e.admin.RevokeAccess(ctx, t.Node); {
		case errors.Is(err, etcd.ErrDenied):
			done = append(done, "its certificate still opens what is left beneath its name, which is nothing; to take that away too, give root's certificate")
		case err != nil:
			return done, err
		case existed:
			done = append(done, "its certificate opens nothing any more")
		}
		return done, nil
	}
	match := func(x keys.Epoch) bool {
		return t.Number == 0 || x.Number == t.Number && (t.Exact.IsZero() || x == t.Exact)
	}
	links := e.of(t.Links)
	if t.Link != "" {
		links = e.of([]string{t.Link})
	}
	p, err := e.admin.Revoke(ctx, links, match, nil)
	switch {
	case err == nil && p.Revoked == 0 && p.Already == 0:
		return nil, fmt.Errorf("revoking %s: none of the links has it; see lever keys list", t)
	case err == nil && p.Revoked == 0:
		return []string{alreadyRevoked(t)}, nil
	}
	return []string{fmt.Sprintf("revoked %s: %d values of %d links are gone", t, p.Keys, p.Revoked)}, err
}

// Readmit implements Channel.
func (e *etcdChannel) Readmit(ctx context.Context, node string) (string, error) {
	existed, err := e.admin.Readmit(ctx, node)
	switch {
	case err != nil:
		return "", err
	case !existed:
		return "", fmt.Errorf("readmitting node %s: it was not revoked", node)
	}
	return "node " + node + " may have keys again: give it access (lever keys grant), then issue", nil
}

// Retire implements Channel.
func (e *etcdChannel) Retire(ctx context.Context, before uint64) (int, error) {
	return e.admin.Retire(ctx, before)
}

// Grant writes the roles of an etcd cluster for the nodes of its inventory that have
// links with keys, and for issuers, and says what it changed.
func Grant(ctx context.Context, c Channel, issuers []string) ([]string, error) {
	e, ok := c.(*etcdChannel)
	if !ok {
		return nil, errors.New("granting access: the channel is not of type etcd, and has no roles")
	}
	nodes := map[string]bool{}
	for _, l := range e.links {
		for _, n := range l.Nodes {
			nodes[n] = true
		}
	}
	return e.admin.Grant(ctx, slices.Sorted(maps.Keys(nodes)), issuers)
}

package etcdtest_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/etcd"
)

func onNodes(id string, nodes ...string) []etcd.LinkSpec {
	return []etcd.LinkSpec{{ID: id, Nodes: nodes}}
}

// holding are the nodes and epochs of a link for which there are values.
func holding(t *testing.T, root *clientv3.Client, link string) string {
	t.Helper()
	var out []string
	for _, name := range slices.Sorted(maps.Keys(values(t, root))) {
		if node, epoch, ok := strings.Cut(strings.TrimPrefix(name, "lever/nodes/"), "/links/"+link+"/"); ok {
			out = append(out, node+":"+epoch)
		}
	}
	return strings.Join(out, " ")
}

// wrongWith are the problems that Verify has with links.
func wrongWith(t *testing.T, a *etcd.Admin, links []etcd.LinkSpec) (states []etcd.State) {
	t.Helper()
	_, wrong, err := a.Verify(within(t), links)
	must(t, err)
	for _, e := range wrong {
		if slices.ContainsFunc(links, func(l etcd.LinkSpec) bool { return l.ID == e.Link }) {
			states = append(states, e.State)
		}
	}
	return states
}

// The nodes of a link change in the inventory: those that are on it now get the next
// generation, and what was issued before is gone everywhere.
func TestNodesOfALinkChange(t *testing.T) {
	s := theSite(t)
	a, ctx := s.issuer(t), within(t)
	root := do[*clientv3.Client](t)(s.c.Admin())
	defer func() { _ = root.Close() }()
	for _, test := range []struct {
		name          string
		before, after []string
		want          string
	}{
		{"leaves", []string{"r1", "r2", "r3"}, []string{"r1", "r2"}, "r1:5.1 r1:6.1 r2:5.1 r2:6.1"},
		{"joins", []string{"r1", "r2"}, []string{"r1", "r2", "r3"}, "r1:5.1 r1:6.1 r2:5.1 r2:6.1 r3:5.1 r3:6.1"},
		{"takes-over", []string{"r1", "r2"}, []string{"r1", "r3"}, "r1:5.1 r1:6.1 r3:5.1 r3:6.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			link := "nodes-" + test.name
			do[etcd.Progress](t)(a.Issue(ctx, onNodes(link, test.before...), []uint64{5, 6}, life, nil))
			after := onNodes(link, test.after...)
			p := do[etcd.Progress](t)(a.Issue(ctx, after, []uint64{5, 6}, life, nil))
			if p.Issued != 2 || p.Replaced != 2 || p.Keys != 2*len(test.before) || p.Failed != 0 {
				t.Errorf("%+v", p)
			}
			if have := holding(t, root, link); have != test.want {
				t.Errorf("there is %s, want %s", have, test.want)
			}
			if wrong := wrongWith(t, a, after); len(wrong) != 0 {
				t.Errorf("it is found to be %v", wrong)
			}
			p = do[etcd.Progress](t)(a.Issue(ctx, after, []uint64{5, 6}, life, nil))
			if p.Present != 2 || p.Replaced+p.Keys+p.Issued != 0 {
				t.Errorf("again: %+v", p)
			}
		})
	}
}

// What is revoked of a link is gone at nodes that have left it, too, and a revocation
// that is given again says so.
func TestRevokeReachesWhoHasLeft(t *testing.T) {
	s := theSite(t)
	a, ctx := s.issuer(t), within(t)
	root := do[*clientv3.Client](t)(s.c.Admin())
	defer func() { _ = root.Close() }()
	do[etcd.Progress](t)(a.Issue(ctx, onNodes("left", "r1", "r2", "r3"), []uint64{5, 6}, life, nil))
	now := onNodes("left", "r1", "r2")
	five := func(e keys.Epoch) bool { return e.Number == 5 }
	p := do[etcd.Progress](t)(a.Revoke(ctx, now, five, nil))
	if have := holding(t, root, "left"); p.Keys != 3 || p.Revoked != 1 || have != "r1:6.0 r2:6.0 r3:6.0" {
		t.Errorf("%+v, %s", p, have)
	}
	p = do[etcd.Progress](t)(a.Revoke(ctx, now, five, nil))
	if p.Keys != 0 || p.Revoked != 0 || p.Already != 1 {
		t.Errorf("again: %+v", p)
	}
	p = do[etcd.Progress](t)(a.Revoke(ctx, now, func(e keys.Epoch) bool { return e.Number == 7 }, nil))
	if p.Revoked+p.Already != 0 {
		t.Errorf("an epoch that there never was: %+v", p)
	}
	// The node that has left: its far ends still have the same material.
	p = do[etcd.Progress](t)(a.RevokeNode(ctx, "r3", now, nil))
	defer func() { do[bool](t)(a.Readmit(ctx, "r3")) }()
	if have := holding(t, root, "left"); p.Keys < 3 || p.Already != 0 || have != "" {
		t.Errorf("%+v, %s", p, have)
	}
	p = do[etcd.Progress](t)(a.RevokeNode(ctx, "r3", now, nil))
	if p.Keys != 0 || p.Already != 1 {
		t.Errorf("again: %+v", p)
	}
	if wrong := wrongWith(t, a, now); !slices.Equal(wrong, []etcd.State{etcd.Absent}) {
		t.Errorf("a link without keys is found to be %v", wrong)
	}
}

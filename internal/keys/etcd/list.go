package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
)

// State is how it is with an epoch of a link.
type State string

// The states.
const (
	// Complete is an epoch that all of the link's nodes have.
	Complete State = "complete"
	// Partial is one that some of them lack.
	Partial State = "partial"
	// Differing is one of which they have different values.
	Differing State = "differing"
	// Stale is one whose time is over.
	Stale State = "stale"
	// Refused is one of which a node will refuse its value.
	Refused State = "refused"
	// RevokedState is one that was revoked.
	RevokedState State = "revoked"
	// Absent is a link that has no value at all; it has no epoch.
	Absent State = "absent"
)

// Entry is an epoch of a link as the cluster has it. It holds no material.
type Entry struct {
	Link  string
	Epoch keys.Epoch
	// Fingerprint is that of the material, zero if there is none that can be used.
	Fingerprint keys.Fingerprint
	// Nodes are those that have a value, Missing those of the link that have none.
	Nodes, Missing  []string
	Issued, Expires time.Time
	State           State
	// Detail says why the state is not complete.
	Detail string
}

// List is what the cluster has, by link and epoch. Links are those of the inventory:
// values for others than their nodes are refused. A link that is not among them is
// judged by what its values say of themselves.
func (a *Admin) List(ctx context.Context, links []LinkSpec) ([]Entry, error) {
	nodes := make(map[string][]string, len(links))
	for _, l := range links {
		nodes[l.ID] = slices.Sorted(slices.Values(l.Nodes))
	}
	type key struct {
		link  string
		epoch keys.Epoch
	}
	all := make(map[key]*Entry)
	entry := func(link string, e keys.Epoch) *Entry {
		k := key{link, e}
		if all[k] == nil {
			all[k] = &Entry{Link: link, Epoch: e, State: Complete, Missing: nodes[link]}
		}
		return all[k]
	}
	now := a.cfg.Now()
	err := a.pages(ctx, a.names.nodes(), false, func(name string, text []byte) {
		if at, err := a.names.parse(name); err == nil {
			e := entry(at.link, at.epoch)
			secret.Do(func() { e.take(at, text, nodes[at.link], now) })
		}
	})
	if err == nil {
		err = a.pages(ctx, a.names.prefix+"/revoked/", true, func(name string, _ []byte) {
			if link, epoch, ok := a.names.parseMark(name); ok {
				e := entry(link, epoch)
				if e.State = RevokedState; len(e.Nodes) > 0 {
					e.State, e.Detail = Refused, "it was revoked, and is there all the same"
				}
			}
		})
	}
	if err != nil {
		return nil, fmt.Errorf("listing the etcd channel: %w", err)
	}
	out := make([]Entry, 0, len(all))
	for _, e := range all {
		e.Missing = slices.DeleteFunc(slices.Clone(e.Missing), func(n string) bool { return slices.Contains(e.Nodes, n) })
		if e.State == Complete && len(e.Missing) > 0 {
			e.State, e.Detail = Partial, "it is missing at "+strings.Join(e.Missing, ", ")
		}
		out = append(out, *e)
	}
	slices.SortFunc(out, func(x, y Entry) int { return cmp.Or(cmp.Compare(x.Link, y.Link), x.Epoch.Compare(y.Epoch)) })
	return out, nil
}

// take adds one node's value to an entry. The worst is what the entry is.
func (e *Entry) take(at place, text []byte, nodes []string, now time.Time) {
	e.Nodes = append(e.Nodes, at.node)
	v, err := open(text, at, nodes, now)
	if refused, ok := errors.AsType[*Refusal](err); ok {
		state := Refused
		if refused.Code == health.EtcdValueStale {
			state = Stale
		}
		if e.State != Refused {
			e.State, e.Detail = state, at.node+": "+refused.Detail
		}
		return
	}
	defer v.key.Erase()
	fingerprint := keys.Material{KeyID: at.epoch.String(), Key: v.key}.Fingerprint()
	switch {
	case e.Fingerprint == keys.Fingerprint{}:
		e.Fingerprint, e.Issued, e.Expires = fingerprint, v.issued, v.expires
	case e.Fingerprint != fingerprint || !e.Issued.Equal(v.issued) || !e.Expires.Equal(v.expires):
		if e.State == Complete {
			e.State, e.Detail = Differing, at.node+" has another value than "+e.Nodes[0]
		}
	}
	if nodes == nil {
		e.Missing = v.nodes
	}
}

// Verify lists the epochs with which something is wrong: a value that a node will
// refuse, ends of a link that have different values or none, a time that is over, a
// link without any value. Names beneath the prefix that are none of ours come as
// entries without an epoch. It returns how many epochs it has looked at.
func (a *Admin) Verify(ctx context.Context, links []LinkSpec) (looked int, wrong []Entry, err error) {
	all, err := a.List(ctx, links)
	if err != nil {
		return 0, nil, err
	}
	bare := byLink(links)
	for _, e := range all {
		if len(e.Nodes) > 0 {
			delete(bare, e.Link)
		}
		if e.State != Complete && e.State != RevokedState {
			wrong = append(wrong, e)
		}
	}
	for _, link := range slices.Sorted(maps.Keys(bare)) {
		wrong = append(wrong, Entry{Link: link, State: Absent, Detail: "no key has been issued"})
	}
	strange := make(map[string]bool)
	err = a.pages(ctx, a.names.nodes(), true, func(name string, _ []byte) {
		if _, err := a.names.parse(name); err != nil {
			strange[name] = true
		}
	})
	if err != nil {
		return len(all), wrong, fmt.Errorf("verifying the etcd channel: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(strange)) {
		wrong = append(wrong, Entry{State: Refused, Detail: fileName(name) + ": " + errName.Error()})
	}
	return len(all), wrong, nil
}

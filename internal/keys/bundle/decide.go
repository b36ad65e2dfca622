package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lever-link/lever/internal/keys"
)

// Reissue gives links a new generation of an epoch that was issued, with fresh
// material.
type Reissue struct {
	Epoch uint64 `json:"epoch"`
	// Links are the links to do so for; none: all that were not revoked.
	Links []string `json:"links,omitempty"`
	// Replace revokes the generations that are there.
	Replace bool `json:"replace,omitempty"`
}

func (r Reissue) equal(o Reissue) bool {
	return r.Epoch == o.Epoch && r.Replace == o.Replace && slices.Equal(r.Links, o.Links)
}

// Revocation is what must not be used any more.
type Revocation struct {
	// Nodes are given nothing any more, and no other node is given anything for a
	// link that one of them is on, until they are named in Options.Readmit.
	Nodes []string
	// Epochs are revoked for all links, or only for Links if there are some.
	Epochs []uint64
	// Links are revoked in Epochs, or in all that were issued if there are none.
	Links []string
}

// decide brings the journal to what the options ask for, with the seeds that this
// needs, and tells whether it has changed. Deciding the same again changes nothing.
func (l *ledger) decide(o *Options) (changed bool, err error) {
	for _, decide := range []func(*Options) (bool, error){l.retire, l.issueEpochs, l.revoke, l.readmit, l.reissue, l.moveLinks, l.renew} {
		c, err := decide(o)
		if err != nil {
			return changed, err
		}
		changed = changed || c
	}
	return changed, nil
}

func (l *ledger) issueEpochs(o *Options) (changed bool, err error) {
	for _, number := range o.Epochs {
		switch {
		case number == 0:
			return changed, errors.New("there is no epoch 0: epochs count from 1")
		case number < l.RetiredBefore:
			return changed, fmt.Errorf("epoch %d was retired, with all before %d: issue a later one; if the clock was ahead when that was done, and is right now, begin again with a new issuer and a tree of its own (lever keys init)", number, l.RetiredBefore)
		case l.Epochs[number] != nil:
			continue
		case len(l.Epochs) >= maxBundles:
			// What can be done is done all the same, and the tree written.
			l.late = fmt.Errorf("epoch %d is not issued: there are %d, the most that an index lists; retire those that are over (lever keys issue does, --after-pause if the issuer has not run for long), or let epochs last longer (cak_epoch)", number, len(l.Epochs))
			continue
		}
		g, err := l.make(number)
		if err != nil {
			return changed, err
		}
		l.Epochs[number].All = []uint32{g}
		for _, link := range l.gone(o) {
			l.Epochs[number].set(link, []uint32{})
		}
		changed = true
	}
	return changed, nil
}

func (l *ledger) revoke(o *Options) (changed bool, err error) {
	for _, n := range o.Revoke.Nodes {
		if err := validNode(n); err != nil {
			return changed, err
		}
		if !slices.Contains(l.RevokedNodes, n) {
			l.RevokedNodes = slices.Sorted(slices.Values(append(l.RevokedNodes, n)))
			changed = true
		}
		changed = l.takeBack(o, n) || changed
	}
	epochs := o.Revoke.Epochs
	if len(epochs) == 0 && len(o.Revoke.Links) > 0 {
		epochs = slices.Sorted(maps.Keys(l.Epochs))
	}
	for _, number := range epochs {
		state := l.Epochs[number]
		if state == nil {
			return changed, fmt.Errorf("revoking epoch %d: it is not among those that were issued and are not retired (%v)", number, slices.Sorted(maps.Keys(l.Epochs)))
		}
		if len(o.Revoke.Links) == 0 && (len(state.All) > 0 || len(state.Links) > 0) {
			state.All, state.Links, changed = []uint32{}, nil, true
		}
		for _, link := range o.Revoke.Links {
			if err := keys.ValidLink(link); err != nil {
				return changed, err
			}
			if len(state.generations(link)) > 0 {
				state.set(link, []uint32{})
				l.lose(o, link)
				changed = true
			}
		}
	}
	return changed, nil
}

// lose notes whom a link that the inventory does not have any more is taken from: it is
// soon forgotten, and what they have must say so all the same.
func (l *ledger) lose(o *Options, link string) {
	if !o.has(link) {
		l.Left = append(l.Left, membersOf(l.Links[link])...)
	}
}

// takeBack leaves the links of a node without what they have, so that they never get
// the same again.
func (l *ledger) takeBack(o *Options, node string) (changed bool) {
	for _, link := range l.all(o) {
		if !slices.Contains(link.Nodes, node) {
			continue
		}
		for _, state := range l.Epochs {
			if len(state.generations(link.ID)) > 0 {
				state.set(link.ID, []uint32{})
				l.lose(o, link.ID)
				changed = true
			}
		}
	}
	return changed
}

func (l *ledger) readmit(o *Options) (changed bool, err error) {
	for _, n := range o.Readmit {
		i := slices.Index(l.RevokedNodes, n)
		if i < 0 {
			return changed, fmt.Errorf("readmitting node %q: it was not revoked; if this was asked for before and broke off, issue", n)
		}
		l.RevokedNodes = slices.Delete(l.RevokedNodes, i, i+1)
		l.takeBack(o, n) // what was issued meanwhile has its first name still
		changed = true
	}
	return changed, nil
}

// renew gives a further generation of the epochs that are asked for to links that
// have none of them any more: what was revoked stays so, and is replaced at once. Of
// a node that was admitted again it is all epochs that are not over.
func (l *ledger) renew(o *Options) (changed bool, err error) {
	if len(o.Revoke.Nodes)+len(o.Revoke.Epochs)+len(o.Revoke.Links) > 0 {
		return false, nil
	}
	epochs := o.Epochs
	if len(o.Readmit) > 0 {
		epochs = slices.Collect(maps.Keys(l.Epochs))
		if o.EpochLength > 0 {
			current := keys.ScheduledEpoch(o.Now(), o.EpochLength).Number
			epochs = slices.DeleteFunc(epochs, func(n uint64) bool { return n < current })
		}
	}
	epochs = slices.Compact(slices.Sorted(slices.Values(epochs)))
	if len(epochs) == 0 {
		return false, nil
	}
	var may, wait []string
	for _, link := range o.Links {
		if i := slices.IndexFunc(link.Nodes, func(n string) bool { return slices.Contains(l.RevokedNodes, n) }); i >= 0 {
			wait = append(wait, fmt.Sprintf("link %s gets no keys: its node %s was revoked; take it out of the inventory", link.ID, link.Nodes[i]))
		} else {
			may = append(may, link.ID)
		}
	}
	l.warn(wait)
	for _, number := range epochs {
		state := l.Epochs[number]
		if state == nil {
			continue
		}
		without := slices.DeleteFunc(slices.Clone(may), func(link string) bool { return len(state.generations(link)) > 0 })
		if len(without) == 0 {
			continue
		}
		g, err := l.make(number)
		if err != nil {
			l.late = errors.Join(l.late, err)
			continue
		}
		for _, link := range without {
			state.set(link, []uint32{g})
		}
		changed = true
	}
	return changed, nil
}

// warn adds warnings, as far as anybody reads them.
func (l *ledger) warn(all []string) {
	if n := len(all); n > maxReported {
		all = append(all[:maxReported:maxReported], fmt.Sprintf("and %d more", n-maxReported))
	}
	l.warnings = append(l.warnings, all...)
}

func (l *ledger) reissue(o *Options) (changed bool, err error) {
	for _, r := range o.Reissue {
		r.Links = slices.Compact(slices.Sorted(slices.Values(r.Links)))
		if slices.ContainsFunc(l.Unfinished, r.equal) {
			continue // and is being written now
		}
		state := l.Epochs[r.Epoch]
		if state == nil {
			return changed, fmt.Errorf("issuing epoch %d again: it is not among those that were issued and are not retired (%v)", r.Epoch, slices.Sorted(maps.Keys(l.Epochs)))
		}
		g, err := l.make(r.Epoch)
		if err != nil {
			return changed, err
		}
		next := func(old []uint32) []uint32 {
			if r.Replace {
				old = nil
			}
			return append(slices.Clone(old), g)
		}
		for _, link := range r.Links {
			if err := keys.ValidLink(link); err != nil {
				return changed, err
			}
			state.set(link, next(state.generations(link)))
		}
		if len(r.Links) == 0 {
			state.All = next(state.All)
			for link, old := range state.Links {
				if len(old) > 0 { // a link that was revoked stays so
					state.Links[link] = next(old)
				}
			}
		}
		l.Unfinished = append(l.Unfinished, r)
		changed = true
	}
	return changed, nil
}

// moveLinks gives a link that has other nodes than before a new generation of every
// epoch in which it had one, for its material is another: one name must not stand
// for two keys. A link that is not in the inventory any more keeps what it has until
// that is retired: what is missing from an inventory says nothing about keys.
func (l *ledger) moveLinks(o *Options) (changed bool, err error) {
	var moved, lose []string
	for _, link := range o.Links {
		nodes := slices.Sorted(slices.Values(link.Nodes))
		now, old := strings.Join(nodes, "/"), l.Links[link.ID]
		if now == old {
			continue
		}
		l.Links[link.ID], changed = now, true
		if old == "" || old == oldDigest(nodes) {
			l.freshLinks[link.ID] = old == ""
			continue
		}
		moved = append(moved, link.ID)
		for _, n := range membersOf(old) {
			if !slices.Contains(nodes, n) {
				lose = append(lose, fmt.Sprintf("node %s is not on link %s any more, and loses its keys", n, link.ID))
				l.Left = append(l.Left, n)
			}
		}
	}
	l.Left = slices.Compact(slices.Sorted(slices.Values(l.Left)))
	l.warn(lose)
	for _, number := range slices.Sorted(maps.Keys(l.Epochs)) {
		state, g, made := l.Epochs[number], uint32(0), false
		for _, link := range moved {
			if len(state.generations(link)) == 0 {
				continue
			}
			if !made {
				if g, err = l.make(number); err != nil {
					return changed, err
				}
				made = true
			}
			state.set(link, []uint32{g})
		}
	}
	return l.forget(o) || changed, nil
}

// forget drops links that are in no inventory and have nothing any more, and warns of
// those that still have something.
func (l *ledger) forget(o *Options) (changed bool) {
	var keep []string
	for _, link := range l.gone(o) {
		has := func(state *epochState) bool { return len(state.generations(link)) > 0 }
		known := membersOf(l.Links[link]) != nil
		if known && slices.ContainsFunc(slices.Collect(maps.Values(l.Epochs)), has) {
			keep = append(keep, fmt.Sprintf("link %s is not in the inventory any more: it gets nothing new, and keeps what it has until that is over (lever keys revoke takes it away, by an inventory that has the link)", link))
			continue
		}
		for _, state := range l.Epochs {
			if has(state) {
				state.set(link, []uint32{})
			}
		}
		delete(l.Links, link)
		changed = true
	}
	l.warn(keep)
	return changed
}

// gone are the links that the inventory no longer has, in order.
func (l *ledger) gone(o *Options) (gone []string) {
	for _, link := range slices.Sorted(maps.Keys(l.Links)) {
		if !o.has(link) {
			gone = append(gone, link)
		}
	}
	return gone
}

// has tells whether the inventory has a link.
func (o *Options) has(link string) bool {
	_, ok := slices.BinarySearchFunc(o.Links, link, func(l LinkSpec, id string) int { return strings.Compare(l.ID, id) })
	return ok
}

// all are the links of the inventory and those that are gone from it, in order.
func (l *ledger) all(o *Options) []LinkSpec {
	all := slices.Clone(o.Links)
	for _, link := range l.gone(o) {
		if nodes := membersOf(l.Links[link]); nodes != nil {
			all = append(all, LinkSpec{link, nodes})
		}
	}
	slices.SortFunc(all, func(a, b LinkSpec) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// membersOf are the nodes of a link by the journal; nil if it does not say.
func membersOf(text string) []string {
	if !strings.Contains(text, "/") {
		return nil
	}
	return strings.Split(text, "/")
}

// oldDigest is what journals of version 1 have in place of the nodes.
func oldDigest(nodes []string) string {
	h := sha256.New()
	for _, n := range nodes {
		fmt.Fprintf(h, "%q\n", n)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

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
	for _, decide := range []func(*Options) (bool, error){l.retire, l.issueEpochs, l.revoke, l.reissue, l.moveLinks} {
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
	}
	for _, n := range o.Readmit {
		if i := slices.Index(l.RevokedNodes, n); i >= 0 {
			l.RevokedNodes = slices.Delete(l.RevokedNodes, i, i+1)
			changed = true
		}
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
				changed = true
			}
		}
	}
	return changed, nil
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
// for two keys.
func (l *ledger) moveLinks(o *Options) (changed bool, err error) {
	var moved []string
	for _, link := range o.Links {
		h := sha256.New()
		for _, n := range slices.Sorted(slices.Values(link.Nodes)) {
			fmt.Fprintf(h, "%q\n", n)
		}
		d := hex.EncodeToString(h.Sum(nil)[:16])
		old := l.Links[link.ID]
		if d == old {
			continue
		}
		l.Links[link.ID], changed = d, true
		if old != "" {
			moved = append(moved, link.ID)
		}
	}
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
	return changed, nil
}

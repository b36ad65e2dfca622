package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"filippo.io/age"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/signed"
)

// nodeWriter writes the files of one node.
type nodeWriter struct {
	*writer
	node      string
	links     []LinkSpec
	inventory string
	to        []age.Recipient
	prints    []string
	// old is the index that is there, nil if it is none of ours.
	old          *Index
	oldStatement *signed.Statement
	// sequence is what is written gets, 0 before something is.
	sequence uint64
}

// unsealable is why nothing can be sealed to a node.
type unsealable struct{ error }

// node brings one node's directory up to date: bundles, then the index, and then
// away with what that no longer lists. Where nothing can be sealed, what is revoked
// or retired goes all the same.
func (w *writer) node(ctx context.Context, node string) error {
	n := &nodeWriter{writer: w, node: node}
	for _, i := range w.links[node] {
		n.links = append(n.links, w.Links[i])
	}
	n.inventory = LinksDigest(node, n.links)
	if text, err := (directory{n.path("")}).get(ctx, indexFile, signed.MaxSize); err == nil {
		if s, x, err := parseIndex(text, w.trust, 1); err == nil && x.Node == node {
			n.old, n.oldStatement = x, s
		}
	}
	if len(n.links) == 0 && (n.old == nil || len(n.old.Bundles) == 0) {
		return nil // a directory of something else, or of a node that has nothing already
	}
	listed := []Listed{}
	var cannot error // an unsealable
	for _, number := range w.epochs {
		if err := ctx.Err(); err != nil {
			return err
		}
		entries := n.entries(number)
		if len(entries) == 0 {
			continue
		}
		l, err := n.bundle(ctx, number, entries)
		if _, ok := errors.AsType[unsealable](err); ok {
			cannot = err
		} else if err != nil {
			return err
		}
		if l.Epoch != 0 {
			listed = append(listed, l)
		}
	}
	if cannot != nil && n.old == nil {
		if _, err := os.Lstat(n.path(indexFile)); errors.Is(err, fs.ErrNotExist) {
			return cannot // there is nothing to take back
		}
		// Not the cause that holds nothing up.
		return errors.New(cannot.Error() + "; what it has is signed by another key, or damaged, and nothing of it is taken back until the node is enrolled again")
	}
	if err := n.index(listed); err != nil {
		return err
	}
	if err := n.tidy(listed); err != nil {
		return err
	}
	return cannot
}

func (n *nodeWriter) path(name string) string { return filepath.Join(n.Out, n.node, name) }

// entries are what the node has of an epoch, without the keys, in order.
func (n *nodeWriter) entries(number uint64) (all []entryHead) {
	state := n.ledger.Epochs[number]
	for _, link := range slices.Concat(n.links, n.gone[n.node]) {
		if slices.ContainsFunc(link.Nodes, func(node string) bool { return n.revoked[node] }) {
			continue
		}
		for _, g := range state.generations(link.ID) {
			all = append(all, entryHead{link.ID, slices.Sorted(slices.Values(link.Nodes)), g})
		}
	}
	slices.SortFunc(all, entryHead.compare)
	return all
}

// content is the digest of all that a bundle says, but for its sequence and times.
func (n *nodeWriter) content(number uint64, entries []entryHead, inventory string, prints []string) string {
	h := sha256.New()
	fmt.Fprintf(h, "lever bundle content v1 %s %q %d %s %q\n", n.trust[0], n.node, number, inventory, prints)
	for _, e := range entries {
		fmt.Fprintf(h, "%q %q %d %s\n", e.Link, e.Nodes, e.Generation, n.commits[keys.Epoch{Number: number, Generation: e.Generation}])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// recipients are read when there is something to seal.
func (n *nodeWriter) recipients() error {
	if n.to != nil {
		return nil
	}
	to, prints, weak, err := parseRecipients(n.Recipients(n.node), n.Classical)
	if err != nil {
		return err
	}
	n.to, n.prints = to, prints
	if weak {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.weak = append(n.weak, n.node)
	}
	return nil
}

// begin takes a sequence number, beyond all that the node was given.
func (n *nodeWriter) begin() error {
	if n.sequence > 0 {
		return nil
	}
	number, err := n.number()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(n.path("")); errors.Is(err, fs.ErrNotExist) {
		if err := n.ledger.step("directory"); err != nil {
			return err
		}
		if err := publicDir(n.path("")); err != nil {
			return err
		}
	}
	n.sequence = number
	return nil
}

// there is the bundle of an epoch that lies in the tree and is ours; nil if none is.
func (n *nodeWriter) there(ctx context.Context, number uint64) (*signed.Statement, *bundleHeader) {
	text, err := (directory{n.path("")}).get(ctx, fileName(number), signed.MaxSize)
	if err != nil {
		return nil, nil
	}
	s, h, err := parseBundle(text, n.trust, 1)
	if err != nil || h.Node != n.node || h.Epoch != number {
		return nil, nil
	}
	return s, h
}

// bundle leaves the bundle that is there, or writes it.
func (n *nodeWriter) bundle(ctx context.Context, number uint64, entries []entryHead) (Listed, error) {
	if len(n.links) == 0 {
		return n.keep(ctx, number, entries), nil
	}
	if err := n.recipients(); err != nil {
		return n.keep(ctx, number, entries), unsealable{err}
	}
	l := Listed{Epoch: number}
	for _, e := range entries {
		l.Generations = max(l.Generations, e.Generation+1)
	}
	content := n.content(number, entries, n.inventory, n.prints)
	s, h := n.there(ctx, number)
	fresh := 0 // keys that were not there before
	for _, e := range entries {
		if s == nil || n.ledger.fresh[keys.Epoch{Number: number, Generation: e.Generation}] || n.ledger.freshLinks[e.Link] {
			fresh++
		}
	}
	if s != nil && h.Content == content && !n.postdated(s) && (n.now.Add(n.BundleLife/2).Before(s.Expires) || n.over(number)) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.result.Kept += len(entries)
		l.Sequence, l.SHA256, l.Size = h.Sequence, s.SHA256, s.Size
		return l, nil
	}
	if err := n.begin(); err != nil {
		return l, err
	}
	sealed, err := n.seal(number, entries)
	if err != nil {
		return l, fmt.Errorf("sealing epoch %d: %w", number, err)
	}
	from := n.now
	if start := (keys.Epoch{Number: number}).Start(); start.After(from) {
		from = start
	}
	s, err = signed.New(kindBundle, n.now, from.Add(n.BundleLife), &bundleHeader{
		Node: n.node, Epoch: number, Sequence: n.sequence, Inventory: n.inventory, Recipients: n.prints, Content: content,
	}, sealed)
	if err == nil {
		err = n.put(n.node, fileName(number), s)
	}
	if err != nil {
		return l, err
	}
	n.mu.Lock()
	n.result.Bundles++
	n.result.Keys += fresh
	n.result.Kept += len(entries) - fresh
	n.mu.Unlock()
	l.Sequence, l.SHA256, l.Size = n.sequence, s.SHA256, s.Size
	return l, nil
}

// postdated tells whether a clock that was ahead has dated a statement. Then it is
// written again by this one, for nodes whose clocks are behind go by its date.
func (n *nodeWriter) postdated(s *signed.Statement) bool { return s.Issued.After(n.now.Add(maxSkew)) }

// keep is what the index goes on listing of an epoch for which nothing can be sealed,
// or for a node that is on no link any more: what is there, but not if something in it
// may have been revoked since.
func (n *nodeWriter) keep(ctx context.Context, number uint64, entries []entryHead) (none Listed) {
	if n.old == nil {
		return none
	}
	i := slices.IndexFunc(n.old.Bundles, func(l Listed) bool { return l.Epoch == number })
	s, h := n.there(ctx, number)
	if i < 0 || s == nil || n.old.Bundles[i].matches(s, h) != nil {
		return none
	}
	if h.Content != n.content(number, entries, h.Inventory, h.Recipients) && n.lost(number) {
		return none
	}
	return n.old.Bundles[i]
}

// lost tells whether one of the node's links may have had something of an epoch that
// it has no more: its first generation, or all of it with the link.
func (n *nodeWriter) lost(number uint64) bool {
	return len(n.links) == 0 || slices.Contains(n.ledger.Left, n.node) || slices.ContainsFunc(n.links, func(l LinkSpec) bool {
		g := n.ledger.Epochs[number].generations(l.ID)
		return len(g) == 0 || g[0] != 0 || slices.ContainsFunc(l.Nodes, func(node string) bool { return n.revoked[node] })
	})
}

// over tells whether an epoch has had its time: its bundle is not sealed again for
// its dates alone.
func (n *nodeWriter) over(number uint64) bool {
	return keys.Epoch{Number: number}.Start().Add(n.BundleLife + 2*n.EpochLength).Before(n.now)
}

// seal derives the keys of a bundle and encrypts them.
func (n *nodeWriter) seal(number uint64, entries []entryHead) ([]byte, error) {
	in := &inner{innerHead: innerHead{n.node, number, n.sequence}}
	defer in.erase()
	for _, e := range entries {
		epoch := keys.Epoch{Number: number, Generation: e.Generation}
		key, err := keys.Derive(n.ledger.seeds[epoch], keys.Identity{Link: e.Link, Nodes: e.Nodes}, epoch)
		if err != nil {
			return nil, err
		}
		in.entries = append(in.entries, entry{e, key})
	}
	text, err := in.encode()
	if err != nil {
		return nil, err
	}
	defer clear(text)
	return seal(text, n.to)
}

// index leaves the index that is there, or writes it.
func (n *nodeWriter) index(listed []Listed) error {
	if n.old != nil && !n.postdated(n.oldStatement) && n.old.Inventory == n.inventory && slices.Equal(n.old.Bundles, listed) &&
		(len(n.links)+len(listed) == 0 || n.now.Add(n.IndexLife/2).Before(n.oldStatement.Expires)) {
		return nil
	}
	if err := n.begin(); err != nil {
		return err
	}
	x := &Index{Node: n.node, Sequence: n.sequence, Inventory: n.inventory, Bundles: listed}
	if err := x.check(); err != nil {
		return err // what nodes would refuse
	}
	s, err := signed.New(kindIndex, n.now, n.now.Add(n.IndexLife), x, nil)
	if err == nil {
		err = n.put(n.node, indexFile, s)
	}
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.result.Indexes++
	return nil
}

// tidy removes bundles that the index does not list, and what was left half
// written.
func (n *nodeWriter) tidy(listed []Listed) error {
	names, err := os.ReadDir(n.path(""))
	if err != nil {
		return err
	}
	for _, name := range names {
		epoch, ok := epochOf(name.Name())
		stays := slices.ContainsFunc(listed, func(l Listed) bool { return l.Epoch == epoch })
		if ok && !stays || leftover(name.Name()) {
			if err := n.ledger.step("remove"); err != nil {
				return err
			}
			if err := os.Remove(n.path(name.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

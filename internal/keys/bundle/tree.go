package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/signed"
)

// Listing is what a tree has for one node.
type Listing struct {
	Node string
	// Index is nil when Err says why it cannot be read.
	Index           *Index
	Issued, Expires time.Time
	// Signers are those who have signed it, whether or not anybody trusts them.
	Signers []signed.PublicKey
	Err     error
}

// List calls each with what a tree has for every node, in order, until that returns
// an error. It believes no signature, but each must be one of what it signs.
func List(ctx context.Context, tree string, each func(Listing) error) error {
	nodes, err := nodesOf(tree)
	if err != nil {
		return err
	}
	for _, node := range nodes {
		if err := ctx.Err(); err != nil {
			return err
		}
		l := Listing{Node: node}
		if s, x, err := readIndex(ctx, tree, node); err != nil {
			l.Err = err
		} else {
			l.Index, l.Issued, l.Expires, l.Signers = x, s.Issued, s.Expires, s.Signers()
		}
		if err := each(l); err != nil {
			return err
		}
	}
	return nil
}

// readIndex reads an index that every one of its signers has signed.
func readIndex(ctx context.Context, tree, node string) (*signed.Statement, *Index, error) {
	text, err := directory{filepath.Join(tree, node)}.get(ctx, indexFile, signed.MaxSize)
	if err != nil {
		return nil, nil, err
	}
	s, err := signed.Parse(text)
	if err != nil {
		return nil, nil, err
	}
	s, x, err := parseIndex(text, s.Signers(), len(s.Signers()))
	if err == nil && x.Node != node {
		err = fmt.Errorf("it is the index of node %q", x.Node)
	}
	if err != nil {
		return nil, nil, err
	}
	return s, x, nil
}

// Audit is for Verify.
type Audit struct {
	Tree      string
	Signers   []signed.PublicKey
	Threshold int
	// Recipients are those whom a node's bundles must be sealed to, and no others;
	// nil: not compared.
	Recipients func(node string) []string
	// Links are those of the inventory: each of their nodes must have been issued for,
	// by an inventory in which it has the same links, and have the epoch Current, if
	// that is not 0. Nil: not compared.
	Links   []LinkSpec
	Current uint64
	// Now is the clock; nil is time.Now.
	Now      func() time.Time
	Progress func(done, total int)

	// of are the links of each node.
	of map[string][]LinkSpec
}

// maxSkew is how far an issuer's clock may be ahead of the one that Verify has.
const maxSkew = 5 * time.Minute

// Problem is something in a tree that nodes would refuse, or that should not be, or
// be there. File is the whole path.
type Problem struct {
	Node, File string
	Err        error
}

// Verify looks through a tree with public keys alone: signatures, times and
// digests, each index against what it lists, and that what is sealed is sealed to
// hybrid recipients. Report is called for each problem; the error is about the tree
// as a whole. With the links of an inventory nothing of it may be missing.
func Verify(ctx context.Context, a Audit, report func(Problem)) error {
	if a.Now == nil {
		a.Now = time.Now
	}
	nodes, err := nodesOf(a.Tree)
	if err != nil {
		return err
	}
	a.of = make(map[string][]LinkSpec)
	for _, l := range a.Links {
		for _, n := range l.Nodes {
			a.of[n] = append(a.of[n], l)
		}
	}
	nodes = slices.AppendSeq(nodes, maps.Keys(a.of))
	slices.Sort(nodes)
	nodes = slices.Compact(nodes)
	for i, node := range nodes {
		if err := ctx.Err(); err != nil {
			return err
		}
		a.node(ctx, node, report)
		if a.Progress != nil {
			a.Progress(i+1, len(nodes))
		}
	}
	return nil
}

func (a *Audit) node(ctx context.Context, node string, report func(Problem)) {
	dir := directory{filepath.Join(a.Tree, node)}
	say := func(name string, err error) {
		if err != nil {
			report(Problem{node, dir.file(name), err})
		}
	}
	text, err := dir.get(ctx, indexFile, signed.MaxSize)
	if errors.Is(err, fs.ErrNotExist) && len(a.of[node]) > 0 {
		err = fmt.Errorf("%w: nothing was issued for the node, or it was removed; issue again", err)
	}
	if err != nil {
		say(indexFile, err)
		return
	}
	s, x, err := parseIndex(text, a.Signers, a.Threshold)
	if err == nil && x.Node != node {
		err = fmt.Errorf("it is the index of node %q", x.Node)
	}
	if err != nil {
		say(indexFile, err)
		return
	}
	say(indexFile, a.times(s))
	say(indexFile, a.inventory(x))
	listed := map[string]bool{indexFile: true}
	for _, l := range x.Bundles {
		listed[fileName(l.Epoch)] = true
		say(fileName(l.Epoch), a.bundle(ctx, dir, node, l))
	}
	names, err := os.ReadDir(dir.path)
	say(indexFile, err)
	for _, n := range names {
		if !listed[n.Name()] && !leftover(n.Name()) {
			say(n.Name(), errors.New("the index does not list it"))
		}
	}
}

// times says what is wrong with a statement's dates.
func (a *Audit) times(s *signed.Statement) error {
	now := a.Now()
	switch {
	case !now.Before(s.Expires):
		return expired(s)
	case s.Issued.After(now.Add(maxSkew)):
		return fmt.Errorf("it was issued at %s, and it is only %s: one of the clocks is wrong; if it was the issuer's, set that right and issue again", day(s.Issued), day(now))
	}
	return nil
}

// inventory says how an index differs from what the inventory wants for its node.
func (a *Audit) inventory(x *Index) error {
	links := a.of[x.Node]
	if len(links) == 0 {
		return nil // nobody on a link reads it
	}
	if a.Recipients != nil && len(a.Recipients(x.Node)) == 0 {
		return errors.New("the inventory has no recipients for it: enrol its identity (lever node enrol)")
	}
	if x.Inventory != "" && x.Inventory != LinksDigest(x.Node, links) {
		return errors.New("it was issued from an inventory in which the node has other links or other peers: issue again")
	}
	if a.Current != 0 && !slices.ContainsFunc(x.Bundles, func(l Listed) bool { return l.Epoch == a.Current }) {
		return fmt.Errorf("it lists no bundle of the current epoch %d (from %s on): issue it; if the node or all at the far ends were revoked, take them out of the inventory", a.Current, day(keys.Epoch{Number: a.Current}.Start()))
	}
	return nil
}

func (a *Audit) bundle(ctx context.Context, dir directory, node string, l Listed) error {
	text, err := dir.get(ctx, fileName(l.Epoch), signed.MaxSize)
	if err != nil {
		return err
	}
	s, h, err := parseBundle(text, a.Signers, a.Threshold)
	if err != nil {
		return err
	}
	if h.Node != node || h.Epoch != l.Epoch {
		return fmt.Errorf("it is the bundle of node %q and epoch %d", h.Node, h.Epoch)
	}
	if err := l.matches(s, h); err != nil {
		return err
	}
	// One that has expired is over, and harms nobody who has the current one.
	if err := a.times(s); err != nil && (l.Epoch >= a.Current || a.Now().Before(s.Expires)) {
		return err
	}
	types, err := stanzas(s.Payload)
	if err != nil {
		return err
	}
	for _, t := range types {
		if t != hybridStanza {
			return fmt.Errorf("it is sealed to a recipient of type %q, which is %w", t, errClassical)
		}
	}
	if len(types) != len(h.Recipients) {
		return fmt.Errorf("it is sealed to %d recipients, and names %d", len(types), len(h.Recipients))
	}
	if a.Recipients == nil {
		return nil
	}
	if has := a.Recipients(node); len(has) > 0 { // a node that is in no inventory any more has none
		_, want, _, err := parseRecipients(has, true)
		if err != nil {
			return err
		}
		if !slices.Equal(want, h.Recipients) {
			return fmt.Errorf("it is sealed to the recipients with fingerprints %q, and the node has %q", h.Recipients, want)
		}
	}
	return nil
}

// SignTree adds a further signature to all that a tree's indexes list, and to them
// last, for nodes that demand more than one, and returns for how many nodes. First are
// the keys one of which must have signed already what this key is to sign, so that
// nobody has it sign what he has put there. It goes on where it was interrupted.
func SignTree(ctx context.Context, tree string, key *signed.Key, first []signed.PublicKey, progress func(done, total int)) (int, error) {
	unlock, err := lockTree(tree)
	if err != nil {
		return 0, fmt.Errorf("signing the bundles in %s: %w", tree, err)
	}
	defer unlock()
	nodes, err := nodesOf(tree)
	if err != nil {
		return 0, err
	}
	var errs []error
	found := 0
	for i, node := range nodes {
		if err := ctx.Err(); err != nil {
			return found, err
		}
		switch err := signNode(ctx, tree, node, key, first); {
		case err == nil:
			found++
		case !errors.Is(err, errNoIndex): // else it is a directory of something else
			errs = append(errs, fmt.Errorf("signing the bundles of node %q in %s: %w", node, tree, err))
		}
		if progress != nil {
			progress(i+1, len(nodes))
		}
	}
	if found == 0 && len(errs) == 0 {
		return 0, fmt.Errorf("signing the bundles in %s: there are none; name the directory that has one for each node in it", tree)
	}
	return found, several(errs)
}

// lockTree keeps issuers and signers of a tree apart, where its file system has locks:
// else one of them puts back what another has replaced.
func lockTree(tree string) (unlock func(), err error) {
	d, err := os.Open(tree)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		_ = d.Close()
		return nil, errors.New("another process issues into it, or signs what is there; wait until that has ended")
	}
	return func() { _ = d.Close() }, nil
}

// errNoIndex: a directory has no index, and is no node's.
var errNoIndex = errors.New("it has no index")

func signNode(ctx context.Context, tree, node string, key *signed.Key, first []signed.PublicKey) error {
	dir := directory{filepath.Join(tree, node)}
	_, x, err := readIndex(ctx, tree, node)
	if errors.Is(err, fs.ErrNotExist) {
		return errNoIndex
	}
	if err != nil {
		return fmt.Errorf("%s: %w", indexFile, err)
	}
	sign := func(name string, check func(*signed.Statement) error) error {
		text, err := dir.get(ctx, name, signed.MaxSize)
		var s *signed.Statement
		if err == nil {
			s, err = signed.Parse(text)
		}
		if err == nil {
			err = s.Verify(first, 1)
		}
		if err == nil {
			err = check(s)
		}
		if err == nil && slices.Contains(s.Signers(), key.Public()) && s.Intact() == nil {
			return nil
		}
		if err == nil {
			text, err = signed.AddSignature(text, key)
		}
		if err == nil {
			err = keyfile.Rewrite(dir.file(name), text)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	for _, l := range x.Bundles {
		err := sign(fileName(l.Epoch), func(s *signed.Statement) error {
			var h bundleHeader
			if err := s.Decode(kindBundle, &h); err != nil {
				return err
			}
			if h.Node != node || h.Epoch != l.Epoch {
				return fmt.Errorf("it is the bundle of node %q and epoch %d", h.Node, h.Epoch)
			}
			return l.matches(s, &h)
		})
		if err != nil {
			return err
		}
	}
	return sign(indexFile, func(s *signed.Statement) error {
		var again Index
		if err := s.Decode(kindIndex, &again); err != nil {
			return err
		}
		if again.Sequence != x.Sequence {
			return errors.New("it has just been replaced; sign it again")
		}
		return nil
	})
}

package dir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/secret"
)

// SideMark is the file in a channel's root that says which channel it is, so
// that one directory is never filled as both.
const SideMark = ".lever-channel"

// Claim makes root the directory of one channel, creating it with mode 0700. It
// fails when root was made for the other channel or when others can write to it.
func Claim(root string, side keys.Side) error {
	if err := makeDir(root); err != nil {
		return fmt.Errorf("preparing channel %s in %s: %w", side, root, err)
	}
	marked, err := CheckSide(root, side)
	if err != nil || marked {
		return err
	}
	err = keyfile.Create(filepath.Join(root, SideMark), []byte(side.String()+"\n"))
	switch {
	case errors.Is(err, fs.ErrExist): // somebody else claimed it just now
		_, err = CheckSide(root, side)
		return err
	case err != nil:
		return fmt.Errorf("preparing channel %s in %s: %w", side, root, err)
	}
	return nil
}

// CheckSide fails when root was claimed for the other channel, and reports
// whether it was claimed at all: one that something else fills need not be.
func CheckSide(root string, side keys.Side) (marked bool, err error) {
	text, err := os.ReadFile(filepath.Join(root, SideMark))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking which channel %s is: %w", root, err)
	}
	if have := strings.TrimSpace(string(text)); have != side.String() {
		return true, fmt.Errorf("using %s as channel %s: it is channel %q, as its file %s says; keep the channels apart, best on different systems",
			root, side, have, SideMark)
	}
	return true, nil
}

// Last is the highest number that a link has or has had in the directory, 0 if it has
// had none.
func Last(root, link string) (last uint64, err error) {
	used, err := prepare(root, link)
	for _, e := range used {
		last = max(last, e.Number)
	}
	return last, err
}

// Reissue writes new random material for an epoch's number under its next
// generation.
func Reissue(root, link string, number uint64) (keys.Epoch, error) {
	used, err := prepare(root, link)
	if err != nil {
		return keys.Epoch{}, err
	}
	next, found := keys.Epoch{Number: number}, false
	for _, e := range used {
		if e.Number != number {
			continue
		}
		if e.Generation >= keys.MaxGeneration {
			return keys.Epoch{}, fmt.Errorf("reissuing epoch %d of link %q in %s: its generation %d is the last that there is; issue a new epoch", number, link, root, e.Generation)
		}
		next.Generation, found = max(next.Generation, e.Generation+1), true
	}
	if !found {
		return keys.Epoch{}, fmt.Errorf("reissuing epoch %d of link %q in %s: it was never issued there; see lever keys list for those that were", number, link, root)
	}
	return next, write(root, link, next)
}

// Revoke removes the key file of an epoch and leaves a mark, so that the epoch is
// not issued again with other material. It reports whether there was a file.
func Revoke(root, link string, e keys.Epoch) (existed bool, err error) {
	fail := func(err error) (bool, error) {
		return existed, fmt.Errorf("revoking epoch %s of link %q in %s: %w", e, link, root, err)
	}
	if err := keys.ValidLink(link); err != nil {
		return fail(err)
	}
	path := filepath.Join(root, link, FileName(e))
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return fail(err)
	}
	existed = true
	// The mark first: without it a crash in between would free the number.
	if err := keyfile.Replace(filepath.Join(root, link, tombstone(e)), nil); err != nil {
		return fail(err)
	}
	if err := os.Remove(path); err != nil {
		return fail(err)
	}
	if err := keyfile.SyncDir(filepath.Join(root, link)); err != nil {
		return fail(err)
	}
	return true, nil
}

// Issued are the epochs of a link that the directory has, in whatever state their
// files are.
func Issued(root, link string) ([]keys.Epoch, error) {
	used, err := names(root, link, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return used, err
}

// Revoked are the epochs of a link of which the directory has a mark that they were
// revoked.
func Revoked(root, link string) (epochs []keys.Epoch, err error) {
	entries, err := os.ReadDir(filepath.Join(root, link))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, n := range entries {
		if e, ok := parseTombstone(n.Name()); ok {
			epochs = append(epochs, e)
		}
	}
	return epochs, nil
}

// prepare makes the link's directory and returns every epoch ever issued in it.
func prepare(root, link string) ([]keys.Epoch, error) {
	fail := func(err error) ([]keys.Epoch, error) {
		return nil, fmt.Errorf("issuing for link %q in %s: %w", link, root, err)
	}
	if err := keys.ValidLink(link); err != nil {
		return fail(err)
	}
	if err := makeDir(root); err != nil {
		return fail(err)
	}
	if err := makeDir(filepath.Join(root, link)); err != nil {
		return fail(err)
	}
	used, err := names(root, link, true)
	if err != nil {
		return fail(err)
	}
	return used, nil
}

func makeDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return keyfile.CheckDir(path, info)
}

// names are the epochs that file names speak of, the revoked ones if asked for.
func names(root, link string, withRevoked bool) ([]keys.Epoch, error) {
	entries, err := os.ReadDir(filepath.Join(root, link))
	if err != nil {
		return nil, err
	}
	var epochs []keys.Epoch
	for _, n := range entries {
		base, ok := strings.CutSuffix(n.Name(), suffix)
		if e, err := keys.ParseEpoch(base); ok && err == nil {
			epochs = append(epochs, e)
		} else if e, ok := parseTombstone(n.Name()); ok && withRevoked {
			epochs = append(epochs, e)
		}
	}
	return epochs, nil
}

func write(root, link string, e keys.Epoch) error {
	material := make([]byte, format.Sizes[0])
	// crypto/rand never fails: it ends the process instead.
	_, _ = rand.Read(material)
	key := secret.New(material)
	defer key.Erase()
	if err := keyfile.Write(filepath.Join(root, link, FileName(e)), key); err != nil {
		return fmt.Errorf("issuing epoch %s of link %q: %w", e, link, err)
	}
	return nil
}

// IssueNumbers writes new random material for those of the epochs given that the
// directory does not have in any generation, and returns those written, also when it
// fails half way. One that was revoked gets its next generation. Since is when the
// oldest of those that it had was written, zero if it had none.
func IssueNumbers(root, link string, numbers []uint64) (done []keys.Epoch, since time.Time, err error) {
	if _, err := prepare(root, link); err != nil {
		return nil, since, err
	}
	have, err := names(root, link, false)
	if err != nil {
		return nil, since, fmt.Errorf("issuing for link %q in %s: %w", link, root, err)
	}
	all, err := names(root, link, true)
	if err != nil {
		return nil, since, fmt.Errorf("issuing for link %q in %s: %w", link, root, err)
	}
	for _, e := range have {
		if !slices.Contains(numbers, e.Number) {
			continue
		}
		info, err := os.Lstat(filepath.Join(root, link, FileName(e)))
		if err == nil && (since.IsZero() || info.ModTime().Before(since)) {
			since = info.ModTime()
		}
	}
	for _, n := range numbers {
		of := func(e keys.Epoch) bool { return e.Number == n }
		switch {
		case slices.ContainsFunc(have, of):
		case slices.ContainsFunc(all, of):
			e, err := Reissue(root, link, n)
			if err != nil {
				return done, since, err
			}
			done = append(done, e)
		default:
			e := keys.Epoch{Number: n}
			if err := write(root, link, e); err != nil {
				return done, since, err
			}
			done = append(done, e)
		}
	}
	return done, since, nil
}

// nodeMark is the mark in a channel's root that a node was revoked.
const (
	nodeMark = ".node-"
	nodeGone = ".revoked"
)

// RevokeNode leaves a mark in root that nothing is to be issued for the links of a
// node any more.
func RevokeNode(root, node string) error {
	if err := keys.ValidLink(node); err != nil {
		return fmt.Errorf("revoking a node in %s: %q cannot name a file", root, node)
	}
	if err := keyfile.Replace(filepath.Join(root, nodeMark+node+nodeGone), nil); err != nil {
		return fmt.Errorf("revoking node %s in %s: %w", node, root, err)
	}
	return nil
}

// ReadmitNode takes the mark of a revoked node away.
func ReadmitNode(root, node string) error {
	if err := keys.ValidLink(node); err != nil {
		return fmt.Errorf("readmitting a node in %s: %q cannot name a file", root, node)
	}
	err := os.Remove(filepath.Join(root, nodeMark+node+nodeGone))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("readmitting node %s in %s: it was not revoked", node, root)
	}
	if err != nil {
		return fmt.Errorf("readmitting node %s in %s: %w", node, root, err)
	}
	return nil
}

// RevokedNodes are the nodes that RevokeNode was told of.
func RevokedNodes(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("looking which nodes were revoked: %w", err)
	}
	var nodes []string
	for _, e := range entries {
		if name, ok := strings.CutPrefix(e.Name(), nodeMark); ok {
			if name, ok = strings.CutSuffix(name, nodeGone); ok {
				nodes = append(nodes, name)
			}
		}
	}
	return nodes, nil
}

// firstScheduled is a number that no directory counts up to, and that no schedule
// begins with: it started in 1989.
const firstScheduled = 10_000_000

// Retire removes the key files of a link's scheduled epochs before a number, and the
// marks of those that were revoked: a schedule does not come back to them. Epochs
// that were counted stay. It returns how many keys it removed.
func Retire(root, link string, before uint64) (removed int, err error) {
	entries, err := os.ReadDir(filepath.Join(root, link))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("retiring epochs of link %q in %s: %w", link, root, err)
	}
	var errs []error
	for _, n := range entries {
		base, key := strings.CutSuffix(n.Name(), suffix)
		if !key {
			base = strings.TrimPrefix(strings.TrimSuffix(n.Name(), revoked), ".")
		}
		e, err := keys.ParseEpoch(base)
		if err != nil || e.Number >= before || e.Number < firstScheduled {
			continue
		}
		if err := os.Remove(filepath.Join(root, link, n.Name())); err != nil {
			errs = append(errs, err)
		} else if key {
			removed++
		}
	}
	return removed, errors.Join(errs...)
}

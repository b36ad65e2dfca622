package bundle

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/signed"
)

// What tells a tree of bundles, by its issuer's mark, and an issuer's directory, by its
// journal, from directories of something else.
const (
	IssuerMark  = ".lever-issuer"
	JournalFile = "journal.json"
)

const (
	journalVersion = 2
	seedSuffix     = ".seed"
)

// ledger is an issuer's private directory: a journal of what was decided, and a
// random seed for each epoch and generation, from which the material of all links
// is derived. A seed is made before the journal names it, and the journal names it
// before anything made of it leaves; so a crash leaves at worst a seed that nothing
// was made of, which is thrown away.
type ledger struct {
	dir    string
	unlock func()
	journal
	seeds map[keys.Epoch]secret.Key
	// step is called before each change on disk; tests fail there.
	step func(what string) error

	// Of this run: what could not be decided, though the rest could; what the operator
	// should see to; how many epochs were retired.
	late     error
	warnings []string
	retired  int
	// fresh and freshLinks are what was made, and what the inventory had not before.
	fresh      map[keys.Epoch]bool
	freshLinks map[string]bool
}

// journal is what was decided; none of it is secret.
type journal struct {
	Version int `json:"version"`
	// Issuer is random, and tells the trees of one issuer from those of others.
	Issuer  string `json:"issuer"`
	Channel string `json:"channel"`
	// Sequence is the greatest that was given to a file.
	Sequence uint64 `json:"sequence"`
	// RetiredBefore is the first epoch whose seeds may still be there.
	RetiredBefore uint64 `json:"retired_before"`
	// Current is the epoch that was current at the last run, by a clock that nothing
	// speaks against; Doubt is not nil while something does.
	Current uint64 `json:"current,omitempty"`
	Doubt   *doubt `json:"doubt,omitempty"`
	// Epochs are those that were issued and are not retired.
	Epochs map[uint64]*epochState `json:"epochs"`
	// RevokedNodes get nothing, nor does any link that they are on.
	RevokedNodes []string `json:"revoked_nodes"`
	// Links are the nodes that each link was last issued for, in order and with slashes
	// between them: other nodes are given other material, which needs another
	// generation.
	Links map[string]string `json:"links"`
	// Left are nodes that are not on some link any more, or from which one that is gone
	// was taken, and of which it is not known yet that what they have says so.
	Left []string `json:"left,omitempty"`
	// Unfinished are reissues that may not all have been written yet. Asking for one
	// again does not make a further generation.
	Unfinished []Reissue `json:"unfinished"`
}

// epochState is which generations links have of an epoch.
type epochState struct {
	// Made is how many there were ever, and the next one's number.
	Made uint32 `json:"made"`
	// All is what a link has that Links does not name; empty when the epoch was
	// revoked.
	All []uint32 `json:"all"`
	// Links are the exceptions, with nothing for a link that was revoked.
	Links map[string][]uint32 `json:"links,omitempty"`
}

func (e *epochState) generations(link string) []uint32 {
	if g, ok := e.Links[link]; ok {
		return g
	}
	return e.All
}

func (e *epochState) set(link string, generations []uint32) {
	if e.Links == nil {
		e.Links = make(map[string][]uint32)
	}
	e.Links[link] = generations
}

// openLedger opens an issuer's directory, or makes it, for one process at a time.
func openLedger(dir string, side keys.Side, step func(string) error) (l *ledger, err error) {
	if step == nil {
		step = func(string) error { return nil }
	}
	l = &ledger{dir: dir, step: step, seeds: make(map[keys.Epoch]secret.Key), fresh: make(map[keys.Epoch]bool), freshLinks: make(map[string]bool)}
	defer func() {
		if err != nil {
			l.close()
			l, err = nil, fmt.Errorf("opening the issuer's directory %s: %w", dir, err)
		}
	}()
	if err := os.MkdirAll(l.seedDir(), 0o700); err != nil {
		return l, err
	}
	for _, d := range []string{dir, l.seedDir()} {
		info, err := os.Lstat(d)
		if err == nil {
			err = keyfile.CheckPrivateDir(d, info)
		}
		if err != nil {
			return l, err
		}
	}
	if l.unlock, err = keyfile.TryLock(dir); err != nil {
		return l, err
	}
	err = l.load(side)
	if errors.Is(err, fs.ErrNotExist) {
		if seeds, err := filepath.Glob(filepath.Join(l.seedDir(), "*"+seedSuffix)); err != nil || len(seeds) > 0 {
			return l, errors.Join(err, fmt.Errorf("its journal is missing, and %d seeds are there: put the newest journal.json back, or begin again with a new issuer (lever keys init) and a tree of its own", len(seeds)))
		}
		l.journal = journal{Version: journalVersion, Issuer: rand.Text(), Channel: side.String(), Epochs: map[uint64]*epochState{}, Links: map[string]string{}}
		return l, l.save()
	}
	return l, err
}

// load reads the journal.
func (l *ledger) load(side keys.Side) error {
	text, err := os.ReadFile(l.path())
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&l.journal); err != nil {
		return fmt.Errorf("its journal cannot be read: %w; restore it from a backup", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) || l.Epochs == nil || l.Links == nil {
		return errors.New("its journal is not one; restore it from a backup")
	}
	switch {
	case l.Version < 1 || l.Version > journalVersion:
		return fmt.Errorf("its journal has version %d, this Lever knows %d: run the Lever that wrote it", l.Version, journalVersion)
	case l.Channel != side.String():
		return fmt.Errorf("it is the issuer of channel %q, not %s; keep the channels apart, best on different systems", l.Channel, side)
	}
	l.Version = journalVersion
	return nil
}

func (l *ledger) path() string    { return filepath.Join(l.dir, JournalFile) }
func (l *ledger) seedDir() string { return filepath.Join(l.dir, "ledger") }
func (l *ledger) seedPath(e keys.Epoch) string {
	return filepath.Join(l.seedDir(), e.String()+seedSuffix)
}

// close erases the seeds in memory and lets others in.
func (l *ledger) close() {
	for _, s := range l.seeds {
		s.Erase()
	}
	if l.unlock != nil {
		l.unlock()
	}
}

// save replaces the journal.
func (l *ledger) save() error {
	text, err := json.Marshal(l.journal)
	if err == nil {
		err = l.step("journal")
	}
	if err == nil {
		err = keyfile.Replace(l.path(), append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("writing the issuer's journal: %w", err)
	}
	return nil
}

// named are the epochs and generations that the journal has in use.
func (l *ledger) named() map[keys.Epoch]bool {
	named := make(map[keys.Epoch]bool)
	for number, e := range l.Epochs {
		for _, g := range e.All {
			named[keys.Epoch{Number: number, Generation: g}] = true
		}
		for _, all := range e.Links {
			for _, g := range all {
				named[keys.Epoch{Number: number, Generation: g}] = true
			}
		}
	}
	return named
}

// sweep erases every seed that the journal does not name, and what a crash has left
// half written.
func (l *ledger) sweep() error {
	fail := func(err error) error { return fmt.Errorf("erasing seeds that are over: %w", err) }
	names, err := os.ReadDir(l.seedDir())
	if err != nil {
		return fail(err)
	}
	named, swept := l.named(), false
	for _, n := range names {
		base, ok := strings.CutSuffix(n.Name(), seedSuffix)
		e, err := keys.ParseEpoch(base)
		if (!ok || err != nil || named[e]) && !leftover(n.Name()) {
			continue
		}
		if err := l.step("erase"); err != nil {
			return fail(err)
		}
		if err := eraseFile(filepath.Join(l.seedDir(), n.Name())); err != nil {
			return fail(err)
		}
		swept = true
	}
	if swept {
		if err := keyfile.SyncDir(l.seedDir()); err != nil {
			return fail(err)
		}
	}
	return nil
}

// eraseFile overwrites a file before it removes it. A file system that writes
// elsewhere, or a disk that does, keeps the octets for a while all the same.
func eraseFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.WriteAt(make([]byte, info.Size()), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), os.Remove(path))
}

// make makes the seed of a new generation of an epoch.
func (l *ledger) make(number uint64) (generation uint32, err error) {
	state := l.Epochs[number]
	if state == nil {
		state = &epochState{}
		l.Epochs[number] = state
	}
	if state.Made == maxGenerations {
		return 0, fmt.Errorf("epoch %d has had %d generations, the most that there are; issue a new epoch", number, state.Made)
	}
	e := keys.Epoch{Number: number, Generation: state.Made}
	seed := secret.New(make([]byte, keyOctets))
	defer seed.Erase()
	_, _ = rand.Read(seed.Bytes()) // never fails
	if err := l.step("seed"); err != nil {
		return 0, err
	}
	if err := keyfile.Write(l.seedPath(e), seed); err != nil {
		return 0, fmt.Errorf("making a seed for epoch %s: %w", e, err)
	}
	state.Made++
	l.fresh[e] = true
	return e.Generation, nil
}

// read reads the seeds that the journal names.
func (l *ledger) read() error {
	for _, e := range slices.SortedFunc(maps.Keys(l.named()), keys.Epoch.Compare) {
		seed, err := keyfile.Read(l.seedPath(e), keyfile.Format{Sizes: []int{keyOctets}})
		if err != nil {
			return fmt.Errorf("reading the seed of epoch %s: %w; restore it from a backup, or revoke the epoch and issue it again", e, err)
		}
		l.seeds[e] = seed
	}
	return nil
}

// commitment tells a seed from another without disclosing it.
func commitment(seed secret.Key) string {
	var sum [sha256.Size]byte
	secret.Do(func() {
		h := sha256.New()
		defer secret.Scrub(h)
		h.Write([]byte("lever seed v1\x00"))
		h.Write(seed.Bytes())
		h.Sum(sum[:0])
	})
	return hex.EncodeToString(sum[:])
}

// claim makes a tree this issuer's, before anything is decided or erased. One that
// does not say whose it is may still be another's.
func (l *ledger) claim(ctx context.Context, out string, trust []signed.PublicKey) error {
	path := filepath.Join(out, IssuerMark)
	text, err := os.ReadFile(path)
	free := errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !free:
		return err
	case !free && strings.TrimSpace(string(text)) != l.Issuer:
		return fmt.Errorf("another issuer has filled it, as its file %s says; give each issuer a tree of its own, and put the journal back if this is a copy that has lost it", IssuerMark)
	}
	if err := l.newer(ctx, out, trust); err != nil || !free {
		return err
	}
	if err := l.step("claim"); err != nil {
		return err
	}
	return keyfile.Publish(path, []byte(l.Issuer+"\n"))
}

// newer refuses a tree that knows of more than the journal does: what was revoked
// since, and which names were given to which keys, is in the newest journal alone.
func (l *ledger) newer(ctx context.Context, out string, trust []signed.PublicKey) error {
	nodes, err := nodesOf(out)
	if err != nil {
		return err
	}
	for _, node := range nodes {
		text, err := (directory{filepath.Join(out, node)}).get(ctx, indexFile, signed.MaxSize)
		if err != nil {
			continue
		}
		if _, x, err := parseIndex(text, trust, 1); err == nil && x.Sequence > l.Sequence {
			return fmt.Errorf("the tree has sequence %d for node %q, and the journal in %s knows of none after %d: it is older than what was issued from it; put the newest journal.json back, with the ledger beside it, or begin again with a new issuer (lever keys init) and a tree of its own",
				x.Sequence, node, l.dir, l.Sequence)
		}
	}
	return nil
}

// publicDir makes a directory that anybody may read, whatever the umask, unless
// there is one.
func publicDir(path string) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && !info.IsDir():
		return fmt.Errorf("%s is not a directory (%v)", path, info.Mode())
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if parent := filepath.Dir(path); parent != path {
		if err := publicDir(parent); err != nil {
			return err
		}
	}
	return errors.Join(os.Mkdir(path, 0o755), os.Chmod(path, 0o755), keyfile.SyncDir(filepath.Dir(path)))
}

// apart refuses an issuer's directory that would be published, and a tree among the
// seeds.
func apart(issuer, out string) error {
	i, errI := resolve(issuer)
	o, errO := resolve(out)
	if err := errors.Join(errI, errO); err != nil {
		return err
	}
	within := func(path, parent string) bool {
		rel, err := filepath.Rel(parent, path)
		return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
	}
	if within(i, o) || within(o, i) {
		return fmt.Errorf("the issuer's private directory %s and the tree that is published, %s, are one or lie in each other: keep them apart", issuer, out)
	}
	return nil
}

// resolve is a path without symbolic links, as far as it is there.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	found, err := filepath.EvalSymlinks(path)
	if parent := filepath.Dir(path); errors.Is(err, fs.ErrNotExist) && parent != path {
		found, err = resolve(parent)
		found = filepath.Join(found, filepath.Base(path))
	}
	return found, err
}

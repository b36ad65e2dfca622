package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/signed"
)

// The cache holds what the source had, as it had it: sealed and signed, and checked
// again when it is read. Its index is the record of the highest sequence that was
// seen. It is written before the bundles that it lists, so that a bundle there may
// be older than the index says, but never newer.

// store puts a file into the cache.
func (r *reader) store(name string, s *signed.Statement) {
	if r.conf.CacheDir == "" {
		return
	}
	err := os.MkdirAll(r.conf.CacheDir, 0o700)
	if err == nil {
		err = keyfile.Replace(filepath.Join(r.conf.CacheDir, name), s.Text())
	}
	if err != nil {
		r.conf.Log.Warn("cannot keep a bundle", "path", filepath.Join(r.conf.CacheDir, name), "error", err)
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	if err != nil || name == indexFile {
		r.unwritable = err
	}
}

// rewrite tries again what store could not do.
func (r *reader) rewrite() {
	if r.unwritable == nil || r.index == nil {
		return
	}
	r.store(indexFile, r.index.statement)
	for epoch, f := range r.bundles {
		if r.unwritable != nil {
			return
		}
		r.store(fileName(epoch), f.statement)
	}
}

// tidy removes from the cache what the index no longer lists, and what a crash has
// left half written.
func (r *reader) tidy(listed map[uint64]bool) {
	if r.conf.CacheDir == "" {
		return
	}
	names, err := os.ReadDir(r.conf.CacheDir)
	if err != nil {
		return // store has said so
	}
	for _, n := range names {
		epoch, ok := epochOf(n.Name())
		if ok && !listed[epoch] || leftover(n.Name()) {
			if err := os.Remove(filepath.Join(r.conf.CacheDir, n.Name())); err != nil {
				r.conf.Log.Warn("cannot remove a bundle that is not in force any more", "error", err)
			}
		}
	}
}

// leftover tells the temporary files of package keyfile.
func leftover(name string) bool {
	return strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".tmp")
}

// load takes what the cache has, if nothing is in memory yet. What is not as it
// must be there counts as absent, and is said.
func (r *reader) load() {
	r.lock.Lock()
	defer r.lock.Unlock()
	if r.conf.CacheDir == "" || r.index != nil {
		return
	}
	cache := directory{r.conf.CacheDir}
	note := func(name string, err error) {
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		f := keys.Finding{Code: health.StateUnreadable, Detail: fmt.Sprintf("%s: %v", cache.file(name), err)}
		if no, ok := errors.AsType[*refusal](err); ok {
			f = keys.Finding{Code: no.code, File: cache.file(name), Detail: no.detail}
		}
		r.cacheTrouble = append(r.cacheTrouble, f)
		r.conf.Log.Warn("cannot use a bundle that was kept", "path", cache.file(name), "error", err)
	}
	text, err := cache.get(context.Background(), indexFile, signed.Overhead)
	if err != nil {
		note(indexFile, err)
		return
	}
	s, x, err := parseIndex(text, r.conf.Signers, r.conf.Threshold)
	if err == nil && x.Node != r.conf.Node {
		err = refuse(health.BundleMisaddressed, "it is the index of node %q", x.Node)
	}
	if err != nil {
		note(indexFile, err)
		return
	}
	r.index, r.ready = &acceptedIndex{x, s}, true
	for _, l := range x.Bundles {
		f, err := r.cached(cache, l)
		if err != nil {
			note(fileName(l.Epoch), err)
			continue
		}
		r.bundles[l.Epoch] = f
	}
}

// cached reads a bundle of the cache. An older one than the index lists was in
// force when the newer one could not be had, and still is.
func (r *reader) cached(cache directory, l Listed) (*inForce, error) {
	text, err := cache.get(context.Background(), fileName(l.Epoch), signed.MaxSize)
	if err != nil {
		return nil, err
	}
	s, h, err := parseBundle(text, r.conf.Signers, r.conf.Threshold)
	if err != nil {
		return nil, err
	}
	if h.Node != r.conf.Node || h.Epoch != l.Epoch {
		return nil, refuse(health.BundleMisaddressed, "it is the bundle of node %q and epoch %d", h.Node, h.Epoch)
	}
	if h.Sequence >= l.Sequence {
		if err := l.matches(s, h); err != nil {
			return nil, err
		}
	}
	return &inForce{h, s}, nil
}

package bundle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"filippo.io/age"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/signed"
)

// reader is what a node has accepted of its bundles. Only fetch changes it, which
// one goroutine calls; lock is for those who look meanwhile.
type reader struct {
	conf *Config
	src  source

	lock sync.Mutex
	// ready: the cache had an index, or the source was looked at. Before that what
	// is not there is not known to be missing.
	ready bool
	// index is the newest that was seen, nil while there is none.
	index *acceptedIndex
	// bundles are the ones in force, by epoch; each was opened once.
	bundles map[uint64]*inForce
	// trouble is what the last look at the source found wrong, cacheTrouble what
	// the cache had wrong, unwritable why the cache is not up to date.
	trouble, cacheTrouble []keys.Finding
	unwritable            error
	// shown is what the last view was made of; retry: make it anew all the same.
	shown string
	retry bool
}

type acceptedIndex struct {
	*Index
	statement *signed.Statement
}

type inForce struct {
	*bundleHeader
	statement *signed.Statement
}

// is tells whether it is the bundle that an index lists.
func (f *inForce) is(l Listed) bool {
	return f != nil && f.Sequence == l.Sequence && f.statement.SHA256 == l.SHA256
}

// errIdentity: nothing can be opened. The view says so.
var errIdentity = errors.New("this node has no identity")

// identities are what to open with; none is an error.
func (r *reader) identities() ([]age.Identity, error) {
	ids, err := r.conf.Identities()
	if err == nil && len(ids) == 0 {
		err = errIdentity
	}
	return ids, err
}

// finding words what is wrong with a file of the source, or with the source.
func (r *reader) finding(name string, err error) keys.Finding {
	if no, ok := errors.AsType[*refusal](err); ok {
		return keys.Finding{Code: no.code, File: r.src.file(name), Detail: no.detail, Until: no.until}
	}
	return keys.Finding{Code: r.src.lost(), Detail: name + ": " + err.Error()}
}

// fetch looks at the source: the index first, and what it lists and is not in
// force yet after it. Progress is called once there is a newer index, for what it
// revokes does not wait for the rest.
func (r *reader) fetch(ctx context.Context, progress func()) {
	var trouble []keys.Finding
	again := map[string]bool{indexFile: true}
	note := func(name string, err error) {
		f := r.finding(name, err)
		again[name] = true
		// One fault is enough for a source that does not answer.
		if f.Code != r.src.lost() || !slices.ContainsFunc(trouble, func(o keys.Finding) bool { return o.Code == f.Code }) {
			trouble = append(trouble, f)
		}
	}
	defer func() {
		if ctx.Err() != nil {
			return // what failed, failed for that
		}
		r.src.keep(again)
		r.lock.Lock()
		defer r.lock.Unlock()
		r.trouble, r.ready = trouble, true
	}()
	r.rewrite()
	text, err := r.src.get(ctx, indexFile, signed.Overhead)
	if err == nil {
		err = r.acceptIndex(text, progress)
	}
	if err != nil {
		note(indexFile, err)
		if trouble[0].Code == r.src.lost() {
			return
		}
	}
	if r.index == nil {
		return
	}
	take, _ := r.index.started(r.date())
	for _, l := range take {
		if r.bundles[l.Epoch].is(l) {
			continue
		}
		if err := r.fetchBundle(ctx, l); err != nil && ctx.Err() == nil {
			if errors.Is(err, errIdentity) {
				again[fileName(l.Epoch)] = true
				continue
			}
			note(fileName(l.Epoch), err)
		}
	}
}

// acceptIndex takes an index if it is this node's and newer than the one that was
// seen last.
func (r *reader) acceptIndex(text []byte, progress func()) error {
	s, x, err := parseIndex(text, r.conf.Signers, r.conf.Threshold)
	if err != nil {
		return err
	}
	if x.Node != r.conf.Node {
		return refuse(health.BundleMisaddressed, "it is the index of node %q", x.Node)
	}
	if old := r.index; old != nil {
		switch {
		case x.Sequence < old.Sequence:
			return refuse(health.BundleReplayed, "it has sequence %d, and %d was seen", x.Sequence, old.Sequence)
		case x.Sequence == old.Sequence && s.Digest() != old.statement.Digest():
			return refuse(health.BundleReplayed, "it has sequence %d, as the one that was seen, and says something else", x.Sequence)
		case x.Sequence == old.Sequence:
			return nil
		}
	}
	// On disk first: what was acted on must not be forgotten.
	r.store(indexFile, s)
	r.lock.Lock()
	r.index, r.cacheTrouble = &acceptedIndex{x, s}, nil
	listed := make(map[uint64]bool)
	for _, l := range x.Bundles {
		listed[l.Epoch] = true
	}
	maps.DeleteFunc(r.bundles, func(epoch uint64, _ *inForce) bool { return !listed[epoch] })
	r.lock.Unlock()
	r.tidy(listed)
	r.conf.Log.Info("accepted an index of bundles", "node", x.Node, "sequence", x.Sequence, "bundles", len(x.Bundles), "expires", s.Expires)
	progress()
	return nil
}

// fetchBundle brings a bundle that the index lists into force.
func (r *reader) fetchBundle(ctx context.Context, l Listed) error {
	text, err := r.src.get(ctx, fileName(l.Epoch), signed.Overhead+int(l.Size))
	if err != nil {
		return err
	}
	s, h, err := parseBundle(text, r.conf.Signers, r.conf.Threshold)
	if err != nil {
		return err
	}
	switch now := r.conf.Now(); {
	case h.Node != r.conf.Node:
		return refuse(health.BundleMisaddressed, "it is a bundle of node %q", h.Node)
	case h.Epoch != l.Epoch:
		return refuse(health.BundleMisaddressed, "it is the bundle of epoch %d", h.Epoch)
	case l.matches(s, h) != nil:
		return l.matches(s, h)
	case !now.Before(s.Expires):
		return expired(s)
	}
	ids, err := r.identities()
	if err != nil {
		return errIdentity
	}
	in, err := open(s, h, ids)
	if err != nil {
		return err
	}
	in.erase()
	r.store(fileName(l.Epoch), s)
	r.lock.Lock()
	defer r.lock.Unlock()
	r.bundles[l.Epoch] = &inForce{h, s}
	r.conf.Log.Info("accepted a bundle", "node", h.Node, "epoch", h.Epoch, "sequence", h.Sequence, "expires", s.Expires)
	return nil
}

func expired(s *signed.Statement) error {
	return &refusal{code: health.BundleExpired, detail: "it was valid until " + s.Expires.Format(time.RFC3339), until: s.Expires}
}

// open decrypts a bundle that was verified; the caller erases what is in it.
func open(s *signed.Statement, h *bundleHeader, ids []age.Identity) (*inner, error) {
	plain, err := unseal(s.Payload, ids)
	var none *age.NoIdentityMatchError
	switch {
	case errors.As(err, &none):
		return nil, refuse(health.BundleUnopened, "it is sealed to the recipients with fingerprints %q, and none of this node's %d identities is one of them", h.Recipients, len(ids))
	case err != nil:
		return nil, refuse(health.BundleUnopened, "%s", err.Error())
	}
	defer clear(plain)
	in, err := decodeInner(plain)
	if err != nil {
		return nil, refuse(health.BundleMalformed, "%s", err.Error())
	}
	if want := (innerHead{h.Node, h.Epoch, h.Sequence}); in.innerHead != want {
		in.erase()
		return nil, refuse(health.BundleMisaddressed, "what is sealed in it is for node %q, epoch %d, sequence %d", in.Node, in.Epoch, in.Sequence)
	}
	if i := slices.IndexFunc(in.entries, func(e entry) bool { return !slices.Contains(e.Nodes, h.Node) }); i >= 0 {
		in.erase()
		return nil, refuse(health.BundleMisaddressed, "it has a key of link %q, which this node is not on", in.entries[i].Link)
	}
	return in, nil
}

// date is the clock's, unless the index was issued later: then the clock is behind.
func (r *reader) date() time.Time {
	now := r.conf.Now()
	if s := r.index.statement; now.Before(s.Issued) {
		return s.Issued
	}
	return now
}

// next is when an epoch is to be fetched that is too far ahead now; zero for never.
func (r *reader) next() time.Time {
	r.lock.Lock()
	defer r.lock.Unlock()
	if r.index == nil {
		return time.Time{}
	}
	_, again := r.index.started(r.date())
	return again
}

// panicked makes a panic a fault that passes.
func (r *reader) panicked(err error) {
	r.conf.Log.Error("reading bundles failed", "error", err)
	r.lock.Lock()
	defer r.lock.Unlock()
	r.trouble, r.ready = []keys.Finding{{Code: health.ChannelUnreadable, Detail: fmt.Sprint(err)}}, true
}

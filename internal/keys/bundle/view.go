package bundle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
)

// view is all that there is for the links of a node at one moment, opened. It is
// erased once each link has its own.
type view struct {
	where       string
	unavailable bool
	findings    []keys.Finding
	epochs      []viewed
	asOf        time.Time // when the index was issued
}

// viewed is an epoch that the index lists.
type viewed struct {
	number uint64
	file   string
	// in is nil for what cannot be opened: then any link may have any of the
	// generations.
	in          *inner
	generations uint32
	usable      bool
}

func (v *view) erase() {
	for _, e := range v.epochs {
		if e.in != nil {
			e.in.erase()
		}
	}
}

// standing is what is wrong with the index as a whole.
func (r *reader) standing(now time.Time) (findings []keys.Finding) {
	if x := r.index; x != nil {
		if !now.Before(x.statement.Expires) {
			findings = append(findings, keys.Finding{Code: health.BundleStale, Until: x.statement.Expires})
		}
		if d := r.conf.LinksDigest; d != nil && x.Inventory != "" {
			if mine := d(); mine != "" && mine != x.Inventory {
				findings = append(findings, keys.Finding{Code: health.BundleInventory,
					Detail: fmt.Sprintf("the digest of its links is %.8s there and %.8s here", x.Inventory, mine)})
			}
		}
	}
	if r.unwritable != nil {
		findings = append(findings, keys.Finding{Code: health.StateUnwritable, Detail: "keeping the bundles that were accepted: " + r.unwritable.Error()})
	}
	return slices.Concat(findings, r.cacheTrouble, r.trouble)
}

// madeOf is what a view is made of, as far as it shows without opening anything.
func (r *reader) madeOf(now time.Time) string {
	var b strings.Builder
	fmt.Fprintln(&b, r.ready)
	if r.index != nil {
		take, _ := r.index.started(r.date())
		fmt.Fprintln(&b, r.index.Sequence)
		for _, l := range take {
			fmt.Fprint(&b, l.Epoch)
			if f := r.bundles[l.Epoch]; f != nil {
				fmt.Fprint(&b, " ", f.Sequence, now.Before(f.statement.Expires))
			}
			fmt.Fprintln(&b)
		}
	}
	for _, f := range r.standing(now) {
		fmt.Fprintf(&b, "%q %q %q\n", f.Code, f.File, f.Detail)
	}
	return b.String()
}

// changed tells whether a new view may differ from the last.
func (r *reader) changed() bool {
	r.lock.Lock()
	defer r.lock.Unlock()
	return r.retry || r.madeOf(r.conf.Now()) != r.shown
}

// view opens what there is; false before anything is known.
func (r *reader) view() (*view, bool) {
	r.lock.Lock()
	defer r.lock.Unlock()
	if !r.ready {
		return nil, false
	}
	now := r.conf.Now()
	r.shown, r.retry = r.madeOf(now), false
	v := &view{where: r.src.where(), unavailable: r.index == nil, findings: r.standing(now)}
	ids, err := r.identities()
	if err != nil {
		v.findings = append(v.findings, keys.Finding{Code: health.NodeIdentity, Detail: err.Error()})
		r.retry = true
	}
	if r.index == nil {
		return v, true
	}
	v.asOf = r.index.statement.Issued
	take, _ := r.index.started(r.date())
	for _, l := range take {
		name := fileName(l.Epoch)
		e := viewed{number: l.Epoch, file: r.src.file(name), generations: l.Generations}
		if f := r.bundles[l.Epoch]; f != nil && err == nil {
			in, err := open(f.statement, f.bundleHeader, ids)
			e.in, e.usable = in, err == nil
			if err != nil {
				r.retry = true
			} else if !now.Before(f.statement.Expires) {
				// It starts nothing any more; what runs with it goes on.
				err, e.usable = expired(f.statement), false
			}
			// What replaces it may be refused for the same reason, and is said already.
			if err != nil && !slices.ContainsFunc(v.findings, func(o keys.Finding) bool { return o.File == e.file }) {
				v.findings = append(v.findings, r.finding(name, err))
			}
		}
		v.epochs = append(v.epochs, e)
	}
	return v, true
}

// snapshot is the view of one link.
func (v *view) snapshot(link string) keys.Snapshot {
	s := keys.Snapshot{
		Where: v.where, Unavailable: v.unavailable, AsOf: v.asOf, Findings: slices.Clone(v.findings),
		Keys: make(map[keys.Epoch]keys.Material), Present: make(map[keys.Epoch]bool),
	}
	for _, e := range v.epochs {
		if e.in == nil {
			for g := range e.generations {
				s.Present[keys.Epoch{Number: e.number, Generation: g}] = true
			}
			continue
		}
		for _, x := range e.in.of(link) {
			epoch := keys.Epoch{Number: e.number, Generation: x.Generation}
			if !e.usable {
				s.Present[epoch] = true
				continue
			}
			s.Keys[epoch] = keys.Material{KeyID: epoch.String(), Key: secret.Clone(x.key.Bytes()), File: e.file}
		}
	}
	return s
}

package issue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/dir"
	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/inventory"
)

// dirChannel is a channel of type dir: files in a directory.
type dirChannel struct {
	side  keys.Side
	root  string
	links []string
	// nodes are those on each link.
	nodes map[string][]string
}

func openDir(side keys.Side, inv *inventory.Inventory, root string) Channel {
	d := &dirChannel{side: side, root: root, nodes: map[string][]string{}}
	for _, l := range inv.KeyedLinks() {
		d.links = append(d.links, l.ID)
		d.nodes[l.ID] = nodesOf(l)
	}
	return d
}

// OpenDir opens a directory that no inventory names.
func OpenDir(side keys.Side, root string) Channel { return &dirChannel{side: side, root: root} }

// Close implements Channel.
func (d *dirChannel) Close() error { return nil }

// Issue implements Channel. It goes on with the other links when one fails. Of two
// that issue at the same time the second is refused: it would count on from what the
// first has not finished.
func (d *dirChannel) Issue(ctx context.Context, r Request) (Result, error) {
	if err := ofKeys(d.root); err != nil {
		return Result{}, err
	}
	if err := dir.Claim(d.root, d.side); err != nil {
		return Result{}, err
	}
	unlock, err := keyfile.TryLock(d.root)
	if err != nil {
		return Result{}, fmt.Errorf("issuing channel %s: %w", d.side, err)
	}
	defer unlock()
	var res Result
	links, err := d.live(r.Links, &res)
	if err != nil {
		return res, err
	}
	var errs []error
	rounds, last := [][]uint64{r.Epochs}, map[string]uint64{}
	if r.Count > 0 {
		if rounds, last, err = d.counted(links, r.Count, &res); err != nil {
			errs = append(errs, err)
			links = slices.DeleteFunc(links, func(l string) bool { _, ok := last[l]; return !ok })
		}
	}
	failed := map[string]bool{}
	for i, numbers := range rounds {
		for j, link := range links {
			if ctx.Err() != nil {
				return res, errors.Join(append(errs, ctx.Err())...)
			}
			if failed[link] {
				continue
			}
			var done []keys.Epoch
			var err error
			switch {
			case r.Reissue != 0:
				var e keys.Epoch
				if e, err = dir.Reissue(d.root, link, r.Reissue); err == nil {
					done = append(done, e)
				}
			case r.Count > 0 && last[link] >= numbers[0]: // what it has had and was revoked stays so
				res.Kept++
			default:
				var since time.Time
				done, since, err = dir.IssueNumbers(d.root, link, numbers)
				res.keptSince(since)
				if err == nil {
					res.Kept += len(numbers) - len(done)
				}
			}
			for _, e := range done {
				res.Written++
				if r.Each != nil {
					r.Each(link, e, filepath.Join(d.root, link, dir.FileName(e)))
				}
			}
			if err != nil {
				errs, failed[link] = append(errs, err), true
			}
			if r.Progress != nil {
				r.Progress(i*len(links)+j+1, len(rounds)*len(links))
			}
		}
	}
	return res, errors.Join(errs...)
}

// live are the links to issue for, of those named or of all: none of their nodes was
// revoked.
func (d *dirChannel) live(named []string, res *Result) (links []string, err error) {
	if len(named) == 0 {
		named = d.links
	}
	gone, err := dir.RevokedNodes(d.root)
	for _, link := range named {
		if n := slices.IndexFunc(d.nodes[link], func(node string) bool { return slices.Contains(gone, node) }); n >= 0 {
			res.Warnings = append(res.Warnings, fmt.Sprintf("link %s gets no keys: its node %s was revoked; take it out of the inventory", link, d.nodes[link][n]))
			continue
		}
		links = append(links, link)
	}
	return links, err
}

// counted are the next n numbers, one a round, so that all links have one before any
// has the one after. A number that some of the links have had and others not is the
// first of them: a run was interrupted, or links are new. Last is what each link has
// had; one that cannot be read is not in it.
func (d *dirChannel) counted(links []string, n int, res *Result) (rounds [][]uint64, last map[string]uint64, err error) {
	last = map[string]uint64{}
	var newest uint64
	var errs []error
	for _, link := range links {
		had, err := dir.Last(d.root, link)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		last[link] = had
		newest = max(newest, had)
	}
	next := newest + 1
	for _, had := range last {
		if had < newest {
			next = newest
		}
	}
	if next == newest {
		res.Notes = append(res.Notes, fmt.Sprintf("epoch %d was there for some of the links only: it is completed before another begins", newest))
	}
	if uint64(n)-1 > math.MaxUint64-next || next == 0 {
		return nil, last, errors.Join(append(errs, fmt.Errorf("issuing in %s: after epoch %d there are not %d more", d.root, newest, n))...)
	}
	for i := range n {
		rounds = append(rounds, []uint64{next + uint64(i)})
	}
	return rounds, last, errors.Join(errs...)
}

// all are the links of the inventory, or without one those that have a directory.
func (d *dirChannel) all() ([]string, error) {
	if _, err := dir.CheckSide(d.root, d.side); err != nil {
		return nil, err
	}
	if d.links != nil {
		return d.links, nil
	}
	return dir.Links(d.root)
}

// List implements Channel.
func (d *dirChannel) List(_ context.Context, links []string) ([]Row, error) {
	all, err := d.all()
	if err != nil {
		return nil, err
	}
	if len(links) == 0 {
		links = all
	}
	rows := []Row{}
	for _, link := range links {
		l := dir.Scan(d.root, link)
		rows = append(rows, describe(link, l)...)
		l.Erase()
	}
	return rows, nil
}

// describe turns a listing into rows; the material ends here.
func describe(link string, l dir.Listing) []Row {
	if l.Err != nil {
		return []Row{{Link: link, State: "refused", Detail: dir.Problem(l.Err), File: l.Where}}
	}
	var rows []Row
	for _, e := range l.Entries {
		row := Row{
			Link: link, Epoch: e.Epoch.String(), Mode: fmt.Sprintf("%04o", e.Mode.Perm()),
			Modified: e.Modified.UTC().Truncate(time.Second), State: "ok", File: e.File,
		}
		if e.Err != nil {
			row.State, row.Detail = "refused", dir.Problem(e.Err)
		} else {
			row.Fingerprint = e.Material.Fingerprint().Short()
		}
		rows = append(rows, row)
	}
	for file, err := range l.Unexpected {
		rows = append(rows, Row{Link: link, State: "ignored", Detail: err.Error(), File: file})
	}
	slices.SortStableFunc(rows[len(l.Entries):], func(a, b Row) int { return strings.Compare(a.File, b.File) })
	if len(rows) == 0 {
		rows = append(rows, Row{Link: link, State: "none", Detail: "no key has been delivered", File: l.Where})
	}
	return rows
}

// Verify implements Channel.
func (d *dirChannel) Verify(ctx context.Context) (looked int, problems []string, err error) {
	rows, err := d.List(ctx, nil)
	for _, r := range rows {
		switch r.State {
		case "ok":
		case "none":
			problems = append(problems, r.Link+": "+r.Detail)
		default:
			problems = append(problems, fmt.Sprintf("%s: %s: %s", r.File, r.State, r.Detail))
		}
		looked++
	}
	marked, markErr := d.marked(rows)
	return looked, append(problems, marked...), errors.Join(err, markErr)
}

// marked are the keys that are there although a mark says that they were revoked: the
// revocation was interrupted, or somebody has put them back.
func (d *dirChannel) marked(rows []Row) (problems []string, err error) {
	gone := map[string][]keys.Epoch{}
	for _, r := range rows {
		if _, ok := gone[r.Link]; !ok {
			marks, e := dir.Revoked(d.root, r.Link)
			gone[r.Link], err = marks, errors.Join(err, e)
		}
		if slices.ContainsFunc(gone[r.Link], func(e keys.Epoch) bool { return e.String() == r.Epoch }) {
			problems = append(problems, r.File+": it was revoked, and is there all the same; revoke it again")
		}
	}
	return problems, err
}

// Revoke implements Channel.
func (d *dirChannel) Revoke(_ context.Context, t Target) (done []string, err error) {
	links, err := d.all()
	if err != nil {
		return nil, err
	}
	// Nothing is to be issued in between. It waits: it must not be given up because
	// somebody issues.
	unlock, err := keyfile.Lock(d.root)
	if err != nil {
		return nil, fmt.Errorf("revoking %s: %w", t, err)
	}
	defer unlock()
	switch {
	case t.Node != "":
		links = slices.DeleteFunc(slices.Clone(d.links), func(l string) bool { return !slices.Contains(d.nodes[l], t.Node) })
		if err := dir.RevokeNode(d.root, t.Node); err != nil { // first: nothing is to be issued in between
			return nil, err
		}
		done = append(done, "revoked node "+t.Node+": nothing is issued for its links any more")
	case t.Link != "":
		links = []string{t.Link}
	case len(t.Links) > 0:
		links = t.Links
	}
	wanted := func(e keys.Epoch) bool {
		return (t.Number == 0 || e.Number == t.Number) && (t.Exact.IsZero() || e == t.Exact)
	}
	var errs []error
	already := false
	for _, link := range links {
		marks, err := dir.Revoked(d.root, link)
		errs = append(errs, err)
		already = already || slices.ContainsFunc(marks, wanted)
		issued, err := dir.Issued(d.root, link)
		errs = append(errs, err)
		slices.SortFunc(issued, keys.Epoch.Compare)
		for _, e := range issued {
			if !wanted(e) {
				continue
			}
			existed, err := dir.Revoke(d.root, link, e)
			errs = append(errs, err)
			if err == nil && existed {
				done = append(done, fmt.Sprintf("revoked %s of %s: removed %s", e, link, filepath.Join(d.root, link, dir.FileName(e))))
			}
		}
	}
	if err := errors.Join(errs...); err != nil || len(done) > 0 {
		return done, err
	}
	if already {
		return []string{alreadyRevoked(t)}, nil
	}
	return nil, fmt.Errorf("revoking %s: none of the links (%s) has it in %s; see lever keys list", t, strings.Join(links, ", "), d.root)
}

// Readmit implements Channel.
func (d *dirChannel) Readmit(_ context.Context, node string) (string, error) {
	if err := dir.ReadmitNode(d.root, node); err != nil {
		return "", err
	}
	return "node " + node + " may have keys again: issue them", nil
}

// Retire implements Channel.
func (d *dirChannel) Retire(_ context.Context, before uint64) (erased int, err error) {
	links, err := d.all()
	errs := []error{err}
	for _, link := range links {
		n, err := dir.Retire(d.root, link, before)
		erased += n
		errs = append(errs, err)
	}
	return erased, errors.Join(errs...)
}

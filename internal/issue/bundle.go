package issue

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/bundle"
	"github.com/lever-link/lever/internal/signed"
	"github.com/lever-link/lever/inventory"
)

// bundleChannel is a channel of type bundle: a tree of sealed files, and an issuer's
// ledger. An inventory says all that there is, so that it is always issued whole.
type bundleChannel struct {
	side keys.Side
	inv  *inventory.Inventory
	conf inventory.Channel
	o    Options
	// erased is what Issue has retired, of what is before retired.
	erased  int
	retired uint64
}

func openBundle(side keys.Side, inv *inventory.Inventory, c inventory.Channel, o Options) Channel {
	if o.SigningKey == "" {
		o.SigningKey = filepath.Join(o.Issuer, SigningKey)
	}
	return &bundleChannel{side: side, inv: inv, conf: c, o: o}
}

// Close implements Channel.
func (b *bundleChannel) Close() error { return nil }

// options are what every run has.
func (b *bundleChannel) options() bundle.Options {
	o := bundle.Options{
		Issuer: b.o.Issuer, Side: b.side, Out: b.o.Out, Now: b.o.Now,
		Recipients: b.recipients,
		BundleLife: b.inv.Policy.MaxAge + b.inv.Policy.CAKEpoch, EpochLength: b.inv.Policy.CAKEpoch,
	}
	for _, l := range b.inv.KeyedLinks() {
		o.Links = append(o.Links, bundle.LinkSpec{ID: l.ID, Nodes: nodesOf(l)})
	}
	return o
}

func (b *bundleChannel) recipients(node string) []string {
	if n := b.inv.Nodes[node]; n != nil {
		return n.Recipients
	}
	return nil
}

// run issues with the issuer's key.
func (b *bundleChannel) run(ctx context.Context, o bundle.Options) (bundle.Result, error) {
	if err := ofBundles(b.o.Issuer, b.o.Out); err != nil {
		return bundle.Result{}, err
	}
	k, err := signed.ReadKey(b.o.SigningKey)
	if err != nil {
		return bundle.Result{}, err
	}
	defer k.Erase()
	if !slices.Contains(b.conf.Signers, k.Public().String()) {
		return bundle.Result{}, fmt.Errorf("issuing channel %s: the key %s (%s) is not among the channel's signers, so that no node would believe it; put it there, or issue with another", b.side, b.o.SigningKey, k.Public())
	}
	o.Key = k
	return bundle.Issue(ctx, o)
}

// Issue implements Channel. On a schedule it retires what is over, too: nobody else
// does where no server runs.
func (b *bundleChannel) Issue(ctx context.Context, r Request) (Result, error) {
	o := b.options()
	o.Progress = r.Progress
	switch {
	case r.Reissue != 0:
		o.Reissue = []bundle.Reissue{{Epoch: r.Reissue, Links: r.Links}}
	case len(r.Links) > 0:
		return Result{}, errors.New("a node's bundle has all of its links: issue without naming any")
	default:
		o.Epochs, o.AfterPause = r.Epochs, r.AfterPause
		o.Retire = Over(b.o.Now(), b.inv.Policy)
	}
	done, err := b.run(ctx, o)
	res := Result{Written: done.Keys, Kept: done.Kept, Warnings: done.Warnings}
	if err == nil || done.TakenBack {
		b.retired, b.erased = o.Retire, done.Retired
	}
	if done.Retired > 0 {
		res.Notes = append(res.Notes, fmt.Sprintf("%d epochs are over (older than max_age and cak_epoch) and were retired", done.Retired))
	}
	if done.Bundles+done.Indexes > 0 {
		res.Notes = append(res.Notes, fmt.Sprintf("%d bundles and %d indexes written for %d nodes, %d octets", done.Bundles, done.Indexes, done.Nodes, done.Octets))
		if b.conf.Threshold > 1 {
			res.Notes = append(res.Notes, b.next())
		}
	}
	return res, err
}

// next is what is to be done with what was written.
func (b *bundleChannel) next() string {
	if n := b.conf.Threshold; n > 1 {
		return fmt.Sprintf("%d must sign, or no node believes it: have the others add theirs by lever keys sign, then deliver it", n)
	}
	return "deliver it"
}

// List implements Channel: with the issuer's directory every key, with the
// fingerprint that both ends see; without it what the tree says, which is which
// epochs each node has.
func (b *bundleChannel) List(ctx context.Context, links []string) ([]Row, error) {
	rows := []Row{}
	has := map[string]*bundle.Index{} // of each node
	err := bundle.List(ctx, b.o.Out, func(l bundle.Listing) error {
		has[l.Node] = l.Index
		dir := filepath.Join(b.o.Out, l.Node)
		if l.Err != nil {
			rows = append(rows, Row{State: "refused", Detail: l.Err.Error(), File: filepath.Join(dir, "index")})
			return nil
		}
		var signers []string
		for _, k := range l.Signers {
			signers = append(signers, k.String())
		}
		for _, x := range l.Index.Bundles {
			if b.o.Issuer == "" {
				rows = append(rows, Row{
					Epoch: strconv.FormatUint(x.Epoch, 10), Modified: l.Issued, State: "ok",
					Detail: fmt.Sprintf("sequence %d, signed by %s", x.Sequence, strings.Join(signers, ", ")),
					File:   filepath.Join(dir, strconv.FormatUint(x.Epoch, 10)+".bundle"),
				})
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return rows, err
	case b.o.Issuer == "" && len(links) > 0:
		return rows, errors.New("what a bundle has for a link only its issuer and its node can see: give --issuer, or list without naming any")
	case b.o.Issuer == "":
		return rows, nil
	}
	held, err := bundle.Fingerprints(b.o.Issuer, b.side, b.options().Links)
	for _, h := range held {
		if len(links) == 0 || slices.Contains(links, h.Link) {
			rows = append(rows, heldRow(h, has))
		}
	}
	return rows, err
}

// heldRow is a key that an issuer has, and whether the tree has it for each end.
func heldRow(h bundle.Held, has map[string]*bundle.Index) Row {
	r := Row{Link: h.Link, Epoch: h.Epoch.String(), State: "ok", File: strings.Join(h.Nodes, ", ")}
	if h.Err != nil {
		r.State, r.Detail = "refused", h.Err.Error()
		return r
	}
	r.Fingerprint = h.Fingerprint.Short()
	var without []string
	for _, n := range h.Nodes {
		if x := has[n]; x == nil || !slices.ContainsFunc(x.Bundles, func(l bundle.Listed) bool { return l.Epoch == h.Epoch.Number }) {
			without = append(without, n)
		}
	}
	if without != nil {
		r.State, r.Detail = "missing", "the tree has no bundle of it for "+strings.Join(without, ", ")+": issue"
	}
	return r
}

// Verify implements Channel.
func (b *bundleChannel) Verify(ctx context.Context) (looked int, problems []string, err error) {
	signers, err := signed.ParsePublicKeys(b.conf.Signers)
	if err != nil {
		return 0, nil, err
	}
	err = bundle.Verify(ctx, bundle.Audit{
		Tree: b.o.Out, Signers: signers, Threshold: b.conf.Threshold, Recipients: b.recipients, Now: b.o.Now,
		Links: b.options().Links, Current: keys.ScheduledEpoch(b.o.Now(), b.inv.Policy.CAKEpoch).Number,
		Progress: func(done, _ int) { looked = done },
	}, func(p bundle.Problem) {
		problems = append(problems, fmt.Sprintf("%s: %v", p.File, p.Err))
	})
	return looked, problems, err
}

// Revoke implements Channel.
func (b *bundleChannel) Revoke(ctx context.Context, t Target) ([]string, error) {
	o := b.options()
	switch {
	case t.Node != "":
		o.Revoke.Nodes = []string{t.Node}
	case t.Link != "":
		o.Revoke.Links = []string{t.Link}
	case !t.Exact.IsZero():
		return nil, fmt.Errorf("revoking %s: bundles are revoked by the number, with all generations: give %d", t, t.Number)
	default:
		o.Revoke.Epochs, o.Revoke.Links = []uint64{t.Number}, t.Links
	}
	done, err := b.run(ctx, o)
	lines := done.Warnings
	if err != nil && done.TakenBack {
		lines, err = append(lines, fmt.Sprintf("not everything can be sealed again: %v", err)), nil
	}
	switch {
	case err != nil:
		return nil, err
	case done.Bundles+done.Indexes == 0:
		lines = append([]string{fmt.Sprintf("%s had nothing, or was revoked already: nothing is changed", t)}, lines...)
	default:
		lines = append([]string{
			fmt.Sprintf("revoked %s: %d bundles and %d indexes of %d nodes say so", t, done.Bundles, done.Indexes, done.Nodes),
			b.next(),
		}, lines...)
	}
	return lines, nil
}

// Readmit implements Channel.
func (b *bundleChannel) Readmit(ctx context.Context, node string) (string, error) {
	o := b.options()
	o.Readmit = []string{node}
	if _, err := b.run(ctx, o); err != nil {
		return "", err
	}
	return "node " + node + " has keys again, of other generations: " + b.next(), nil
}

// Retire implements Channel.
func (b *bundleChannel) Retire(ctx context.Context, before uint64) (int, error) {
	if before <= b.retired {
		return b.erased, nil // Issue has done it
	}
	o := b.options()
	o.Retire = before
	done, err := b.run(ctx, o)
	return done.Retired, err
}

// Package issue is the issuer's side of one channel, whatever its type: what
// `lever keys` does.
//
// Opening one channel of an inventory and wording what was done belong here. How a
// channel of a type is filled does not (internal/keys/…), and nothing here ever
// opens two channels: an issuer that could would be the one key holder that must
// not exist.
package issue

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/bundle"
	"github.com/lever-link/lever/internal/keys/dir"
	"github.com/lever-link/lever/inventory"
)

// Options say what is not in the inventory, since it is the issuer's alone. Those
// that the channel's type has no use for must be empty.
type Options struct {
	// Out is the directory that is written to: of a channel of type dir or bundle;
	// empty means the one in the inventory.
	Out string
	// Issuer is the private directory of an issuer of bundles, SigningKey its key.
	Issuer, SigningKey string
	// Certificate, Key and CA are what an issuer shows to etcd, and whom it trusts;
	// an empty CA means the channel's.
	Certificate, Key, CA string
	// ReadOnly needs nothing that is the issuer's alone, where the channel can be
	// looked at without.
	ReadOnly bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log gets what happens on the way; nil discards.
	Log *slog.Logger
}

// Request is what is to be issued. One of Epochs, Count and Reissue is given.
type Request struct {
	// Links are the ids of those to issue for; empty means all that need keys.
	Links []string
	// Epochs are numbers on a schedule: what has been issued already stays.
	Epochs []uint64
	// Count is how many epochs to issue after the last, counted from 1.
	Count int
	// Reissue is a number that gets a further generation.
	Reissue uint64
	// AfterPause says that the issuer has not run for long, so that its clock may be
	// far beyond what it issued last. Of bundles only.
	AfterPause bool
	// Each, if set, is told of every key that was written. Progress, if set, is told
	// how much of the work is done.
	Each     func(link string, e keys.Epoch, where string)
	Progress func(done, total int)
}

// Result is what came of a Request.
type Result struct {
	// Written are the keys that were issued, one for each link and epoch (and, where
	// each end is given its own copy to keep, for each end); Kept those that had been.
	Written, Kept int
	// Since is when the oldest of what had been issued was; zero if the channel does not
	// know, or if nothing had been.
	Since time.Time
	// Notes say what was done besides, Warnings what the operator should see to.
	Notes, Warnings []string
}

// keptSince notes when something of what had been issued was.
func (r *Result) keptSince(at time.Time) {
	if !at.IsZero() && (r.Since.IsZero() || at.Before(r.Since)) {
		r.Since = at
	}
}

// Target is what to revoke: one of Node, Link and Number.
type Target struct {
	Node, Link string
	Number     uint64
	Exact      keys.Epoch // if not zero, this generation of Number alone
	Links      []string   // of Number: these alone; empty means all
}

// String names it.
func (t Target) String() string {
	switch {
	case t.Node != "":
		return "node " + t.Node
	case t.Link != "":
		return "link " + t.Link
	case !t.Exact.IsZero():
		return "epoch " + t.Exact.String()
	}
	return fmt.Sprintf("epoch %d", t.Number)
}

// alreadyRevoked is said when a revocation is given again that was carried out.
func alreadyRevoked(t Target) string {
	return t.String() + " was revoked already: there is nothing left of it"
}

// Row is one key that a channel holds.
type Row struct {
	Link        string    `json:"link"`
	Epoch       string    `json:"epoch,omitempty"`
	Mode        string    `json:"mode,omitempty"`
	Modified    time.Time `json:"modified,omitzero"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	State       string    `json:"state"` // ok, refused, ignored, none, or as the channel has it
	Detail      string    `json:"detail,omitempty"`
	File        string    `json:"file,omitempty"`
}

// A Channel is one channel as its issuer has it.
type Channel interface {
	Issue(ctx context.Context, r Request) (Result, error)
	// List returns what there is for the links; without links, for all.
	List(ctx context.Context, links []string) ([]Row, error)
	// Verify holds what the channel delivers to what its readers will demand, and
	// returns how much it looked at, and what is wrong.
	Verify(ctx context.Context) (looked int, problems []string, err error)
	// Revoke says what it revoked, one line each.
	Revoke(ctx context.Context, t Target) (done []string, err error)
	// Readmit lets a revoked node have keys again, and says what it did.
	Readmit(ctx context.Context, node string) (done string, err error)
	// Retire erases what is over: epochs before the number given.
	Retire(ctx context.Context, before uint64) (erased int, err error)
	Close() error
}

// Open opens one channel of an inventory to issue on it.
func Open(side keys.Side, inv *inventory.Inventory, o Options) (Channel, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := o.Suit(side, inv); err != nil {
		return nil, err
	}
	c, other := inv.Channels.A, inv.Channels.B
	if side == keys.B {
		c, other = other, c
	}
	if o.Out == "" {
		o.Out = c.Path
	}
	if o.Out != "" && other.Path != "" && samePath(o.Out, other.Path) {
		return nil, fmt.Errorf("%s is the directory of channel %s in %s, not of channel %s: one directory is never both",
			o.Out, side.Other(), inv.Files[0], side)
	}
	switch c.Type {
	case "dir":
		return openDir(side, inv, o.Out), nil
	case "bundle":
		return openBundle(side, inv, c, o), nil
	case "etcd":
		if o.CA == "" {
			o.CA = c.CA
		}
		return openEtcd(inv, c, o)
	}
	return nil, fmt.Errorf("opening channel %s: Lever knows no type %s", side, c.Type)
}

// Suit refuses a channel on which nothing can be issued, and options that are for
// another type of channel, and asks for those that are missing: what is wrong as long
// as the inventory says what it says.
func (o Options) Suit(side keys.Side, inv *inventory.Inventory) error {
	c := [2]inventory.Channel{inv.Channels.A, inv.Channels.B}[side]
	if c.Type == "" {
		return fmt.Errorf("opening channel %s: the inventory has no channels", side)
	}
	given := map[string]string{"--out": o.Out, "--issuer": o.Issuer, "--signing-key": o.SigningKey, "--certificate": o.Certificate, "--key": o.Key, "--ca": o.CA}
	allowed := map[string][]string{
		"dir": {"--out"}, "bundle": {"--out", "--issuer", "--signing-key"}, "etcd": {"--certificate", "--key", "--ca"},
	}[c.Type]
	for _, name := range []string{"--out", "--issuer", "--signing-key", "--certificate", "--key", "--ca"} {
		if given[name] != "" && !slices.Contains(allowed, name) {
			return fmt.Errorf("%s: channel %s is of type %s, which has no use for it", name, side, c.Type)
		}
	}
	switch {
	case c.KeyService():
		return fmt.Errorf("channel %s is of type %s, whose key service makes the keys: there is nothing to issue", side, c.Type)
	case c.Type == "etcd" && (o.Certificate == "" || o.Key == ""):
		return fmt.Errorf("channel %s is of type etcd: give the issuer's own --certificate and --key", side)
	case c.Type == "bundle" && o.Issuer == "" && !o.ReadOnly:
		return fmt.Errorf("channel %s is of type bundle: give --issuer, the issuer's private directory (lever keys init makes it)", side)
	case c.Type == "bundle" && o.Out == "" && c.Path == "":
		return fmt.Errorf("channel %s is fetched from %s: give the directory that is served there (--out, or --dir to look at it)", side, c.URL)
	}
	return nil
}

// nodesOf are the nodes on a link.
func nodesOf(l *inventory.Link) []string {
	var nodes []string
	for _, e := range l.Ends {
		if !e.External {
			nodes = append(nodes, e.Node)
		}
	}
	return nodes
}

// ofBundles refuses a directory that keys of type dir are in, for bundles.
func ofBundles(dirs ...string) error {
	for _, d := range dirs {
		if there(d, dir.SideMark) {
			return fmt.Errorf("%s is a directory of keys of type dir, as its file %s says; give bundles, and their issuer, a directory each of their own", d, dir.SideMark)
		}
	}
	return nil
}

// ofKeys refuses a directory for keys of type dir that is a tree of bundles, or their
// issuer's.
func ofKeys(root string) error {
	for _, name := range []string{bundle.IssuerMark, bundle.JournalFile, SigningKey} {
		if there(root, name) {
			return fmt.Errorf("%s belongs to a channel of type bundle, as its file %s says; give these keys a directory of their own, best on another system", root, name)
		}
	}
	return nil
}

func there(root, name string) bool {
	_, err := os.Lstat(filepath.Join(root, name))
	return err == nil
}

func samePath(x, y string) bool {
	if ix, err := os.Stat(x); err == nil {
		if iy, err := os.Stat(y); err == nil {
			return os.SameFile(ix, iy)
		}
	}
	ax, errX := filepath.Abs(x)
	ay, errY := filepath.Abs(y)
	return errX == nil && errY == nil && ax == ay
}

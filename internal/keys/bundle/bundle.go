// Package bundle is the channel type bundle: an issuer that is offline seals
// pre-key material to each node's public keys, anything at all carries the files,
// and a node opens what it has verified.
//
// The layout, in a directory or beneath an https URL, is
//
//	<node>/index           a signed statement: which bundles there are now
//	<node>/<epoch>.bundle  a signed statement whose payload is sealed with age
//
// The index lists the whole set; what it no longer lists is revoked. Each newer
// index and bundle has a greater sequence number, and what is older than what was
// seen is refused. The format, the reading Channel with its cache of sealed files,
// the Issuer with its ledger, and looking through what was issued belong here. The
// form of signed statements does not (internal/signed), nor do node identities
// (internal/identity), nor anything that knows the other channel.
package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/signed"
)

const (
	kindIndex  = "index"
	kindBundle = "bundle"
	indexFile  = "index"
	suffix     = ".bundle"

	// maxBundles is the most epochs that an index lists, maxGenerations the most
	// generations that a node believes an epoch to have.
	maxBundles     = 256
	maxGenerations = 1024
	// maxTogether is the most octets that the bundles of a node have together: an agent
	// keeps them all, sealed.
	maxTogether = 64 << 20
	// ahead is how many epochs that have not started a node takes.
	ahead = 2
)

// fileName is where the bundle of an epoch lies within its node's directory.
func fileName(epoch uint64) string { return strconv.FormatUint(epoch, 10) + suffix }

// epochOf is the reverse; false for what is no bundle's name.
func epochOf(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	epoch, err := strconv.ParseUint(digits, 10, 64)
	return epoch, ok && err == nil && epoch > 0 && fileName(epoch) == name
}

// Index is what the issuer has for a node.
type Index struct {
	Node     string `json:"node"`
	Sequence uint64 `json:"sequence"`
	// Inventory is LinksDigest of the node as the issuer knows it.
	Inventory string `json:"inventory"`
	// Bundles are in the order of their epochs.
	Bundles []Listed `json:"bundles"`
}

// Listed is one bundle of an Index.
type Listed struct {
	Epoch uint64 `json:"epoch"`
	// Sequence is that of the index with which this bundle came.
	Sequence uint64 `json:"sequence"`
	// Generations is one more than the highest in it, so that a node knows which
	// epochs are there although it cannot open the bundle.
	Generations uint32 `json:"generations"`
	// SHA256 and Size are the payload's: signatures may be added to the file.
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// bundleHeader is what a bundle adds to the header of its statement.
type bundleHeader struct {
	Node      string `json:"node"`
	Epoch     uint64 `json:"epoch"`
	Sequence  uint64 `json:"sequence"`
	Inventory string `json:"inventory"`
	// Recipients are the fingerprints of those whom it is sealed to.
	Recipients []string `json:"recipients"`
	// Content tells an issuer whether sealing it again would say something new.
	Content string `json:"content"`
}

// refusal is why a file is refused: a declared fault, with what was found.
type refusal struct {
	code   health.Code
	detail string
	until  time.Time
}

func (r *refusal) Error() string { return r.detail }

func refuse(code health.Code, format string, args ...any) error {
	return &refusal{code: code, detail: fmt.Sprintf(format, args...)}
}

// refused makes a refusal of an error of package signed.
func refused(err error) error {
	code := health.BundleMalformed
	switch {
	case errors.Is(err, signed.ErrTruncated):
		code = health.BundleTruncated
	case errors.Is(err, signed.ErrTampered):
		code = health.BundleTampered
	case errors.Is(err, signed.ErrUntrusted):
		code = health.BundleUntrusted
	}
	return refuse(code, "%s", err.Error())
}

// validNode reports whether a node's name can be the name of a directory.
func validNode(node string) error {
	if keys.ValidLink(node) != nil {
		return fmt.Errorf("node %q cannot name a directory: use 1 to 200 characters without slashes that do not start with a dot", node)
	}
	return nil
}

func isHex(text string, octets int) bool {
	return len(text) == 2*octets && strings.Trim(text, "0123456789abcdef") == ""
}

func (x *Index) check() error {
	bad := func(format string, args ...any) error { return refuse(health.BundleMalformed, format, args...) }
	switch {
	case validNode(x.Node) != nil:
		return bad("it names no node")
	case x.Sequence == 0:
		return bad("its sequence is zero")
	case x.Inventory != "" && !isHex(x.Inventory, sha256.Size):
		return bad("its inventory is no digest")
	case len(x.Bundles) > maxBundles:
		return bad("it lists %d bundles, at most %d are allowed", len(x.Bundles), maxBundles)
	}
	last, together := uint64(0), int64(0)
	for _, l := range x.Bundles {
		switch {
		case l.Epoch <= last:
			return bad("its epochs are not in order")
		case l.Sequence == 0 || l.Sequence > x.Sequence:
			return bad("the sequence of epoch %d is not one of 1 to %d", l.Epoch, x.Sequence)
		case l.Generations == 0 || l.Generations > maxGenerations:
			return bad("epoch %d has %d generations, not 1 to %d", l.Epoch, l.Generations, maxGenerations)
		case !isHex(l.SHA256, sha256.Size) || l.Size <= 0 || l.Size > signed.MaxSize:
			return bad("epoch %d has no digest or no size", l.Epoch)
		}
		last = l.Epoch
		if together += l.Size; together > maxTogether {
			return bad("its bundles have more than %d octets together", maxTogether)
		}
	}
	return nil
}

func (h *bundleHeader) check() error {
	switch {
	case validNode(h.Node) != nil, h.Epoch == 0, h.Sequence == 0,
		h.Inventory != "" && !isHex(h.Inventory, sha256.Size),
		!isHex(h.Content, sha256.Size),
		len(h.Recipients) == 0, !slices.IsSorted(h.Recipients),
		slices.ContainsFunc(h.Recipients, func(r string) bool { return !isHex(r, fingerprintSize) }):
		return refuse(health.BundleMalformed, "its node, epoch, sequence, digests or recipients are not what they must be")
	}
	return nil
}

// parseIndex reads an index and checks everything but whether it is the newest.
func parseIndex(text []byte, signers []signed.PublicKey, threshold int) (*signed.Statement, *Index, error) {
	s, err := signed.Parse(text)
	if err == nil {
		err = s.Verify(signers, threshold)
	}
	var x Index
	if err == nil {
		err = s.Decode(kindIndex, &x)
	}
	if err != nil {
		return nil, nil, refused(err)
	}
	if s.Size != 0 {
		return nil, nil, refuse(health.BundleMalformed, "it has a payload of %d octets", s.Size)
	}
	return s, &x, x.check()
}

// parseBundle reads a bundle and checks everything that can be checked without
// what an index says of it.
func parseBundle(text []byte, signers []signed.PublicKey, threshold int) (*signed.Statement, *bundleHeader, error) {
	s, err := signed.Parse(text)
	if err == nil {
		err = s.Verify(signers, threshold)
	}
	var h bundleHeader
	if err == nil {
		err = s.Decode(kindBundle, &h)
	}
	if err != nil {
		return nil, nil, refused(err)
	}
	return s, &h, h.check()
}

// matches checks a bundle against what the node's index lists.
func (l Listed) matches(s *signed.Statement, h *bundleHeader) error {
	switch {
	case h.Sequence < l.Sequence:
		return refuse(health.BundleReplayed, "it has sequence %d, and the index lists %d", h.Sequence, l.Sequence)
	case h.Sequence > l.Sequence:
		return refuse(health.BundleReplayed, "it has sequence %d, and the index lists %d: the index is older than what it lists", h.Sequence, l.Sequence)
	case s.SHA256 != l.SHA256 || s.Size != l.Size:
		return refuse(health.BundleTampered, "it has another digest than the one that the index lists")
	}
	return nil
}

// LinkSpec is a link as both the issuer and the node have it from the inventory.
type LinkSpec struct {
	ID    string
	Nodes []string
}

// LinksDigest is of the links that a node is on, in any order: an issuer and a
// node compare it to see whether they have the same inventory of them.
func LinksDigest(node string, links []LinkSpec) string {
	var mine []LinkSpec
	for _, l := range links {
		if slices.Contains(l.Nodes, node) {
			mine = append(mine, LinkSpec{l.ID, slices.Sorted(slices.Values(l.Nodes))})
		}
	}
	slices.SortFunc(mine, func(a, b LinkSpec) int { return strings.Compare(a.ID, b.ID) })
	h := sha256.New()
	fmt.Fprintf(h, "lever links v1 %q\n", node)
	for _, l := range mine {
		fmt.Fprintf(h, "%q %q\n", l.ID, l.Nodes)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// started tells which of the listed bundles a node may take at a time: those
// whose epochs have started, and the next two. Again is when there will be one
// more; zero for never.
func (x *Index) started(now time.Time) (take []Listed, again time.Time) {
	next := 0
	for _, l := range x.Bundles {
		start := keys.Epoch{Number: l.Epoch}.Start()
		if start.After(now) {
			if next++; next > ahead {
				// There is room for this one when the first of those has started.
				first := take[len(take)-ahead]
				return take, keys.Epoch{Number: first.Epoch}.Start()
			}
		}
		take = append(take, l)
	}
	return take, time.Time{}
}

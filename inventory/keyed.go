package inventory

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
)

// KeyedLinks returns the links whose keys come from the channels, in the order of
// the inventory: those to encrypt with a Lever at every end.
func (inv *Inventory) KeyedLinks() []*Link {
	var keyed []*Link
	for _, l := range inv.Links {
		if l.Keyed() {
			keyed = append(keyed, l)
		}
	}
	return keyed
}

// Keyed reports whether the link's keys come from the channels.
func (l *Link) Keyed() bool { return !l.External && l.Verdict.Kind == Encrypt }

// Scheduled reports whether epochs are numbered by the time at which they start,
// so that two issuers who know nothing of each other arrive at the same numbers.
// Only directories on both sides are filled by hand, with numbers that count up.
func (inv *Inventory) Scheduled() bool {
	for _, c := range []Channel{inv.Channels.A, inv.Channels.B} {
		if c.Type != "" && c.Type != "dir" {
			return true
		}
	}
	return false
}

// Digest returns what an issuer and the agent of a node must agree on before
// material can be of use: SHA-256, in hexadecimal, over the node's keyed links by
// their ids and the nodes of each, which enter the key derivation. Order, files and
// everything else about a link do not change it. A node that is not in the
// inventory has an empty one.
func (inv *Inventory) Digest(node string) string {
	if inv.Nodes[node] == nil {
		return ""
	}
	var keyed []*Link
	for _, l := range inv.byNode[node] {
		if l.Keyed() {
			keyed = append(keyed, l.Link)
		}
	}
	slices.SortFunc(keyed, func(a, b *Link) int { return strings.Compare(a.ID, b.ID) })
	h := sha256.New()
	// Each text has its length before it, so that no two inventories read alike.
	var frame []byte
	add := func(texts ...string) {
		frame = binary.BigEndian.AppendUint32(frame[:0], uint32(len(texts)))
		for _, s := range texts {
			frame = binary.BigEndian.AppendUint32(frame, uint32(len(s)))
			frame = append(frame, s...)
		}
		h.Write(frame)
	}
	add("lever inventory digest v1", node)
	for _, l := range keyed {
		nodes := nodesOf(l)
		slices.Sort(nodes)
		add(append([]string{l.ID}, nodes...)...)
	}
	return hex.EncodeToString(h.Sum(nil))
}

package bundle

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyfile"
)

// Held is a key that an issuer has for a link.
type Held struct {
	Link  string
	Nodes []string
	Epoch keys.Epoch
	// Fingerprint is that of the material, as both ends have it; zero when Err says why
	// there is none.
	Fingerprint keys.Fingerprint
	Err         error
}

// Fingerprints are of all that an issuer has, by its journal and its seeds, for these
// links and those that it still has something for, in the order of links and epochs.
// It changes nothing, and does not wait for who issues.
func Fingerprints(issuer string, side keys.Side, links []LinkSpec) ([]Held, error) {
	l := &ledger{dir: issuer}
	if err := l.load(side); err != nil {
		return nil, fmt.Errorf("reading the issuer's directory %s: %w", issuer, err)
	}
	links = slices.SortedFunc(slices.Values(links), func(a, b LinkSpec) int { return strings.Compare(a.ID, b.ID) })
	var held []Held
	for _, link := range l.all(&Options{Links: links}) {
		if slices.ContainsFunc(link.Nodes, func(n string) bool { return slices.Contains(l.RevokedNodes, n) }) {
			continue
		}
		for number, state := range l.Epochs {
			for _, g := range state.generations(link.ID) {
				held = append(held, Held{Link: link.ID, Nodes: slices.Sorted(slices.Values(link.Nodes)), Epoch: keys.Epoch{Number: number, Generation: g}})
			}
		}
	}
	// By epoch, so that there is one seed in memory at a time.
	slices.SortFunc(held, func(a, b Held) int { return a.Epoch.Compare(b.Epoch) })
	for rest := held; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].Epoch == rest[0].Epoch {
			n++
		}
		l.fingerprints(rest[:n])
		rest = rest[n:]
	}
	slices.SortStableFunc(held, func(a, b Held) int { return strings.Compare(a.Link, b.Link) })
	return held, nil
}

// fingerprints computes those of keys of one epoch.
func (l *ledger) fingerprints(held []Held) {
	seed, err := keyfile.Read(l.seedPath(held[0].Epoch), keyfile.Format{Sizes: []int{keyOctets}})
	defer seed.Erase()
	for i := range held {
		h := &held[i]
		if h.Err = err; err != nil {
			continue
		}
		key, err := keys.Derive(seed, keys.Identity{Link: h.Link, Nodes: h.Nodes}, h.Epoch)
		if h.Err = err; err == nil {
			h.Fingerprint = keys.Material{KeyID: h.Epoch.String(), Key: key}.Fingerprint()
			key.Erase()
		}
	}
}

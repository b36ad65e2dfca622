package inventory

import (
	"fmt"
	"reflect"
	"time"
)

// Inventory is one or several files, read, checked and given defaults. Nobody
// changes it after [Load]; it may be read from several goroutines.
type Inventory struct {
	Files    []string         // the files it was read from, sorted
	Policy   Policy           // with defaults filled in
	Channels Channels         // both set, or both zero when no link needs keys from them
	Sites    map[string]*Site // by name
	Nodes    map[string]*Node // by name
	Links    []*Link          // in the order of the files
	Warnings []Warning        // sorted by file and position
	// PolicyAt is where the policy is; no file has one when that is the zero value, and
	// what holds are the defaults.
	PolicyAt Position

	byNode map[string][]NodeLink
}

// Policy says which links are left alone and how the others are encrypted.
type Policy struct {
	Mode     Mode
	Inside   []Custody             // classes that are inside as they are
	InsideIf map[Custody][]Control // classes that are inside with evidence for every control listed
	Cipher   Cipher                // 256 bits: the suite of links that name none
	SAKRekey time.Duration         // the age at which a SAK is replaced; at least 30 seconds
	CAKEpoch time.Duration         // how long a CAK is meant to be used: whole minutes, at least one
	MaxAge   time.Duration         // how long a CAK may be used when no other comes; at least two epochs
	// AgeOverride lets links whose CAK is too old go on for a while.
	AgeOverride AgeOverride
}

// AgeOverride is where a statement lies that lets links go on with keys older than
// the policy's MaxAge, and who must have signed it: two of the signers.
type AgeOverride struct {
	Position
	File    string   // empty: there is none
	Signers []string // ed25519 public keys, 32 octets in base64
}

// Channels are the two ways by which pre-key material comes. Neither of them is
// enough to compute a key.
type Channels struct{ A, B Channel }

// Channel is one way by which pre-key material comes.
type Channel struct {
	Position
	Type string // dir, bundle, etcd, etsi014 or skip
	// Paths that are relative are joined to the directory of the inventory file.
	Path      string   // dir: where the key files are; bundle: where the bundles are, unless URL is set
	URL       string   // bundle: where the bundles are; etsi014, skip: the key service
	Signers   []string // bundle: the issuers' ed25519 public keys, 32 octets in base64
	Threshold int      // bundle: how many of the signers must have signed; at least 1
	Endpoints []string // etcd: the members, as https URLs
	Prefix    string   // etcd: what the names of all keys begin with; "lever" by default
	// For mutual TLS, in PEM: whom this node trusts, and what it shows. A bundle's
	// URL needs none of them.
	CA, Certificate, Key string
}

// Equal tells whether two inventories' channels are the same, wherever they stand.
func (c Channels) Equal(o Channels) bool {
	for _, x := range []*Channel{&c.A, &c.B, &o.A, &o.B} {
		x.Position = Position{}
	}
	return reflect.DeepEqual(c, o)
}

// Site is a place with one custody class.
type Site struct {
	Position
	Name    string
	Custody Custody // what a segment at this site has when it names no class; unknown by default
}

// Node is a machine on which an agent runs.
type Node struct {
	Position
	Name string
	Site string
	// Recipients are the public parts of the node's identities, age1pq…, to which
	// bundles are sealed: one, and two while one takes the place of the other.
	Recipients []string

	siteAt       Position
	recipientsAt []Position
}

// NodeLink is a link as one of its nodes sees it.
type NodeLink struct {
	*Link
	Local  End   // the end on this node
	Remote []End // the other ends; for an external link one End that has External set
}

// ForNode returns the links of a node in the order of the inventory, whatever
// their verdict. It fails when the node is not in the inventory; a node without
// links has none and no error.
func (inv *Inventory) ForNode(name string) ([]NodeLink, error) {
	if inv.Nodes[name] == nil {
		return nil, fmt.Errorf("looking up node %q: the inventory (%s) has no such node%s",
			name, describeFiles(inv.Files), hint(name, inv.Nodes))
	}
	return inv.byNode[name], nil
}

// NextChange returns the first moment after now at which the verdict of any link
// changes because evidence or an exemption expires, and false when none ever
// does.
func (inv *Inventory) NextChange(now time.Time) (time.Time, bool) {
	var first time.Time
	for _, l := range inv.Links {
		if t, ok := l.NextChange(inv.Policy, now); ok && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first, !first.IsZero()
}

// index fills the table behind ForNode.
func (inv *Inventory) index() {
	inv.byNode = make(map[string][]NodeLink, len(inv.Nodes))
	for _, l := range inv.Links {
		for i, e := range l.Ends {
			if e.External {
				continue
			}
			remote := make([]End, 0, len(l.Ends)-1)
			remote = append(append(remote, l.Ends[:i]...), l.Ends[i+1:]...)
			inv.byNode[e.Node] = append(inv.byNode[e.Node], NodeLink{Link: l, Local: e, Remote: remote})
		}
	}
}

func describeFiles(files []string) string {
	if len(files) == 1 {
		return files[0]
	}
	return fmt.Sprintf("%d files, %s the first", len(files), files[0])
}

package inventory

import (
	"fmt"
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

	byNode map[string][]NodeLink
}

// Policy says which links are left alone and how the others are encrypted.
type Policy struct {
	Mode     Mode
	Inside   []Custody             // classes that are inside as they are
	InsideIf map[Custody][]Control // classes that are inside with evidence for every control listed
	Cipher   Cipher                // 256 bits: the suite of links that name none
	SAKRekey time.Duration         // the age at which a SAK is replaced; at least 30 seconds
}

// Channels are the two ways by which pre-key material comes. Neither of them is
// enough to compute a key.
type Channels struct{ A, B Channel }

// Channel is one way by which pre-key material comes.
type Channel struct {
	Position
	Type string // dir
	Path string // relative paths are joined to the directory of the inventory file
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

	siteAt Position
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
			name, describeFiles(inv.Files), didYouMean(name, keysOf(inv.Nodes)))
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

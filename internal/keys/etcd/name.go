package etcd

import (
	"errors"
	"fmt"
	"strings"

	"github.com/lever-link/lever/internal/keys"
)

// DefaultPrefix is what the names of all keys begin with, unless the inventory says
// otherwise.
const DefaultPrefix = "lever"

// maxName is the most octets that the name of a node or a link may have.
const maxName = 128

// names are where things are beneath a channel's prefix.
type names struct{ prefix string }

// newNames checks a prefix; an empty one is the default.
func newNames(prefix string) (names, error) {
	if prefix == "" {
		prefix = DefaultPrefix
	}
	if strings.HasSuffix(prefix, "/") || len(prefix) > 256 || strings.ContainsFunc(prefix, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return names{}, fmt.Errorf("etcd prefix %q: use up to 256 printable characters without spaces that do not end in a slash", prefix)
	}
	return names{prefix}, nil
}

// validName reports whether a node's or a link's name can be part of a key's name
// and of a value: as in the inventory.
func validName(what, name string) error {
	ok := name != "" && len(name) <= maxName && name[0] != '.'
	for i := range len(name) {
		c := name[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-')
	}
	if !ok {
		return fmt.Errorf("%s %q cannot be part of an etcd key: use up to %d letters, digits, '.', '_' and '-', not beginning with '.'", what, name, maxName)
	}
	return nil
}

// nodes is what all nodes' keys begin with.
func (n names) nodes() string { return n.prefix + "/nodes/" }

// node is what all of a node's keys begin with, and what its role may read.
func (n names) node(node string) string { return n.nodes() + node + "/" }

// link is what a node's keys of a link begin with.
func (n names) link(node, link string) string { return n.node(node) + "links/" + link + "/" }

// key is the name of an epoch of a link at a node.
func (n names) key(node, link string, e keys.Epoch) string { return n.link(node, link) + e.String() }

// revoked is what the marks of a link's revoked epochs begin with.
func (n names) revoked(link string) string { return n.prefix + "/revoked/" + link + "/" }

// mark is the name of a revoked epoch's mark.
func (n names) mark(link string, e keys.Epoch) string { return n.revoked(link) + e.String() }

// goneNodes is what the marks of revoked nodes begin with.
func (n names) goneNodes() string { return n.prefix + "/revoked-nodes/" }

// goneNode is the name of a revoked node's mark.
func (n names) goneNode(node string) string { return n.goneNodes() + node }

// place is what a key's name says.
type place struct {
	node, link string
	epoch      keys.Epoch
}

// errName is a key that has not the name of pre-key material.
var errName = errors.New("its name is not <prefix>/nodes/<node>/links/<link>/<number>.<generation>")

// parse reads what key writes, and nothing else. When the epoch alone is wrong, node
// and link are returned all the same, for the fault.
func (n names) parse(name string) (place, error) {
	rest, ok := strings.CutPrefix(name, n.nodes())
	if !ok {
		return place{}, errName
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 4 || parts[1] != "links" || validName("node", parts[0]) != nil || validName("link", parts[2]) != nil {
		return place{}, errName
	}
	p := place{node: parts[0], link: parts[2]}
	e, err := keys.ParseEpoch(parts[3])
	if err != nil {
		return p, errName
	}
	p.epoch = e
	return p, nil
}

// parseMark reads what mark writes.
func (n names) parseMark(name string) (link string, e keys.Epoch, ok bool) {
	rest, ok := strings.CutPrefix(name, n.prefix+"/revoked/")
	if !ok {
		return "", keys.Epoch{}, false
	}
	link, number, ok := strings.Cut(rest, "/")
	if !ok || validName("link", link) != nil {
		return "", keys.Epoch{}, false
	}
	e, err := keys.ParseEpoch(number)
	return link, e, err == nil
}

package inventory

import (
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// channels checks that there are two that are really two: what both have in common
// is what a thief has to take only once.
func (c *checker) channels() {
	ch := &c.inv.Channels
	if ch.A.File == "" && ch.B.File == "" {
		if c.channelsBroken {
			return
		}
		for _, l := range c.inv.Links {
			_, changes := l.NextChange(c.inv.Policy, c.now)
			if !l.External && (l.Verdict.Kind == Encrypt || changes) {
				c.errorf(l.Position, "link %s is to be encrypted but the inventory has no channels to bring its keys: give channels: {a: …, b: …}", l.ID)
				return
			}
		}
		return
	}
	// Each finding stands at the channel that comes second in the file and names
	// what the first has.
	first, second, name := &ch.A, &ch.B, "a"
	if ch.B.compare(ch.A.Position) < 0 {
		first, second, name = second, first, "b"
	}
	c.apart(first, second, name)
	if first.Type == second.Type && first.Type != "" && first.Type != "dir" {
		c.warnf(second.Position, "", "channels a and b are both of type %s: what makes one of them fail, or tell its keys, may do so with the other; use two types", first.Type)
	}
	for _, ch := range []*Channel{first, second} {
		if ch.Type == "etsi014" || ch.Type == "skip" {
			c.warnf(ch.Position, "", "keys of a channel of type %s come over TLS, which is hybrid post-quantum only if the key service offers X25519MLKEM768: ask its maker; otherwise what is recorded today may be read later", ch.Type)
		}
	}
}

// apart reports what two channels have in common. name is the first one's.
func (c *checker) apart(first, second *Channel, name string) {
	if first.Path != "" && second.Path != "" {
		x, y := absolute(first.Path), absolute(second.Path)
		switch {
		case x == y:
			c.errorf(second.Position, "channels a and b have the same path %s: whoever reads it would know both halves of every key", first.Path)
		case within(x, y) || within(y, x):
			c.errorf(second.Position, "the paths of channels a and b lie one in the other (channel %s has %s): keep them apart", name, first.Path)
		}
	}
	if host, both := inBoth(first.hosts(), second.hosts()); both {
		c.errorf(second.Position, "channels a and b both come from the host %s: whoever runs it would know both halves of every key", host)
	}
	if signer, both := inBoth(first.Signers, second.Signers); both {
		c.errorf(second.Position, "channels a and b both trust the signer %s: whoever has that key could issue both halves of every key; give each channel signers of its own", signer)
	}
	for _, file := range []struct{ what, first, second string }{
		{"key", first.Key, second.Key},
		{"certificate", first.Certificate, second.Certificate},
	} {
		if file.first != "" && file.second != "" && absolute(file.first) == absolute(file.second) {
			c.errorf(second.Position, "channels a and b have the same %s %s: whoever steals it could ask for both halves of every key; give each channel one of its own", file.what, file.first)
		}
	}
	if first.CA != "" && second.CA != "" && absolute(first.CA) == absolute(second.CA) {
		c.warnf(second.Position, "", "channels a and b trust the same ca %s: whoever runs it could stand in for both; give each channel one of its own", first.CA)
	}
}

// hosts are the names of the machines that a channel is served by, without ports:
// two ports of one machine are one place to break into.
func (c *Channel) hosts() (names []string) {
	for _, s := range append([]string{c.URL}, c.Endpoints...) {
		if u, err := url.Parse(s); err == nil && u.Hostname() != "" {
			names = append(names, strings.TrimSuffix(strings.ToLower(u.Hostname()), "."))
		}
	}
	return names
}

func inBoth(a, b []string) (string, bool) {
	for _, s := range a {
		if slices.Contains(b, s) {
			return s, true
		}
	}
	return "", false
}

// recipients refuses one that two nodes have, since each could open what is the
// other's, and warns of nodes to which nothing can be sealed. That is no error: the
// inventory is there before the nodes' identities are.
func (c *checker) recipients() {
	owner := map[string]string{}
	for _, name := range keysOf(c.inv.Nodes) {
		n := c.inv.Nodes[name]
		for i, r := range n.Recipients {
			if other, ok := owner[r]; ok {
				c.errorf(n.recipientsAt[i], "nodes %s and %s have the same recipient, so that each could open what is the other's: each has an identity of its own (lever node init)", other, name)
				continue
			}
			owner[r] = name
		}
	}
	for _, name := range c.inv.Unenrolled() {
		c.warnf(c.inv.Nodes[name].Position, "", "node %s has no recipients, so that no bundle can be issued to it: run lever node init there, and then lever node enrol with what it prints", name)
	}
}

// Unenrolled returns the nodes that need bundles and to which none can be sealed,
// because they have keyed links and no recipients, in their order. Without a
// channel of type bundle there are none.
func (inv *Inventory) Unenrolled() []string {
	if inv.Channels.A.Type != "bundle" && inv.Channels.B.Type != "bundle" {
		return nil
	}
	bare := map[string]*Node{}
	for _, l := range inv.KeyedLinks() {
		for _, e := range l.Ends {
			if n := inv.Nodes[e.Node]; n != nil && len(n.Recipients) == 0 {
				bare[n.Name] = n
			}
		}
	}
	return keysOf(bare)
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// within reports whether a lies below b.
func within(a, b string) bool {
	rel, err := filepath.Rel(b, a)
	return err == nil && rel != "." && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

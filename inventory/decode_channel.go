package inventory

import (
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// defaultPrefix is what the names of all keys in etcd begin with.
const defaultPrefix = "lever"

func (d *decoder) channels(n *yaml.Node) {
	errs := len(d.errs)
	f, _ := d.mapping(n, &channelsShape)
	if n := f.values["a"]; n != nil {
		d.inv.Channels.A = d.channel(n, "a")
	}
	if n := f.values["b"]; n != nil {
		d.inv.Channels.B = d.channel(n, "b")
	}
	d.channelsBroken = len(d.errs) > errs
}

// channel decodes a channel by its type: each has keys of its own, and one that
// belongs to another type is an error, for somebody meant something by it.
func (d *decoder) channel(n *yaml.Node, name string) Channel {
	c := Channel{Position: d.at(n)}
	if n.Kind != yaml.MappingNode {
		d.errorf(c.Position, "a channel is a mapping with the key type, one of %s; found %s", strings.Join(channelTypes, ", "), describe(n))
		return c
	}
	typ := valueOf(n, "type")
	if typ == nil {
		d.errorf(c.Position, "a channel needs \"type\": one of %s", strings.Join(channelTypes, ", "))
		return c
	}
	i, ok := d.oneOf(typ, "the type of channel "+name, channelTypes)
	if !ok {
		return c
	}
	c.Type = channelTypes[i]
	f, _ := d.mapping(n, channelShapes[i])
	what := func(key string) string { return "the " + key + " of channel " + name }
	for key, to := range map[string]*string{"path": &c.Path, "ca": &c.CA, "certificate": &c.Certificate, "key": &c.Key} {
		if n := f.values[key]; n != nil {
			if p, ok := d.text(n, what(key)); ok {
				*to = d.resolve(p)
			}
		}
	}
	if n := f.values["url"]; n != nil {
		c.URL, _ = d.https(n, what("url"), &urlPattern)
	}
	switch c.Type {
	case "bundle":
		d.bundle(&c, f, name)
	case "etcd":
		d.etcd(&c, f, name)
	}
	return c
}

// bundle decodes what only that type has.
func (d *decoder) bundle(c *Channel, f fields, name string) {
	path, link := f.values["path"], f.values["url"]
	switch {
	case path == nil && link == nil:
		d.errorf(f.at, "%s needs \"path\" or \"url\": where the bundles are", bundleShape.noun)
	case path != nil && link != nil:
		d.errorf(d.at(link), "%s has either path or url, not both", bundleShape.noun)
	}
	c.Threshold = 1
	n := f.values["signers"]
	if n == nil {
		return
	}
	c.Signers = d.signers(n, "channels."+name+".signers", 1)
	if t := f.values["threshold"]; t != nil && n.Kind == yaml.SequenceNode && len(n.Content) > 0 {
		if v, ok := d.integer(t, "the threshold of channel "+name, 1, uint64(len(n.Content))); ok {
			c.Threshold = int(v)
		}
	}
}

// etcd decodes what only that type has.
func (d *decoder) etcd(c *Channel, f fields, name string) {
	c.Prefix = defaultPrefix
	if n := f.values["prefix"]; n != nil {
		if s, ok := d.formed(n, "the prefix of channel "+name, &prefixPattern); ok {
			c.Prefix = s
		}
	}
	n := f.values["endpoints"]
	if n == nil {
		return
	}
	list := d.list(n, "channels."+name+".endpoints")
	if n.Kind == yaml.SequenceNode && len(list) == 0 {
		d.errorf(d.at(n), "channels.%s.endpoints is empty: list the members of the cluster", name)
	}
	for _, e := range list {
		s, ok := d.https(e, "an endpoint of channel "+name, &endpointPattern)
		switch {
		case ok && slices.Contains(c.Endpoints, s):
			d.errorf(d.at(e), "the endpoint %s is twice in channel %s", s, name)
		case ok:
			c.Endpoints = append(c.Endpoints, s)
		}
	}
}

// https decodes a URL in a form by which two of the same can be told. Secrets of
// whoever may fetch have no place in it: an inventory is read by many.
func (d *decoder) https(n *yaml.Node, what string, p *pattern) (string, bool) {
	s, ok := d.formed(n, what, p)
	if !ok {
		return "", false
	}
	u, err := url.Parse(s)
	if err == nil && u.Port() != "" {
		if port, e := strconv.ParseUint(u.Port(), 10, 16); e != nil || port == 0 {
			d.errorf(d.at(n), "%s has the port %s, which is none", what, u.Port())
			return "", false
		}
	}
	if err != nil || u.Hostname() == "" {
		d.errorf(d.at(n), "%s must be %s; found %s", what, p.form, quoteShort(s))
		return "", false
	}
	u.Host = strings.ToLower(u.Host)
	return strings.TrimRight(u.String(), "/"), true
}

// signers decodes a list of at least so many public keys, each once.
func (d *decoder) signers(n *yaml.Node, what string, least int) []string {
	var keys []string
	list := d.list(n, what)
	if n.Kind == yaml.SequenceNode && len(list) < least {
		d.errorf(d.at(n), "%s must list at least %d; found %d", what, least, len(list))
	}
	for _, e := range list {
		s, ok := d.formed(e, "one of "+what, &signerPattern)
		switch {
		case ok && slices.Contains(keys, s):
			d.errorf(d.at(e), "%s is twice in %s", s, what)
		case ok:
			keys = append(keys, s)
		}
	}
	return keys
}

// resolve makes a path relative to the file that names it.
func (d *decoder) resolve(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(filepath.Dir(d.file), path)
}

// valueOf is the first value of a key in a mapping, or nil.
func valueOf(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

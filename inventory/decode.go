package inventory

import (
	"slices"
	"time"

	"gopkg.in/yaml.v3"
)

// decoder turns YAML nodes into an inventory, file by file. It checks what one
// file can show; the checker sees to what needs them all.
type decoder struct {
	*findings
	inv  *Inventory
	file string

	policyAt, channelsAt       Position // where they were first, if they were
	insideGiven, insideIfGiven bool
	insideAt                   map[Custody]Position
	insideIfAt                 map[Custody]Position
	channelsBroken             bool
}

// document decodes one file; it returns false when the file cannot be read as an
// inventory at all.
func (d *decoder) document(doc document) bool {
	d.file = doc.file
	root := d.parse(doc.data)
	if root == nil {
		return false
	}
	f, ok := d.mapping(root, &fileShape)
	if !ok {
		return false
	}
	if n := f.values["apiVersion"]; n != nil {
		d.oneOf(n, "apiVersion", []string{apiVersion})
	}
	if n := f.values["policy"]; n != nil && d.once(n, "policy", &d.policyAt) {
		d.policy(n)
	}
	if n := f.values["channels"]; n != nil && d.once(n, "channels", &d.channelsAt) {
		d.channels(n)
	}
	if n := f.values["sites"]; n != nil {
		d.named(n, "sites", d.site)
	}
	if n := f.values["nodes"]; n != nil {
		d.named(n, "nodes", d.node)
	}
	if n := f.values["links"]; n != nil {
		for _, l := range d.list(n, "links") {
			if l.Kind == yaml.MappingNode {
				d.inv.Links = append(d.inv.Links, d.link(l))
				continue
			}
			d.mapping(l, &linkShape) // says what it should have been
		}
	}
	return true
}

// once reports whether a section that belongs to the whole inventory has not
// been in another file.
func (d *decoder) once(n *yaml.Node, what string, first *Position) bool {
	if first.File != "" {
		d.errorf(d.at(n), "%s is already at %s: it belongs in one file", what, first)
		return false
	}
	*first = d.at(n)
	return true
}

// named decodes a mapping from names to things.
func (d *decoder) named(n *yaml.Node, what string, decode func(at Position, name string, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.errorf(d.at(n), "%s is a mapping from names to their fields; found %s", what, describe(n))
		return
	}
	for _, p := range d.pairs(n) {
		if name, ok := d.formed(p.key, "a name in "+what, &namePattern); ok {
			decode(d.at(p.key), name, p.value)
		}
	}
}

func (d *decoder) site(at Position, name string, n *yaml.Node) {
	if prev := d.inv.Sites[name]; prev != nil {
		d.errorf(at, "the site %s is already at %s", name, prev.Position)
		return
	}
	s := &Site{Position: at, Name: name, Custody: UnknownCustody}
	d.inv.Sites[name] = s
	f, _ := d.mapping(n, &siteShape)
	if n := f.values["custody"]; n != nil {
		s.Custody = d.custody(n, "")
	}
}

func (d *decoder) node(at Position, name string, n *yaml.Node) {
	if prev := d.inv.Nodes[name]; prev != nil {
		d.errorf(at, "the node %s is already at %s", name, prev.Position)
		return
	}
	node := &Node{Position: at, Name: name}
	d.inv.Nodes[name] = node
	f, _ := d.mapping(n, &nodeShape)
	if n := f.values["site"]; n != nil {
		node.Site, _ = d.text(n, "the site of node "+name)
		node.siteAt = d.at(n)
	}
	if n := f.values["recipients"]; n != nil {
		d.recipients(node, n)
	}
}

// custody decodes a class. A word that is none is kept: it counts as outside.
func (d *decoder) custody(n *yaml.Node, link string) Custody {
	s, ok := d.text(n, "custody")
	if !ok {
		return UnknownCustody
	}
	if c := Custody(s); !c.Known() {
		d.warnf(d.at(n), link, "%s is not a custody class, so it counts as outside physical control%s",
			quoteShort(s), didYouMean(s, custodies))
	}
	return Custody(s)
}

func (d *decoder) policy(n *yaml.Node) {
	p := &d.inv.Policy
	f, _ := d.mapping(n, &policyShape)
	if n := f.values["mode"]; n != nil {
		if i, ok := d.oneOf(n, "policy.mode", modes); ok {
			p.Mode = Mode(i)
		}
		if p.Mode == Monitor {
			d.warnf(d.at(n), "", "the mode is monitor: links are negotiated but the fence stays open, so plain frames pass")
		}
	}
	if n := f.values["inside"]; n != nil {
		d.insideGiven = true
		for _, e := range d.list(n, "policy.inside") {
			if c, ok := d.policyClass(e, "policy.inside", d.insideAt); ok {
				p.Inside = append(p.Inside, c)
				d.insideAt = with(d.insideAt, c, d.at(e))
			}
		}
	}
	if n := f.values["inside_if"]; n != nil {
		d.insideIfGiven = true
		d.insideIf(n)
	}
	if n := f.values["cipher"]; n != nil {
		if i, ok := d.oneOf(n, "policy.cipher", ciphers); ok && Cipher(i).Bits() < 256 {
			d.errorf(d.at(n), "policy.cipher must have 256 bits: use %s or %s; a link with an external end may ask for %s",
				GCMAESXPN256, GCMAES256, Cipher(i))
		} else if ok {
			p.Cipher = Cipher(i)
		}
	}
	if n := f.values["sak_rekey"]; n != nil {
		if v, ok := d.duration(n, "policy.sak_rekey", 30*time.Second); ok {
			p.SAKRekey = v
		}
	}
	d.keyAges(f)
}

func (d *decoder) insideIf(n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		d.errorf(d.at(n), "policy.inside_if is a mapping from custody classes to lists of controls; found %s", describe(n))
		return
	}
	d.inv.Policy.InsideIf = map[Custody][]Control{}
	for _, p := range d.pairs(n) {
		class, ok := d.policyClass(p.key, "policy.inside_if", nil)
		if !ok {
			continue
		}
		if at, dup := d.insideAt[class]; dup {
			d.errorf(d.at(p.key), "%s is in policy.inside (line %d), which asks for no controls: keep it in one of the two",
				class, at.Line)
			continue
		}
		what := "policy.inside_if." + string(class)
		var controls []Control
		list := d.list(p.value, what)
		for _, e := range list {
			c, ok := d.text(e, "a control in "+what)
			switch {
			case ok && slices.Contains(controls, Control(c)):
				d.errorf(d.at(e), "the control %s is twice in %s", quoteShort(c), what)
			case ok:
				controls = append(controls, Control(c))
			}
		}
		if p.value.Kind == yaml.SequenceNode && len(list) == 0 {
			d.errorf(d.at(p.value), "%s asks for no control: list at least one, or put the class in policy.inside", what)
		}
		d.inv.Policy.InsideIf[class] = controls
		d.insideIfAt = with(d.insideIfAt, class, d.at(p.key))
	}
}

// policyClass decodes a class that a policy trusts. Unlike in a segment, a word
// that is no class is an error here: nothing safe follows from a policy that
// does not say what was meant.
func (d *decoder) policyClass(n *yaml.Node, what string, seen map[Custody]Position) (Custody, bool) {
	i, ok := d.oneOf(n, "a class in "+what, custodies)
	if !ok {
		return "", false
	}
	c := Custody(custodies[i])
	switch at, dup := seen[c]; {
	case dup:
		d.errorf(d.at(n), "%s is already on line %d", c, at.Line)
		return "", false
	case c == UnknownCustody:
		d.errorf(d.at(n), "%s may not list unknown: unknown means outside physical control", what)
		return "", false
	case c.operatedByOthers():
		d.warnf(d.at(n), "", "%s lists %s, which is in other hands: links over it may be left in the clear", what, c)
	}
	return c, true
}

func with(m map[Custody]Position, c Custody, at Position) map[Custody]Position {
	if m == nil {
		m = map[Custody]Position{}
	}
	m[c] = at
	return m
}

// finishPolicy fills in the defaults. A class that the inventory puts into one
// of the two lists leaves the default of the other.
func (d *decoder) finishPolicy() {
	p := &d.inv.Policy
	if !d.insideGiven {
		for _, c := range []Custody{ControlledRoom, ControlledBuilding} {
			if _, moved := d.insideIfAt[c]; !moved {
				p.Inside = append(p.Inside, c)
			}
		}
	}
	if !d.insideIfGiven {
		p.InsideIf = map[Custody][]Control{}
		if _, moved := d.insideAt[CampusDuct]; !moved {
			p.InsideIf[CampusDuct] = []Control{"locked-duct", "duct-intrusion-detection"}
		}
	}
	if p.SAKRekey == 0 {
		p.SAKRekey = time.Hour
	}
	for _, l := range d.inv.Links {
		if !l.ownCipher {
			l.Cipher = p.Cipher
		}
	}
}

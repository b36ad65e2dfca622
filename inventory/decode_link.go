package inventory

import (
	"net/netip"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxMembers bounds a group CA so that a member's MKPDU, with every other member
// in its peer lists at 16 octets each beside some 200 octets of other parameter
// sets, fits an Ethernet frame of 1500 octets with room to spare.
const maxMembers = 64

// link decodes a link. What is wrong with one part of it does not keep the other
// parts from being checked in the same run.
func (d *decoder) link(n *yaml.Node) *Link {
	f, _ := d.mapping(n, &linkShape)
	l := &Link{Position: f.at, MKA: DefaultMKA(), ID: "without id", badID: true}
	if n := f.values["id"]; n != nil {
		l.Position = d.at(n)
		if id, ok := d.formed(n, "the id of a link", &namePattern); ok {
			l.ID, l.badID = id, false
		} else if n.Kind == yaml.ScalarNode {
			l.ID = quoteShort(n.Value)
		}
	}
	d.ends(l, f)
	if n := f.values["segments"]; n != nil {
		l.segmentsAt = d.at(n)
		for _, s := range d.list(n, "segments") {
			l.Segments = append(l.Segments, d.segment(s, l.ID))
		}
	}
	if n := f.values["override"]; n != nil {
		l.Override = d.override(n)
	}
	if n := f.values["psk"]; n != nil {
		l.pskAt = d.at(n)
		d.psks(l, n)
	}
	if n := f.values["cipher"]; n != nil {
		l.cipherAt = d.at(n)
		if i, ok := d.oneOf(n, "cipher", ciphers); ok {
			l.Cipher, l.ownCipher = Cipher(i), true
		}
	}
	if n := f.values["mka"]; n != nil {
		d.mka(l, n)
	}
	if n := f.values["allow"]; n != nil {
		l.allowAt = d.at(n)
		d.allow(l, n)
	}
	return l
}

// allow decodes what may pass the fence in the clear.
func (d *decoder) allow(l *Link, n *yaml.Node) {
	first := map[string]Position{}
	for _, e := range d.list(n, "allow") {
		s, ok := d.text(e, "a protocol in allow")
		switch at, dup := first[s]; {
		case !ok:
		case dup:
			d.errorf(d.at(e), "%s is already in allow at %s", s, at)
		case !slices.Contains(protocols, s):
			d.errorf(d.at(e), "allow may list %s, which tell of a cable and end with it; found %s%s: what could carry payload never passes in the clear",
				strings.Join(protocols, ", "), quoteShort(s), didYouMean(s, protocols))
		default:
			first[s] = d.at(e)
		}
	}
	for _, p := range protocols {
		if _, ok := first[p]; ok {
			l.Allow = append(l.Allow, Protocol(p))
		}
	}
}

// ends decodes a and z, or members.
func (d *decoder) ends(l *Link, f fields) {
	a, z, members := f.values["a"], f.values["z"], f.values["members"]
	if members != nil {
		l.Group = true
		if a != nil || z != nil {
			d.errorf(d.at(members), "a link has either a and z or members, not both")
			return
		}
		list := d.list(members, "members")
		if members.Kind == yaml.SequenceNode && (len(list) < 2 || len(list) > maxMembers) {
			d.errorf(d.at(members), "members must list from 2 to %d ends; found %d", maxMembers, len(list))
		}
		d.endList(l, list)
		return
	}
	var list []*yaml.Node
	for _, e := range []struct {
		name string
		node *yaml.Node
	}{{"a", a}, {"z", z}} {
		if e.node == nil {
			d.errorf(f.at, "a link needs \"a\" and \"z\", or \"members\"; %q is missing", e.name)
			continue
		}
		list = append(list, e.node)
	}
	d.endList(l, list)
	l.endsKnown = l.endsKnown && len(l.Ends) == 2
}

func (d *decoder) endList(l *Link, list []*yaml.Node) {
	l.endsKnown = true
	for _, n := range list {
		e, ok := d.end(n)
		l.endsKnown = l.endsKnown && ok
		if e.External {
			switch {
			case l.Group:
				d.errorf(e.Position, "a member cannot be external: a group needs keys from the channels at every end")
				l.endsKnown = false
			case l.External:
				d.errorf(e.Position, "both ends are external: one of them must be a node of the inventory")
			}
			l.External = true
		}
		l.Ends = append(l.Ends, e)
	}
}

// end decodes one end in its long or its short form. It returns false, and what
// it could read, after an error.
func (d *decoder) end(n *yaml.Node) (End, bool) {
	e := End{Position: d.at(n), nodeAt: d.at(n), interfaceAt: d.at(n), secureAt: d.at(n)}
	if n.Kind == yaml.ScalarNode {
		s, ok := d.text(n, "an end")
		if !ok {
			return e, false
		}
		if s == "external" {
			e.External = true
			return e, true
		}
		var cut bool
		if e.Node, e.Interface, cut = strings.Cut(s, "/"); !cut || e.Node == "" || e.Interface == "" {
			d.errorf(e.Position, "an end is node/interface, a mapping, or the word external; found %s", quoteShort(s))
			return End{Position: e.Position}, false
		}
		if !d.device(e.interfaceAt, "the interface", e.Interface) {
			e.Interface = ""
			return e, false
		}
		return e, d.secure(&e, nil)
	}
	f, ok := d.mapping(n, &endShape)
	if !ok {
		return e, false
	}
	if n := f.values["node"]; n != nil {
		e.nodeAt = d.at(n)
		e.Node, _ = d.text(n, "the node of an end")
	}
	if n := f.values["interface"]; n != nil {
		e.interfaceAt, e.secureAt = d.at(n), d.at(n)
		if s, ok := d.text(n, "the interface of an end"); ok && d.device(e.interfaceAt, "the interface", s) {
			e.Interface = s
		}
	}
	if n := f.values["addresses"]; n != nil {
		for _, a := range d.list(n, "addresses") {
			if p, ok := d.address(a); ok {
				e.Addresses = append(e.Addresses, p)
				e.addressesAt = append(e.addressesAt, d.at(a))
			}
		}
	}
	secureOK := d.secure(&e, f.values["secure"])
	return e, e.Node != "" && e.Interface != "" && secureOK
}

// secure decodes the name of the secured device, or makes it.
func (d *decoder) secure(e *End, n *yaml.Node) bool {
	if n != nil {
		e.secureAt = d.at(n)
		s, ok := d.text(n, "secure")
		if !ok || !d.device(e.secureAt, "the secured device", s) {
			return false
		}
		e.Secure = s
		return true
	}
	if e.Interface == "" {
		return false
	}
	e.Secure = e.Interface + "-sec"
	if len(e.Secure) > maxDevice {
		d.errorf(e.secureAt, "the secured device of %s would be called %s, which has %d octets; the kernel takes %d: name it with secure: NAME",
			e.Interface, e.Secure, len(e.Secure), maxDevice)
		e.Secure = ""
		return false
	}
	return true
}

// maxDevice is the kernel's IFNAMSIZ without the final NUL.
const maxDevice = 15

// device checks a name as the kernel does when it makes a device.
func (d *decoder) device(at Position, what, name string) bool {
	switch {
	case len(name) > maxDevice:
		d.errorf(at, "%s %s has %d octets; the kernel takes %d", what, quoteShort(name), len(name), maxDevice)
	case !devicePattern.matches(name):
		d.errorf(at, "%s must be %s; found %s", what, devicePattern.form, quoteShort(name))
	case name == "." || name == "..":
		// dev_valid_name: a device is a directory in sysfs.
		d.errorf(at, "%s cannot be called %s", what, quoteShort(name))
	case name == "all" || name == "default":
		// sysctl_dev_name_is_allowed: both are directories in net.ipv4.conf.
		d.errorf(at, "%s cannot be called %s: the kernel keeps that name for itself", what, quoteShort(name))
	default:
		return true
	}
	return false
}

// address decodes an address with its prefix length, as an interface has it.
func (d *decoder) address(n *yaml.Node) (netip.Prefix, bool) {
	s, ok := d.text(n, "an address")
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		d.errorf(d.at(n), "an address must be written with its prefix length, such as 10.0.17.0/31 or 2001:db8::1/64; found %s", quoteShort(s))
	case p.Addr().Is4In6() || p.Addr().IsUnspecified() || p.Addr().IsMulticast() || p.Addr().IsLoopback():
		d.errorf(d.at(n), "%s is not an address that a link can have", s)
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

func (d *decoder) segment(n *yaml.Node, link string) Segment {
	s := Segment{Position: d.at(n)}
	f, ok := d.mapping(n, &segmentShape)
	if n := f.values["custody"]; n != nil {
		s.Custody = d.custody(n, link)
	}
	if n := f.values["site"]; n != nil {
		s.Site, _ = d.text(n, "the site of a segment")
		s.siteAt = d.at(n)
	}
	if ok && f.values["custody"] == nil && f.values["site"] == nil {
		d.errorf(s.Position, "a segment needs \"custody\", or \"site\" to take the custody of a site; custody: unknown is an answer, too")
	}
	if n := f.values["provider"]; n != nil {
		s.Provider, _ = d.text(n, "the provider of a segment")
	}
	if n := f.values["ref"]; n != nil {
		s.Ref, _ = d.text(n, "the ref of a segment")
	}
	if n := f.values["controls"]; n != nil {
		for _, c := range d.list(n, "controls") {
			s.Controls = append(s.Controls, d.evidence(c))
		}
	}
	return s
}

func (d *decoder) evidence(n *yaml.Node) Evidence {
	e := Evidence{Position: d.at(n)}
	f, _ := d.mapping(n, &evidenceShape)
	if n := f.values["control"]; n != nil {
		s, _ := d.text(n, "a control")
		e.Control = Control(s)
	}
	if n := f.values["evidence"]; n != nil {
		e.Evidence, _ = d.text(n, "the evidence of a control")
	}
	if n := f.values["expires"]; n != nil {
		e.Expires, _ = d.date(n, "expires")
	}
	return e
}

// override decodes an operator's decision. To encrypt needs no leave; to leave
// in the clear needs two people, a reason and an end.
func (d *decoder) override(n *yaml.Node) *Override {
	o := &Override{Position: d.at(n)}
	if n.Kind == yaml.ScalarNode {
		if i, ok := d.oneOf(n, "override", []string{"encrypt", "exempt"}); ok && i == 1 {
			d.errorf(o.Position, "override: exempt needs two approvers, a reason and an expiry date: "+
				"{action: exempt, approvers: [NAME, NAME], reason: TEXT, expires: YYYY-MM-DD}")
		}
		return o
	}
	f, ok := d.mapping(n, &overrideShape)
	if !ok {
		return o
	}
	if n := f.values["action"]; n != nil {
		if i, ok := d.oneOf(n, "the action of an override", []string{"encrypt", "exempt"}); ok && i == 1 {
			o.Action = Exempt
		}
	}
	if n := f.values["approvers"]; n != nil {
		for _, a := range d.list(n, "approvers") {
			s, ok := d.text(a, "an approver")
			same := func(other string) bool { return strings.EqualFold(strings.TrimSpace(other), strings.TrimSpace(s)) }
			switch {
			case ok && slices.ContainsFunc(o.Approvers, same):
				d.errorf(d.at(a), "%s approves twice: it takes two different people", quoteShort(s))
			case ok:
				o.Approvers = append(o.Approvers, s)
			}
		}
	}
	if n := f.values["reason"]; n != nil {
		o.Reason, _ = d.text(n, "the reason of an override")
	}
	if n := f.values["expires"]; n != nil {
		o.Expires, _ = d.date(n, "expires")
	}
	if o.Action != Exempt {
		return o
	}
	if list := f.values["approvers"]; list == nil || (list.Kind == yaml.SequenceNode && len(list.Content) < 2) {
		d.errorf(o.Position, "an exemption needs two approvers; found %d", len(o.Approvers))
	}
	if f.values["reason"] == nil {
		d.errorf(o.Position, "an exemption needs a reason")
	}
	if f.values["expires"] == nil {
		d.errorf(o.Position, "an exemption needs an expiry date: expires: YYYY-MM-DD")
	}
	return o
}

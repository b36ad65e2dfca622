package inventory

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// noticeBefore is how long before its expiry an evidence or an exemption is
// worth a warning: long enough to renew it.
const noticeBefore = 30 * 24 * time.Hour

// checker holds the decoded files against each other.
type checker struct {
	*findings
	inv            *Inventory
	now            time.Time
	channelsBroken bool // channels are there and were reported already
}

func (c *checker) run() {
	c.sites()
	devices := map[device]use{}
	addresses := map[nodeAddress]use{}
	ids := make(map[string]*Link, len(c.inv.Links))
	for _, l := range c.inv.Links {
		if prev := ids[l.ID]; prev != nil && !l.badID {
			c.errorf(l.Position, "the link id %s is already at %s", l.ID, prev.Position)
		} else {
			ids[l.ID] = l
		}
		c.segments(l)
		c.endsOf(l)
		c.addressesOf(l, addresses)
		c.subnets(l)
		if l.endsKnown {
			c.external(l)
		}
		c.replayWindow(l)
		c.chain(l)
		c.verdict(l)
		c.allow(l)
	}
	c.devicesOf(devices)
	c.channels()
	c.recipients()
}

func (c *checker) sites() {
	for _, name := range keysOf(c.inv.Nodes) {
		n := c.inv.Nodes[name]
		if n.Site != "" && c.inv.Sites[n.Site] == nil {
			c.errorf(n.siteAt, "node %s is at site %s, which is not in sites%s",
				name, quoteShort(n.Site), hint(n.Site, c.inv.Sites))
		}
	}
}

// segments resolves sites and gives a segment without a class its site's.
func (c *checker) segments(l *Link) {
	for i := range l.Segments {
		s := &l.Segments[i]
		if s.Site != "" {
			site := c.inv.Sites[s.Site]
			switch {
			case site == nil:
				c.errorf(s.siteAt, "segment %d of link %s is at site %s, which is not in sites%s",
					i+1, l.ID, quoteShort(s.Site), hint(s.Site, c.inv.Sites))
			case s.Custody == "":
				s.Custody = site.Custody
			}
		}
		if s.Custody == "" {
			s.Custody = UnknownCustody
		}
		asked := c.inv.Policy.InsideIf[s.Custody]
		for _, e := range s.Controls {
			if len(asked) > 0 && e.Control != "" && !slices.Contains(asked, e.Control) {
				c.warnf(e.Position, l.ID, "the policy asks for no control %s of a %s, so this evidence changes nothing%s",
					quoteShort(string(e.Control)), s.Custody, didYouMean(string(e.Control), texts(asked)))
			}
		}
	}
}

func (c *checker) endsOf(l *Link) {
	seen := map[string]bool{}
	for _, e := range l.Ends {
		if e.Node == "" {
			continue
		}
		if c.inv.Nodes[e.Node] == nil {
			c.errorf(e.nodeAt, "link %s ends at node %s, which is not in nodes%s",
				l.ID, quoteShort(e.Node), hint(e.Node, c.inv.Nodes))
		}
		if seen[e.Node] {
			c.errorf(e.nodeAt, "link %s ends twice at node %s: the ends of a link are different nodes", l.ID, e.Node)
		}
		seen[e.Node] = true
	}
}

type device struct{ node, name string }

// use is where something that there may be once was first seen.
type use struct {
	link *Link
	what string
	at   Position
}

// devicesOf checks that no two things on a node have one name. The parents come
// first, so that an error stands at the secured device that collides with them.
func (c *checker) devicesOf(seen map[device]use) {
	taken := map[*End]bool{}
	claim := func(l *Link, e *End, name, what string, at Position) {
		if e.Node == "" || name == "" || (taken[e] && e.Secure == e.Interface+"-sec") {
			return // external, or reported already
		}
		if prev, ok := seen[device{e.Node, name}]; ok {
			c.errorf(at, "%s %s of node %s is already %s of link %s at %s", what, name, e.Node, prev.what, prev.link.ID, prev.at)
			taken[e] = true
			return
		}
		seen[device{e.Node, name}] = use{l, what, at}
	}
	for _, secured := range []bool{false, true} {
		for _, l := range c.inv.Links {
			for i := range l.Ends {
				if e := &l.Ends[i]; secured {
					claim(l, e, e.Secure, "the secured device", e.secureAt)
				} else {
					claim(l, e, e.Interface, "the interface", e.interfaceAt)
				}
			}
		}
	}
}

type nodeAddress struct {
	node    string // empty for the inventory as a whole
	address netip.Addr
}

// addressesOf checks that an address is there once on a link and on a node.
// Elsewhere it may be meant (separate routing tables), so that is a warning.
func (c *checker) addressesOf(l *Link, seen map[nodeAddress]use) {
	local := map[netip.Addr]use{}
	for _, e := range l.Ends {
		for i, p := range e.Addresses {
			at := e.addressesAt[i]
			if prev, ok := local[p.Addr()]; ok {
				c.errorf(at, "the address %s is already on this link at %s", p.Addr(), prev.at)
				continue
			}
			here := use{l, "", at}
			local[p.Addr()] = here
			if p.Addr().IsLinkLocalUnicast() || e.Node == "" {
				continue // means nothing beyond its link
			}
			if prev, ok := seen[nodeAddress{e.Node, p.Addr()}]; ok {
				c.errorf(at, "the address %s is already on node %s, link %s at %s", p.Addr(), e.Node, prev.link.ID, prev.at)
				continue
			}
			seen[nodeAddress{e.Node, p.Addr()}] = here
			if prev, ok := seen[nodeAddress{"", p.Addr()}]; ok {
				c.warnf(at, l.ID, "the address %s is also on link %s at %s", p.Addr(), prev.link.ID, prev.at)
				continue
			}
			seen[nodeAddress{"", p.Addr()}] = here
		}
	}
}

// subnets warns when ends that have addresses share no subnet.
func (c *checker) subnets(l *Link) {
	first := -1
	for i, e := range l.Ends {
		switch {
		case len(e.Addresses) == 0:
		case first < 0:
			first = i
		case !shareSubnet(l.Ends[first].Addresses, e.Addresses):
			c.warnf(e.addressesAt[0], l.ID, "the ends of link %s are in different subnets: %s has %s, %s has %s",
				l.ID, l.Ends[first], list(l.Ends[first].Addresses), e, list(e.Addresses))
		}
	}
}

func shareSubnet(a, b []netip.Prefix) bool {
	return slices.ContainsFunc(a, func(p netip.Prefix) bool {
		return slices.ContainsFunc(b, func(q netip.Prefix) bool { return p.Masked() == q.Masked() })
	})
}

// external checks what only a link to equipment of others may have, and must.
func (c *checker) external(l *Link) {
	if l.External {
		if l.pskAt.File == "" {
			c.errorf(l.Position, "link %s ends at external equipment and has no key: give psk: [{ckn: HEX, cak_file: PATH}]", l.ID)
		}
		if l.ownCipher && l.Cipher.Bits() < 256 {
			c.warnf(l.cipherAt, l.ID, "link %s uses %s, which is below the policy of 256 bits", l.ID, l.Cipher)
		}
		return
	}
	if l.pskAt.File != "" {
		c.errorf(l.pskAt, "link %s has a psk but no external end: its keys come from the channels", l.ID)
	}
	for _, key := range keysOf(l.mkaAt) {
		if key != "delay_protect" && key != "replay_window" {
			c.errorf(l.mkaAt[key], "link %s sets mka.%s but has no external end: between Levers there is nothing to tune but delay_protect and replay_window",
				l.ID, key)
		}
	}
	if l.ownCipher && l.Cipher.Bits() < 256 {
		c.errorf(l.cipherAt, "link %s has no external end and so needs 256 bits: use %s or %s; found %s",
			l.ID, GCMAESXPN256, GCMAES256, l.Cipher)
	}
}

// maxXPNWindow is the widest replay window of the XPN suites (IEEE 802.1AEbw
// 10.7.8); Linux refuses a wider one (macsec_validate_attr).
const maxXPNWindow = 1<<30 - 1

// replayWindow waits for the policy's cipher, which may be in another file.
func (c *checker) replayWindow(l *Link) {
	if l.Cipher.XPN() && l.MKA.ReplayWindow > maxXPNWindow {
		c.errorf(l.mkaAt["replay_window"], "mka.replay_window must be at most %d with %s; found %d", maxXPNWindow, l.Cipher, l.MKA.ReplayWindow)
	}
}

// allow waits for the verdict. It is no error: verdicts change with time.
func (c *checker) allow(l *Link) {
	if len(l.Allow) > 0 && l.Verdict.Kind != Encrypt {
		c.warnf(l.allowAt, l.ID, "link %s is not encrypted (%s), so that everything passes and allow changes nothing", l.ID, l.Verdict.Kind)
	}
}

func (c *checker) verdict(l *Link) {
	p := c.inv.Policy
	l.Verdict = l.VerdictAt(p, c.now)
	encryptedAnyway := l.Override != nil && l.Override.Action == Encrypt
	if l.endsKnown && !encryptedAnyway && l.custodyAt(p, c.now).Kind == Inside {
		c.crossing(l)
	}
	if o := l.Override; o != nil && o.Action == Exempt {
		if holds(o.Expires, c.now) {
			c.warnf(o.Position, l.ID, "link %s is left in the clear until %s by an exemption", l.ID, day(o.Expires))
		} else {
			c.warnf(o.Position, l.ID, "the exemption of link %s expired on %s: take it out", l.ID, day(o.Expires))
		}
	}
	if l.Verdict.Kind == Inside {
		if t, ok := l.NextChange(p, c.now); ok && t.Sub(c.now) < noticeBefore {
			c.warnf(l.segmentsAt, l.ID, "the evidence of link %s expires on %s, and the link will then be encrypted", l.ID, day(t))
		}
	}
}

// crossing checks that a link between sites that is inside lists what lies
// between them. The sites are those of its nodes and of its segments, which are
// listed from one end to the other, unless there are more than two ends.
func (c *checker) crossing(l *Link) {
	var sites []string
	pass := func(site string) {
		if site != "" && !slices.Contains(sites, site) {
			sites = append(sites, site)
		}
	}
	for _, e := range l.Ends {
		if n := c.inv.Nodes[e.Node]; n != nil {
			pass(n.Site)
		}
	}
	ever := slices.ContainsFunc(l.Segments, func(s Segment) bool { return s.Site == "" && !s.Custody.withinSite() })
	last, crossed := "", false
	for _, s := range l.Segments {
		switch {
		case s.Site != "":
			if last != "" && s.Site != last && !crossed && ever && !l.Group {
				c.errorf(s.siteAt, "link %s claims to be inside, but none of its segments lies between %s and %s: list it, with the custody of the way between them",
					l.ID, last, s.Site)
				return
			}
			last, crossed = s.Site, false
			pass(s.Site)
		case !s.Custody.withinSite():
			crossed = true
		}
	}
	if len(sites) < 2 || ever {
		return
	}
	c.errorf(l.segmentsAt, "link %s runs between sites %s and claims to be inside, but none of its segments lies between the sites: list it, with the custody of the way between them",
		l.ID, strings.Join(sites, " and "))
}

func texts[T ~string](in []T) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = string(s)
	}
	return out
}

func list(ps []netip.Prefix) string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = p.String()
	}
	return cmp.Or(strings.Join(out, ", "), "none")
}

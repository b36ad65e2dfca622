package inventory

import (
	"fmt"
	"slices"
	"strings"
)

// Change is what becomes of one link when an inventory takes the place of
// another.
type Change struct {
	Link   string
	Before *Verdict // nil: the link is new
	After  *Verdict // nil: the link is removed
	Fields []string // what differs, as named in the file, sorted; empty when the link is new or removed
	Ends   []EndChange
}

// EndChange is what the agent at one end does about it. An agent that reloads
// acts on what [Diff] says, and so does what was shown.
type EndChange struct {
	Node          string
	Before, After *NodeLink // as the node sees the link; nil when it has no end there
	Session       SessionChange
	Fence         FenceChange
	// Heir is the link that has the interface now, when that is another one: what
	// becomes of the fence is the heir's to say.
	Heir string
}

// SessionChange is what becomes of a link's device, keys and key agreement, from
// the mildest on.
type SessionChange uint8

// The changes of a session.
const (
	// Untouched: the session goes on. What changes are words and addresses.
	Untouched SessionChange = iota
	// Resumed: the key agreement is restarted and resumes with the keys that are
	// in the kernel. No frame is lost.
	Resumed
	// Remade: the device is made anew. Traffic waits until new keys are agreed.
	Remade
	// Started: the link was not encrypted here and is from now on.
	Started
	// TakenDown: the inventory says that plain frames may pass. Device, keys and
	// fence are removed.
	TakenDown
	// Dropped: the inventory no longer has the link here. Keys and device are
	// removed, and the fence stays.
	Dropped
	// Moved: dropped at the old interface, and started at the new one if the
	// verdict says so.
	Moved
)

// FenceChange is what becomes of the filters on the interface.
type FenceChange uint8

// The changes of a fence.
const (
	FenceSame     FenceChange = iota
	FenceOpened               // plain frames may pass from now on
	FenceClosed               // plain frames are barred from now on
	FenceRedone               // other frames than before may pass it
	FenceStays                // it outlives the link, until lever down
	FenceReplaced             // the heir has it, and does not open it
)

// lasting is what a change of a field of a [Link], its [MKA] or a [Policy] means
// for a session. What is not listed restarts it, which loses nothing and takes
// up everything.
var lasting = map[string]SessionChange{
	"segments": Untouched, "override": Untouched, "group": Untouched, "allow": Untouched,
	"psk": Resumed, "mka": Resumed,
	"cipher": Remade, "external": Remade,
	"policy.mode": Untouched, "policy.inside": Untouched, "policy.inside_if": Untouched, "policy.cipher": Untouched,
	"policy.sak_rekey": Resumed,
	"policy.cak_epoch": Untouched, "policy.max_age": Untouched, "policy.max_age_override": Untouched,
	"channels.a": Resumed, "channels.b": Resumed,
}

// ofChannels are the fields of a [Policy] that are about keys from the channels.
var ofChannels = map[string]bool{"cak_epoch": true, "max_age": true, "max_age_override": true}

// Diff says what becomes of each link, and what the agents at its ends do, when
// next takes the place of running. Links of which nothing changes are left out. The
// order is that of next, with removed links at the end.
//
// Verdicts are those of the moment at which the inventories were read, or of
// [Inventory.At].
func Diff(running, next *Inventory) []Change {
	before := byID(running)
	heirs := map[device]*Link{}
	for _, l := range next.Links {
		for _, e := range l.Ends {
			heirs[device{e.Node, e.Interface}] = l
		}
	}
	var changes []Change
	for _, l := range next.Links {
		if c, ok := compare(running, next, before[l.ID], l, heirs); ok {
			changes = append(changes, c)
		}
		delete(before, l.ID)
	}
	for _, l := range running.Links {
		if before[l.ID] != nil {
			c, _ := compare(running, next, l, nil, heirs)
			changes = append(changes, c)
		}
	}
	return changes
}

// compare looks at one link; before or after is nil when there is none.
func compare(running, next *Inventory, before, after *Link, heirs map[device]*Link) (c Change, changed bool) {
	whole := Untouched
	if before != nil {
		c.Link, c.Before = before.ID, &before.Verdict
	}
	if after != nil {
		c.Link, c.After = after.ID, &after.Verdict
	}
	if before != nil && after != nil {
		c.Fields, whole = differing(running, next, before, after)
		if len(c.Fields) == 0 {
			return c, false
		}
	}
	for _, node := range nodesOf(before, after) {
		e := EndChange{Node: node, Before: seenFrom(before, node), After: seenFrom(after, node)}
		e.decide(running, next, whole, heirs)
		c.Ends = append(c.Ends, e)
	}
	return c, true
}

// decide fills in what the agent of the node does.
func (e *EndChange) decide(running, next *Inventory, whole SessionChange, heirs map[device]*Link) {
	was, is := e.Before != nil && e.Before.Verdict.Kind == Encrypt, e.After != nil && e.After.Verdict.Kind == Encrypt
	barred := running.Policy.Mode == Enforce
	switch {
	case !was && !is:
		return
	case !was:
		e.Session = Started
		if next.Policy.Mode == Enforce {
			e.Fence = FenceClosed
		}
		return
	case e.After == nil || e.After.Local.Interface != e.Before.Local.Interface:
		e.Session = Dropped
		if e.After != nil {
			e.Session = Moved
		}
		if h := heirs[device{e.Node, e.Before.Local.Interface}]; h != nil {
			e.Heir, e.Fence = h.ID, FenceReplaced
			if barred && (h.Verdict.Kind != Encrypt || next.Policy.Mode != Enforce) {
				e.Fence = FenceOpened
			}
		} else if barred {
			e.Fence = FenceStays
		}
		return
	case !is:
		e.Session = TakenDown
		if barred {
			e.Fence = FenceOpened
		}
		return
	}
	e.Session = whole
	if e.After.Local.Secure != e.Before.Local.Secure {
		e.Session = max(e.Session, Remade)
	}
	switch bar := next.Policy.Mode == Enforce; {
	case barred && !bar:
		e.Fence = FenceOpened
	case !barred && bar:
		e.Fence = FenceClosed
	case bar && !sameFence(e.Before.Link, e.After.Link):
		e.Fence = FenceRedone
	}
}

// differing names what differs between two versions of a link and in what of the
// inventory it depends on, and what that means for its sessions.
func differing(running, next *Inventory, before, after *Link) (names []string, whole SessionChange) {
	note := func(name, rule string) {
		names = append(names, name)
		s, known := lasting[rule]
		if !known {
			s = Resumed
		}
		whole = max(whole, s)
	}
	for name, pair := range exported(before, after) {
		switch name {
		case "id", "verdict":
		case "ends":
			whole = max(whole, endsChange(before, after))
			names = append(names, endFields(before, after)...)
		case "mka":
			for sub, values := range exported(&before.MKA, &after.MKA) {
				if !alike(values[0], values[1]) {
					note("mka."+sub, "mka")
				}
			}
		default:
			if !alike(pair[0], pair[1]) {
				note(name, name)
			}
		}
	}
	if before.Verdict.Kind != after.Verdict.Kind {
		names = append(names, "verdict")
	}
	if before.Verdict.Kind == Encrypt && after.Verdict.Kind == Encrypt {
		for name, pair := range exported(&running.Policy, &next.Policy) {
			if name == "inside" || name == "inside_if" || ofChannels[name] && before.External && after.External {
				continue
			}
			if !alike(pair[0], pair[1]) {
				note("policy."+name, "policy."+name)
				if name == "cak_epoch" && (next.Channels.A.KeyService() || next.Channels.B.KeyService()) {
					whole = max(whole, Resumed) // the ends ask for keys by it
				}
			}
		}
		if !before.External && !after.External {
			for name, pair := range exported(&running.Channels, &next.Channels) {
				if !alike(pair[0], pair[1]) {
					note("channels."+name, "channels."+name)
				}
			}
		}
	}
	if len(names) == 0 && before.Verdict != after.Verdict {
		names = append(names, "reason") // the policy of custody
	}
	slices.Sort(names)
	return names, whole
}

// endsChange is what a change of the ends means for the session of an end that
// stays where it is. The nodes enter the key derivation, so that other nodes are
// other keys; one that no longer belongs to the link must not go on with the old.
func endsChange(before, after *Link) SessionChange {
	was, is := nodesOf(before), nodesOf(after)
	switch {
	case slices.ContainsFunc(was, func(n string) bool { return !slices.Contains(is, n) }):
		return Remade
	case len(is) > len(was):
		return Resumed
	}
	return Untouched
}

// endFields names what differs between the ends.
func endFields(before, after *Link) (names []string) {
	for _, node := range nodesOf(before, after) {
		was, is := seenFrom(before, node), seenFrom(after, node)
		if was == nil || is == nil {
			names = append(names, node)
			continue
		}
		for name, pair := range exported(&was.Local, &is.Local) {
			if !alike(pair[0], pair[1]) {
				names = append(names, node+"."+name)
			}
		}
	}
	return names
}

// sameFence compares what may pass the fences of two versions of a link.
func sameFence(a, b *Link) bool {
	if a.MKA.EtherType != b.MKA.EtherType {
		return false
	}
	return slices.Equal(a.Allow, b.Allow)
}

// nodesOf are the nodes of links, each once, in their order.
func nodesOf(links ...*Link) (nodes []string) {
	for _, l := range links {
		if l == nil {
			continue
		}
		for _, e := range l.Ends {
			if !e.External && !slices.Contains(nodes, e.Node) {
				nodes = append(nodes, e.Node)
			}
		}
	}
	return nodes
}

// seenFrom is the link as a node sees it; nil when it has no end there.
func seenFrom(l *Link, node string) *NodeLink {
	if l == nil {
		return nil
	}
	for i, e := range l.Ends {
		if !e.External && e.Node == node {
			return &NodeLink{Link: l, Local: e, Remote: slices.Concat(l.Ends[:i], l.Ends[i+1:])}
		}
	}
	return nil
}

func byID(inv *Inventory) map[string]*Link {
	m := make(map[string]*Link, len(inv.Links))
	for _, l := range inv.Links {
		m[l.ID] = l
	}
	return m
}

// Words says in one line what the agent does at this end.
func (e *EndChange) Words() string {
	var said []string
	switch e.Session {
	case Untouched:
		if e.Before == nil || e.After == nil || e.After.Verdict.Kind != Encrypt {
			said = append(said, "left alone")
		} else {
			said = append(said, "the session goes on")
		}
	case Resumed:
		said = append(said, "session resumes, no loss")
	case Remade:
		said = append(said, "device made anew: a moment without traffic")
	case Started:
		said = append(said, "encrypted: traffic waits for the first key")
	case TakenDown, Dropped:
		said = append(said, "keys and device removed")
	case Moved:
		said = append(said, fmt.Sprintf("keys and device removed at %s", e.Before.Local.Interface))
		if e.After.Verdict.Kind == Encrypt {
			said = append(said, fmt.Sprintf("encrypted at %s: traffic waits for the first key", e.After.Local.Interface))
		}
	}
	switch e.Fence {
	case FenceSame:
	case FenceOpened:
		if e.Heir == "" {
			said = append(said, "fence opened: plain frames may pass")
			break
		}
		said = append(said, fmt.Sprintf("fence on %[1]s opened: plain frames may pass; %[1]s is now of link %[2]s", e.Before.Local.Interface, e.Heir))
	case FenceClosed:
		said = append(said, "fence closed")
	case FenceRedone:
		said = append(said, "fence changed")
	case FenceStays:
		said = append(said, fmt.Sprintf("fence on %s stays until lever down", e.Before.Local.Interface))
	case FenceReplaced:
		said = append(said, fmt.Sprintf("%s is now of link %s", e.Before.Local.Interface, e.Heir))
	}
	return strings.Join(said, "; ")
}

// String is the name of the change, as in the JSON of lever check.
func (s SessionChange) String() string {
	return [...]string{"untouched", "resumed", "remade", "started", "taken-down", "dropped", "moved"}[s]
}

// MarshalText implements encoding.TextMarshaler.
func (s SessionChange) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String is the name of the change, as in the JSON of lever check.
func (f FenceChange) String() string {
	return [...]string{"same", "opened", "closed", "redone", "stays", "replaced"}[f]
}

// MarshalText implements encoding.TextMarshaler.
func (f FenceChange) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

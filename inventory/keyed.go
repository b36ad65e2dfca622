package inventory

// KeyedLinks returns the links whose keys come from the channels, in the order of
// the inventory: those to encrypt with a Lever at every end.
func (inv *Inventory) KeyedLinks() []*Link {
	var keyed []*Link
	for _, l := range inv.Links {
		if l.Keyed() {
			keyed = append(keyed, l)
		}
	}
	return keyed
}

// Keyed reports whether the link's keys come from the channels.
func (l *Link) Keyed() bool { return !l.External && l.Verdict.Kind == Encrypt }

// Scheduled reports whether epochs are numbered by the time at which they start,
// so that two issuers who know nothing of each other arrive at the same numbers.
// Only directories on both sides are filled by hand, with numbers that count up.
func (inv *Inventory) Scheduled() bool {
	for _, c := range []Channel{inv.Channels.A, inv.Channels.B} {
		if c.Type != "" && c.Type != "dir" {
			return true
		}
	}
	return false
}

// KeyService reports whether the channel is a service that is asked for each key.
func (c Channel) KeyService() bool { return c.Type == "etsi014" || c.Type == "skip" }

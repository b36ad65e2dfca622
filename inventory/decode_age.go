package inventory

import (
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"gopkg.in/yaml.v3"
)

// maxRecipients is how many identities a node may have: one, and a second while
// it takes the place of the first.
const maxRecipients = 2

const (
	defaultEpoch = 24 * time.Hour
	maxAgeEpochs = 7                    // how many of them a CAK may last by default
	leastEpoch   = time.Minute          // an epoch's number is its start in minutes
	mostEpoch    = 365 * 24 * time.Hour // so that seven of them are no overflow
)

// keyAges decodes how long CAKs are used.
func (d *decoder) keyAges(f fields) {
	p := &d.inv.Policy
	ok := true
	if n := f.values["cak_epoch"]; n != nil {
		var v time.Duration
		switch v, ok = d.duration(n, "policy.cak_epoch", leastEpoch); {
		case !ok:
		case v%time.Minute != 0:
			d.errorf(d.at(n), "policy.cak_epoch must be whole minutes: epochs are numbered by the minute at which they start; found %s", n.Value)
			ok = false
		case v > mostEpoch:
			d.errorf(d.at(n), "policy.cak_epoch must be at most %s; found %s", duration(mostEpoch), n.Value)
			ok = false
		default:
			p.CAKEpoch, p.MaxAge = v, maxAgeEpochs*v
		}
	}
	if n := f.values["max_age"]; n != nil {
		v, good := d.duration(n, "policy.max_age", 2*leastEpoch)
		switch {
		case !good:
		case ok && v < 2*p.CAKEpoch:
			d.errorf(d.at(n), "policy.max_age must be at least two epochs (%s), so that one may come late; found %s",
				duration(2*p.CAKEpoch), n.Value)
		default:
			p.MaxAge = v
		}
	}
	if n := f.values["max_age_override"]; n != nil {
		o := &p.AgeOverride
		o.Position = d.at(n)
		f, _ := d.mapping(n, &ageOverrideShape)
		if n := f.values["file"]; n != nil {
			if s, ok := d.text(n, "policy.max_age_override.file"); ok {
				o.File = d.resolve(s)
			}
		}
		if n := f.values["signers"]; n != nil {
			o.Signers = d.signers(n, "policy.max_age_override.signers", 2)
		}
	}
}

// duration writes a duration as inventories have it: 48h, not 48h0m0s.
func duration(v time.Duration) string {
	s := v.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// recipients decodes the public parts of a node's identities. What stands there
// is never quoted: it may be the secret part, by mistake.
func (d *decoder) recipients(node *Node, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		d.errorf(d.at(n), "the recipients of node %s are a list: [age1pq1…]", node.Name)
		return
	}
	if len(n.Content) == 0 || len(n.Content) > maxRecipients {
		d.errorf(d.at(n), "the recipients of node %s are one, or two while one takes the place of the other; found %d", node.Name, len(n.Content))
	}
	var classical int
	for _, e := range n.Content {
		switch why := notRecipient(e); {
		case why != "":
			d.errorf(d.at(e), "a recipient of node %s %s", node.Name, why)
			continue
		case slices.Contains(node.Recipients, e.Value):
			d.errorf(d.at(e), "this recipient of node %s is there already", node.Name)
			continue
		case !postQuantum(e.Value):
			classical++
			d.warnf(d.at(e), "", "the recipient of node %s is classical (X25519): what is sealed to it and recorded today can be opened once there are quantum computers; make an age1pq1… one with lever node init",
				node.Name)
		}
		node.Recipients = append(node.Recipients, e.Value)
		node.recipientsAt = append(node.recipientsAt, d.at(e))
	}
	if classical > 0 && classical < len(node.Recipients) {
		// age refuses it, too: who breaks the classical one opens what is sealed to
		// both.
		d.errorf(d.at(n), "the recipients of node %s are one post-quantum and one classical, which no bundle can be sealed to together: enrol the post-quantum one with --replace", node.Name)
	}
}

// notRecipient says why a value is no age recipient, or nothing.
func notRecipient(n *yaml.Node) string {
	const want = "must be an age recipient in text, as lever node show prints it: age1pq1…"
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		return want
	}
	return NotRecipient(n.Value)
}

// NotRecipient says why a text is no recipient that a node may have, or nothing
// when it is one. It does not quote the text.
func NotRecipient(s string) string {
	switch {
	case strings.HasPrefix(strings.ToUpper(s), "AGE-SECRET-KEY-"):
		return "must be the public part, age1pq1…; found a secret key, which is now known to whoever has read this: make another identity (lever node init) and enrol that one"
	case !recipientPattern.matches(s):
		return "must be " + recipientPattern.form
	}
	var err error
	if postQuantum(s) {
		_, err = age.ParseHybridRecipient(s)
	} else {
		_, err = age.ParseX25519Recipient(s)
	}
	if err != nil {
		return "is not whole: a character is wrong, missing or too many; copy it again from lever node show"
	}
	return ""
}

func postQuantum(recipient string) bool { return strings.HasPrefix(recipient, "age1pq1") }

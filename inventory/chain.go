package inventory

import (
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// maxPSKs is how many keys of a chain may be valid at one moment. Agents offer
// all of them, and equipment such as the ports of cloud providers takes three.
const maxPSKs = 3

// minOverlap is how long two keys that follow each other should both be valid:
// enough for ends whose clocks differ to agree on the new one while the old one
// still serves.
const minOverlap = time.Minute

func (d *decoder) psks(l *Link, n *yaml.Node) {
	errs := len(d.errs)
	list := d.list(n, "psk")
	if n.Kind == yaml.SequenceNode && len(list) == 0 {
		d.errorf(d.at(n), "psk lists no key")
	}
	for _, e := range list {
		k := PSK{Position: d.at(e)}
		f, _ := d.mapping(e, &pskShape)
		if n := f.values["ckn"]; n != nil {
			if s, ok := d.formed(n, "ckn", &cknPattern); ok {
				k.CKN, _ = hex.DecodeString(s) // the pattern is that of hexadecimal
				if slices.ContainsFunc(l.PSK, func(other PSK) bool { return slices.Equal(other.CKN, k.CKN) }) {
					d.errorf(d.at(n), "the ckn %s is twice on this link: a CKN names one CAK", s)
				}
			}
		}
		if n := f.values["cak_file"]; n != nil {
			if s, ok := d.text(n, "cak_file"); ok {
				k.CAKFile = d.resolve(s)
			}
		}
		if n := f.values["not_before"]; n != nil {
			k.NotBefore, _ = d.moment(n, "not_before")
		}
		if n := f.values["not_after"]; n != nil {
			var ok bool
			if k.NotAfter, ok = d.moment(n, "not_after"); ok && !k.NotAfter.After(k.NotBefore) {
				d.errorf(d.at(n), "not_after (%s) must be after not_before (%s): the key would never be valid", moment(k.NotAfter), moment(k.NotBefore))
			}
		}
		l.PSK = append(l.PSK, k)
	}
	l.badPSK = len(d.errs) > errs
}

// chain checks that the keys of a link follow one another as agents need them:
// never more at once than equipment takes, and never without an overlap, since
// only two keys that are both valid can change places without an outage.
func (c *checker) chain(l *Link) {
	if len(l.PSK) == 0 || l.badPSK {
		return
	}
	for _, k := range l.PSK {
		// The number of valid keys grows at the beginning of one only.
		valid := validAt(l.PSK, k.NotBefore)
		if len(valid) > maxPSKs {
			c.errorf(valid[maxPSKs].Position, "%d keys of link %s are valid at the same time%s: %s; at most %d may be: bound them by not_before and not_after",
				len(valid), l.ID, since(k.NotBefore), ckns(valid), maxPSKs)
			return
		}
	}
	now := c.now
	if len(validAt(l.PSK, now)) == 0 {
		switch first, ok := nextPSK(l.PSK, now); {
		case ok:
			c.warnf(first.Position, l.ID, "no key of link %s is valid before %s", l.ID, moment(first.NotBefore))
			now = first.NotBefore
		default:
			c.warnf(l.pskAt, l.ID, "no key of link %s is valid any more: add one", l.ID)
			return
		}
	}
	for {
		last, ends := l.CoveredUntil(now)
		if !ends {
			break
		}
		next, ok := nextPSK(l.PSK, last.NotAfter)
		if !ok {
			if last.NotAfter.Sub(c.now) < noticeBefore {
				c.warnf(last.Position, l.ID, "the last key of link %s expires at %s: add its successor", l.ID, moment(last.NotAfter))
			}
			break
		}
		c.warnf(next.Position, l.ID, "no key of link %s is valid from %s to %s: let this one begin before the one before it ends, so that one can replace the other without an outage",
			l.ID, moment(last.NotAfter), moment(next.NotBefore))
		now = next.NotBefore
	}
	c.overlaps(l)
}

// overlaps warns of keys that end just after their successor has begun.
func (c *checker) overlaps(l *Link) {
	for _, k := range l.PSK {
		if k.NotAfter.IsZero() || !k.NotAfter.After(c.now) {
			continue
		}
		others := slices.DeleteFunc(slices.Clone(l.PSK), func(o PSK) bool { return slices.Equal(o.CKN, k.CKN) })
		valid := validAt(others, k.NotAfter)
		if len(valid) == 0 {
			continue // the last of all, or before a gap
		}
		if len(validAt(valid, k.NotAfter.Add(-minOverlap))) == 0 {
			c.warnf(k.Position, l.ID, "this key of link %s expires at %s, less than %s after its successor begins: let them overlap for longer, so that one can replace the other without an outage",
				l.ID, moment(k.NotAfter), minOverlap)
		}
	}
}

// CoveredUntil returns the key with which the validity of the chain ends that
// has begun by now, and false when it never ends. Without a key that is valid
// now, it is the zero key.
func (l *Link) CoveredUntil(now time.Time) (last PSK, ends bool) {
	at := now
	for {
		valid := validAt(l.PSK, at)
		if len(valid) == 0 {
			return last, true
		}
		for i, k := range valid {
			if k.NotAfter.IsZero() {
				return k, false
			}
			if i == 0 || k.NotAfter.After(last.NotAfter) {
				last = k
			}
		}
		at = last.NotAfter
	}
}

// nextPSK is the first key to become valid after a moment.
func nextPSK(chain []PSK, after time.Time) (first PSK, ok bool) {
	for _, k := range chain {
		if k.NotBefore.After(after) && (!ok || k.NotBefore.Before(first.NotBefore)) {
			first, ok = k, true
		}
	}
	return first, ok
}

func validAt(chain []PSK, t time.Time) []PSK {
	var valid []PSK
	for _, k := range chain {
		if k.ValidAt(t) {
			valid = append(valid, k)
		}
	}
	return valid
}

func ckns(keys []PSK) string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = hex.EncodeToString(k.CKN)
	}
	return strings.Join(names, ", ")
}

func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return ", from " + moment(t) + " on"
}

// moment writes a time as an inventory has it.
func moment(t time.Time) string {
	switch t = t.UTC(); {
	case t.IsZero():
		return "none"
	case t.Equal(t.Truncate(24 * time.Hour)):
		return t.Format(time.DateOnly)
	}
	return t.Format(time.RFC3339)
}

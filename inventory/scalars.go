package inventory

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"gopkg.in/yaml.v3"
)

// fields are the values of a mapping by key.
type fields struct {
	at     Position
	values map[string]*yaml.Node
}

// mapping decodes the keys of a mapping of a given shape; it reports keys that
// are unknown, repeated or missing and returns the others. It returns false when
// the node is no mapping.
func (d *decoder) mapping(n *yaml.Node, s *shape) (fields, bool) {
	f := fields{at: d.at(n)}
	if n.Kind != yaml.MappingNode {
		d.errorf(f.at, "%s is a mapping with the keys %s; found %s", s.noun, strings.Join(s.keys, ", "), describe(n))
		return f, false
	}
	f.values = make(map[string]*yaml.Node, len(n.Content)/2)
	for _, p := range d.pairs(n) {
		if slices.Contains(s.keys, p.key.Value) {
			f.values[p.key.Value] = p.value
			continue
		}
		hint := didYouMean(p.key.Value, s.keys)
		if hint == "" {
			hint = "; it may have " + strings.Join(s.keys, ", ")
		}
		d.errorf(d.at(p.key), "unknown key %s in %s%s", quoteShort(p.key.Value), s.noun, hint)
	}
	for _, key := range s.required {
		if f.values[key] == nil && !hasKey(n, key) {
			d.errorf(f.at, "%s needs %q", s.noun, key)
		}
	}
	return f, true
}

type pair struct{ key, value *yaml.Node }

// pairs returns the entries of a mapping in their order, each key once; it
// reports repeated keys and keys that are no text.
func (d *decoder) pairs(n *yaml.Node) []pair {
	out := make([]pair, 0, len(n.Content)/2)
	first := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode || (k.ShortTag() != "!!str" && k.ShortTag() != "!!merge") {
			d.errorf(d.at(k), "a key must be text; found %s", describe(k))
			continue
		}
		if prev := first[k.Value]; prev != nil {
			d.errorf(d.at(k), "the key %s is already on line %d", quoteShort(k.Value), prev.Line)
			continue
		}
		first[k.Value] = k
		out = append(out, pair{k, n.Content[i+1]})
	}
	return out
}

func hasKey(n *yaml.Node, key string) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return true
		}
	}
	return false
}

// list returns the elements of a list, or nil after an error. what names the
// list in errors.
func (d *decoder) list(n *yaml.Node, what string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		d.errorf(d.at(n), "%s is a list; found %s", what, describe(n))
		return nil
	}
	return n.Content
}

// text decodes a text of one line.
func (d *decoder) text(n *yaml.Node, what string) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		hint := ""
		if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
			hint = ": put it in quotes"
		}
		d.errorf(d.at(n), "%s must be text; found %s%s", what, describe(n), hint)
		return "", false
	}
	if strings.TrimSpace(n.Value) == "" {
		d.errorf(d.at(n), "%s is empty", what)
		return "", false
	}
	// What an inventory says ends up in terminals and logs, one line each.
	if i := strings.IndexFunc(n.Value, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		d.errorf(d.at(n), "%s %s has a character that cannot be printed", what, quoteShort(n.Value))
		return "", false
	}
	return n.Value, true
}

// formed decodes a text that must have a certain form.
func (d *decoder) formed(n *yaml.Node, what string, p *pattern) (string, bool) {
	s, ok := d.text(n, what)
	if !ok {
		return "", false
	}
	if !p.matches(s) {
		d.errorf(d.at(n), "%s must be %s; found %s", what, p.form, quoteShort(s))
		return "", false
	}
	return s, true
}

// oneOf decodes a word of a fixed list and returns its index.
func (d *decoder) oneOf(n *yaml.Node, what string, words []string) (int, bool) {
	s, ok := d.text(n, what)
	if !ok {
		return 0, false
	}
	i := slices.Index(words, s)
	if i < 0 {
		either := "one of "
		if len(words) == 1 {
			either = ""
		}
		d.errorf(d.at(n), "%s must be %s%s; found %s%s",
			what, either, strings.Join(words, ", "), quoteShort(s), didYouMean(s, words))
	}
	return i, i >= 0
}

// duration decodes a duration of at least a minimum.
func (d *decoder) duration(n *yaml.Node, what string, least time.Duration) (time.Duration, bool) {
	if n.Kind == yaml.ScalarNode && (n.ShortTag() == "!!int" || n.ShortTag() == "!!float") {
		d.errorf(d.at(n), "%s must be %s; found %s without a unit", what, durationPattern.form, n.Value)
		return 0, false
	}
	s, ok := d.formed(n, what, &durationPattern)
	if !ok {
		return 0, false
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		d.errorf(d.at(n), "%s is too long; found %s", what, quoteShort(s))
		return 0, false
	}
	if v < least {
		d.errorf(d.at(n), "%s must be at least %s; found %s", what, duration(least), s)
		return 0, false
	}
	return v, true
}

// date decodes a calendar day, with or without quotes.
func (d *decoder) date(n *yaml.Node, what string) (time.Time, bool) {
	if n.Kind != yaml.ScalarNode || !datePattern.matches(n.Value) {
		d.errorf(d.at(n), "%s must be %s; found %s", what, datePattern.form, describe(n))
		return time.Time{}, false
	}
	t, err := time.Parse(time.DateOnly, n.Value)
	if err != nil || t.Year() < 1970 {
		d.errorf(d.at(n), "%s is no day of the calendar: %s", what, n.Value)
		return time.Time{}, false
	}
	return t, true
}

// moment decodes a date, which is midnight UTC at its start, or a time with its
// offset from UTC, with or without quotes.
func (d *decoder) moment(n *yaml.Node, what string) (time.Time, bool) {
	if n.Kind != yaml.ScalarNode || !momentPattern.matches(n.Value) {
		d.errorf(d.at(n), "%s must be %s; found %s", what, momentPattern.form, describe(n))
		return time.Time{}, false
	}
	layout := time.RFC3339
	if len(n.Value) == len(time.DateOnly) {
		layout = time.DateOnly
	}
	t, err := time.Parse(layout, n.Value)
	if err != nil || t.UTC().Year() < 1970 {
		d.errorf(d.at(n), "%s is no time of the calendar: %s", what, n.Value)
		return time.Time{}, false
	}
	return t.UTC(), true
}

// truth decodes true or false.
func (d *decoder) truth(n *yaml.Node, what string) bool {
	var v bool
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Decode(&v) != nil {
		d.errorf(d.at(n), "%s must be true or false; found %s", what, describe(n))
	}
	return v
}

// integer decodes a number from least to most, decimal or 0x hexadecimal.
func (d *decoder) integer(n *yaml.Node, what string, least, most uint64) (uint64, bool) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!int" {
		v, err := strconv.ParseUint(n.Value, 0, 64)
		if err != nil {
			v = math.MaxUint64
		}
		if v >= least && v <= most {
			return v, true
		}
	}
	d.errorf(d.at(n), "%s must be a number from %s to %s; found %s",
		what, number(least, most), number(most, most), describeNumber(n))
	return 0, false
}

// number writes a bound as people write such values: EtherTypes in hexadecimal.
func number(v, most uint64) string {
	if most == math.MaxUint16 {
		return fmt.Sprintf("%#04x", v)
	}
	return strconv.FormatUint(v, 10)
}

func describeNumber(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && (n.ShortTag() == "!!int" || n.ShortTag() == "!!float") {
		return n.Value
	}
	return describe(n)
}

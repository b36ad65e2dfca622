package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// errLayout is a file in which the place to edit cannot be told for certain.
var errLayout = errors.New("the way in which it is written cannot be edited by a program: write the recipients by hand, as recipients: [age1pq1…], or write the node as name: {site: SITE}")

// editRecipients makes want the recipients of a node, by the smallest change of the
// text: yaml.v3 could write the tree, but in a layout of its own. It knows the
// layouts that people write and refuses others, and it reads its result again and
// returns it only if nothing but the recipients has changed.
func editRecipients(data []byte, node string, want []string) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil || len(doc.Content) != 1 {
		return nil, errLayout
	}
	nodes := valueOf(doc.Content[0], "nodes")
	if nodes == nil {
		return nil, errLayout
	}
	n := valueOf(nodes, node)
	if n == nil || n.Kind != yaml.MappingNode || len(n.Content) < 2 {
		return nil, errLayout
	}
	t := text{data: data, lines: lineStarts(data)}
	if list := valueOf(n, "recipients"); list != nil {
		t.change(list, want)
	} else {
		t.insert(n, want)
	}
	if t.err != nil {
		return nil, t.err
	}
	out := t.apply()
	if !changesOnly(data, out, node, want) {
		return nil, errLayout
	}
	return out, nil
}

// text is a YAML file and what is to be changed of it.
type text struct {
	data  []byte
	lines []int // where each begins
	edits []edit
	err   error
}

// edit puts something in the place of a stretch of the text.
type edit struct {
	from, to int
	text     string
}

// insert puts a list of recipients behind the last value of a node.
func (t *text) insert(n *yaml.Node, want []string) {
	key, last := n.Content[len(n.Content)-2], n.Content[len(n.Content)-1]
	_, end := t.span(last)
	if n.Style&yaml.FlowStyle != 0 {
		list := make([]string, len(want))
		for i, w := range want {
			list[i] = quotedLike(last, w)
		}
		t.put(end, end, fmt.Sprintf(", %s: [%s]", quotedLike(key, "recipients"), strings.Join(list, ", ")))
		return
	}
	start, _ := t.span(key)
	indent := t.before(start)
	if strings.Trim(indent, " ") != "" {
		t.err = errLayout
		return
	}
	end, eol := t.lineEnd(end)
	separator := eol + indent + "  - "
	t.put(end, end, eol+indent+"recipients:"+separator+strings.Join(want, separator))
}

// change makes a list of one or two recipients another one: it has one more at its
// end, or only one that may have been in it.
func (t *text) change(list *yaml.Node, want []string) {
	have := list.Content
	if list.Kind != yaml.SequenceNode || len(have) == 0 || len(have) > maxRecipients {
		t.err = errLayout
		return
	}
	if len(want) > len(have) {
		t.push(list, want[len(want)-1])
		return
	}
	keep := slices.IndexFunc(have, func(n *yaml.Node) bool { return n.Value == want[0] })
	if keep < 0 {
		keep = 0
		start, end := t.span(have[0])
		t.put(start, end, quotedLike(have[0], want[0]))
	}
	if len(have) == 2 {
		t.remove(list, 1-keep)
	}
}

// push puts a recipient behind those that are there.
func (t *text) push(list *yaml.Node, recipient string) {
	last := list.Content[len(list.Content)-1]
	start, end := t.span(last)
	recipient = quotedLike(last, recipient)
	if list.Style&yaml.FlowStyle != 0 {
		t.put(end, end, ", "+recipient)
		return
	}
	dash := t.dash(start)
	end, eol := t.lineEnd(end)
	t.put(end, end, eol+dash+recipient)
}

// remove takes one of two recipients out, and what is said about it on its line.
func (t *text) remove(list *yaml.Node, i int) {
	start, end := t.span(list.Content[i])
	otherStart, otherEnd := t.span(list.Content[1-i])
	switch {
	case list.Style&yaml.FlowStyle == 0:
		start -= len(t.dash(start))
		stop, _ := t.lineEnd(end)
		if next, _ := slices.BinarySearch(t.lines, stop); next < len(t.lines) {
			stop = t.lines[next]
		}
		t.put(start, stop, "")
	case i == 0:
		t.put(start, otherStart, "")
	default:
		t.put(otherEnd, end, "")
	}
}

// put notes an edit; after an error there is none.
func (t *text) put(from, to int, s string) {
	if t.err == nil {
		t.edits = append(t.edits, edit{from, to, s})
	}
}

// apply returns the text with all edits, of which no two overlap.
func (t *text) apply() []byte {
	slices.SortFunc(t.edits, func(a, b edit) int { return b.from - a.from })
	out := slices.Clone(t.data)
	for _, e := range t.edits {
		out = slices.Replace(out, e.from, e.to, []byte(e.text)...)
	}
	return out
}

// span is where a scalar begins and ends.
func (t *text) span(n *yaml.Node) (start, end int) {
	if t.err != nil {
		return 0, 0
	}
	t.err = errLayout // until it is found
	if n.Kind != yaml.ScalarNode || n.Line < 1 || n.Line > len(t.lines) {
		return 0, 0
	}
	start = t.lines[n.Line-1]
	for range n.Column - 1 { // yaml.v3 counts characters
		if start >= len(t.data) {
			return 0, 0
		}
		_, size := utf8.DecodeRune(t.data[start:])
		start += size
	}
	rest := t.data[start:]
	switch {
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return 0, 0
	case n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		// Names and recipients have nothing in them that would be escaped.
		quote := "'"
		if n.Style&yaml.DoubleQuotedStyle != 0 {
			quote = `"`
		}
		if whole := quote + n.Value + quote; bytes.HasPrefix(rest, []byte(whole)) {
			t.err = nil
			return start, start + len(whole)
		}
	case bytes.HasPrefix(rest, []byte(n.Value)):
		t.err = nil
		return start, start + len(n.Value)
	}
	return 0, 0
}

// before is what stands on a line before a place in it.
func (t *text) before(at int) string {
	if t.err != nil {
		return ""
	}
	i, found := slices.BinarySearch(t.lines, at)
	if !found {
		i--
	}
	return string(t.data[t.lines[i]:at])
}

// dash is what stands on the line before an element of a list.
func (t *text) dash(at int) string {
	s := t.before(at)
	if t.err == nil && strings.Trim(s, " ") != "-" {
		t.err = errLayout
	}
	return s
}

// lineEnd is where the line ends in which at lies, and how lines end there.
func (t *text) lineEnd(at int) (end int, eol string) {
	i := bytes.IndexAny(t.data[at:], "\r\n")
	switch {
	case i < 0:
		return len(t.data), "\n"
	case t.data[at+i] == '\r':
		return at + i, "\r\n"
	}
	return at + i, "\n"
}

// lineStarts is where lines begin as yaml.v3 counts them.
func lineStarts(data []byte) []int {
	i := 0
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		i = len("\ufeff") // a byte order mark is no character of the line
	}
	starts := []int{i}
	for i < len(data) {
		r, size := utf8.DecodeRune(data[i:])
		i += size
		switch r {
		case '\r':
			if i < len(data) && data[i] == '\n' {
				i++
			}
		case '\n', '\u0085', '\u2028', '\u2029':
		default:
			continue
		}
		starts = append(starts, i)
	}
	return starts
}

// quotedLike quotes a text as another one is.
func quotedLike(n *yaml.Node, s string) string {
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		return `"` + s + `"`
	case n.Style&yaml.SingleQuotedStyle != 0:
		return "'" + s + "'"
	}
	return s
}

// changesOnly reports whether two files say the same but for the recipients of one
// node, which are those wanted in the second.
func changesOnly(before, after []byte, node string, want []string) bool {
	var was, is map[string]any
	if yaml.Unmarshal(before, &was) != nil || yaml.Unmarshal(after, &is) != nil {
		return false
	}
	nodes, _ := was["nodes"].(map[string]any)
	n, _ := nodes[node].(map[string]any)
	if n == nil {
		return false
	}
	list := make([]any, len(want))
	for i, w := range want {
		list[i] = w
	}
	n["recipients"] = list
	return reflect.DeepEqual(was, is)
}

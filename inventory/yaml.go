package inventory

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

var (
	yamlError     = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced`)
)

// parserComplaints are the errors of yaml.v3's parser. It counts lines from 0
// in these and from 1 in those of its scanner (decode.go, parser.fail), and it
// tells where the block or the list began, not where it went wrong.
var parserComplaints = []string{
	"did not find expected key", "did not find expected node content", "did not find expected '-' indicator",
	"did not find expected ',' or", "did not find expected <", "found undefined tag handle",
}

// parse returns the one YAML document of a file, or nil after it has reported
// why there is none.
func (d *decoder) parse(data []byte) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		d.errorf(Position{d.file, 1, 1}, "the file is empty: it must begin with \"apiVersion: %s\"", apiVersion)
		return nil
	case err != nil:
		d.syntaxError(data, err)
		return nil
	}
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		d.syntaxError(data, err)
		return nil
	default:
		d.errorf(d.at(&second), "a second YAML document begins here: put it into a file of its own, in one directory")
		return nil
	}
	root := doc.Content[0]
	if !d.plain(root) {
		return nil
	}
	return root
}

// syntaxError reports an error of yaml.v3, which knows lines but no columns.
func (d *decoder) syntaxError(data []byte, err error) {
	msg, line, column := err.Error(), 1, 1
	if m := yamlError.FindStringSubmatch(msg); m != nil {
		msg = msg[len(m[0]):]
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
			for _, c := range parserComplaints {
				if strings.HasPrefix(msg, c) {
					line = n + 1
					msg += ", in what begins on this line: look at the indentation and the brackets from here on"
				}
			}
		}
	}
	// This one comes without a line; the alias's name leads to it.
	if m := unknownAnchor.FindStringSubmatch(msg); m != nil {
		if before, _, ok := bytes.Cut(data, []byte("*"+m[1])); ok {
			line = 1 + bytes.Count(before, []byte("\n"))
			column = 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
		}
	}
	d.errorf(Position{d.file, line, column}, "not valid YAML: %s", strings.TrimSpace(msg))
}

// plain reports whether a tree is free of anchors, aliases and tags, and says
// where it is not. Without aliases a small file cannot stand for a large tree.
func (d *decoder) plain(n *yaml.Node) bool {
	ok := true
	switch {
	case n.Kind == yaml.AliasNode:
		d.errorf(d.at(n), "the alias *%s is not allowed in an inventory: write the value out", n.Value)
		return false
	case n.Anchor != "":
		d.errorf(d.at(n), "the anchor &%s is not allowed in an inventory: write each value out", n.Anchor)
		ok = false
	case n.Style&yaml.TaggedStyle != 0:
		d.errorf(d.at(n), "the tag %s is not allowed in an inventory: leave it out", n.Tag)
		ok = false
	}
	for _, c := range n.Content {
		if !d.plain(c) {
			ok = false
		}
	}
	return ok
}

func (d *decoder) at(n *yaml.Node) Position { return Position{d.file, n.Line, n.Column} }

// describe says what a node is, for errors.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.ShortTag() == "!!null":
		return "nothing"
	case n.ShortTag() == "!!str":
		return "the text " + quoteShort(n.Value)
	case n.ShortTag() == "!!int" || n.ShortTag() == "!!float":
		return "the number " + n.Value
	case n.ShortTag() == "!!bool":
		return "the truth value " + n.Value
	case n.ShortTag() == "!!timestamp":
		return "the time " + n.Value
	default:
		return "something else"
	}
}

// quoteShort quotes what a person wrote, up to a length that fits into a line.
func quoteShort(s string) string {
	if len(s) > 64 {
		s = strings.ToValidUTF8(s[:64], "") + "…"
	}
	return strconv.Quote(s)
}

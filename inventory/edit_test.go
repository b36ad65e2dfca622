package inventory

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// TestEditRecipients changes nodes in the layouts that people write. What stands
// before and after the arrow is the node's part of the file.
func TestEditRecipients(t *testing.T) {
	const head = "# sites first\napiVersion: lever/v1 # always\nnodes:\n"
	const tail = "\n  r2: {site: s} # the other\n\n# the end"
	for name, tc := range map[string]struct {
		before string
		want   string // recipients, with a space between
		after  string // empty: the layout is refused
	}{
		"first, flow":              {"  r1: {site: s}", "one", "  r1: {site: s, recipients: [one]}"},
		"first, flow with comment": {"  r1: {site: s} # in the corner", "one", "  r1: {site: s, recipients: [one]} # in the corner"},
		"first, flow with comma":   {"  r1: { 'site': 's' , }", "one", "  r1: { 'site': 's', 'recipients': ['one'] , }"},
		"first, JSON":              {`  "r1": {"site": "s"}`, "one", `  "r1": {"site": "s", "recipients": ["one"]}`},
		"first, flow over lines":   {"  r1: {\n    site: s # here\n  }", "one", "  r1: {\n    site: s, recipients: [one] # here\n  }"},
		"first, block":             {"  r1:\n    site: s", "one", "  r1:\n    site: s\n    recipients:\n      - one"},
		"first, block with comments": {"  r1: # old\n    # where\n    site: s  # rack 7\n    # below", "one",
			"  r1: # old\n    # where\n    site: s  # rack 7\n    recipients:\n      - one\n    # below"},
		"first, block, value below": {"  r1:\n    site:\n      s", "one", "  r1:\n    site:\n      s\n    recipients:\n      - one"},
		"first, carriage returns":   {"  r1:\r\n    site: s\r", "one", "  r1:\r\n    site: s\r\n    recipients:\r\n      - one\r"},
		"first, characters":         {"  ä: {site: s}\n  r1: {site: s}", "one", "  ä: {site: s}\n  r1: {site: s, recipients: [one]}"},
		"first, odd line ends":      {"  # a\u2028  # b\n  r1: {site: s}", "one", "  # a\u2028  # b\n  r1: {site: s, recipients: [one]}"},
		"next, flow":                {"  r1: {site: s, recipients: [one]} # x", "one two", "  r1: {site: s, recipients: [one, two]} # x"},
		"next, flow in block":       {"  r1:\n    recipients: ['one']\n    site: s", "one two", "  r1:\n    recipients: ['one', 'two']\n    site: s"},
		"next, block":               {"  r1:\n    site: s\n    recipients:\n      - one", "one two", "  r1:\n    site: s\n    recipients:\n      - one\n      - two"},
		"next, block, no indent":    {"  r1:\n    recipients:\n    - \"one\" # since May\n    site: s", "one two", "  r1:\n    recipients:\n    - \"one\" # since May\n    - \"two\"\n    site: s"},
		"replaced, flow":            {"  r1: {recipients: [one], site: s}", "two", "  r1: {recipients: [two], site: s}"},
		"replaced, block":           {"  r1:\n    recipients:\n      - one # x\n    site: s", "two", "  r1:\n    recipients:\n      - two # x\n    site: s"},
		"second stays, flow":        {"  r1: {recipients: [ one, two ], site: s}", "two", "  r1: {recipients: [ two ], site: s}"},
		"first stays, flow":         {"  r1: {recipients: [ one, two ], site: s}", "one", "  r1: {recipients: [ one ], site: s}"},
		"second stays, block": {"  r1:\n    recipients:\n      # old\n      - one # May\n      # new\n      - two # June\n    site: s", "two",
			"  r1:\n    recipients:\n      # old\n      # new\n      - two # June\n    site: s"},
		"first stays, block": {"  r1:\n    site: s\n    recipients:\n      - one\n      - two", "one", "  r1:\n    site: s\n    recipients:\n      - one"},
		"both go":            {"  r1:\n    site: s\n    recipients:\n      - one\n      - two", "three", "  r1:\n    site: s\n    recipients:\n      - three"},
		"both go, flow":      {"  r1: {recipients: [one, two]}", "three", "  r1: {recipients: [three]}"},
		"folded value":       {"  r1:\n    site: >-\n      s", "one", ""},
		"value of two lines": {"  r1:\n    site: s\n      t", "one", ""},
		"dash on its own":    {"  r1:\n    recipients:\n      -\n        one", "one two", ""},
		"complex key":        {"  r1:\n    ? site\n    : s", "one", ""},
		"no such node":       {"  r3: {site: s}", "one", ""},
		"node without site":  {"  r1: {}", "one", ""},
		"node that is text":  {"  r1: s", "one", ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := head + tc.before + tail
			got, err := editRecipients([]byte(before), "r1", strings.Fields(tc.want))
			if tc.after == "" {
				if !errors.Is(err, errLayout) {
					t.Errorf("%v\n%s", err, got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(head+tc.after+tail, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestEditAtTheEnd is about files that end with the node, with and without a last
// newline.
func TestEditAtTheEnd(t *testing.T) {
	for before, want := range map[string][2]string{
		"nodes:\n  r1: {site: s}":                                  {"one", "nodes:\n  r1: {site: s, recipients: [one]}"},
		"nodes:\n  r1:\n    site: s":                               {"one", "nodes:\n  r1:\n    site: s\n    recipients:\n      - one"},
		"nodes:\n  r1:\n    site: s\n":                             {"one", "nodes:\n  r1:\n    site: s\n    recipients:\n      - one\n"},
		"nodes: {r1: {site: s}}\n":                                 {"one", "nodes: {r1: {site: s, recipients: [one]}}\n"},
		"nodes:\n  r1:\n    recipients:\n      - one\n      - two": {"one", "nodes:\n  r1:\n    recipients:\n      - one\n"},
		"\ufeffnodes: {r1: {site: s}}\n":                           {"one", "\ufeffnodes: {r1: {site: s, recipients: [one]}}\n"},
	} {
		got, err := editRecipients([]byte(before), "r1", []string{want[0]})
		if err != nil || string(got) != want[1] {
			t.Errorf("%q: got %q, %v; want %q", before, got, err, want[1])
		}
	}
}

// FuzzEditRecipients edits whatever is YAML: what comes out says the same but for
// the recipients (editRecipients checks that itself) and can be edited again.
func FuzzEditRecipients(f *testing.F) {
	archive, err := txtar.ParseFile("testdata/accepted.txt")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(baseYAML), "r1", "age1pq1x")
	f.Add([]byte("nodes: {r1: {site: s, recipients: ['a', \"b\"]}}"), "r1", "b")
	f.Add([]byte("nodes:\n  r1:\n    recipients:\n    - a\r\n    - b"), "r1", "a")
	for _, a := range archive.Files {
		f.Add(a.Data, "q2", "age1pq1y")
	}
	f.Fuzz(func(t *testing.T, data []byte, node, recipient string) {
		if !namePattern.matches(recipient) {
			recipient = "age1pq1x"
		}
		once, err := editRecipients(data, node, []string{recipient})
		if err != nil {
			return
		}
		twice, err := editRecipients(once, node, []string{recipient, "age1pq1next"})
		if err != nil {
			return // such as an empty flow list, which is none of an inventory's
		}
		back, err := editRecipients(twice, node, []string{"age1pq1next"})
		if err != nil {
			t.Errorf("cannot take back what was added: %v\n%q\n%q", err, once, twice)
		}
		if !changesOnly(data, back, node, []string{"age1pq1next"}) {
			t.Errorf("%q became %q", data, back)
		}
	})
}

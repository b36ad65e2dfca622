package health_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/health"
)

// declaredCodes reads the constants of type Code out of the source, so that one
// cannot be added without a row in the table.
func declaredCodes(t *testing.T) []health.Code {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "faults.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var codes []health.Code
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); ok && id.Name == "Code" {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			codes = append(codes, health.Code(value))
		}
		return true
	})
	return codes
}

func TestEveryCodeIsDocumented(t *testing.T) {
	wellFormed := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	seen := make(map[health.Code]bool)
	for _, d := range health.All() {
		if seen[d.Code] {
			t.Errorf("%s is declared twice", d.Code)
		}
		seen[d.Code] = true
		if !wellFormed.MatchString(string(d.Code)) {
			t.Errorf("%q is not lower case with hyphens", d.Code)
		}
		switch d.Severity {
		case health.Info, health.Warning, health.Critical:
		default:
			t.Errorf("%s: severity %q", d.Code, d.Severity)
		}
		if d.Promise < health.NeverPlain || d.Promise > health.AlwaysExplained || strings.HasPrefix(d.Promise.String(), "promise ") {
			t.Errorf("%s: it traces to no promise", d.Code)
		}
		for what, s := range map[string]string{"text": d.Text, "next step": d.Next} {
			if len(s) < 20 || strings.TrimSpace(s) != s || strings.HasSuffix(s, ".") || strings.Count(s, "{") != strings.Count(s, "}") {
				t.Errorf("%s: %s %q", d.Code, what, s)
			}
		}
		names := d.Placeholders()
		for _, s := range d.Subject {
			if !slices.Contains(names, s) {
				t.Errorf("%s: subject %q is in neither text", d.Code, s)
			}
		}
		// Every placeholder is filled when it is given.
		args := make([]any, 0, 2*len(names))
		for i, name := range names {
			args = append(args, name, fmt.Sprintf("value%d", i))
		}
		f := health.Raise(d.Code, time.Unix(1, 0), args...)
		if strings.ContainsAny(f.Text+f.Next, "{}") || strings.Contains(f.Text+f.Next, "(unknown)") || f.Severity != d.Severity {
			t.Errorf("%s: %s", d.Code, f)
		}
		for i := range names {
			if !strings.Contains(f.Text+f.Next, fmt.Sprintf("value%d", i)) {
				t.Errorf("%s: {%s} is not filled in: %s", d.Code, names[i], f)
			}
		}
	}
	codes := declaredCodes(t)
	if len(codes) < 30 {
		t.Fatalf("found %d constants only", len(codes))
	}
	for _, c := range codes {
		if !seen[c] {
			t.Errorf("%s has no row in the table", c)
		}
		delete(seen, c)
	}
	for c := range seen {
		t.Errorf("%s is in the table but is no constant", c)
	}
}

func TestAllCannotChangeTheTable(t *testing.T) {
	all := health.All()
	first := all[0]
	all[0].Text = "changed"
	all[0].Subject[0] = "changed"
	if got := health.All()[0]; got.Text == "changed" || got.Subject[0] == "changed" || got.Code != first.Code {
		t.Error("the table was changed from outside")
	}
}

func TestRaise(t *testing.T) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f := health.Raise(health.ChannelLate, since, "channel", "b", "other", "a", "epoch", "43.0", "where", "/k/b/l1")
	j, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"code":"channel-late","severity":"warning","text":"epoch 43.0 has arrived over channel a but not over channel b (/k/b/l1)",` +
		`"next":"see that channel b delivers epoch 43.0 to /k/b/l1 on this node; until then the link stays on the older key, and an epoch is never used from one channel alone",` +
		`"since":"2026-01-02T03:04:05Z"}`
	if string(j) != want {
		t.Errorf("got  %s\nwant %s", j, want)
	}
	for name, f := range map[string]health.Fault{
		"missing arguments": health.Raise(health.ChannelLate, since),
		"odd arguments":     health.Raise(health.ChannelLate, since, "channel"),
		"foreign arguments": health.Raise(health.ChannelLate, since, 1, 2, nil, nil),
	} {
		if !strings.Contains(f.Text, "channel (unknown)") || f.Next == "" {
			t.Errorf("%s: %s", name, f)
		}
	}
	if f := health.Raise("no-such", since, "x", 1); f.Severity != health.Critical || !strings.Contains(f.Text, "no-such") || f.Next == "" {
		t.Errorf("undeclared: %s", f)
	}
	// A value that looks like a placeholder is a value.
	if f := health.Raise(health.StateUnwritable, since, "detail", "{where} {"); !strings.Contains(f.Text, "{where} {") {
		t.Errorf("%s", f)
	}
}

func TestSet(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	file := func(name, detail string, s int64) health.Fault {
		return health.Raise(health.KeyFileMalformed, at(s), "file", name, "detail", detail)
	}
	silent := health.Raise(health.PeerSilent, at(9), "interface", "eth1")
	exempt := health.Raise(health.Exempt, at(1), "until", "2027-01-01")
	var s health.Set
	show := func() string {
		var out []string
		for _, f := range s.List() {
			out = append(out, fmt.Sprintf("%s@%d", f.Code, f.Since.Unix()))
		}
		return strings.Join(out, " ")
	}
	for i, step := range []struct {
		do      func() bool
		changed bool
		want    string
	}{
		{func() bool { return s.Clear(health.PeerSilent) }, false, ""},
		{func() bool { return s.Raise(exempt) }, true, "exempt@1"},
		{func() bool { return s.Raise(file("2", "short", 2)) }, true, "key-file-malformed@2 exempt@1"},
		{func() bool { return s.Raise(file("2", "short", 5)) }, false, "key-file-malformed@2 exempt@1"},
		{func() bool { return s.Raise(file("2", "long", 5)) }, true, "key-file-malformed@2 exempt@1"},
		{func() bool { return s.Raise(silent) }, true, "peer-silent@9 key-file-malformed@2 exempt@1"},
		{func() bool { return s.Raise(file("1", "short", 7)) }, true, "peer-silent@9 key-file-malformed@7 key-file-malformed@2 exempt@1"},
		{func() bool {
			return s.Replace([]health.Code{health.KeyFileMalformed, health.ChannelLate}, []health.Fault{file("2", "long", 11), file("3", "x", 11)})
		}, true, "peer-silent@9 key-file-malformed@2 key-file-malformed@11 exempt@1"},
		{func() bool {
			return s.Replace([]health.Code{health.KeyFileMalformed}, []health.Fault{file("3", "x", 12), file("2", "long", 12)})
		}, false, "peer-silent@9 key-file-malformed@2 key-file-malformed@11 exempt@1"},
		{func() bool { return s.Clear(health.KeyFileMalformed, health.Exempt) }, true, "peer-silent@9"},
		{func() bool { return s.Replace([]health.Code{health.PeerSilent}, nil) }, true, ""},
	} {
		before := s.Version()
		if got := step.do(); got != step.changed || (s.Version() != before) != step.changed {
			t.Errorf("step %d: changed %v, version %d to %d, want %v", i, got, before, s.Version(), step.changed)
		}
		if got := show(); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
	if _, raised := s.Worst(); raised || s.Has(health.PeerSilent) {
		t.Error("an empty set has a worst fault")
	}
	s.Raise(exempt)
	s.Raise(silent)
	if worst, _ := s.Worst(); worst != health.Critical || !s.Has(health.PeerSilent) || s.Has(health.NoKeys) {
		t.Errorf("worst %s", worst)
	}
	list := s.List()
	list[0].Text = "changed"
	if s.List()[0].Text == "changed" {
		t.Error("the list is not a copy")
	}
}

//go:build !kernel

// Nothing here depends on a kernel: once, on the host, is enough.

package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/lever-link/lever/internal/health"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden and the tables in README.md")

const (
	readme       = moduleAt + "/README.md"
	architecture = moduleAt + "/ARCHITECTURE.md"
	helpGolden   = "testdata/help.golden"
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// verbs are all commands of the binary's own, parents first.
func verbs(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		if sub.Name() != "help" && sub.Name() != "completion" {
			all = append(all, verbs(sub)...)
		}
	}
	return all
}

// TestHelp holds what --help says of every verb to a file that is read before
// it is committed; go test ./cmd/lever -run TestHelp -update writes it.
func TestHelp(t *testing.T) {
	var got bytes.Buffer
	for _, v := range verbs(newRootCommand()) {
		words := strings.Fields(v.CommandPath())
		// A fresh tree each time: cobra remembers flags.
		root := newRootCommand()
		root.SetArgs(append(words[1:], "--help"))
		root.SetOut(&got)
		fmt.Fprintf(&got, "$ %s --help\n", strings.Join(words, " "))
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&got)
	}
	if *update {
		if err := os.WriteFile(helpGolden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := read(t, helpGolden); got.String() != want {
		t.Errorf("the help differs from %s; look at it, and rewrite it with go test ./cmd/lever -run TestHelp -update:\n%s", helpGolden, got.String())
	}
}

func TestVerbs(t *testing.T) {
	var names []string
	for _, v := range verbs(newRootCommand())[1:] {
		names = append(names, strings.TrimPrefix(v.CommandPath(), "lever "))
		if len(strings.Fields(v.Short)) < 4 || strings.HasSuffix(v.Short, ".") {
			t.Errorf("%s: its line in the list of commands is %q", v.CommandPath(), v.Short)
		}
		if v.Example == "" && len(strings.Fields(v.Long)) < 25 {
			t.Errorf("%s: neither an example nor a description: %q", v.CommandPath(), v.Long)
		}
		if v.Runnable() && v.Args == nil && !strings.Contains(v.Use, "LINK") {
			t.Errorf("%s: takes any arguments and does not say what they are", v.CommandPath())
		}
	}
	want := []string{"agent", "audit", "check", "demo", "down", "keys", "keys grant", "keys init", "keys issue", "keys list",
		"keys override", "keys readmit", "keys revoke", "keys serve", "keys sign", "keys verify", "node", "node enrol", "node init", "node retire", "node show", "rekey", "status", "suspend"}
	if !slices.Equal(names, want) {
		t.Errorf("the verbs are %q, want %q", names, want)
	}
}

// TestReadmeCommands finds every command line of lever in the README's code
// blocks and checks that there is such a verb with such flags.
func TestReadmeCommands(t *testing.T) {
	seen := map[string]bool{}
	block := false
	for n, line := range strings.Split(read(t, readme), "\n") {
		if strings.HasPrefix(line, "```") {
			block = !block
			continue
		}
		words := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "$ "))
		if len(words) > 0 && words[0] == "sudo" {
			words = words[1:]
		}
		if !block || len(words) < 2 || words[0] != "lever" && words[0] != "bin/lever" || words[1] == "demo:" {
			continue
		}
		if end := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, "#") || w == "&" }); end > 0 {
			words = words[:end]
		}
		root := newRootCommand()
		root.SetOut(io.Discard)
		verb, args, err := root.Find(words[1:])
		if err != nil || verb == root {
			t.Errorf("README.md:%d: %s: no such verb (%v)", n+1, line, err)
			continue
		}
		seen[strings.Fields(verb.CommandPath())[1]] = true
		if err := verb.ParseFlags(args); err != nil {
			t.Errorf("README.md:%d: %s: %v", n+1, line, err)
			continue
		}
		if err := verb.ValidateRequiredFlags(); err != nil {
			t.Errorf("README.md:%d: %s: %v", n+1, line, err)
		}
		if err := verb.ValidateArgs(verb.Flags().Args()); err != nil {
			t.Errorf("README.md:%d: %s: %v", n+1, line, err)
		}
	}
	// The table of commands names each: `lever keys issue|list …`.
	table := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `lever ([^`]+)` \\|").FindAllStringSubmatch(read(t, readme), -1) {
		words := strings.Fields(strings.ReplaceAll(row[1], `\|`, " "))
		table[words[0]] = true
		for _, w := range words[1:] {
			table[words[0]+" "+w] = true
		}
	}
	for _, v := range verbs(newRootCommand())[1:] {
		if name := strings.TrimPrefix(v.CommandPath(), "lever "); !table[name] {
			t.Errorf("README's table of commands does not name lever %s", name)
		}
	}
	for _, v := range newRootCommand().Commands() {
		if !seen[v.Name()] && v.Name() != "help" && v.Name() != "completion" {
			t.Errorf("README.md shows no use of lever %s", v.Name())
		}
	}
}

// The fault table stands in README.md between two marks.
const (
	tableBegins = "<!-- faults: written by go test ./cmd/lever -run TestFaultTable -update -->\n"
	tableEnds   = "<!-- end of faults -->\n"
)

// TestFaultTable holds the README's table to health.All, and what it says of
// faults that nothing raises to the source.
func TestFaultTable(t *testing.T) {
	text := read(t, readme)
	before, rest, ok := strings.Cut(text, tableBegins)
	old, after, ok2 := strings.Cut(rest, tableEnds)
	if !ok || !ok2 {
		t.Fatalf("README.md has no %q … %q", tableBegins, tableEnds)
	}
	want := faultTable(raisedFaults(t))
	if old == want {
		return
	}
	if *update {
		if err := os.WriteFile(readme, []byte(before+tableBegins+want+tableEnds+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("the fault table in README.md is not that of internal/health: go test ./cmd/lever -run TestFaultTable -update")
}

func faultTable(raised map[health.Code]bool) string {
	var b strings.Builder
	var silent []string
	b.WriteString("| fault | severity | what was found | what to do next |\n|---|---|---|---|\n")
	cell := func(s string) string {
		// A placeholder reads as a word to fill in, and not as HTML or a template.
		return strings.NewReplacer("|", `\|`, "<", "&lt;", "{", "*", "}", "*").Replace(s)
	}
	for _, d := range health.All() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.Code, d.Severity, cell(d.Text), cell(d.Next))
		if !raised[d.Code] {
			silent = append(silent, "`"+string(d.Code)+"`")
		}
	}
	if len(silent) > 0 {
		fmt.Fprintf(&b, "\nDeclared, but reported by nothing yet: %s.\n", strings.Join(silent, ", "))
	}
	return b.String()
}

// raisedFaults are the codes that some code outside of internal/health names
// where it makes a fault: as an argument of a call, as a field, or as a result.
// Lists of codes do not count.
func raisedFaults(t *testing.T) map[health.Code]bool {
	t.Helper()
	codes := map[string]health.Code{}
	for _, d := range declarations(t, moduleAt+"/internal/health/faults.go") {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
			for _, s := range g.Specs {
				if v, ok := s.(*ast.ValueSpec); ok && len(v.Values) == 1 {
					if lit, ok := v.Values[0].(*ast.BasicLit); ok {
						codes[v.Names[0].Name] = health.Code(strings.Trim(lit.Value, `"`))
					}
				}
			}
		}
	}
	raised := map[health.Code]bool{}
	use := func(e ast.Expr) {
		if s, ok := e.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "health" && codes[s.Sel.Name] != "" {
				raised[codes[s.Sel.Name]] = true
			}
		}
	}
	for _, room := range []string{"internal/agent", "internal/keys", "internal/keys/dir", "internal/keys/bundle", "internal/keys/etcd", "internal/keys/keyservice"} {
		for _, file := range goFiles(t, moduleAt+"/"+room) {
			for _, d := range declarations(t, file) {
				ast.Inspect(d, func(n ast.Node) bool {
					switch n := n.(type) {
					case *ast.CallExpr:
						switch f := n.Fun.(type) {
						case *ast.SelectorExpr:
							if (f.Sel.Name == "Raise" || f.Sel.Name == "drifted") && len(n.Args) > 2 {
								use(n.Args[0])
							}
						case *ast.Ident:
							if f.Name == "refuse" {
								use(n.Args[0])
							}
						}
					case *ast.KeyValueExpr:
						use(n.Value)
					case *ast.AssignStmt:
						for _, e := range n.Rhs {
							use(e)
						}
					case *ast.ReturnStmt:
						for _, e := range n.Results {
							use(e)
						}
					}
					return true
				})
			}
		}
	}
	return raised
}

func goFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no Go files in %s: %v", dir, err)
	}
	return slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, "_test.go") })
}

func declarations(t *testing.T, file string) []ast.Decl {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Decls
}

var (
	codeSpan  = regexp.MustCompile("`[^`\n]+`")
	namedFile = regexp.MustCompile(`^([a-z0-9_./-]+\.(?:go|yaml|json|golden|md))(?::([A-Za-z_.]+))?$`)
	namedTest = regexp.MustCompile(`^(?:Test|Fuzz|Benchmark)[A-Z]\w+$`)
)

// TestArchitectureNamesWhatIsThere finds the files, `file.go:function` and tests
// that ARCHITECTURE.md names, so that it changes in the commit that moves them.
func TestArchitectureNamesWhatIsThere(t *testing.T) {
	tests := map[string]bool{}
	var files []string
	for dir := range maps.Keys(readPackages(t)) {
		found, err := filepath.Glob(filepath.Join(moduleAt, dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	for _, f := range files {
		for _, d := range declarations(t, f) {
			if fn, ok := d.(*ast.FuncDecl); ok {
				tests[fn.Name.Name] = true
			}
		}
	}
	functions, testCount := 0, 0
	for _, span := range codeSpan.FindAllString(read(t, architecture), -1) {
		span = strings.Trim(span, "`")
		if namedTest.MatchString(span) {
			testCount++
			if !tests[span] {
				t.Errorf("there is no test %s", span)
			}
			continue
		}
		m := namedFile.FindStringSubmatch(span)
		if m == nil {
			continue
		}
		file := filepath.Join(moduleAt, m[1])
		if _, err := os.Stat(file); err != nil {
			t.Errorf("`%s`: %v", span, err)
			continue
		}
		if m[2] == "" {
			continue
		}
		functions++
		if !slices.ContainsFunc(declarations(t, file), func(d ast.Decl) bool { return declares(d, m[2]) }) {
			t.Errorf("%s does not declare %s", m[1], m[2])
		}
	}
	if functions < 20 || testCount < 20 {
		t.Errorf("found %d functions and %d tests named: has the way of writing them changed?", functions, testCount)
	}
}

// declares tells whether d declares a function, a method as Type.Method, a type,
// a constant or a variable of the name.
func declares(d ast.Decl, name string) bool {
	switch d := d.(type) {
	case *ast.FuncDecl:
		full := d.Name.Name
		if d.Recv != nil {
			recv := d.Recv.List[0].Type
			if star, ok := recv.(*ast.StarExpr); ok {
				recv = star.X
			}
			if id, ok := recv.(*ast.Ident); ok {
				full = id.Name + "." + full
			}
		}
		return full == name
	case *ast.GenDecl:
		return slices.ContainsFunc(d.Specs, func(s ast.Spec) bool {
			switch s := s.(type) {
			case *ast.TypeSpec:
				return s.Name.Name == name
			case *ast.ValueSpec:
				return slices.ContainsFunc(s.Names, func(id *ast.Ident) bool { return id.Name == name })
			}
			return false
		})
	}
	return false
}

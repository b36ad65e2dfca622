//go:build !kernel

// Nothing here depends on a kernel: once, on the host, is enough.

package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module   = "github.com/lever-link/lever"
	moduleAt = "../.." // from this directory
)

// sourcePackage is one of the module's packages as its source says, without its
// tests. All build constraints count as true, so that a rule holds on every
// platform.
type sourcePackage struct {
	name    string
	imports []string
	comment string
	// clock are the calls of package time that read or wait for real time.
	clock []string
}

// module's packages by import path relative to the module, e.g. "internal/keys".
type packages map[string]*sourcePackage

// readPackages parses the module's source. The go tool is not asked: what this
// process opens is part of the key under which go test caches the result, what
// a child opens is not.
func readPackages(t *testing.T) packages {
	t.Helper()
	all := packages{}
	err := filepath.WalkDir(moduleAt, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if name == "testdata" || name != filepath.Base(moduleAt) && strings.HasPrefix(name, ".") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		dir, err := filepath.Rel(moduleAt, filepath.Dir(file))
		if err != nil {
			return err
		}
		source, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return all.add(filepath.ToSlash(dir), file, source)
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (all packages) add(dir, file string, source []byte) error {
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, file, source, parser.ParseComments)
	if err != nil {
		return err
	}
	p := all[dir]
	if p == nil {
		p = &sourcePackage{name: parsed.Name.Name}
		all[dir] = p
	}
	p.comment += parsed.Doc.Text()
	timeName := ""
	for _, i := range parsed.Imports {
		imported, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return err
		}
		if !slices.Contains(p.imports, imported) {
			p.imports = append(p.imports, imported)
		}
		if imported == "time" {
			timeName = "time"
			if i.Name != nil {
				timeName = i.Name.Name
			}
		}
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := s.X.(*ast.Ident); ok && timeName != "" && x.Name == timeName && readsClock[s.Sel.Name] {
			p.clock = append(p.clock, fmt.Sprintf("%s: time.%s", fset.Position(s.Pos()), s.Sel.Name))
		}
		return true
	})
	return nil
}

var readsClock = map[string]bool{
	"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true,
	"NewTimer": true, "NewTicker": true, "Tick": true,
}

// dependencies are the module's packages that dir imports, directly or not.
func (all packages) dependencies(dir string) []string {
	seen := map[string]bool{}
	var visit func(string)
	visit = func(dir string) {
		p := all[dir]
		if p == nil {
			return
		}
		for _, i := range p.imports {
			if own, ok := strings.CutPrefix(i, module+"/"); ok && !seen[own] {
				seen[own] = true
				visit(own)
			}
		}
	}
	visit(dir)
	return slices.Sorted(maps.Keys(seen))
}

// matches tells whether an import path is one of patterns, or lies below one
// that ends in "/…".
func matches(imported string, patterns ...string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		root, below := strings.CutSuffix(p, "/…")
		return imported == root || below && strings.HasPrefix(imported, root+"/")
	})
}

// A layer is what a package may not import, and why. The paths of the module's
// own packages are relative to it.
type layer struct {
	dir string
	// imports are forbidden to the package itself and to those of the module
	// beneath it.
	imports []string
	// direct are forbidden to the package itself only.
	direct []string
	// clock: it must not read the clock, nor wait for it.
	clock bool
	why   string
}

var layers = []layer{
	{
		dir: "mka", clock: true,
		imports: []string{
			"os/…", "net/…", "syscall/…", "io/fs", "io/ioutil", "plugin", "unsafe",
			"golang.org/x/sys/…", "golang.org/x/net/…", "github.com/mdlayher/…", "github.com/vishvananda/…",
			"crypto/rand", "math/rand/…", "macsec/…", "inventory", "internal/agent", "internal/keys/…", "internal/pae", "internal/fence",
		},
		why: "a Port with the same state and input gives the same output: time and randomness are inputs, and I/O is the driver's",
	},
	{
		dir: "mka", direct: []string{"log/…", "context", "sync/…", "runtime/…"},
		why: "one driver owns a Port: it logs nothing, starts nothing and waits for nothing",
	},
	{
		dir: "macsec", imports: []string{"mka", "inventory", "internal/agent", "internal/keys/…", "internal/pae", "internal/fence", "gopkg.in/yaml.v3"},
		why: "it is a library for Linux MACsec with any key agreement, or none",
	},
	{
		dir: "inventory", imports: []string{"mka", "macsec/…", "internal/…", "golang.org/x/sys/…", "github.com/mdlayher/…", "github.com/vishvananda/…"},
		why: "a verdict depends on the files and the date alone, so that it can be computed anywhere",
	},
	{
		dir: "cmd/lever",
		direct: []string{
			"net", "net/http/…", "net/rpc/…", "golang.org/x/sys/…", "golang.org/x/net/…", "github.com/mdlayher/…",
			"github.com/vishvananda/…", "mka", "macsec/…", "internal/pae", "internal/fence",
		},
		why: "a verb reads flags, calls one room and prints: sockets are the agent's",
	},
	{
		dir: "internal/agent", imports: []string{"internal/demo", "internal/lab", "internal/sim/…", "internal/simlink", "internal/uml/…", "macsec/macsectest/…", "internal/keys/keyservice/kmetest", "testing/…"},
		why: "what tests and the demo need is not in the path of a production key",
	},
	{
		dir: "internal/agent", direct: []string{"gopkg.in/yaml.v3", "github.com/mdlayher/…", "github.com/fsnotify/fsnotify"},
		why: "each of these has a room of its own: inventory, macsec and pae, internal/keys/dir and internal/watch",
	},
	{
		dir: "internal/watch", imports: []string{"net/…", "os/exec", module + "/…"},
		why: "what is in the files, and what follows from it, is for others",
	},
	{
		dir: "internal/health", clock: true, imports: []string{"os/…", "net/…", "syscall", "mka", "macsec/…", "internal/keys/…", "internal/agent"},
		why: "faults are declared in one table that everybody reads; who sees a fault raises it",
	},
	{
		dir: "internal/keys", clock: true, imports: []string{"net/…", "mka", "macsec/…", "inventory", "internal/agent", "internal/keys/dir"},
		why: "a Ring has no clock, and knows of its channels no more than the Channel interface",
	},
	{
		dir: "internal/agent", imports: []string{"internal/metrics", "internal/audit", "github.com/prometheus/…"}, direct: []string{"net/http/…"},
		why: "a link does not depend on who looks at it",
	},
	{
		dir: "internal/metrics", clock: true, direct: []string{"mka", "macsec/…", "internal/keys/…", "internal/secret", "internal/pae", "github.com/mdlayher/…", "github.com/vishvananda/…"},
		why: "metrics are made of what status is made of, and of nothing else",
	},
	{
		dir: "internal/audit", clock: true, imports: []string{"mka", "internal/agent", "internal/keys/…", "internal/pae", "internal/health", "os/exec"},
		why: "what proves that an agent has done its work must not be made of it",
	},
	{
		dir: "internal/secret", imports: []string{"os/…", "io/…", "net/…", "syscall", module + "/…"},
		why: "it is the bottom of the import graph, and nothing in it can write a key anywhere",
	},
	{
		dir: "internal/issue", imports: []string{"mka", "macsec/…", "internal/agent", "internal/identity", "internal/pae", "internal/fence"},
		why: "who issues has no link, and no node's identity: what is sealed it cannot open",
	},
	{
		dir: "internal/signed", imports: []string{"net/…", "os/exec", "mka", "macsec/…", "inventory", "internal/agent", "internal/keys"},
		why: "a statement is about anything, and goes anywhere",
	},
	{
		dir: "internal/identity",
		imports: []string{
			"net/…", "os/exec", "mka", "macsec/…", "inventory", "internal/agent", "internal/keys", "internal/keys/dir", "internal/keys/bundle",
			"internal/keys/etcd", "internal/keys/etsi014", "internal/keys/skip",
		},
		why: "an identity opens what is sealed to the node, whatever that is and however it came",
	},
	{
		dir: "internal/keys/keyservice", imports: []string{"mka", "macsec/…", "inventory", "internal/agent", "internal/pae", "internal/fence"},
		why: "what carries its messages, and for which links, is the agent's",
	},
	{
		dir: "internal/simlink", clock: true, imports: []string{"os/…", "net/…", "crypto/rand", module + "/…"},
		why: "virtual time and a seed replay a run; it knows no protocol",
	},
	{
		dir: "internal/sim", clock: true, imports: []string{"net/http", "os/exec", "crypto/rand", "inventory", "internal/agent", "internal/pae", "internal/fence", "internal/uml/…"},
		why: "a seed must replay its run, on what every machine has",
	},
	{
		dir: "internal/fence", imports: []string{"mka", "macsec/…", "inventory", "internal/agent", "internal/keys/…"},
		why: "which interface to fence, and when, is decided elsewhere",
	},
	{
		dir: "internal/pae", imports: []string{"mka", "macsec/…", "inventory", "internal/agent", "internal/keys/…"},
		why: "what a frame means is mka's",
	},
}

// violations says where all breaks the rules.
func (all packages) violations() []string {
	var found []string
	report := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for _, l := range layers {
		p := all[l.dir]
		if p == nil {
			report("%s is not there, and has a rule: %s", l.dir, l.why)
			continue
		}
		if l.clock {
			for _, c := range p.clock {
				report("%s reads the clock (%s): %s", l.dir, c, l.why)
			}
		}
		for _, i := range p.imports {
			if own := strings.TrimPrefix(i, module+"/"); matches(i, l.direct...) || matches(own, l.direct...) {
				report("%s imports %s: %s", l.dir, i, l.why)
			}
		}
		for _, dir := range append([]string{l.dir}, all.dependencies(l.dir)...) {
			if all[dir] == nil {
				continue
			}
			for _, i := range all[dir].imports {
				if own := strings.TrimPrefix(i, module+"/"); matches(i, l.imports...) || matches(own, l.imports...) {
					report("%s imports %s (in %s): %s", l.dir, i, dir, l.why)
				}
			}
		}
	}
	for _, i := range all["mka"].imports {
		first, _, _ := strings.Cut(i, "/")
		if strings.Contains(first, ".") && !matches(i, module+"/internal/secret", "github.com/go-jose/go-jose/v4/cipher") {
			report("mka imports %s: what it does inside is not looked at here, so each such import needs a decision", i)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(all)) {
		if dir != "inventory" && slices.Contains(all[dir].imports, "gopkg.in/yaml.v3") {
			report("%s imports yaml: inventory is the only one that may, so that there is one decoder, a strict one", dir)
		}
		if dir != "internal/agent" && matches(dir, all.dependencies("internal/agent")...) && !isChannel(dir) && dir != "internal/keys/keyservice" &&
			slices.ContainsFunc(all[dir].imports, func(i string) bool { return matches(i, "net/http/…") }) {
			report("%s imports net/http, and internal/agent depends on it: only channels speak to servers there, and nobody serves", dir)
		}
		if !isChannel(dir) {
			continue
		}
		for _, d := range all.dependencies(dir) {
			if isChannel(d) {
				report("%s depends on %s: channels are independent, so that a flaw in one is none in the other", dir, d)
			}
		}
	}
	return found
}

// isChannel tells the distribution channels from what they share.
func isChannel(dir string) bool {
	return path.Dir(dir) == "internal/keys" && path.Base(dir) != "keyfile" && path.Base(dir) != "keyservice"
}

func TestLayering(t *testing.T) {
	for _, v := range readPackages(t).violations() {
		t.Error(v)
	}
}

// A rule that no violation breaks is none: each forbidden import is made here,
// and must be found.
func TestLayeringFindsViolations(t *testing.T) {
	for _, c := range []struct{ dir, code, want string }{
		{"mka", `import "os"`, "mka imports os (in mka)"},
		{"mka", `import "net/netip"`, "mka imports net/netip (in mka)"},
		{"mka", `import "golang.org/x/sys/unix"`, "mka imports golang.org/x/sys/unix"},
		{"mka", `import "crypto/rand"`, "mka imports crypto/rand"},
		{"mka", `import "github.com/google/uuid"`, "mka imports github.com/google/uuid"},
		{"mka", `import "log/slog"`, "mka imports log/slog"},
		{"mka", `import "time"; var _ = time.Now()`, "mka reads the clock"},
		{"mka", `import t "time"; func f() { t.Sleep(1) }`, "mka reads the clock"},
		{"mka", `import "time"; var now = time.Now`, "mka reads the clock"},
		{"internal/secret", `import "os"`, "mka imports os (in internal/secret)"},
		{"macsec", `import "github.com/lever-link/lever/mka"`, "macsec imports github.com/lever-link/lever/mka"},
		{"macsec/internal/pnguard", `import "github.com/lever-link/lever/internal/agent"`, "macsec imports github.com/lever-link/lever/internal/agent (in macsec/internal/pnguard)"},
		{"inventory", `import "github.com/lever-link/lever/macsec"`, "inventory imports"},
		{"inventory", `import "github.com/lever-link/lever/internal/secret"`, "inventory imports"},
		{"internal/keys", `import "gopkg.in/yaml.v3"`, "internal/keys imports yaml"},
		{"cmd/lever", `import "net"`, "cmd/lever imports net:"},
		{"cmd/lever", `import "github.com/vishvananda/netlink"`, "cmd/lever imports github.com/vishvananda/netlink"},
		{"internal/keys/post", `import "github.com/lever-link/lever/internal/keys/dir"`, "internal/keys/post depends on internal/keys/dir"},
		{"internal/keys/dir", `import "github.com/lever-link/lever/internal/keys/post"`, "internal/keys/dir depends on internal/keys/post"},
		{"internal/agent", `import "github.com/prometheus/client_golang/prometheus"`, "internal/agent imports github.com/prometheus"},
		{"internal/metrics", `import "github.com/lever-link/lever/mka"`, "internal/metrics imports github.com/lever-link/lever/mka"},
		{"internal/audit", `import "github.com/lever-link/lever/internal/agent"`, "internal/audit imports github.com/lever-link/lever/internal/agent"},
		{"internal/agent", `import "github.com/lever-link/lever/internal/simlink"`, "internal/agent imports"},
		{"internal/agent", `import "github.com/lever-link/lever/internal/keys/keyservice/kmetest"`, "internal/agent imports"},
		{"internal/agent", `import "net/http"`, "internal/agent imports net/http:"},
		{"internal/fence", `import "net/http"`, "internal/fence imports net/http, and internal/agent depends on it"},
		{"internal/keys/keyservice", `import "github.com/lever-link/lever/internal/keys/dir"`, "internal/keys/etsi014 depends on internal/keys/dir"},
		{"internal/identity", `import "github.com/lever-link/lever/internal/keys/dir"`, "internal/identity imports github.com/lever-link/lever/internal/keys/dir"},
		{"internal/keys/keyfile", `import "github.com/lever-link/lever/internal/keys"`, "internal/identity imports github.com/lever-link/lever/internal/keys (in internal/keys/keyfile)"},
		{"internal/health", `import "github.com/lever-link/lever/macsec/macsectest"`, "internal/agent imports github.com/lever-link/lever/macsec/macsectest (in internal/health)"},
		{"internal/keys", `import "time"; func f() { <-time.After(1) }`, "internal/keys reads the clock"},
	} {
		all := readPackages(t)
		if err := all.add(c.dir, "violation.go", []byte("package x\n"+c.code)); err != nil {
			t.Fatal(err)
		}
		if found := all.violations(); !slices.ContainsFunc(found, func(v string) bool { return strings.Contains(v, c.want) }) {
			t.Errorf("%s in %s: found %q, want %q", c.code, c.dir, found, c.want)
		}
	}
}

// Whoever opens a room must learn at the door what it is for.
func TestPackageComments(t *testing.T) {
	all := readPackages(t)
	if len(all) < 15 {
		t.Fatalf("found %d packages only", len(all))
	}
	for dir, p := range all {
		want := "Package " + p.name + " "
		if p.name == "main" {
			want = "Command " + path.Base(dir) + " "
		}
		switch comment := strings.TrimSpace(p.comment); {
		case !strings.HasPrefix(comment, want):
			t.Errorf("%s: the package comment does not begin with %q: %.40q", dir, want, comment)
		case strings.Count(comment, "\n") < 2:
			t.Errorf("%s: the package comment has fewer than three lines", dir)
		case !strings.Contains(comment, "belong"):
			t.Errorf("%s: the package comment does not say what belongs there", dir)
		}
	}
}

package inventory_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/lever-link/lever/inventory"
)

var day = time.Date(2026, 6, 15, 0, 0, 0, 0, time.UTC)

func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestLoadErrors is about what is wrong with files, and with several of them.
// DIR stands for the directory.
func TestLoadErrors(t *testing.T) {
	const version = "apiVersion: lever/v1\n"
	for name, tc := range map[string]struct {
		files map[string]string
		path  string // below the directory
		want  string
	}{
		"no such file":    {nil, "x.yaml", "DIR/x.yaml: opening the inventory: no such file or directory"},
		"empty directory": {nil, "", "DIR: the directory has no *.yaml or *.yml file: give the inventory's file or its directory"},
		"nothing for us in the directory": {
			map[string]string{"a.json": "{}", ".b.yaml": "x", "c.yaml/d": "x"}, "",
			"DIR: the directory has no *.yaml or *.yml file: give the inventory's file or its directory",
		},
		"too large": {
			map[string]string{"a.yaml": version + strings.Repeat("#\n", 32<<20)}, "",
			"DIR/a.yaml: reading the inventory: it is larger than 64 MiB: split it into several files in one directory",
		},
		"sections twice": {
			map[string]string{
				"a.yaml": version + "policy: {}\nchannels: {a: {type: dir, path: a}, b: {type: dir, path: b}}\n",
				"b.yml":  version + "channels: {a: {type: dir, path: a}, b: {type: dir, path: b}}\npolicy: {}\n",
			}, "",
			"DIR/b.yml:2:11: channels is already at DIR/a.yaml:3:11: it belongs in one file\n" +
				"DIR/b.yml:3:9: policy is already at DIR/a.yaml:2:9: it belongs in one file",
		},
		"names twice": {
			map[string]string{
				"b.yaml": version + "sites: {s: {}}\nnodes: {n: {site: s}}\nlinks: [{id: x, a: n/a, z: m/a, override: {action: exempt, approvers: [p, q], reason: r, expires: 2027-01-01}}]\n",
				"a.yaml": version + "sites: {s: {}}\nnodes: {n: {site: s}, m: {site: s}}\nlinks: [{id: x, a: n/b, z: m/b, segments: [{custody: controlled-room}]}]\n" +
					"channels: {a: {type: dir, path: a}, b: {type: dir, path: b}}\n",
			}, "",
			"DIR/b.yaml:2:9: the site s is already at DIR/a.yaml:2:9\n" +
				"DIR/b.yaml:3:9: the node n is already at DIR/a.yaml:3:9\n" +
				"DIR/b.yaml:4:14: the link id x is already at DIR/a.yaml:4:14",
		},
		"one file broken": {
			map[string]string{
				"a.yaml": "sites: [\n",
				"b.yaml": version + "nodes: {n: {site: s}}\npolicy: {mode: x}\n",
			}, "",
			// That there is no site s is not said: it may be in a.yaml.
			"DIR/a.yaml:2:1: not valid YAML: did not find expected node content, in what begins on this line: look at the indentation and the brackets from here on\n" +
				"DIR/b.yaml:3:16: policy.mode must be one of enforce, monitor; found \"x\"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, tc.files)
			inv, err := inventory.Load(filepath.Join(dir, tc.path), inventory.WithNow(day))
			if _, ok := errors.AsType[inventory.Errors](err); !ok || inv != nil {
				t.Fatalf("Load = %v, %T", inv, err)
			}
			if diff := cmp.Diff(tc.want, strings.ReplaceAll(err.Error(), dir, "DIR")); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadKeepsTheCause(t *testing.T) {
	_, err := inventory.Load(filepath.Join(t.TempDir(), "x.yaml"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Load of a missing file: %v", err)
	}
	e, ok := errors.AsType[inventory.Error](err)
	if !ok || e.Line != 0 || !strings.HasSuffix(e.File, "x.yaml") {
		t.Fatalf("Load of a missing file: %#v", e)
	}
}

// TestPaths checks that paths are relative to the file that names them.
func TestPaths(t *testing.T) {
	dir := write(t, map[string]string{"lever.yaml": `apiVersion: lever/v1
channels: {a: {type: dir, path: keys/a}, b: {type: dir, path: /elsewhere//b}}
sites: {s: {}}
nodes: {n: {site: s}}
links: [{id: x, a: n/eth0, z: external, psk: [{ckn: "6162", cak_file: ../x.cak}]}]
`})
	for _, path := range []string{dir, filepath.Join(dir, "lever.yaml")} {
		inv, err := inventory.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		got := []string{inv.Channels.A.Path, inv.Channels.B.Path, inv.Links[0].PSK[0].CAKFile}
		want := []string{filepath.Join(dir, "keys/a"), "/elsewhere/b", filepath.Join(filepath.Dir(dir), "x.cak")}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("paths (-want +got):\n%s", diff)
		}
	}
}

// TestAliasesStandForNothing feeds the bomb that aliases make of a few lines.
func TestAliasesStandForNothing(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("apiVersion: lever/v1\na0: &a0 [x]\n")
	for i := range 30 {
		fmt.Fprintf(&b, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d]\n", i+1, i+1, i, i, i, i)
	}
	_, err := inventory.Parse("bomb.yaml", b.Bytes())
	errs, _ := errors.AsType[inventory.Errors](err)
	if len(errs) != 31+30*4 || errs[0].Error() != "bomb.yaml:2:5: the anchor &a0 is not allowed in an inventory: write each value out" {
		t.Fatalf("%d errors: %v", len(errs), err)
	}
}

// many returns an inventory of n links between n/10 nodes.
func many(n int) []byte { return manyBetween(n, n/10+2) }

func manyBetween(n, nodes int) []byte {
	var b bytes.Buffer
	b.WriteString("apiVersion: lever/v1\nchannels: {a: {type: dir, path: a}, b: {type: dir, path: b}}\nsites: {s: {custody: controlled-building}}\nnodes:\n")
	for i := range nodes {
		fmt.Fprintf(&b, "  n%d: {site: s}\n", i)
	}
	b.WriteString("links:\n")
	for i := range n {
		fmt.Fprintf(&b, `  - id: link-%d
    a: {node: n%d, interface: a%d, addresses: [10.%d.%d.%d/31]}
    z: {node: n%d, interface: z%d, addresses: [10.%d.%d.%d/31]}
    segments:
      - {custody: controlled-building, site: s}
      - {custody: leased-wave, provider: ExampleTel, ref: "circuit/%d"}
`, i, i%nodes, i, i*2>>16&255, i*2>>8&255, i*2&255, (i+1)%nodes, i, i*2>>16&255, i*2>>8&255, i*2&255+1, i)
	}
	return b.Bytes()
}

func BenchmarkParse10000(b *testing.B) {
	data := many(10_000)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		inv, err := inventory.Parse("lever.yaml", data)
		if err != nil {
			b.Fatal(err)
		}
		if len(inv.Links) != 10_000 {
			b.Fatal(len(inv.Links))
		}
	}
}

// BenchmarkParse100000 is the largest network that we have in mind: 100,000 links
// between 2,000 nodes.
func BenchmarkParse100000(b *testing.B) {
	data := manyBetween(100_000, 2_000)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		inv, err := inventory.Parse("lever.yaml", data)
		if err != nil {
			b.Fatal(err)
		}
		if len(inv.Links) != 100_000 {
			b.Fatal(len(inv.Links))
		}
	}
}

// BenchmarkDiff100000 compares the largest network with itself, as each agent does
// when it reloads.
func BenchmarkDiff100000(b *testing.B) {
	inv, err := inventory.Parse("lever.yaml", manyBetween(100_000, 2_000))
	if err != nil {
		b.Fatal(err)
	}
	next := inv.At(day)
	b.ReportAllocs()
	for b.Loop() {
		if changes := inventory.Diff(inv, next); len(changes) != 0 {
			b.Fatal(len(changes))
		}
	}
}

func BenchmarkForNode(b *testing.B) {
	inv, err := inventory.Parse("lever.yaml", many(10_000))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if links, err := inv.ForNode("n7"); err != nil || len(links) < 10 {
			b.Fatal(len(links), err)
		}
	}
}

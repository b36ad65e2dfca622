package inventory

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the expected results in testdata; read the diff before you commit it")

// today is the day on which every case is judged.
var today = time.Date(2026, 6, 15, 12, 0, 0, 0, time.UTC)

// The cases are about a file lever.yaml that is read together with these, and
// without channels.yaml where it has channels of its own.
const (
	baseYAML = `apiVersion: lever/v1
sites:
  fra1: {custody: controlled-building}
  ams1: {custody: controlled-building}
  colo: {custody: third-party-colo}
nodes:
  r1: {site: fra1}
  r2: {site: fra1}
  r3: {site: ams1}
`
	channelsYAML = `apiVersion: lever/v1
channels:
  a: {type: dir, path: keys/a}
  b: {type: dir, path: keys/b}
`
)

func buildCase(data []byte) (*Inventory, error) {
	docs := []document{{"lever.yaml", data}, {"base.yaml", []byte(baseYAML)}}
	if !bytes.Contains(data, []byte("channels:")) {
		docs = append(docs, document{"channels.yaml", []byte(channelsYAML)})
	}
	return build(docs, &findings{}, []Option{WithNow(today)})
}

// TestRejected reads testdata/rejected.txt: inputs and the exact errors. Inputs
// whose name begins with shape/ must be refused by schema.json, too.
func TestRejected(t *testing.T) {
	s := compileSchema(t)
	runCases(t, "testdata/rejected.txt", func(t *testing.T, name string, data []byte) string {
		_, err := buildCase(data)
		errs, ok := errors.AsType[Errors](err)
		if !ok || len(errs) == 0 {
			t.Fatalf("the input is accepted; error %v", err)
		}
		if strings.HasPrefix(name, "shape/") && validate(s, data) == nil {
			t.Errorf("schema.json accepts the input")
		}
		return errs.Error() + "\n"
	})
}

// TestAccepted reads testdata/accepted.txt: inputs, their verdicts with reasons,
// and their warnings. schema.json must accept them all.
func TestAccepted(t *testing.T) {
	s := compileSchema(t)
	runCases(t, "testdata/accepted.txt", func(t *testing.T, _ string, data []byte) string {
		inv, err := buildCase(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(s, data); err != nil {
			t.Errorf("schema.json refuses the input: %v", err)
		}
		return render(inv)
	})
}

// runCases runs each pair of NAME.yaml and NAME.want in an archive.
func runCases(t *testing.T, file string, run func(t *testing.T, name string, data []byte) string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, f := range archive.Files {
		if name, ok := strings.CutSuffix(f.Name, ".want"); ok {
			want[name] = string(f.Data)
		}
	}
	out := txtar.Archive{Comment: archive.Comment}
	for _, f := range archive.Files {
		name, ok := strings.CutSuffix(f.Name, ".yaml")
		if !ok {
			continue
		}
		t.Run(name, func(t *testing.T) {
			got := run(t, name, f.Data)
			out.Files = append(out.Files, f, txtar.File{Name: name + ".want", Data: []byte(got)})
			if !*update && got != want[name] {
				t.Errorf("got:\n%swant:\n%s", got, want[name])
			}
		})
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(&out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func render(inv *Inventory) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, l := range inv.Links {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.ID, l.Verdict.Kind, l.Cipher, l.Verdict.Reason)
	}
	if err := w.Flush(); err != nil {
		panic(err) // a strings.Builder takes everything
	}
	for _, warning := range inv.Warnings {
		fmt.Fprintln(&b, warning)
	}
	return b.String()
}

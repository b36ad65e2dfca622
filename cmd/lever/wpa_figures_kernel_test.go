//go:build kernel

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// figuresFile names the file to which figures go that are to be seen also when
// all is well, for then go test prints nothing.
const figuresFile = "LEVER_FIGURES"

// wpaFigures are those of this process.
var wpaFigures figures

// The figures of a run. Nothing asserts on them.
type figures struct {
	mu   sync.Mutex
	rows []figure
}

// A figure is how long one case of a kind took.
type figure struct {
	kind, what string
	took       time.Duration
}

func (f *figures) add(kind, what string, took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rows = append(f.rows, figure{kind, what, took})
}

// table has each kind's median, and beneath it the cases.
func (f *figures) table() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.SortStableFunc(f.rows, func(a, b figure) int {
		return cmp.Or(strings.Compare(a.kind, b.kind), strings.Compare(a.what, b.what))
	})
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "wpa_supplicant 2.10: from the last end's first MKPDU until data passes both ways")
	for rest := f.rows; len(rest) > 0; {
		n := slices.IndexFunc(rest, func(r figure) bool { return r.kind != rest[0].kind })
		if n < 0 {
			n = len(rest)
		}
		var took []time.Duration
		for _, r := range rest[:n] {
			took = append(took, r.took)
		}
		fmt.Fprintf(w, "%s\t%.2f s, median of %d\n", rest[0].kind, median(took).Seconds(), n)
		for _, r := range rest[:n] {
			fmt.Fprintf(w, "  %s\t%.2f s\n", r.what, r.took.Seconds())
		}
		rest = rest[n:]
	}
	_ = w.Flush() // to memory
	return b.String()
}

// print logs the table and writes it, as far as it is by then, to the figures
// file, if one is named.
func (f *figures) print(t *testing.T) {
	t.Helper()
	table := f.table()
	t.Logf("\n%s", table)
	if name := os.Getenv(figuresFile); name != "" {
		if err := os.WriteFile(name, []byte(table), 0o644); err != nil {
			t.Errorf("write the figures: %v", err)
		}
	}
}

//go:build !kernel

package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/lever-link/lever/internal/metrics"
)

// The table of metrics stands in README.md between two marks.
const (
	metricsBegin = "<!-- metrics: written by go test ./cmd/lever -run TestMetricsTable -update -->\n"
	metricsEnd   = "<!-- end of metrics -->\n"
)

// TestMetricsTable holds the README's table to metrics.All.
func TestMetricsTable(t *testing.T) {
	text := read(t, readme)
	before, rest, ok := strings.Cut(text, metricsBegin)
	old, after, ok2 := strings.Cut(rest, metricsEnd)
	if !ok || !ok2 {
		t.Fatalf("README.md has no %q … %q", metricsBegin, metricsEnd)
	}
	var want strings.Builder
	want.WriteString("| metric | type | labels | what it is |\n|---|---|---|---|\n")
	for _, m := range metrics.All() {
		labels := make([]string, len(m.Labels))
		for i, l := range m.Labels {
			labels[i] = "`" + l + "`"
		}
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, strings.Join(labels, ", "), strings.ReplaceAll(m.Help, "|", `\|`))
	}
	if old == want.String() {
		return
	}
	if *update {
		if err := os.WriteFile(readme, []byte(before+metricsBegin+want.String()+metricsEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Error("the table of metrics in README.md is not that of internal/metrics: go test ./cmd/lever -run TestMetricsTable -update")
}

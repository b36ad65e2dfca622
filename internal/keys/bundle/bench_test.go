package bundle

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/lever-link/lever/internal/keys"
)

// BenchmarkIssue issues 2 epochs for 100,000 links between 2,000 nodes; with
// -benchtime 1x that is one run. A link counts once for each epoch. The peak is of
// the process, which holds the recipients and the links, too.
func BenchmarkIssue(b *testing.B) {
	const nodes, links = 2_000, 100_000
	to := make(map[string][]string, nodes)
	for i := range nodes {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			b.Fatal(err)
		}
		to[fmt.Sprintf("node-%04d", i)] = []string{id.Recipient().String()}
	}
	o := Options{
		Side: keys.A, Key: newKey(b), Links: manyLinks(nodes, links), Epochs: []uint64{epochAt(0), epochAt(1)},
		Recipients: func(node string) []string { return to[node] }, Now: func() time.Time { return start },
	}
	var octets int64
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		dir := b.TempDir()
		o.Issuer, o.Out = filepath.Join(dir, "issuer"), filepath.Join(dir, "out")
		b.StartTimer()
		r, err := Issue(b.Context(), o)
		if err != nil {
			b.Fatal(err)
		}
		if r.Keys != 2*2*links || r.Bundles != 2*nodes || r.Indexes != nodes {
			b.Fatalf("%+v", r)
		}
		octets = r.Octets
	}
	b.ReportMetric(float64(2*links*b.N)/b.Elapsed().Seconds(), "links/s")
	b.ReportMetric(float64(octets), "octets")
	b.ReportMetric(peak(b)/(1<<20), "MiB-peak")
}

// peak is the most memory that the process has had, in octets.
func peak(b *testing.B) float64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		var kib float64
		if n, _ := fmt.Sscanf(lines.Text(), "VmHWM: %f kB", &kib); n == 1 {
			return kib * 1024
		}
	}
	b.Fatal("the kernel does not tell the peak")
	return 0
}

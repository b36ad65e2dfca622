//go:build !kernel

package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
)

// TestFenceOfAnotherVersion is replaced after an upgrade, and nobody is blamed for it.
func TestFenceOfAnotherVersion(t *testing.T) {
	for name, c := range map[string]struct {
		edition string
		faults  []health.Code
	}{
		"another":          {"of another version", nil},
		"before there was": {"", nil},
		"this one":         {"as it is", []health.Code{health.FenceDrift}}, // somebody has changed it
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, twoLinks)
				time.Sleep(10 * time.Second)
				s.r1.halt()
				f, err := readLinkFile(s.r1.runDir, "l1")
				if err != nil {
					t.Fatal(err)
				}
				if c.faults == nil {
					f.Edition = c.edition
				}
				if err := f.write(osFiles, s.r1.runDir); err != nil {
					t.Fatal(err)
				}
				s.r1.iface("eth4").fenced = false // what is there is not what is wanted
				s.startAt(s.r1)
				time.Sleep(5 * time.Second)
				s.want(s.r1, "l1", StateSecured, c.faults...)
				if !s.r1.fencedAt("eth4") {
					t.Error("it is open")
				}
			})
		})
	}
}

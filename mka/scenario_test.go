package mka_test

import (
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/lever-link/lever/internal/sim/script"
	"github.com/lever-link/lever/mka"
)

// TestScenarios runs the scripts of testdata/scenarios, for each clause of the
// standard and each peculiarity of other makes. -rewrite writes down what happens
// now: read the difference, with the standard at hand, before you commit it.
//
// Not among them, for MKA does not show it: a kernel that runs another suite than its
// MKA agreed on (SONiC's fork), and an interface that takes other links down with it.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		s := script.New(t.Errorf, mka.SignFrame)
		datadriven.RunTest(t, path, func(_ *testing.T, d *datadriven.TestData) string { return s.Run(d) })
		s.Close()
	})
}

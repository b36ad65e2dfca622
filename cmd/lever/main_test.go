package main

import (
	"flag"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the scripts in testdata call this very program as lever.
func TestMain(m *testing.M) {
	// A guest has one processor; what takes long there is waiting for MKA.
	if f := flag.Lookup("test.parallel"); f != nil {
		_ = f.Value.Set("4")
	}
	testscript.Main(m, map[string]func(){"lever": main})
}

// TestEveryCommand runs testdata/every.txt: what holds for all commands alike.
func TestEveryCommand(t *testing.T) {
	testscript.Run(t, testscript.Params{Files: []string{"testdata/every.txt"}})
}

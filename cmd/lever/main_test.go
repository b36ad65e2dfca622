package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the scripts in testdata call this very program as lever.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lever": main})
}

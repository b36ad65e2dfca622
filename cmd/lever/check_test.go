package main

import (
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestCheckScripts runs testdata/check*.txt.
func TestCheckScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/check*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("found the scripts %q, %v", files, err)
	}
	testscript.Run(t, testscript.Params{Files: files})
}

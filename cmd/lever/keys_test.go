package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestKeysScripts runs testdata/keys*.txt, where keys is lever keys: after each
// its output is searched for the content of every key file beneath the script's
// directory.
func TestKeysScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/keys*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	testscript.Run(t, testscript.Params{
		Files: files,
		Cmds:  map[string]func(*testscript.TestScript, bool, []string){"keys": runKeys},
	})
}

// runKeys runs lever keys.
func runKeys(ts *testscript.TestScript, neg bool, args []string) {
	before := material(ts)
	err := ts.Exec("lever", append([]string{"keys"}, args...)...)
	output := strings.ToLower(ts.ReadFile("stdout") + ts.ReadFile("stderr"))
	for _, m := range append(before, material(ts)...) {
		if strings.Contains(output, m) {
			ts.Fatalf("the output contains material")
		}
	}
	if (err != nil) != neg {
		ts.Fatalf("%v, expected an error: %v", err, neg)
	}
}

// material is the beginning of every key file's content, long enough not to be
// found by chance and short enough to find a part.
func material(ts *testscript.TestScript) []string {
	var all []string
	err := filepath.WalkDir(ts.Getenv("WORK"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(path, ".key") {
			return err
		}
		text, err := os.ReadFile(path)
		if len(text) >= 10 {
			all = append(all, strings.ToLower(string(text[:10])))
		}
		return err
	})
	ts.Check(err)
	return all
}

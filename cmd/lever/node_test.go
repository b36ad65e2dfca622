package main

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestNodeScripts runs testdata/node*.txt, where node is lever node: after each its
// output is searched for every secret beneath the script's directory.
func TestNodeScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/node*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	testscript.Run(t, testscript.Params{
		Files: files,
		Cmds:  map[string]func(*testscript.TestScript, bool, []string){"node": runNode},
	})
}

// runNode runs lever node.
func runNode(ts *testscript.TestScript, neg bool, args []string) {
	before := identitySecrets(ts)
	err := ts.Exec("lever", append([]string{"node"}, args...)...)
	output := ts.ReadFile("stdout") + ts.ReadFile("stderr")
	for _, s := range append(before, identitySecrets(ts)...) {
		if strings.Contains(output, s) {
			ts.Fatalf("the output contains a secret")
		}
	}
	if (err != nil) != neg {
		ts.Fatalf("%v, expected an error: %v", err, neg)
	}
}

// identitySecrets is the beginning of what every identity keeps secret.
func identitySecrets(ts *testscript.TestScript) (all []string) {
	const before = "AGE-SECRET-KEY-PQ-1"
	err := filepath.WalkDir(ts.Getenv("WORK"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(path, ".age") {
			return err
		}
		if _, key, found := strings.Cut(ts.ReadFile(path), before); found && len(key) > 16 {
			all = append(all, key[:16])
		}
		return nil
	})
	ts.Check(err)
	return all
}

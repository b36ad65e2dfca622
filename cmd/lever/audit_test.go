package main

import (
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lever-link/lever/internal/audit"
)

// TestAuditScripts runs testdata/audit*.txt. Where the kernel has the interfaces
// is in audit_kernel_test.go.
func TestAuditScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/audit*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("found the scripts %q, %v", files, err)
	}
	testscript.Run(t, testscript.Params{
		Files: files,
		Cmds:  map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// shortOf is a disk that is full after so many octets.
type shortOf int

func (n *shortOf) Write(b []byte) (int, error) {
	if len(b) > int(*n) {
		return int(*n), io.ErrShortWrite
	}
	*n -= shortOf(len(b))
	return len(b), nil
}

// Evidence of which a part has arrived is none: the audit says so, wherever it ends.
func TestAuditIsPrintedWhole(t *testing.T) {
	report := &audit.Report{Links: []audit.Link{{ID: "l1", Checks: []audit.Check{{Name: "parent", Found: "it is there", Next: "nothing"}}}}}
	var whole strings.Builder
	if err := writeAuditTable(&whole, report); err != nil {
		t.Fatal(err)
	}
	for n := range whole.Len() {
		disk := shortOf(n)
		if err := writeAuditTable(&disk, report); err == nil {
			t.Fatalf("no error, and %d of %d octets were written", n, whole.Len())
		}
	}
}

// exits runs a program and expects an exit status: exits STATUS PROGRAM ARGS.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM ARGS…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("it exits with %d, want %d", got, want)
	}
}

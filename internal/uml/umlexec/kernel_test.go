//go:build kernel

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Runs on the host, as the go tool does that umlexec is for.
func TestGoTestExec(t *testing.T) {
	dir := t.TempDir()
	umlexec := filepath.Join(dir, "umlexec")
	if out, err := exec.Command("go", "build", "-o", umlexec, ".").CombinedOutput(); err != nil {
		t.Fatalf("build umlexec: %v\n%s", err, out)
	}
	profile, written := filepath.Join(dir, "cover"), filepath.Join("/tmp", filepath.Base(filepath.Dir(dir)))
	cpu := written + ".cpu" // the guest has a /tmp of its own, but this comes out
	t.Cleanup(func() { os.Remove(cpu) })
	run := func(name string) (string, error) {
		cmd := exec.Command("go", "test", "-count=1", "-v", "-run", "^"+name+"$", "-coverprofile", profile, "-cpuprofile", cpu, "-o", filepath.Join(dir, "guest.test"), "-exec", umlexec, "./testdata/guest")
		cmd.Env = append(os.Environ(), "OUT="+written)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run("TestPass")
	if err != nil || !strings.Contains(out, "--- PASS: TestPass") || !strings.Contains(out, "coverage: 100.0%") {
		t.Errorf("the passing test: %v\n%s", err, out)
	}
	if b, err := os.ReadFile(profile); err != nil || !strings.Contains(string(b), "guest.go:4") {
		t.Errorf("coverage profile: %q, %v", b, err)
	}
	if info, err := os.Stat(cpu); err != nil || info.Size() == 0 {
		t.Errorf("CPU profile: %v, %v", info, err)
	}
	if b, err := os.ReadFile(written); err == nil {
		t.Errorf("a file written to the guest's /tmp is on the host: %q", b)
	}
	out, err = run("TestFail")
	if err == nil || !strings.Contains(out, "as it should") || !strings.Contains(out, "--- FAIL: TestFail") {
		t.Errorf("the failing test: %v\n%s", err, out)
	}
}

// Package guest is tested under umlexec by the test of umlexec.
package guest

import (
	"os"
	"strings"
	"testing"
)

func TestPass(t *testing.T) {
	b, err := os.ReadFile("data.txt") // the working directory is the package's
	if err != nil || strings.TrimSpace(string(b)) != "from the host" {
		t.Errorf("data.txt: %q, %v", b, err)
	}
	if os.Getuid() != 0 || os.Getenv("HOME") != "/tmp" {
		t.Errorf("uid %d, HOME %s, want root in a guest", os.Getuid(), os.Getenv("HOME"))
	}
	if err := os.WriteFile(os.Getenv("OUT"), []byte("from the guest"), 0o600); err != nil {
		t.Error(err)
	}
	if Answer() != 42 {
		t.Error("wrong answer")
	}
}

func TestFail(t *testing.T) { t.Error("as it should") }

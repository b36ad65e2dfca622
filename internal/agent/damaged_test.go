//go:build !kernel

package agent

import (
	"os"
	"strings"
	"testing"

	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
)

// TestLookWithADamagedRecord has no agent and one record that cannot be read: the
// other links are shown all the same.
func TestLookWithADamagedRecord(t *testing.T) {
	dir := t.TempDir()
	good := linkFile{Link: "good", Interface: "eth0", Secure: "eth0-sec"}
	if err := good.write(linux.files, dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(linkPath(dir, "bad"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() (macsec.Kernel, error) { return macsectest.New(), nil }
	st, err := NewClient(dir).look(t.Context(), &linux, open)
	if err != nil || len(st.Links) != 1 || st.Links[0].ID != "good" {
		t.Fatalf("%+v, %v", st.Links, err)
	}
	if !strings.Contains(st.Unanswered, "no agent") || !strings.Contains(st.Unanswered, "link bad") {
		t.Errorf("unanswered: %s", st.Unanswered)
	}
}

package dir_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/dir"
)

func TestIssueThenScan(t *testing.T) {
	root := filepath.Join(t.TempDir(), "keys", "a")
	issue := func(n int) []string {
		t.Helper()
		epochs, err := dir.Issue(root, link, n)
		if err != nil {
			t.Fatal(err)
		}
		return spell(epochs)
	}
	if got := issue(2); !slices.Equal(got, []string{"1.0", "2.0"}) {
		t.Fatalf("first issue: %v", got)
	}
	if got := issue(1); !slices.Equal(got, []string{"3.0"}) {
		t.Fatalf("second issue: %v", got)
	}
	for want, number := range map[string]uint64{"2.1": 2, "3.1": 3} {
		if e, err := dir.Reissue(root, link, number); err != nil || e.String() != want {
			t.Fatalf("reissue %d: %v %v", number, e, err)
		}
	}
	l := dir.Scan(root, link)
	var found []string
	seen := make(map[string]bool)
	for _, e := range l.Entries {
		if e.Err != nil || e.Mode != 0o600 {
			t.Errorf("%s: mode %v, %v", e.File, e.Mode, e.Err)
		}
		found = append(found, e.Epoch.String())
		seen[e.Material.Fingerprint().String()] = true
	}
	if !slices.Equal(found, []string{"1.0", "2.0", "2.1", "3.0", "3.1"}) || len(seen) != 5 {
		t.Errorf("found %v with %d different materials", found, len(seen))
	}
	for _, d := range []string{root, filepath.Join(root, link)} {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", d, info.Mode(), err)
		}
	}
	if links, err := dir.Links(root); err != nil || !slices.Equal(links, []string{link}) {
		t.Errorf("links %v %v", links, err)
	}
}

// Nobody may get other material under a number that was ever handed out.
func TestRevokedEpochsAreNotIssuedAgain(t *testing.T) {
	root, d := newRoot(t)
	if _, err := dir.Issue(root, link, 2); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} {
		if existed, err := dir.Revoke(root, link, epoch(t, "2.0")); err != nil || existed != want {
			t.Fatalf("revoke %d: %v %v", i, existed, err)
		}
	}
	if _, err := os.Stat(filepath.Join(d, "2.0.key")); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
	if issued, err := dir.Issued(root, link); err != nil || !slices.Equal(spell(issued), []string{"1.0"}) {
		t.Errorf("issued %v %v", issued, err)
	}
	if e, err := dir.Reissue(root, link, 2); err != nil || e.String() != "2.1" {
		t.Errorf("reissue of the revoked: %v %v", e, err)
	}
	if es, err := dir.Issue(root, link, 1); err != nil || spell(es)[0] != "3.0" {
		t.Errorf("issue after it: %v %v", es, err)
	}
}

func TestIssueRefuses(t *testing.T) {
	root, d := newRoot(t)
	if _, err := dir.Reissue(root, link, 9); err == nil || !strings.Contains(err.Error(), "never issued") {
		t.Errorf("reissue of nothing: %v", err)
	}
	put(t, filepath.Join(d, "18446744073709551615.4294967295.key"), digits+"\n", 0o600)
	if _, err := dir.Reissue(root, link, 1<<64-1); err == nil || !strings.Contains(err.Error(), "issue a new epoch") {
		t.Errorf("reissue past the end: %v", err)
	}
	if err := os.Chmod(d, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Issue(root, link, 1); err == nil || !strings.Contains(err.Error(), "0777") {
		t.Errorf("issue into a directory open to all: %v", err)
	}
}

func TestOneDirectoryIsOneChannel(t *testing.T) {
	root := filepath.Join(t.TempDir(), "keys")
	for range 2 {
		if err := dir.Claim(root, keys.A); err != nil {
			t.Fatal(err)
		}
	}
	if err := dir.Claim(root, keys.B); err == nil || !strings.Contains(err.Error(), "keep the channels apart") {
		t.Errorf("claimed for b as well: %v", err)
	}
}

func spell(epochs []keys.Epoch) []string {
	var out []string
	for _, e := range epochs {
		out = append(out, e.String())
	}
	return out
}

package issue

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/signed"
)

func newSigner(t *testing.T, name string) *signed.Key {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if _, err := signed.GenerateKey(path); err != nil {
		t.Fatal(err)
	}
	k, err := signed.ReadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Of several who sign one file at once none loses a signature; what a symbolic link
// leads to is signed, and keeps its mode.
func TestSignTogether(t *testing.T) {
	now := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	s, err := signed.NewOverride(signed.Override{All: true, Reason: "ticket", Issued: now, Expires: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	first := newSigner(t, "first.pem")
	if err := s.Sign(first); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, link := filepath.Join(dir, "age.override"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, s.Text(), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("age.override", link); err != nil {
		t.Fatal(err)
	}
	want := []signed.PublicKey{first.Public()}
	var wg sync.WaitGroup
	for i := range 6 {
		k := newSigner(t, fmt.Sprintf("%d.pem", i))
		want = append(want, k.Public())
		wg.Go(func() {
			path := []string{file, link}[i%2]
			if n, err := Sign(t.Context(), path, k, nil, nil); err != nil || n != 1 {
				t.Error(n, err)
			}
		})
	}
	wg.Wait()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = signed.Parse(text); err != nil {
		t.Fatal(err)
	}
	for _, k := range want {
		if !slices.Contains(s.Signers(), k) {
			t.Errorf("the signature of %s is lost", k)
		}
	}
	if info, err := os.Lstat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
	if to, err := os.Readlink(link); err != nil || to != "age.override" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
}

func TestSignRefuses(t *testing.T) {
	s := newSite(t)
	s.issue()
	stranger := newSigner(t, "stranger.pem")
	if err := syscall.Mkfifo(s.path("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	signers := []signed.PublicKey{s.signer}
	for _, test := range []struct {
		name, path, want string
		signers          []signed.PublicKey
	}{
		{"a key that counts for nothing", s.path("out"), "not among the channel's signers", signers},
		{"the same, and one file", s.path("out/a/index"), "not among the channel's signers", signers},
		{"a tree of nobody's", s.path("out"), "give --channel and --inventory", nil},
		{"a wrong directory", s.path("issuer"), "there are none", []signed.PublicKey{s.signer, stranger.Public()}},
		{"no statement", s.path("net.yaml"), "adding a signature", nil},
		{"nothing", s.path("nothing"), "no such file", nil},
		{"a pipe that nobody writes to", s.path("pipe"), "it is not a regular file", nil},
	} {
		if n, err := Sign(t.Context(), test.path, stranger, test.signers, nil); n != 0 || err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %d, %v", test.name, n, err)
		}
	}
}

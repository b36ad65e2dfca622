package keyfile_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/secret"
)

func TestReplaceAndPublish(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, test := range []struct {
		write func(string, []byte) error
		text  string
		mode  os.FileMode
	}{
		{keyfile.Publish, "public", 0o644},
		{keyfile.Replace, "private", 0o600},
		{keyfile.Publish, "public again", 0o644},
	} {
		if err := test.write(path, []byte(test.text)); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(text) != test.text || info.Mode().Perm() != test.mode {
			t.Errorf("%q with mode %v, want %q with %v", text, info.Mode(), test.text, test.mode)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
}

// Of many that write one file at the same time, one has written it, and the file is
// its own: nobody overwrites a key that somebody else has already delivered.
func TestNothingIsOverwritten(t *testing.T) {
	for _, test := range []struct {
		name  string
		write func(path string, octets []byte) error
	}{
		{"Write", func(path string, octets []byte) error { return keyfile.Write(path, secret.Clone(octets)) }},
		{"Create", keyfile.Create},
		{"CreatePublic", keyfile.CreatePublic},
	} {
		t.Run(test.name, func(t *testing.T) {
			for range 20 {
				path := filepath.Join(t.TempDir(), "1.0.key")
				const writers = 8
				var errs [writers]error
				var delivered [writers][]byte // what a writer found after its own success
				var wg sync.WaitGroup
				for i := range writers {
					wg.Go(func() {
						if errs[i] = test.write(path, bytes.Repeat([]byte{byte(i)}, 32)); errs[i] == nil {
							delivered[i], _ = os.ReadFile(path)
						}
					})
				}
				wg.Wait()
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				won := 0
				for i, err := range errs {
					switch {
					case err == nil:
						if won++; !bytes.Equal(delivered[i], text) {
							t.Fatal("a file that was there was overwritten")
						}
					case !errors.Is(err, fs.ErrExist):
						t.Fatal(err)
					}
				}
				if won != 1 {
					t.Fatalf("%d have written it", won)
				}
				if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
					t.Fatalf("left behind: %v, %v", left, err)
				}
			}
		})
	}
}

// Errors name what the caller knows.
func TestErrorsNameNoTemporaryFile(t *testing.T) {
	dir := t.TempDir()
	occupied := filepath.Join(dir, "occupied")
	if err := os.MkdirAll(filepath.Join(occupied, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ path, want string }{
		{filepath.Join(dir, "absent", "x.pem"), "open " + filepath.Join(dir, "absent") + ": no such file"},
		{occupied, "rename " + occupied + ": "},
	} {
		err := keyfile.Replace(test.path, nil)
		if err == nil || strings.Contains(err.Error(), ".tmp") || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %q", err, test.want)
		}
	}
}

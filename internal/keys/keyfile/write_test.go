package keyfile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/lever-link/lever/internal/keys/keyfile"
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

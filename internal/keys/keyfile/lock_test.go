package keyfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lever-link/lever/internal/keys/keyfile"
)

func TestLock(t *testing.T) {
	dir := t.TempDir()
	unlock, err := keyfile.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keyfile.TryLock(dir); !errors.Is(err, keyfile.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a second time: %v", err)
	}
	unlock()
	again, err := keyfile.TryLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again()
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("left behind: %v %v", names, err)
	}
	if _, err := keyfile.Lock(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent directory: %v", err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	var open *keyfile.PermissionError
	if _, err := keyfile.Lock(dir); !errors.As(err, &open) {
		t.Errorf("a directory that others can write to: %v", err)
	}
}

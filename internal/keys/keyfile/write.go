package keyfile

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lever-link/lever/internal/secret"
)

// Write writes a new key file that Read accepts: mode 0600, complete on disk
// before it appears under its name. It never replaces a file: a key that others
// may already have is reissued under another name, not changed.
func Write(path string, key secret.Key) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("writing key file %s: %w; keys are never overwritten", path, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("writing key file: %w", err)
	}
	text := make([]byte, 2*key.Len()+1)
	defer clear(text)
	hex.Encode(text, key.Bytes())
	text[len(text)-1] = '\n'
	if err := Replace(path, text); err != nil {
		return fmt.Errorf("writing key file: %w", err)
	}
	return nil
}

// Replace makes text the content of path, mode 0600, such that a crash leaves
// the old file or the new one: temporary file, fsync, rename, fsync of the
// directory. The temporary name starts with a dot and ends in .tmp.
func Replace(path string, text []byte) error { return replace(path, text, 0o600) }

// Publish is Replace for what anybody may read: mode 0644, whatever the umask.
func Publish(path string, text []byte) error { return replace(path, text, 0o644) }

// Rewrite is Replace for a file that is there already: it keeps the file's mode, and
// replaces what a symbolic link leads to.
func Rewrite(path string, text []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return replace(path, text, info.Mode().Perm())
}

func replace(path string, text []byte, mode fs.FileMode) (err error) {
	// CreateTemp makes files with mode 0600.
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(text); err != nil {
		return err
	}
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a directory durable.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

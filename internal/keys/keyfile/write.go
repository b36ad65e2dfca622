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
	text := make([]byte, 2*key.Len()+1)
	defer clear(text)
	hex.Encode(text, key.Bytes())
	text[len(text)-1] = '\n'
	err := Create(path, text)
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("writing key file %s: %w; keys are never overwritten", path, fs.ErrExist)
	case err != nil:
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

func replace(path string, text []byte, mode fs.FileMode) error {
	return write(path, text, mode, os.Rename)
}

// Create is Replace for a path at which nothing is yet: of two that write there at
// the same time one gets an error that is fs.ErrExist, and changes nothing.
func Create(path string, text []byte) error { return write(path, text, 0o600, claim) }

// CreatePublic is Create for what anybody may read.
func CreatePublic(path string, text []byte) error { return write(path, text, 0o644, claim) }

// write writes a temporary file and gives it its name by publish.
func write(path string, text []byte, mode fs.FileMode, publish func(from, to string) error) (err error) {
	dir := filepath.Dir(path)
	// CreateTemp makes files with mode 0600.
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return about(dir, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = about(path, err)
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
	if err = publish(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// about gives an error the path that the caller knows, instead of a temporary one.
func about(path string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return &fs.PathError{Op: e.Op, Path: path, Err: e.Err}
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return &fs.PathError{Op: e.Op, Path: path, Err: e.Err}
	}
	return err
}

// claim gives a file another name that is not there yet, instead of its own. Unlike
// rename, renameat2 can do so and replace nothing. Where a file system cannot, there is
// link(2), between which and the removal the file has two names.
func claim(from, to string) error {
	err := renameNew(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}

// SyncDir makes the names in a directory durable.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

package lab

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Mirror brings the key files of from, which to lacks, there.
func Mirror(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		if filepath.Ext(path) != ".key" {
			return nil
		}
		if _, err := os.Lstat(target); err == nil {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		defer clear(content)
		// A name with a leading dot is not looked at.
		partial := filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+".tmp")
		if err := os.WriteFile(partial, content, 0o600); err != nil {
			return err
		}
		return os.Rename(partial, target)
	})
}

// CopyExecutable copies a program, to a file system that is fast to start it from.
func CopyExecutable(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

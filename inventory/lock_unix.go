//go:build unix

package inventory

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// lockFiles takes the directory of an inventory for whoever changes one of its
// files. The files themselves cannot be locked: each change replaces one.
func lockFiles(path string) (unlock func(), err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		path = filepath.Dir(path)
	}
	d, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		_ = d.Close()
		return nil, &fs.PathError{Op: "flock", Path: path, Err: err}
	}
	return func() { _ = d.Close() }, nil
}

// keepOwner gives a file to the owner of another.
func keepOwner(f *os.File, like fs.FileInfo) error {
	st, ok := like.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}

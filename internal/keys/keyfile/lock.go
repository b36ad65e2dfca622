package keyfile

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// ErrLocked is a directory that another process has locked.
var ErrLocked = errors.New("another process works on it; wait until that has ended")

// Lock takes a directory of keys for one process at a time, and waits until nobody
// else has it. Whoever ends, however, gives it back. There is no file for it, for the
// directory may be one that is copied. It must be one that CheckDir accepts.
func Lock(dir string) (unlock func(), err error) { return lock(dir, 0) }

// TryLock is Lock that does not wait: its error is ErrLocked.
func TryLock(dir string) (unlock func(), err error) { return lock(dir, syscall.LOCK_NB) }

func lock(dir string, how int) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("locking a directory of keys: %w", err)
	}
	info, err := d.Stat()
	if err == nil {
		err = CheckDir(dir, info)
	}
	if err == nil {
		err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|how)
	}
	if err == nil {
		return func() { _ = d.Close() }, nil
	}
	_ = d.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrLocked
	}
	return nil, fmt.Errorf("locking directory %s: %w", dir, err)
}

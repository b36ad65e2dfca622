package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// SmallDisk puts a file system of so many octets on a directory, so that it can be
// full. What it returns takes it away.
func SmallDisk(dir string, size int) (unmount func() error, err error) {
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("mode=0700,size=%d", size)); err != nil {
		return nil, fmt.Errorf("mount a disk of %d octets on %s: %w", size, dir, err)
	}
	return func() error {
		if err := unix.Unmount(dir, 0); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
		return nil
	}, nil
}

// ErrNotOurs means that the machine is not a guest of its own, so that nobody may
// set its clock.
var ErrNotOurs = errors.New("this is no guest of user-mode Linux, whose clock could be set")

// SetClock sets the clock of a guest.
func SetClock(to time.Time) error {
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	if !bytes.Contains(cpu, []byte("User Mode Linux")) {
		return fmt.Errorf("set the clock: %w", ErrNotOurs)
	}
	tv := unix.NsecToTimeval(to.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}

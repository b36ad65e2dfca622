package keyfile_test

import (
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/internal/keys/keyfile"
)

// A new file appears by rename, where the file system can do that: who is killed in
// between must not leave a key under a second name, which outlives its revocation.
func TestNewFileHasOneName(t *testing.T) {
	dir := t.TempDir()
	probe := filepath.Join(dir, "probe")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want := uint32(unix.IN_MOVED_TO)
	if err := unix.Renameat2(unix.AT_FDCWD, probe, unix.AT_FDCWD, probe+"d", unix.RENAME_NOREPLACE); err != nil {
		want = unix.IN_CREATE // by link(2), as this file system cannot
	}
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		t.Fatal(err)
	}
	if err := keyfile.Create(filepath.Join(dir, "1.0.key"), []byte("text")); err != nil {
		t.Fatal(err)
	}
	events := make([]byte, 4096)
	n, err := unix.Read(fd, events)
	if err != nil {
		t.Fatal(err)
	}
	var last uint32
	for events = events[:n]; len(events) >= unix.SizeofInotifyEvent; {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&events[0]))
		last, events = e.Mask, events[unix.SizeofInotifyEvent+e.Len:]
	}
	if last != want {
		t.Errorf("the file came with event %#x, want %#x", last, want)
	}
}

package keyfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lever-link/lever/internal/keys/keyfile"
)

func TestReadPEM(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	private, public := put("private", "text", 0o600), put("public", "text", 0o644)
	large := put("large", strings.Repeat("x", 1<<20+1), 0o600)
	link, open, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "open"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.Symlink(private, link), os.Symlink(public, open), syscall.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path              string
		private, readable bool
		want              string // of a private one's error
	}{
		{private, true, true, ""},
		{link, true, true, ""},
		{public, false, true, "its mode is 0644"},
		{open, false, true, "its mode is 0644"}, // of the file that is read
		{large, false, false, "more than 1048576 octets"},
		{fifo, false, false, "not a regular file"},
		{filepath.Join(dir, "absent"), false, false, "no such file"},
	} {
		text, err := keyfile.ReadPrivatePEM(test.path)
		if (err == nil) != test.private || test.private && string(text) != "text" || err != nil && (text != nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s as a private key: %d octets, %v; want %q", test.path, len(text), err, test.want)
		}
		if text, err := keyfile.ReadPEM(test.path); (err == nil) != test.readable {
			t.Errorf("%s as a certificate: %d octets, %v", test.path, len(text), err)
		}
	}
}

package issue_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lever-link/lever/internal/issue"
	"github.com/lever-link/lever/internal/signed"
)

// An issuer's directory is private, or is not made one.
func TestMakeIssuer(t *testing.T) {
	for _, test := range []struct {
		name  string
		umask int
		make  func(dir string) error // what is there before
		want  string
	}{
		{"new", 0o022, nil, ""},
		{"a umask that takes nothing", 0, nil, ""},
		{"a umask that takes much", 0o277, nil, ""},
		{"private already", 0o022, func(dir string) error { return os.Mkdir(dir, 0o700) }, ""},
		{"that others can read", 0o022, func(dir string) error { return os.Mkdir(dir, 0o755) }, "its mode is 0755, so users other than its owner have access; it must be 0700"},
		{"a symbolic link", 0o022, func(dir string) error { return os.Symlink(t.TempDir(), dir) }, "it is a symbolic link"},
		{"a file", 0o022, func(dir string) error { return os.WriteFile(dir, nil, 0o600) }, "it is not a directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "issuer")
			if test.make != nil {
				if err := test.make(dir); err != nil {
					t.Fatal(err)
				}
			}
			old := syscall.Umask(test.umask)
			public, file, err := issue.MakeIssuer(dir)
			syscall.Umask(old)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v, want %q", err, test.want)
				}
				if _, err := os.Stat(filepath.Join(dir, issue.SigningKey)); err == nil {
					t.Error("it has a key all the same")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			k, err := signed.ReadKey(file)
			if err != nil || k.Public() != public {
				t.Errorf("the key in %s: %v", file, err)
			}
			if info, err := os.Stat(dir); err != nil || info.Mode() != fs.ModeDir|0o700 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
		})
	}
}

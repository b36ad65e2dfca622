package dir_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/dir"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const link = "fra1-ams1-017"

var digits = strings.Repeat("5ec2e7a9", 8)

func epoch(t *testing.T, s string) keys.Epoch {
	t.Helper()
	e, err := keys.ParseEpoch(s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// newRoot is an empty channel with the link's directory in it.
func newRoot(t *testing.T) (root, linkDir string) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "a")
	linkDir = filepath.Join(root, link)
	if err := os.MkdirAll(linkDir, 0o700); err != nil {
		t.Fatal(err)
	}
	return root, linkDir
}

func put(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	tmp := filepath.Join(filepath.Dir(path), ".tmp-"+filepath.Base(path))
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(tmp, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

func TestScanAcceptsAndRefuses(t *testing.T) {
	for _, c := range []struct {
		name, file, text string
		mode             fs.FileMode
		code             health.Code // empty: accepted
		says             string
	}{
		{"good", "42.0.key", digits + "\n", 0o600, "", ""},
		{"read only", "42.0.key", digits + "\n", 0o400, "", ""},
		{"capitals", "42.0.key", strings.ToUpper(digits) + "\n", 0o600, "", ""},
		{"group readable", "42.0.key", digits + "\n", 0o640, health.KeyFilePermissions, "0640"},
		{"world readable", "42.0.key", digits + "\n", 0o604, health.KeyFilePermissions, "0604"},
		{"group writable", "42.0.key", digits + "\n", 0o620, health.KeyFilePermissions, "0620"},
		{"no newline", "42.0.key", digits, 0o600, health.KeyFileMalformed, "no newline"},
		{"two newlines", "42.0.key", digits + "\n\n", 0o600, health.KeyFileMalformed, "longer than 64"},
		{"CRLF", "42.0.key", digits + "\r\n", 0o600, health.KeyFileMalformed, "longer than 64"},
		{"empty", "42.0.key", "", 0o600, health.KeyFileMalformed, "0 characters"},
		{"short", "42.0.key", digits[:62] + "\n", 0o600, health.KeyFileMalformed, "62 characters"},
		{"odd", "42.0.key", digits[:63] + "\n", 0o600, health.KeyFileMalformed, "63 characters"},
		{"long", "42.0.key", digits + "00\n", 0o600, health.KeyFileMalformed, "longer"},
		{"huge", "42.0.key", strings.Repeat(digits, 1000), 0o600, health.KeyFileMalformed, "longer"},
		{"not hexadecimal", "42.0.key", "g" + digits[1:] + "\n", 0o600, health.KeyFileMalformed, "character 1 is"},
		{"binary", "42.0.key", strings.Repeat("\x00", 64) + "\n", 0o600, health.KeyFileMalformed, "character 1 is"},
		{"other suffix", "42.0.txt", digits + "\n", 0o600, health.KeyFileUnexpected, ".key"},
		{"no generation", "42.key", digits + "\n", 0o600, health.KeyFileUnexpected, "no dot"},
		{"leading zero", "042.0.key", digits + "\n", 0o600, health.KeyFileUnexpected, "leading zeros"},
		{"epoch zero", "0.0.key", digits + "\n", 0o600, health.KeyFileUnexpected, "count from 1"},
		{"sign", "+1.0.key", digits + "\n", 0o600, health.KeyFileUnexpected, "decimal"},
		{"too big", "18446744073709551616.0.key", digits + "\n", 0o600, health.KeyFileUnexpected, "2^64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, d := newRoot(t)
			put(t, filepath.Join(d, c.file), c.text, c.mode)
			s := dir.Scan(root, link).Snapshot()
			if c.code == "" {
				if len(s.Keys) != 1 || len(s.Findings) != 0 {
					t.Fatalf("refused: %+v", s)
				}
				m := s.Keys[epoch(t, "42.0")]
				if fmt.Sprintf("%x", m.Key.Bytes()) != digits || m.KeyID != "42.0" {
					t.Errorf("key id %q, wrong octets %v", m.KeyID, fmt.Sprintf("%x", m.Key.Bytes()) != digits)
				}
				return
			}
			if len(s.Keys) != 0 || len(s.Findings) != 1 {
				t.Fatalf("accepted: %+v", s)
			}
			f := s.Findings[0]
			if f.Code != c.code || !strings.Contains(f.Detail, c.says) || filepath.Base(f.File) != c.file {
				t.Errorf("%+v, want %s saying %q of %s", f, c.code, c.says, c.file)
			}
			if c.code != health.KeyFileUnexpected && !s.Present[epoch(t, "42.0")] {
				t.Error("a refused file must count as present: it is not revoked")
			}
			if fault := f.Fault(); strings.Contains(fault.String(), digits[:16]) || strings.Contains(fault.Text, "(unknown)") {
				t.Errorf("fault %s", fault)
			}
		})
	}
}

func TestScanRefusesWhatIsNoFile(t *testing.T) {
	for _, c := range []struct {
		name, says string
		make       func(path string) error
	}{
		{"symbolic link", "symbolic link", func(path string) error {
			target := filepath.Join(filepath.Dir(filepath.Dir(path)), ".target")
			if err := os.WriteFile(target, []byte(digits+"\n"), 0o600); err != nil {
				return err
			}
			return os.Symlink(target, path)
		}},
		{"directory", "not a regular file", func(path string) error { return os.Mkdir(path, 0o700) }},
		{"fifo", "not a regular file", func(path string) error { return syscall.Mkfifo(path, 0o600) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, d := newRoot(t)
			if err := c.make(filepath.Join(d, "1.0.key")); err != nil {
				t.Fatal(err)
			}
			s := dir.Scan(root, link).Snapshot()
			if len(s.Keys) != 0 || len(s.Findings) != 1 || s.Findings[0].Code != health.KeyFilePermissions || !strings.Contains(s.Findings[0].Detail, c.says) {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestScanIgnoresFilesOnTheirWayIn(t *testing.T) {
	root, d := newRoot(t)
	for _, name := range []string{".42.0.key.123.tmp", ".hidden", "42.0.key.tmp", ".41.0.revoked"} {
		put(t, filepath.Join(d, name), digits, 0o644)
	}
	if s := dir.Scan(root, link).Snapshot(); len(s.Keys)+len(s.Present)+len(s.Findings) != 0 || s.Unavailable {
		t.Errorf("%+v", s)
	}
}

func TestScanChecksDirectories(t *testing.T) {
	for _, c := range []struct {
		name, says  string
		unavailable bool
		prepare     func(root, linkDir string) error
	}{
		{"root missing", "does not exist", true, func(root, _ string) error { return os.RemoveAll(root) }},
		{"root world-writable", "0777", true, func(root, _ string) error { return os.Chmod(root, 0o777) }},
		{"root group-writable", "0770", true, func(root, _ string) error { return os.Chmod(root, 0o770) }},
		{"link directory group-writable", "0720", true, func(_, d string) error { return os.Chmod(d, 0o720) }},
		{"root is a file", "not a directory", true, func(root, _ string) error {
			if err := os.RemoveAll(root); err != nil {
				return err
			}
			return os.WriteFile(root, nil, 0o600)
		}},
		{"link directory is a symbolic link", "symbolic link", true, func(root, d string) error {
			if err := os.Rename(d, filepath.Join(root, "elsewhere")); err != nil {
				return err
			}
			return os.Symlink("elsewhere", d)
		}},
		{"link directory missing", "", false, func(_, d string) error { return os.RemoveAll(d) }},
		{"root is a symbolic link", "", false, func(root, _ string) error {
			if err := os.Rename(root, root+".real"); err != nil {
				return err
			}
			return os.Symlink("a.real", root)
		}},
		{"readable by all", "", false, func(root, _ string) error { return os.Chmod(root, 0o755) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, d := newRoot(t)
			if err := c.prepare(root, d); err != nil {
				t.Fatal(err)
			}
			s := dir.Scan(root, link).Snapshot()
			if s.Unavailable != c.unavailable {
				t.Fatalf("unavailable %v: %+v", s.Unavailable, s)
			}
			if c.unavailable && (len(s.Findings) != 1 || s.Findings[0].Code != health.ChannelUnreadable || !strings.Contains(s.Findings[0].Detail, c.says)) {
				t.Errorf("%+v", s.Findings)
			}
		})
	}
}

func TestScanRefusesLinkNamesThatLeaveTheRoot(t *testing.T) {
	root, _ := newRoot(t)
	for _, l := range []string{"", ".", "..", "../a", "x/y", ".hidden", "a\x00"} {
		if s := dir.Scan(root, l).Snapshot(); !s.Unavailable {
			t.Errorf("%q was scanned", l)
		}
		if _, err := dir.Issue(root, l, 1); err == nil {
			t.Errorf("%q was issued", l)
		}
		if err := dir.New(root, dir.Options{}).Watch(t.Context(), l, func(keys.Snapshot) {}); err == nil {
			t.Errorf("%q was watched", l)
		}
	}
}

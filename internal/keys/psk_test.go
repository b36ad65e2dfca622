package keys_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyfile"
)

func TestLoadPSK(t *testing.T) {
	const digits = "000102030405060708090A0b0c0d0e0f"
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		ckn        []byte
		octets     int // 0: refused
		says       string
	}{
		{"16 octets", digits + "\n", 0o600, []byte("abcd"), 16, ""},
		{"32 octets", digits + digits + "\n", 0o600, []byte("abcd"), 32, ""},
		{"no newline", digits, 0o400, bytes.Repeat([]byte{1}, 32), 32 / 2, ""},
		{"24 octets", digits + digits[:16] + "\n", 0o600, []byte("abcd"), 0, "48 characters before its final newline, not 32 or 64"},
		{"longer", digits + digits + "00\n", 0o600, []byte("abcd"), 0, "longer than 32 or 64"},
		{"not hexadecimal", digits[:31] + "x\n", 0o600, []byte("abcd"), 0, "character 32 is not"},
		{"space", " " + digits[:31] + "\n", 0o600, []byte("abcd"), 0, "character 1 is not"},
		{"readable by the group", digits + "\n", 0o640, []byte("abcd"), 0, "mode is 0640"},
		{"no CKN", digits + "\n", 0o600, nil, 0, "0 octets"},
		{"long CKN", digits + "\n", 0o600, make([]byte, 33), 0, "33 octets"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dx-1.cak")
			if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			cak, err := keys.LoadPSK(c.ckn, path)
			if c.octets == 0 {
				if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), digits[:8]) {
					t.Errorf("error %v, want one saying %q", err, c.says)
				}
				return
			}
			if err != nil || cak.Key.Len() != c.octets || cak.Key.Bytes()[15] != 0x0f || cak.Key.Bytes()[10] != 0x0a || !bytes.Equal(cak.CKN, c.ckn) || !cak.Epoch.IsZero() {
				t.Errorf("%+v %v", cak, err)
			}
		})
	}
	if _, err := keys.LoadPSK([]byte("a"), filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}

// An owner that is neither root nor the agent's user could replace the key. Only
// root can make such a file; an ordinary user's run tries the check on a file of
// root's that everybody may read instead, and finds the mode refused.
func TestForeignOwnersAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	if err := os.WriteFile(path, []byte(strings.Repeat("0", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "belongs to user 12345"
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 12345, -1); err != nil {
			t.Fatal(err)
		}
	} else {
		path, want = "/etc/passwd", "mode is"
	}
	_, err := keys.LoadPSK([]byte("a"), path)
	var permission *keyfile.PermissionError
	if !errors.As(err, &permission) || !strings.Contains(permission.Reason, want) {
		t.Errorf("error %v", err)
	}
}

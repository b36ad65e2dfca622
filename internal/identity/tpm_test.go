//go:build tpm

// These tests need swtpm, the TPM emulator: make test installs it and runs them.

package identity

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

// newTPM runs an emulator until the end of the test, and returns its socket.
func newTPM(t *testing.T) string {
	t.Helper()
	// Not t.TempDir: a socket's path has 107 octets at most.
	dir, err := os.MkdirTemp("", "tpm") //nolint:usetesting // a socket lies in it, whose path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "tpm.sock")
	var said strings.Builder
	cmd := exec.CommandContext(t.Context(), "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir,
		"--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: make tools installs it", err)
	}
	over := make(chan error, 1)
	go func() { over <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-over
	})
	// It says nothing when it listens: whoever is answered knows.
	for deadline := time.NewTimer(30 * time.Second); ; {
		if c, err := net.Dial("unix", socket); err == nil {
			_ = c.Close()
			return socket
		}
		select {
		case err := <-over:
			over <- err
			t.Fatalf("swtpm ended: %v\n%s", err, said.String())
		case <-deadline.C:
			t.Fatalf("swtpm does not answer\n%s", said.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestTPM seals identities, opens them and lets them take one another's place.
func TestTPM(t *testing.T) {
	tpm := newTPM(t)
	dir := filepath.Join(t.TempDir(), Dir)
	first, err := Init(dir, Options{TPM: tpm, Now: at("2026-05-01T10:00:00Z")})
	if err != nil {
		t.Fatal(err)
	}
	if first.Device != tpm || filepath.Base(first.File) != "20260501T100000Z.tpm" {
		t.Errorf("made %+v", first)
	}
	text, err := os.ReadFile(first.File)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "SECRET-KEY") || !strings.Contains(string(text), first.Recipient) {
		t.Errorf("the file is not that of a sealed identity")
	}
	if info, err := os.Stat(first.File); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	opens(t, dir, first.Recipient)
	// One in a file is used beside it.
	second, err := Init(dir, Options{Now: at("2026-05-02T10:00:00Z")})
	if err != nil {
		t.Fatal(err)
	}
	third, err := Init(dir, Options{TPM: tpm, Now: at("2026-05-03T10:00:00Z")})
	if err != nil {
		t.Fatal(err)
	}
	opens(t, dir, first.Recipient, second.Recipient, third.Recipient)
	if got := Devices(dir); len(got) != 1 || got[0] != tpm {
		t.Errorf("devices %q", got)
	}
	removed, err := Retire(dir)
	if err != nil || len(removed) != 2 {
		t.Fatalf("removed %+v, %v", removed, err)
	}
	opens(t, dir, third.Recipient)
}

// TestTPMRefuses opens what this TPM has not sealed, or not like this. The identity
// beside it is there all the same.
func TestTPMRefuses(t *testing.T) {
	tpm, other := newTPM(t), newTPM(t)
	made := func(t *testing.T, opts Options) (string, string) {
		dir := filepath.Join(t.TempDir(), Dir)
		e, err := Init(dir, opts)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(e.File)
		if err != nil {
			t.Fatal(err)
		}
		return e.File, string(text)
	}
	const beside = "20260101T000000Z.age"
	for name, tc := range map[string]struct {
		change func(text string) string
		is     error
		want   string
	}{
		"another TPM": {func(s string) string { return strings.Replace(s, tpm, other, 1) }, nil, "it was sealed by another TPM"},
		"no TPM":      {func(s string) string { return strings.Replace(s, tpm, "/dev/tpmrm99", 1) }, fs.ErrNotExist, "this machine has no TPM there"},
		"another's public key": {func(s string) string {
			_, after, _ := strings.Cut(s, publicKey)
			return publicKey + "age1pq1other" + after[strings.Index(after, "\n"):]
		}, ErrDamaged, "not the identity of the public key in the file"},
		"a bit of the private part": {func(s string) string {
			i := strings.LastIndex(s, "\n-----END "+privateBlock) - 9
			return s[:i] + string(rune('A'+(s[i]-'A'+1)%26)) + s[i+1:]
		}, nil, "it was sealed by another TPM"},
		"cut off": {func(s string) string { return s[:len(s)-100] }, ErrDamaged, "no whole identity"},
		"not a TPM object": {func(s string) string {
			return strings.Replace(s, s[strings.Index(s, "\n\n")+2:strings.Index(s, "\n-----END "+publicBlock)], "AAAA", 1)
		}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			file, text := made(t, Options{TPM: tpm})
			_, good := made(t, Options{})
			dir := filepath.Dir(file)
			changed := tc.change(text)
			if changed == text {
				t.Fatal("nothing was changed")
			}
			for path, text := range map[string]string{file: changed, filepath.Join(dir, beside): good} {
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			ids, err := Load(dir)
			if err == nil || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Load: %v", err)
			}
			if len(ids) != 1 {
				t.Errorf("%d identities are left, want the one beside it", len(ids))
			}
			if removed, err := Retire(dir); err == nil || len(removed) != 0 {
				t.Errorf("the newest cannot be opened and the other was removed: %+v, %v", removed, err)
			}
		})
	}
}

var _ age.Identity = opaque{}

package keyfile_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/secret"
)

func TestWriteThenRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "1.0.key")
	octets := []byte("\x00\x01\xfe\xff" + strings.Repeat("k", 28))
	if err := keyfile.Write(path, secret.Clone(octets)); err != nil {
		t.Fatal(err)
	}
	got, err := keyfile.Read(path, keyfile.Format{Sizes: []int{32}})
	if err != nil || !bytes.Equal(got.Bytes(), octets) {
		t.Fatalf("%v, the same %v", err, bytes.Equal(got.Bytes(), octets))
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 || info.Size() != 65 {
		t.Errorf("%v %v", info, err)
	}
	if err := keyfile.Write(path, secret.Clone(bytes.Repeat([]byte{1}, 32))); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a key was overwritten: %v", err)
	}
	if again, err := keyfile.Read(path, keyfile.Format{Sizes: []int{32}}); err != nil || !again.Equal(got) {
		t.Errorf("after a refused write: %v", err)
	}
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(names) != 1 {
		t.Errorf("left behind: %v %v", names, err)
	}
}

func TestReplaceLeavesNothingBehindWhenItFails(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.MkdirAll(filepath.Join(target, "occupied"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := keyfile.Replace(target, []byte("x")); err == nil {
		t.Fatal("a directory was replaced by a file")
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Errorf("left behind: %v %v", names, err)
	}
	if err := keyfile.Replace(filepath.Join(dir, "absent", "x"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into an absent directory: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(strings.Repeat("0a", 32) + "\n"))
	f.Add([]byte(strings.Repeat("0a", 16)))
	f.Add([]byte("\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := keyfile.Read(path, keyfile.Format{Sizes: []int{16, 32}, NewlineOptional: true})
		if err != nil {
			if key.Len() != 0 {
				t.Error("an error and a key")
			}
			return
		}
		// What was accepted is written back as the same digits.
		again := path + "2"
		if err := keyfile.Write(again, key); err != nil {
			t.Fatal(err)
		}
		back, err := os.ReadFile(again)
		if err != nil || !strings.EqualFold(strings.TrimSuffix(string(text), "\n"), strings.TrimSuffix(string(back), "\n")) {
			t.Errorf("accepted what is not a key: %v", err)
		}
	})
}

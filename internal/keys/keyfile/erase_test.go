package keyfile_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/secret/secrettest"
)

func init() { secrettest.Undisturbed() }

// A key that is read, written or refused is in the Key that is returned and
// nowhere else, neither as octets nor as digits.
func TestFilesLeaveNothingInMemory(t *testing.T) {
	var search secrettest.Search
	cases := []struct {
		name string
		// change makes of the digits of a good file, in place, those of the case.
		change func(text []byte) []byte
		reads  bool
	}{
		{"good", func(b []byte) []byte { return b }, true},
		{"without a newline", func(b []byte) []byte { return b[:64] }, false},
		{"too long", func(b []byte) []byte { return append(b[:64], 'a', 'b', '\n') }, false},
		{"too short", func(b []byte) []byte { return append(b[:62], '\n') }, false},
		{"not all digits", func(b []byte) []byte { b[63] = 'x'; return b }, false},
	}
	for _, c := range cases {
		path := filepath.Join(t.TempDir(), "1.0.key")
		key := secret.New(make([]byte, 32))
		_, _ = rand.Read(key.Bytes())
		search.Add(c.name, key.Bytes())
		if err := keyfile.Write(path, key); err != nil {
			t.Fatal(err)
		}
		key.Erase()
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 65, 80)
		if _, err := f.Read(text); err != nil {
			t.Fatal(err)
		}
		text = c.change(text)
		if err := f.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(text, 0); err != nil {
			t.Fatal(err)
		}
		clear(text[:cap(text)])
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := keyfile.Read(path, keyfile.Format{Sizes: []int{32}})
		if (err == nil) != c.reads {
			t.Errorf("%s: %v", c.name, err)
		}
		got.Erase()
	}
	image, err := search.Self()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if image.Has(c.name) {
			t.Errorf("%s: the key is %s", c.name, image.Where(c.name))
		}
	}
}

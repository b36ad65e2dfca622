package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-tpm/tpm2"

	"github.com/lever-link/lever/internal/keys/keyfile"
)

// at is a clock that stands.
func at(when string) func() time.Time {
	t, err := time.Parse(time.RFC3339, when)
	if err != nil {
		panic(err)
	}
	return func() time.Time { return t }
}

// sealTo is something sealed to recipients.
func sealTo(t *testing.T, recipients ...string) []byte {
	t.Helper()
	var to []age.Recipient
	for _, r := range recipients {
		parsed, err := age.ParseHybridRecipient(r)
		if err != nil {
			t.Fatal(err)
		}
		to = append(to, parsed)
	}
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("material")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// opens checks that the identities of a directory are those of the recipients, and
// that they open what is sealed to each.
func opens(t *testing.T, dir string, recipients ...string) {
	t.Helper()
	ids, err := Load(dir)
	if err != nil || len(ids) != len(recipients) {
		t.Fatalf("%d identities, %v; want %d", len(ids), err, len(recipients))
	}
	for i, r := range recipients {
		// The newest comes first.
		if err := opened(sealTo(t, r), ids[len(ids)-1-i]); err != nil {
			t.Errorf("identity %d: %v", i, err)
		}
		if err := opened(sealTo(t, r), ids...); err != nil {
			t.Errorf("all identities: %v", err)
		}
	}
}

func opened(ciphertext []byte, ids ...age.Identity) error {
	r, err := age.Decrypt(bytes.NewReader(ciphertext), ids...)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(r)
	if err == nil && string(text) != "material" {
		err = fmt.Errorf("opened %q", text)
	}
	return err
}

// TestReplacement walks through the life of two identities.
func TestReplacement(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", Dir)
	if _, err := Load(dir); !errors.Is(err, ErrNone) {
		t.Errorf("before there is a directory: %v", err)
	}
	if _, err := Retire(dir); !errors.Is(err, ErrNone) {
		t.Errorf("before there is a directory: %v", err)
	}
	old, err := Init(dir, Options{Now: at("2026-05-01T12:00:00+02:00")})
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(old.File) != "20260501T100000Z.age" || !strings.HasPrefix(old.Recipient, "age1pq1") || old.Device != "" || old.Err != nil {
		t.Errorf("made %+v", old)
	}
	for path, want := range map[string]fs.FileMode{dir: fs.ModeDir | 0o700, old.File: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v %v, want %v", path, info.Mode(), err, want)
		}
	}
	if removed, err := Retire(dir); err != nil || len(removed) != 0 {
		t.Errorf("the only one was retired: %+v %v", removed, err)
	}
	opens(t, dir, old.Recipient)

	// The clock was set back: the new one counts as the newest all the same.
	young, err := Init(dir, Options{Now: at("2026-04-01T10:00:00Z")})
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(young.File) != "20260501T100001Z.age" {
		t.Errorf("made %s", young.File)
	}
	opens(t, dir, old.Recipient, young.Recipient)
	list, err := List(dir)
	if err != nil || !slices.Equal(list, []Entry{old, young}) {
		t.Errorf("listed %+v, %v", list, err)
	}
	removed, err := Retire(dir)
	if err != nil || !slices.Equal(removed, []Entry{old}) {
		t.Errorf("retired %+v, %v", removed, err)
	}
	opens(t, dir, young.Recipient)
	if err := opened(sealTo(t, old.Recipient), must(Load(dir))...); err == nil {
		t.Error("what is sealed to the retired identity can still be opened")
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("left: %v %v", names, err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestAgesOwnToolsReadIt parses the file as age does, and takes one that age-keygen
// has written.
func TestAgesOwnToolsReadIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), Dir)
	e, err := Init(dir, Options{Now: at("2026-05-01T10:00:00Z")})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(e.File)
	if err != nil {
		t.Fatal(err)
	}
	if want := "# created: 2026-05-01T10:00:00Z\n# public key: " + e.Recipient + "\nAGE-SECRET-KEY-PQ-1"; !strings.HasPrefix(string(text), want) {
		t.Error("the file does not begin as one of age-keygen -pq")
	}
	ids, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil || len(ids) != 1 {
		t.Fatalf("%d identities, %v", len(ids), err)
	}
	if err := opened(sealTo(t, e.Recipient), ids...); err != nil {
		t.Error(err)
	}
	hand, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	file := "# created: 2026-05-02T12:15:17+01:00\r\n# public key: " + hand.Recipient().String() + "\r\n\r\n" + hand.String()
	if err := os.WriteFile(filepath.Join(dir, "20260502T111517Z.age"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	opens(t, dir, e.Recipient, hand.Recipient().String())
}

// TestBadFiles puts something wrong beside a good identity: it is named, it does not
// hide the good one, and nothing of its content is told.
func TestBadFiles(t *testing.T) {
	good := must(age.GenerateHybridIdentity())
	secret := good.String()
	const name = "20260601T000000Z.age"
	for what, tc := range map[string]struct {
		name string
		text string
		mode fs.FileMode
		is   error
		want string
	}{
		"others can read it":  {name, secret, 0o640, nil, "its mode is 0640, so users other than its owner have access; it must be 0600"},
		"empty":               {name, "", 0o600, ErrDamaged, ErrDamaged.Error()},
		"comments only":       {name, "# nothing\n", 0o600, ErrDamaged, ErrDamaged.Error()},
		"cut off":             {name, secret[:len(secret)-1], 0o600, ErrDamaged, ErrDamaged.Error()},
		"a slip":              {name, secret[:30] + "b" + secret[31:], 0o600, ErrDamaged, ErrDamaged.Error()},
		"something else":      {name, "hunter2", 0o600, ErrDamaged, ErrDamaged.Error()},
		"two":                 {name, secret + "\n" + secret + "\n", 0o600, ErrDamaged, "it holds more than one secret key; keep each in a file of its own"},
		"too long":            {name, strings.Repeat("#\n", maxText), 0o600, ErrDamaged, "it is longer than 16383 octets"},
		"a name of its own":   {"my.age", secret, 0o600, nil, "its name is not the time at which it was made, such as 20060102T150405Z.age: rename it"},
		"not a sealed file":   {"20260601T000000Z.tpm", "hunter2", 0o600, ErrDamaged, ErrDamaged.Error()},
		"a key that is plain": {"20260601T000000Z.tpm", secret, 0o600, ErrDamaged, ErrDamaged.Error()},
	} {
		t.Run(what, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), Dir)
			e, err := Init(dir, Options{Now: at("2026-05-01T10:00:00Z")})
			if err != nil {
				t.Fatal(err)
			}
			bad := filepath.Join(dir, tc.name)
			if err := os.WriteFile(bad, []byte(tc.text), tc.mode); err != nil {
				t.Fatal(err)
			}
			ids, err := Load(dir)
			if err == nil || tc.is != nil && !errors.Is(err, tc.is) {
				t.Fatalf("%v", err)
			}
			if !strings.HasPrefix(err.Error(), bad+": ") || strings.Count(err.Error(), bad) != 1 || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v", err)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), secret[30:50]) {
				t.Errorf("the error quotes the file: %v", err)
			}
			if len(ids) != 1 || opened(sealTo(t, e.Recipient), ids...) != nil {
				t.Errorf("the good one is hidden: %d identities", len(ids))
			}
			if list, err := List(dir); err != nil || len(list) != 2 || list[1].Err == nil || list[1].File != bad {
				t.Errorf("listed %+v, %v", list, err)
			}
			if removed, err := Retire(dir); err == nil || len(removed) > 0 || !strings.Contains(err.Error(), "the others are kept") {
				t.Errorf("retired %+v, %v", removed, err)
			}
		})
	}
}

// TestOldOnesNeedNotBeGood retires what cannot be read, too: it is of no use.
func TestOldOnesNeedNotBeGood(t *testing.T) {
	dir := filepath.Join(t.TempDir(), Dir)
	e, err := Init(dir, Options{Now: at("2026-05-01T10:00:00Z")})
	if err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "20260101T000000Z.age")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "20260102T000000Z.age"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if removed, err := Retire(dir); err != nil || len(removed) != 2 {
		t.Errorf("retired %+v, %v", removed, err)
	}
	opens(t, dir, e.Recipient)
	if text, err := os.ReadFile(outside); err != nil || string(text) != "precious" {
		t.Errorf("what the symbolic link led to was overwritten: %q, %v", text, err)
	}
}

// TestBadDirectories refuses directories in which others could put an identity.
func TestBadDirectories(t *testing.T) {
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{open, link} {
		for what, f := range map[string]func() error{
			"Load":   func() error { _, err := Load(dir); return err },
			"Init":   func() error { _, err := Init(dir, Options{}); return err },
			"Retire": func() error { _, err := Retire(dir); return err },
		} {
			if _, ok := errors.AsType[*keyfile.PermissionError](f()); !ok {
				t.Errorf("%s of %s: %v", what, dir, f())
			}
		}
		if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
			t.Errorf("%s: %v, %v", dir, names, err)
		}
	}
}

// TestNothingPrintsAnIdentity formats what Load returns in all ways.
func TestNothingPrintsAnIdentity(t *testing.T) {
	dir := filepath.Join(t.TempDir(), Dir)
	e, err := Init(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ids := must(Load(dir))
	text, err := os.ReadFile(e.File)
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ := strings.Cut(string(text), hybridPrefix)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		out := fmt.Sprintf(verb, ids) + fmt.Sprintf(verb, e) + fmt.Sprintf(verb, ids[0])
		if strings.Contains(out, key[:10]) || strings.Contains(out, "SECRET") {
			t.Errorf("%s prints the secret", verb)
		}
	}
}

// TestManyAtOnce makes identities at the same time and in the same second.
func TestManyAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), Dir)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := Init(dir, Options{Now: at("2026-05-01T10:00:00Z")}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if ids, err := Load(dir); err != nil || len(ids) != 8 {
		t.Errorf("%d identities, %v", len(ids), err)
	}
}

// TestNoTPM asks for a TPM that is not there.
func TestNoTPM(t *testing.T) {
	dir := filepath.Join(t.TempDir(), Dir)
	_, err := Init(dir, Options{TPM: filepath.Join(t.TempDir(), "tpmrm0")})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "this machine has no TPM there") {
		t.Errorf("%v", err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

// FuzzDecode reads files of both kinds: no input panics, and what is sealed is
// written back as the same.
func FuzzDecode(f *testing.F) {
	id := must(age.GenerateHybridIdentity())
	made := at("2026-05-01T10:00:00Z")()
	s := sealedText{recipient: id.Recipient().String(), device: DefaultTPM, public: []byte{0, 2, 1, 2}, private: []byte{0, 1, 3}}
	f.Add(s.encode(made))
	s.public, s.private = tpm2.Marshal(tpm2.New2B(sealedObject)), tpm2.Marshal(tpm2.TPM2BPrivate{Buffer: make([]byte, 64)})
	f.Add(s.encode(made))
	f.Add([]byte(header(made, s.recipient) + id.String() + "\n"))
	f.Add([]byte("AGE-SECRET-KEY-1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if key, err := decodePlain(text); err == nil {
			_, _, _ = parse(key)
		}
		s, err := decodeSealed(text)
		if err != nil {
			return
		}
		// There is no such device: what is in the file is decoded, and no more.
		s.device = "/nonexistent/tpm"
		if key, err := unseal(s); err == nil || key.Len() > 0 {
			t.Error("opened without a TPM")
		}
		if again, err := decodeSealed(s.encode(made)); err != nil || again.recipient != s.recipient ||
			!bytes.Equal(again.public, s.public) || !bytes.Equal(again.private, s.private) {
			t.Errorf("%+v, %v; want %+v", again, err, s)
		}
	})
}

package signed_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/signed"
)

var (
	issued  = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	expires = issued.Add(24 * time.Hour)
)

type fields struct {
	Node string `json:"node"`
	N    int    `json:"n"`
}

func key(t testing.TB) *signed.Key {
	t.Helper()
	path := filepath.Join(t.TempDir(), "signer.pem")
	public, err := signed.GenerateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	k, err := signed.ReadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if k.Public() != public {
		t.Fatalf("generated %v, read %v", public, k.Public())
	}
	return k
}

func statement(t testing.TB, payload string, signers ...*signed.Key) []byte {
	t.Helper()
	s, err := signed.New("test", issued.In(time.FixedZone("", 3600)).Add(time.Millisecond), expires, fields{"r1", 7}, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range signers {
		if err := s.Sign(k); err != nil {
			t.Fatal(err)
		}
	}
	return s.Text()
}

func TestRoundTrip(t *testing.T) {
	a, b := key(t), key(t)
	for _, payload := range []string{"", "x", "---\nsig \n" + strings.Repeat("\x00payload", 1000)} {
		text := statement(t, payload, a, b)
		s, err := signed.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		var f fields
		if err := s.Decode("test", &f); err != nil || f != (fields{"r1", 7}) {
			t.Errorf("fields %+v, %v", f, err)
		}
		if string(s.Payload) != payload || !s.Issued.Equal(issued) || !s.Expires.Equal(expires) {
			t.Errorf("parsed %+v", s.Header)
		}
		if !bytes.Equal(s.Text(), text) {
			t.Error("encoding again yields something else")
		}
		if err := s.Verify([]signed.PublicKey{b.Public(), a.Public()}, 2); err != nil {
			t.Error(err)
		}
		if err := s.Decode("index", &f); !errors.Is(err, signed.ErrMalformed) {
			t.Errorf("decoding another kind: %v", err)
		}
	}
}

// Signatures added on other machines, in either order, make one file.
func TestAddSignature(t *testing.T) {
	a, b, c := key(t), key(t), key(t)
	first := statement(t, "payload", a)
	add := func(text []byte, k *signed.Key) []byte {
		t.Helper()
		text, err := signed.AddSignature(text, k)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if x, y := add(add(first, b), c), add(add(first, c), b); !bytes.Equal(x, y) || !bytes.Equal(add(x, b), x) {
		t.Error("the order in which signatures were added shows")
	}
	changed := bytes.Replace(first, []byte(`"n":7`), []byte(`"n":8`), 1)
	if _, err := signed.AddSignature(changed, b); !errors.Is(err, signed.ErrTampered) {
		t.Errorf("signing what the first signer has not: %v", err)
	}
	full := statement(t, "", a)
	for range signed.MaxSignatures - 1 {
		full = add(full, key(t))
	}
	if _, err := signed.AddSignature(full, b); err == nil || !strings.Contains(err.Error(), "the most") {
		t.Errorf("a signature too many: %v", err)
	}
}

func TestVerifyCountsTrustedKeys(t *testing.T) {
	a, b, c := key(t), key(t), key(t)
	s, err := signed.Parse(statement(t, "payload", a, b))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name      string
		trusted   []*signed.Key
		threshold int
		want      error
	}{
		{"one of one", []*signed.Key{a}, 1, nil},
		{"two of three", []*signed.Key{a, b, c}, 2, nil},
		{"none is one", []*signed.Key{c}, 0, signed.ErrUntrusted},
		{"nobody trusted", nil, 1, signed.ErrUntrusted},
		{"one of two", []*signed.Key{a, c}, 2, signed.ErrUntrusted},
		{"one named twice", []*signed.Key{a, a}, 2, signed.ErrUntrusted},
		{"three of three", []*signed.Key{a, b, c}, 3, signed.ErrUntrusted},
	} {
		var trusted []signed.PublicKey
		for _, k := range test.trusted {
			trusted = append(trusted, k.Public())
		}
		if err := s.Verify(trusted, test.threshold); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	// A signature of another statement does not become valid here.
	other, err := signed.Parse(bytes.Replace(statement(t, "payload", a, b), []byte(`"n":7`), []byte(`"n":8`), 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Verify([]signed.PublicKey{a.Public()}, 1); !errors.Is(err, signed.ErrTampered) {
		t.Errorf("a changed header: %v", err)
	}
	if err := other.Verify([]signed.PublicKey{c.Public()}, 1); !errors.Is(err, signed.ErrUntrusted) {
		t.Errorf("wrong signatures of strangers: %v", err)
	}
}

func TestRefused(t *testing.T) {
	a, b := key(t), key(t)
	text := string(statement(t, "payload", a, b))
	lines := strings.SplitAfter(text, "\n")
	replace := func(from, to string) string {
		t.Helper()
		if !strings.Contains(text, from) {
			t.Fatalf("there is no %q", from)
		}
		return strings.Replace(text, from, to, 1)
	}
	for _, test := range []struct {
		name, text string
		want       error
	}{
		{"empty", "", signed.ErrTruncated},
		{"cut in the first line", text[:5], signed.ErrTruncated},
		{"cut in the header", text[:40], signed.ErrTruncated},
		{"cut in a signature", text[:len(lines[0])+len(lines[1])+20], signed.ErrTruncated},
		{"cut in the separator", strings.TrimSuffix(text, "-\npayload"), signed.ErrTruncated},
		{"cut in the payload", text[:len(text)-1], signed.ErrTruncated},
		{"another payload", replace("payload", "pay1oad"), signed.ErrTampered},
		{"a longer payload", text + "x", signed.ErrTampered},
		{"another file", "-----BEGIN CERTIFICATE-----\n", signed.ErrMalformed},
		{"another version", replace("v1", "v2"), signed.ErrMalformed},
		{"white space", replace(`,"issued"`, `, "issued"`), signed.ErrMalformed},
		{"white space in the fields", replace(`,"n":7`, `, "n":7`), signed.ErrMalformed},
		{"an unknown field", replace(`"kind"`, `"more":1,"kind"`), signed.ErrMalformed},
		{"a field twice", replace(`"kind":"test"`, `"kind":"test","kind":"test"`), signed.ErrMalformed},
		{"another case", replace(`"kind"`, `"Kind"`), signed.ErrMalformed},
		{"no fields", replace(`{"node":"r1","n":7}`, `null`), signed.ErrMalformed},
		{"a time zone", replace("12:00:00Z", "12:00:00+01:00"), signed.ErrMalformed},
		{"a fraction", replace("12:00:00Z", "12:00:00.5Z"), signed.ErrMalformed},
		{"never valid", replace("2026-09-02", "2026-08-02"), signed.ErrMalformed},
		{"a negative size", replace(`"size":7`, `"size":-7`), signed.ErrMalformed},
		{"a large size", replace(`"size":7`, `"size":70000000000`), signed.ErrMalformed},
		{"a digest in capitals", replace(`"sha256":"`, `"sha256":"A`), signed.ErrMalformed},
		{"signatures out of order", lines[0] + lines[1] + lines[3] + lines[2] + lines[4] + lines[5], signed.ErrMalformed},
		{"a signature twice", lines[0] + lines[1] + lines[2] + lines[2] + lines[3] + lines[4] + lines[5], signed.ErrMalformed},
		{"no signature", lines[0] + lines[1] + lines[4] + lines[5], signed.ErrMalformed},
		{"not base64", lines[0] + lines[1] + "sig !" + lines[2][5:] + lines[3] + lines[4] + lines[5], signed.ErrMalformed},
		{"another line", lines[0] + lines[1] + "x" + lines[2], signed.ErrMalformed},
		{"a large header", lines[0] + strings.Repeat(" ", signed.MaxHeader+1), signed.ErrMalformed},
		{"too large", text + strings.Repeat(" ", signed.MaxSize), signed.ErrMalformed},
	} {
		if _, err := signed.Parse([]byte(test.text)); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	// Whatever is cut off is told from what was changed.
	for n := range len(text) {
		if _, err := signed.Parse([]byte(text[:n])); !errors.Is(err, signed.ErrTruncated) {
			t.Fatalf("cut to %d octets: %v", n, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, make := range map[string]func() (*signed.Statement, error){
		"no kind":          func() (*signed.Statement, error) { return signed.New("", issued, expires, fields{}, nil) },
		"over at once":     func() (*signed.Statement, error) { return signed.New("test", issued, issued, fields{}, nil) },
		"fields no object": func() (*signed.Statement, error) { return signed.New("test", issued, expires, 7, nil) },
		"large fields": func() (*signed.Statement, error) {
			return signed.New("test", issued, expires, fields{Node: strings.Repeat("x", signed.MaxHeader)}, nil)
		},
		"large payload": func() (*signed.Statement, error) {
			return signed.New("test", issued, expires, fields{}, make([]byte, signed.MaxSize))
		},
	} {
		if _, err := make(); err == nil {
			t.Errorf("%s: made", name)
		}
	}
}

func TestKeyFiles(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if _, err := signed.GenerateKey(good); err != nil {
		t.Fatal(err)
	}
	if _, err := signed.GenerateKey(good); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwriting a key: %v", err)
	}
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	const marker = "MC4CAQAwBQYDK2VwBCIE" // how the base64 of every such key begins
	for name, content := range map[string][]byte{
		"empty":         nil,
		"another type":  bytes.ReplaceAll(text, []byte("PRIVATE KEY"), []byte("SECRET KEY")),
		"more than one": slices.Concat(text, text),
		"another curve": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		"truncated":     text[:len(text)/2],
		"large":         append(slices.Clone(text), make([]byte, 8<<10)...),
	} {
		path := filepath.Join(dir, "bad")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := signed.ReadKey(path); err == nil || strings.Contains(err.Error(), marker) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var permission *keyfile.PermissionError
	link, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.Symlink(good, link), syscall.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, fifo} {
		if _, err := signed.ReadKey(path); !errors.As(err, &permission) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := signed.ReadKey(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "lever keys init") {
		t.Errorf("a key that is not there: %v", err)
	}
	if err := os.Chmod(good, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := signed.ReadKey(good); !errors.As(err, &permission) {
		t.Errorf("a key that others can read: %v", err)
	}
}

func TestParsePublicKey(t *testing.T) {
	k := key(t).Public()
	if got, err := signed.ParsePublicKey(k.String()); err != nil || got != k {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "x", k.String()[:43], k.String() + "=", "\n" + k.String()[:43], k.String()[:42] + "//"} {
		if _, err := signed.ParsePublicKey(bad); err == nil {
			t.Errorf("%q is a key", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	a, b := key(f), key(f)
	f.Add(statement(f, "payload", a))
	f.Add(statement(f, "", a, b))
	f.Add(bytes.Replace(statement(f, "payload", a), []byte("payload"), []byte("pay1oad"), 1))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := signed.Parse(text)
		if err != nil {
			for _, kind := range []error{signed.ErrMalformed, signed.ErrTruncated, signed.ErrTampered} {
				if errors.Is(err, kind) {
					return
				}
			}
			t.Fatalf("an error without a kind: %v", err)
		}
		if !bytes.Equal(s.Text(), text) {
			t.Fatal("encoding again yields something else")
		}
		var fields fields
		_ = s.Decode("test", &fields)
		_ = s.Intact()
	})
}

// Of many that make a key in one file at the same time, one has made it, and it is the
// one whose public part is told.
func TestGenerateKeyAtTheSameTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signing.pem")
	var told [8]signed.PublicKey
	var errs [8]error
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { told[i], errs[i] = signed.GenerateKey(path) })
	}
	wg.Wait()
	k, err := signed.ReadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Erase()
	won := 0
	for i, err := range errs {
		switch {
		case err == nil:
			if won++; told[i] != k.Public() {
				t.Errorf("told %s, and the file has %s", told[i], k.Public())
			}
		case !errors.Is(err, fs.ErrExist):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d have made it", won)
	}
}

package keys_test

import (
	"crypto/hkdf"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"testing"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
)

// The construction is fixed: written down again here with the standard library's
// HKDF, and one value to the octet.
func TestDerive(t *testing.T) {
	seed := make([]byte, 32)
	for i := range seed {
		seed[i] = byte(i)
	}
	derive := func(link string, nodes []string, e keys.Epoch) string {
		t.Helper()
		m, err := keys.Derive(secret.Clone(seed), keys.Identity{Link: link, Nodes: nodes}, e)
		if err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(m.Bytes())
	}
	e := keys.Epoch{Number: 29_700_000, Generation: 1}
	got := derive("l1", []string{"r2", "r1"}, e)

	lp := func(x string) string { return string(binary.BigEndian.AppendUint16(nil, uint16(len(x)))) + x }
	info := "pre-key material\x00" + lp("lever-derive/1") + lp("l1") + "\x02" + lp("r1") + lp("r2")
	info = string(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64([]byte(info), e.Number), e.Generation))
	salt := sha512.Sum384([]byte("lever-derive/1 extract"))
	want, err := hkdf.Key(sha512.New384, seed, salt[:], info, 32)
	if err != nil {
		t.Fatal(err)
	}
	if got != hex.EncodeToString(want) {
		t.Errorf("derived %s, want %x", got, want)
	}

	seen := map[string]string{got: "the first"}
	for name, other := range map[string]string{
		"another link":       derive("l2", []string{"r1", "r2"}, e),
		"another node":       derive("l1", []string{"r1", "r3"}, e),
		"one more node":      derive("l1", []string{"r1", "r2", "r3"}, e),
		"another epoch":      derive("l1", []string{"r1", "r2"}, keys.Epoch{Number: 29_700_001, Generation: 1}),
		"another generation": derive("l1", []string{"r1", "r2"}, keys.Epoch{Number: 29_700_000}),
	} {
		if seen[other] != "" {
			t.Errorf("%s has the material of %s", name, seen[other])
		}
		seen[other] = name
	}
	for name, try := range map[string]func() error{
		"a short seed": func() error {
			_, err := keys.Derive(secret.New(seed[:31]), keys.Identity{Link: "l", Nodes: []string{"a", "b"}}, e)
			return err
		},
		"an erased seed": func() error {
			_, err := keys.Derive(secret.New(make([]byte, 32)), keys.Identity{Link: "l", Nodes: []string{"a", "b"}}, e)
			return err
		},
		"one node": func() error {
			_, err := keys.Derive(secret.New(seed), keys.Identity{Link: "l", Nodes: []string{"a"}}, e)
			return err
		},
	} {
		if try() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

package keys

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha512"
	"testing"

	"pgregory.net/rapid"
)

// What is ours for the sake of erasing must be what the standard library
// computes.
func TestHKDFIsTheStandardLibrarys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		material := rapid.SliceOfN(rapid.Byte(), 0, 400).Draw(t, "material")
		salt := rapid.SliceOfN(rapid.Byte(), 1, sha512.BlockSize).Draw(t, "salt")
		info := rapid.String().Draw(t, "info")
		length := rapid.IntRange(1, sha512.Size384).Draw(t, "length")
		want, err := hkdf.Key(sha512.New384, material, salt, info, length)
		if err != nil {
			t.Fatal(err)
		}
		if got := hkdfSHA384(material, salt, info, length); !bytes.Equal(got.Bytes(), want) {
			t.Fatalf("%x, want %x", got.Bytes(), want)
		}
	})
}

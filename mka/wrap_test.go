package mka

import (
	"bytes"
	"crypto/aes"
	"errors"
	"testing"

	josecipher "github.com/go-jose/go-jose/v4/cipher"
	"pgregory.net/rapid"

	"github.com/lever-link/lever/internal/secret"
)

func TestWrapVectors(t *testing.T) {
	var v struct {
		Vectors []struct {
			Name                string
			KEK, Plain, Wrapped hexOctets
		}
	}
	loadVectors(t, "aes_keywrap.json", &v)
	if len(v.Vectors) != 6 {
		t.Fatalf("%d vectors, want 6", len(v.Vectors))
	}
	for _, c := range v.Vectors {
		t.Run(c.Name, func(t *testing.T) {
			kek, plain := secret.Clone(c.KEK), secret.Clone(c.Plain)
			wrapped, err := WrapSAK(kek, plain)
			unwrapped, unwrapErr := UnwrapSAK(kek, c.Wrapped)
			if plain.Len() != 16 && plain.Len() != 32 {
				// No SAK has this length; what is under us must still agree.
				if err == nil || unwrapErr == nil {
					t.Errorf("a SAK of %d octets was taken", plain.Len())
				}
				block, err := aes.NewCipher(c.KEK)
				if err != nil {
					t.Fatal(err)
				}
				if wrapped, err = josecipher.KeyWrap(block, c.Plain); err != nil || !bytes.Equal(wrapped, c.Wrapped) {
					t.Errorf("%x, %v", wrapped, err)
				}
				return
			}
			if err != nil || !bytes.Equal(wrapped, c.Wrapped) {
				t.Errorf("wrapped %x, %v, want %x", wrapped, err, []byte(c.Wrapped))
			}
			if unwrapErr != nil || !unwrapped.Equal(plain) {
				t.Errorf("unwrapped %x, %v, want %x", unwrapped.Bytes(), unwrapErr, []byte(c.Plain))
			}
		})
	}
}

func TestUnwrapRefuses(t *testing.T) {
	kek := secret.Clone(bytes.Repeat([]byte{7}, 32))
	wrapped, err := WrapSAK(kek, secret.Clone(bytes.Repeat([]byte{9}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range wrapped {
		bad := bytes.Clone(wrapped)
		bad[i] ^= 1
		if _, err := UnwrapSAK(kek, bad); !errors.Is(err, ErrUnwrap) {
			t.Errorf("octet %d changed: %v, want ErrUnwrap", i, err)
		}
	}
	for n := range len(wrapped) {
		k, err := UnwrapSAK(kek, wrapped[:n])
		want := ErrLength
		if n == 24 {
			want = ErrUnwrap // as long as a SAK of 16 octets
		}
		if !errors.Is(err, want) || k.Len() != 0 {
			t.Errorf("%d octets: %v, want %v", n, err, want)
		}
	}
	if _, err := UnwrapSAK(secret.Clone(bytes.Repeat([]byte{8}, 32)), wrapped); !errors.Is(err, ErrUnwrap) {
		t.Errorf("another KEK: %v, want ErrUnwrap", err)
	}
	if _, err := UnwrapSAK(Key{}, wrapped); err == nil {
		t.Error("no KEK unwrapped a SAK")
	}
	if _, err := WrapSAK(Key{}, kek); err == nil {
		t.Error("no KEK wrapped a SAK")
	}
}

// Ours, which works in place, must be what a library does that does not.
func TestWrapIsTheLibrarys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]int{16, 32})
		octets := func(t *rapid.T, name string, n int) []byte {
			return rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, name)
		}
		kek := octets(t, "KEK", size.Draw(t, "octets of KEK"))
		sak := octets(t, "SAK", size.Draw(t, "octets of SAK"))
		block, err := aes.NewCipher(kek)
		if err != nil {
			t.Fatal(err)
		}
		want, err := josecipher.KeyWrap(block, sak)
		if err != nil {
			t.Fatal(err)
		}
		got, err := WrapSAK(secret.Clone(kek), secret.Clone(sak))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("wrapped %x, %v, want %x", got, err, want)
		}
		if back, err := UnwrapSAK(secret.Clone(kek), want); err != nil || !bytes.Equal(back.Bytes(), sak) {
			t.Fatalf("unwrapped %x, %v, want %x", back.Bytes(), err, sak)
		}
	})
}

package mka

import (
	"crypto/aes"
	"errors"
	"fmt"

	josecipher "github.com/go-jose/go-jose/v4/cipher"

	"github.com/lever-link/lever/internal/secret"
)

// ErrUnwrap is wrapped when a wrapped key does not hold its integrity check:
// it was wrapped with another KEK, or changed.
var ErrUnwrap = errors.New("the wrapped key fails its integrity check")

// wrapOverhead is what RFC 3394 adds to a key.
const wrapOverhead = 8

// WrapSAK wraps a SAK (or a group CAK) with AES Key Wrap, RFC 3394, and the
// default initial value: 24 or 40 octets.
func WrapSAK(kek, sak Key) ([]byte, error) {
	if n := sak.Len(); n != 16 && n != 32 {
		return nil, fmt.Errorf("mka: wrap a SAK: key of %d octets, want 16 or 32", n)
	}
	block, err := aes.NewCipher(kek.Bytes())
	if err != nil {
		return nil, fmt.Errorf("mka: wrap a SAK: KEK: %w", err)
	}
	wrapped, err := josecipher.KeyWrap(block, sak.Bytes())
	if err != nil {
		return nil, fmt.Errorf("mka: wrap a SAK: %w", err)
	}
	return wrapped, nil
}

// UnwrapSAK is the inverse of [WrapSAK]. It fails with [ErrUnwrap] when the
// KEK is not the one that the key was wrapped with.
func UnwrapSAK(kek Key, wrapped []byte) (Key, error) {
	if n := len(wrapped) - wrapOverhead; n != 16 && n != 32 {
		return Key{}, fmt.Errorf("mka: unwrap a SAK: %w: %d octets, want 24 or 40", ErrLength, len(wrapped))
	}
	block, err := aes.NewCipher(kek.Bytes())
	if err != nil {
		return Key{}, fmt.Errorf("mka: unwrap a SAK: KEK: %w", err)
	}
	sak, err := josecipher.KeyUnwrap(block, wrapped)
	if err != nil {
		// The only failure left: the lengths are checked above.
		return Key{}, fmt.Errorf("mka: unwrap a SAK: %w", ErrUnwrap)
	}
	return secret.New(sak), nil
}

package mka

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/lever-link/lever/internal/secret"
)

// ErrUnwrap is wrapped when a wrapped key does not hold its integrity check:
// it was wrapped with another KEK, or changed.
var ErrUnwrap = errors.New("the wrapped key fails its integrity check")

const (
	// wrapOverhead is what RFC 3394 adds to a key: one block.
	wrapOverhead = wrapBlock
	wrapBlock    = 8
	wrapRounds   = 6
)

// wrapIV is the default initial value, RFC 3394 2.2.3.1.
var wrapIV = [wrapBlock]byte{0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6}

// WrapSAK wraps a SAK (or a group CAK) with AES Key Wrap, RFC 3394, and the
// default initial value: 24 or 40 octets.
func WrapSAK(kek, sak Key) ([]byte, error) {
	if n := sak.Len(); n != 16 && n != 32 {
		return nil, fmt.Errorf("mka: wrap a SAK: key of %d octets, want 16 or 32", n)
	}
	b := make([]byte, wrapOverhead+sak.Len())
	copy(b, wrapIV[:])
	copy(b[wrapOverhead:], sak.Bytes())
	blocks := uint64(sak.Len() / wrapBlock)
	err := withAES(kek, func(block cipher.Block, x []byte) {
		for n := range wrapRounds * blocks {
			part := b[(n%blocks+1)*wrapBlock:][:wrapBlock]
			copy(x, b[:wrapBlock])
			copy(x[wrapBlock:], part)
			block.Encrypt(x, x)
			copy(part, x[wrapBlock:])
			binary.BigEndian.PutUint64(b, binary.BigEndian.Uint64(x)^(n+1))
		}
	})
	if err != nil {
		clear(b)
		return nil, fmt.Errorf("mka: wrap a SAK: KEK: %w", err)
	}
	return b, nil
}

// UnwrapSAK is the inverse of [WrapSAK]. It fails with [ErrUnwrap] when the
// KEK is not the one that the key was wrapped with.
func UnwrapSAK(kek Key, wrapped []byte) (Key, error) {
	if n := len(wrapped) - wrapOverhead; n != 16 && n != 32 {
		return Key{}, fmt.Errorf("mka: unwrap a SAK: %w: %d octets, want 24 or 40", ErrLength, len(wrapped))
	}
	b := bytes.Clone(wrapped)
	defer clear(b)
	blocks := uint64(len(b)/wrapBlock - 1)
	err := withAES(kek, func(block cipher.Block, x []byte) {
		for n := wrapRounds * blocks; n > 0; n-- {
			part := b[((n-1)%blocks+1)*wrapBlock:][:wrapBlock]
			binary.BigEndian.PutUint64(x, binary.BigEndian.Uint64(b)^n)
			copy(x[wrapBlock:], part)
			block.Decrypt(x, x)
			copy(b, x[:wrapBlock])
			copy(part, x[wrapBlock:])
		}
	})
	if err != nil {
		return Key{}, fmt.Errorf("mka: unwrap a SAK: KEK: %w", err)
	}
	if subtle.ConstantTimeCompare(b[:wrapOverhead], wrapIV[:]) != 1 {
		return Key{}, fmt.Errorf("mka: unwrap a SAK: %w", ErrUnwrap)
	}
	return secret.Clone(b[wrapOverhead:]), nil
}

// withAES lends f a cipher and room for one block, and erases both. Key wrap is
// ours rather than a library's because it works in place: those at hand leave
// the SAK behind in buffers of their own, and the expanded KEK in the cipher.
func withAES(key Key, f func(block cipher.Block, x []byte)) (err error) {
	secret.Do(func() {
		var block cipher.Block
		if block, err = aes.NewCipher(key.Bytes()); err != nil {
			return
		}
		defer secret.Scrub(block)
		x := make([]byte, aes.BlockSize)
		defer clear(x)
		f(block, x)
	})
	return err
}

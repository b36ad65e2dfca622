package mka

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"fmt"

	"github.com/lever-link/lever/internal/secret"
)

// cmac is AES-CMAC, NIST SP 800-38B, with its key expanded. It is ours rather
// than a library's because every MKPDU passes through it and none of those at
// hand works without allocating. The chaining block lives here since a block
// cipher behind an interface makes a local one escape to the heap; so a cmac
// serves one goroutine at a time.
type cmac struct {
	block  cipher.Block
	k1, k2 [aes.BlockSize]byte
	x      [aes.BlockSize]byte
}

func newCMAC(key []byte) (*cmac, error) {
	if len(key) != 16 && len(key) != 32 {
		return nil, fmt.Errorf("mka: set up AES-CMAC: key of %d octets, want 16 or 32", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("mka: set up AES-CMAC: %w", err)
	}
	c := &cmac{block: block}
	block.Encrypt(c.k1[:], c.k1[:])
	double(&c.k1)
	c.k2 = c.k1
	double(&c.k2)
	return c, nil
}

// double multiplies by x in GF(2^128), in constant time as b is secret.
func double(b *[aes.BlockSize]byte) {
	carry := b[0] >> 7
	for i := range len(b) - 1 {
		b[i] = b[i]<<1 | b[i+1]>>7
	}
	b[len(b)-1] = b[len(b)-1]<<1 ^ carry*0x87
}

// sum computes the MAC of msg. The result is overwritten by the next call.
func (c *cmac) sum(msg []byte) *[aes.BlockSize]byte {
	clear(c.x[:])
	for len(msg) > aes.BlockSize {
		subtle.XORBytes(c.x[:], c.x[:], msg[:aes.BlockSize])
		c.block.Encrypt(c.x[:], c.x[:])
		msg = msg[aes.BlockSize:]
	}
	subtle.XORBytes(c.x[:], c.x[:], msg)
	if len(msg) == aes.BlockSize {
		subtle.XORBytes(c.x[:], c.x[:], c.k1[:])
	} else {
		c.x[len(msg)] ^= 0x80
		subtle.XORBytes(c.x[:], c.x[:], c.k2[:])
	}
	c.block.Encrypt(c.x[:], c.x[:])
	return &c.x
}

// erase overwrites the expanded key and everything derived from it.
func (c *cmac) erase() {
	secret.Scrub(c.block)
	*c = cmac{}
}

package keys

import (
	"crypto/sha512"

	"github.com/lever-link/lever/internal/secret"
)

// hkdfSHA384 is HKDF with SHA-384 (RFC 5869 2.2 and 2.3) for up to 48 octets,
// which is one step of its Expand. It is ours because package crypto/hkdf leaves
// the material in the hash states, and the key between its two halves in the
// pads, of HMACs that only it can reach.
func hkdfSHA384(material, salt []byte, info string, length int) (out secret.Key) {
	secret.Do(func() {
		prk := hmacSHA384(salt, material)
		defer clear(prk)
		okm := hmacSHA384(prk, []byte(info), []byte{1})
		defer clear(okm)
		out = secret.Clone(okm[:length])
	})
	return out
}

// hmacSHA384 is HMAC (RFC 2104) with a key of no more than a block.
func hmacSHA384(key []byte, message ...[]byte) []byte {
	h := sha512.New384()
	defer secret.Scrub(h)
	pad := make([]byte, h.BlockSize())
	defer clear(pad)
	copy(pad, key)
	for i := range pad {
		pad[i] ^= 0x36
	}
	h.Write(pad)
	for _, part := range message {
		h.Write(part)
	}
	inner := h.Sum(make([]byte, 0, h.Size()))
	defer clear(inner)
	for i := range pad {
		pad[i] ^= 0x36 ^ 0x5c
	}
	h.Reset()
	h.Write(pad)
	h.Write(inner)
	return h.Sum(make([]byte, 0, h.Size()))
}

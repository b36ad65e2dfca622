package macsectest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"

	"github.com/lever-link/lever/macsec"
)

// gcm is AES-GCM under one key with a tag of 8 to 16 octets.
type gcm struct {
	aead cipher.AEAD
	icv  int
	// id tells keys apart without holding them.
	id [sha256.Size]byte
}

func newGCM(key macsec.Key, icv int) (*gcm, error) {
	block, err := aes.NewCipher(key.Bytes())
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &gcm{aead: aead, icv: icv, id: sha256.Sum256(key.Bytes())}, nil
}

// seal appends the encrypted plain and the tag to dst.
func (g *gcm) seal(dst []byte, iv [12]byte, plain, aad []byte) []byte {
	out := g.aead.Seal(dst, iv[:], plain, aad)
	return out[:len(out)-g.aead.Overhead()+g.icv]
}

// open decrypts what seal made. Plain text comes back even if the tag is wrong,
// because the kernel delivers it in the modes that do not validate.
func (g *gcm) open(iv [12]byte, sealed, aad []byte) (plain []byte, valid bool) {
	n := len(sealed) - g.icv
	// Counter mode is its own inverse; a second pass over the plain text gives
	// the whole tag, of which the standard library compares no fewer than 12.
	plain = g.aead.Seal(nil, iv[:], sealed[:n], nil)[:n]
	again := g.aead.Seal(nil, iv[:], plain, aad)
	return plain, subtle.ConstantTimeCompare(again[n:n+g.icv], sealed[n:]) == 1
}

// iv is the initialization vector of a frame: SCI and 32 bits of packet number,
// or with XPN the salt xor SSCI and 64 bits of packet number.
func (sa *association) iv(suite macsec.CipherSuite, sci macsec.SCI, pn uint64) [12]byte {
	var iv [12]byte
	if !suite.XPN() {
		copy(iv[:], sci[:])
		binary.BigEndian.PutUint32(iv[8:], uint32(pn))
		return iv
	}
	binary.BigEndian.PutUint32(iv[:], uint32(sa.SSCI))
	binary.BigEndian.PutUint64(iv[4:], pn)
	for i, s := range sa.Salt {
		iv[i] ^= s
	}
	return iv
}

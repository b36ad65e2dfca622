package mka

import (
	"encoding/binary"
	"fmt"

	"github.com/lever-link/lever/internal/secret"
)

// Labels of the key hierarchy, IEEE 802.1X-2020 9.3.3 and 9.8.1.
const (
	labelKEK = "IEEE8021 KEK"
	labelICK = "IEEE8021 ICK"
	labelSAK = "IEEE8021 SAK"
)

// keyIDLen is how much of a CKN the KEK and the ICK depend on.
const keyIDLen = 16

// DeriveKEK derives the Key Encrypting Key, as long as the CAK (16 or 32
// octets). Only the CKN's first 16 octets enter it: two CAKs must differ, two
// names beginning alike are not enough.
func DeriveKEK(cak Key, ckn CKN) (Key, error) { return deriveFromCAK(cak, ckn, labelKEK) }

// DeriveICK derives the Integrity Check value Key; see [DeriveKEK].
func DeriveICK(cak Key, ckn CKN) (Key, error) { return deriveFromCAK(cak, ckn, labelICK) }

func deriveFromCAK(cak Key, ckn CKN, label string) (Key, error) {
	if len(ckn) < 1 || len(ckn) > maxCKN {
		return Key{}, fmt.Errorf("mka: derive %s: CKN of %d octets, want 1 to %d", label, len(ckn), maxCKN)
	}
	var id [keyIDLen]byte
	copy(id[:], ckn)
	return kdf(cak, label, id[:], cak.Len())
}

// DeriveSAK derives a SAK of length octets (16 or 32) as the key server does:
// from a nonce of that length, drawn for this SAK, the MIs of the members that
// it is for, and its key number. Nobody else computes it, so that the order of
// the MIs is free.
func DeriveSAK(cak Key, nonce []byte, mis []MI, kn uint32, length int) (Key, error) {
	if len(nonce) != length {
		return Key{}, fmt.Errorf("mka: derive %s: nonce of %d octets, want %d, the SAK's length", labelSAK, len(nonce), length)
	}
	context := make([]byte, 0, len(nonce)+len(mis)*len(MI{})+4)
	context = append(context, nonce...)
	for i := range mis {
		context = append(context, mis[i][:]...)
	}
	context = binary.BigEndian.AppendUint32(context, kn)
	k, err := kdf(cak, labelSAK, context, length)
	clear(context) // it holds the nonce
	return k, err
}

// kdf is the KDF of IEEE 802.1X-2020 6.2.1: AES-CMAC in counter mode over
// i | label | 00 | context | bits of output.
func kdf(key Key, label string, context []byte, length int) (out Key, err error) {
	if length != 16 && length != 32 {
		return Key{}, fmt.Errorf("mka: derive %s: output of %d octets, want 16 or 32", label, length)
	}
	secret.Do(func() {
		var c *cmac
		if c, err = newCMAC(key.Bytes()); err != nil {
			err = fmt.Errorf("derive %s: %w", label, err)
			return
		}
		defer c.erase()
		block := make([]byte, 0, 1+len(label)+1+len(context)+2)
		block = append(block, 0)
		block = append(block, label...)
		block = append(block, 0)
		block = append(block, context...)
		block = binary.BigEndian.AppendUint16(block, uint16(length*8))
		defer clear(block) // it holds the nonce of a SAK
		octets := make([]byte, 0, length)
		for i := byte(1); len(octets) < length; i++ {
			block[0] = i
			octets = append(octets, c.sum(block)[:]...)
		}
		out = secret.New(octets)
	})
	return out, err
}

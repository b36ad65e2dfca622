package mka

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"math/big"
	"testing"

	"github.com/tink-crypto/tink-go/v2/daead/subtle"
	"pgregory.net/rapid"
)

func TestCMACVectors(t *testing.T) {
	var v struct {
		Vectors []struct {
			Name          string
			Key, Msg, MAC hexOctets
		}
	}
	loadVectors(t, "aes_cmac.json", &v)
	if len(v.Vectors) != 10 {
		t.Fatalf("%d vectors, want 10", len(v.Vectors))
	}
	for _, c := range v.Vectors {
		t.Run(c.Name, func(t *testing.T) {
			mac, err := newCMAC(c.Key)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the state must not leak from one sum into the next
				if got := mac.sum(c.Msg); !bytes.Equal(got[:], c.MAC) {
					t.Errorf("MAC %x, want %x", *got, []byte(c.MAC))
				}
			}
		})
	}
}

// TestCMACAgainstCBC compares with the definition: the last block of CBC over
// the message, its end masked with a subkey that big.Int has computed.
func TestCMACAgainstCBC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := genKey(t, "key")
		msg := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "msg")
		ours, err := newCMAC(key)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := ours.sum(msg), cbcMAC(t, key, msg); !bytes.Equal(got[:], want) {
			t.Fatalf("MAC %x, want %x", *got, want)
		}
	})
}

// TestCMACAgainstTink compares with an implementation that shares no code with
// ours: the synthetic IV of tink's AES-SIV is S2V (RFC 5297 2.4), which is
// nothing but CMACs, with keys of 32 octets, of the associated data and the
// plaintext.
func TestCMACAgainstTink(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 64, 64).Draw(t, "key")
		data := rapid.SliceOfN(rapid.Byte(), 0, 70).Draw(t, "data")
		msg := rapid.SliceOfN(rapid.Byte(), 0, 70).Draw(t, "msg")
		siv, err := subtle.NewAESSIV(key)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := siv.EncryptDeterministically(msg, data)
		if err != nil {
			t.Fatal(err)
		}
		mac, err := newCMAC(key[:32])
		if err != nil {
			t.Fatal(err)
		}
		d := *mac.sum(make([]byte, aes.BlockSize))
		double(&d)
		xor(d[:], mac.sum(data)[:])
		last := bytes.Clone(msg)
		if len(last) < aes.BlockSize {
			double(&d)
			last = append(last, 0x80)
			last = append(last, make([]byte, aes.BlockSize-len(last))...)
		}
		xor(last[len(last)-aes.BlockSize:], d[:])
		if got := mac.sum(last); !bytes.Equal(got[:], sealed[:aes.BlockSize]) {
			t.Fatalf("S2V %x, tink says %x", *got, sealed[:aes.BlockSize])
		}
	})
}

func TestCMACRefusesOddKeys(t *testing.T) {
	for _, n := range []int{0, 1, 15, 17, 24, 31, 33, 64} {
		if _, err := newCMAC(make([]byte, n)); err == nil {
			t.Errorf("a key of %d octets was taken", n)
		}
	}
}

func TestCMACDoesNotAllocate(t *testing.T) {
	mac, err := newCMAC(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	msg := make([]byte, 150)
	if n := testing.AllocsPerRun(100, func() { mac.sum(msg) }); n != 0 {
		t.Errorf("%v allocations a MAC", n)
	}
}

func genKey(t *rapid.T, label string) []byte {
	n := rapid.SampledFrom([]int{16, 32}).Draw(t, label+" length")
	return rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, label)
}

// cbcMAC is CMAC spelled out: slow, and by other means than cmac.go.
func cbcMAC(t *rapid.T, key, msg []byte) []byte {
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	zero := make([]byte, aes.BlockSize)
	subkey := make([]byte, aes.BlockSize)
	block.Encrypt(subkey, zero)
	doublings := 1
	padded := bytes.Clone(msg)
	if len(msg) == 0 || len(msg)%aes.BlockSize != 0 {
		doublings = 2
		padded = append(padded, 0x80)
		for len(padded)%aes.BlockSize != 0 {
			padded = append(padded, 0)
		}
	}
	n := new(big.Int).SetBytes(subkey)
	for range doublings {
		n.Lsh(n, 1)
		if n.Bit(128) == 1 {
			n.SetBit(n, 128, 0)
			n.Xor(n, big.NewInt(0x87))
		}
	}
	xor(padded[len(padded)-aes.BlockSize:], n.FillBytes(subkey))
	cipher.NewCBCEncrypter(block, zero).CryptBlocks(padded, padded)
	return padded[len(padded)-aes.BlockSize:]
}

func xor(dst, src []byte) {
	for i := range dst {
		dst[i] ^= src[i]
	}
}

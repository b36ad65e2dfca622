package mka

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/lever-link/lever/internal/secret"
)

func TestKDFVectors(t *testing.T) {
	var v struct {
		Vectors []struct {
			Name                 string
			Key, Context, Output hexOctets
			Label                string
			LabelHex             hexOctets `json:"label_hex"`
			LengthBits           int       `json:"length_bits"`
		}
	}
	loadVectors(t, "ieee8021x_kdf.json", &v)
	if len(v.Vectors) != 10 {
		t.Fatalf("%d vectors, want 10", len(v.Vectors))
	}
	for _, c := range v.Vectors {
		t.Run(c.Name, func(t *testing.T) {
			if c.Label != string(c.LabelHex) {
				t.Fatalf("label %q is not %x", c.Label, []byte(c.LabelHex))
			}
			cak := secret.Clone(c.Key)
			got, err := kdf(cak, c.Label, c.Context, c.LengthBits/8)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), c.Output) {
				t.Errorf("kdf: %x, want %x", got.Bytes(), []byte(c.Output))
			}
			switch c.Label {
			case labelKEK:
				got, err = DeriveKEK(cak, CKN(c.Context))
			case labelICK:
				got, err = DeriveICK(cak, CKN(c.Context))
			case labelSAK:
				n := c.LengthBits / 8
				a, b := MI(c.Context[n:]), MI(c.Context[n+12:])
				kn := binary.BigEndian.Uint32(c.Context[n+24:])
				got, err = DeriveSAK(cak, c.Context[:n], []MI{a, b}, kn, n)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), c.Output) {
				t.Errorf("derived %x, want %x", got.Bytes(), []byte(c.Output))
			}
		})
	}
}

// TestKDFAgainstCBC builds the blocks a second time, by hand, on a CMAC that is
// not ours.
func TestKDFAgainstCBC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := genKey(t, "key")
		label := rapid.StringN(0, 20, 40).Draw(t, "label")
		context := rapid.SliceOfN(rapid.Byte(), 0, 80).Draw(t, "context")
		length := rapid.SampledFrom([]int{16, 32}).Draw(t, "length")
		var want []byte
		for i := 1; i <= length/16; i++ {
			block := bytes.Join([][]byte{{byte(i)}, []byte(label), {0}, context, {byte(length * 8 >> 8), byte(length * 8)}}, nil)
			want = append(want, cbcMAC(t, key, block)...)
		}
		got, err := kdf(secret.Clone(key), label, context, length)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Fatalf("%x, want %x", got.Bytes(), want)
		}
	})
}

func TestDeriveCountsSixteenOctetsOfTheCKN(t *testing.T) {
	cak := secret.Clone(make([]byte, 32))
	derive := func(ckn CKN) Key {
		k, err := DeriveKEK(cak, ckn)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	long := strings.Repeat("x", 16)
	if !derive(CKN(long)).Equal(derive(CKN(long + "tail"))) {
		t.Error("the 17th octet of the CKN changed the KEK")
	}
	if !derive("abc").Equal(derive("abc\x00")) {
		t.Error("a short CKN is not padded with zeros")
	}
	if derive("abc").Equal(derive("abd")) {
		t.Error("two CKNs gave one KEK")
	}
	if got := derive("abc").Len(); got != 32 {
		t.Errorf("a KEK of %d octets from a CAK of 32", got)
	}
}

func TestDeriveRefuses(t *testing.T) {
	cak := secret.Clone(make([]byte, 16))
	cases := map[string]func() (Key, error){
		"empty CKN":        func() (Key, error) { return DeriveKEK(cak, "") },
		"long CKN":         func() (Key, error) { return DeriveICK(cak, CKN(strings.Repeat("x", 33))) },
		"empty CAK":        func() (Key, error) { return DeriveICK(Key{}, "abc") },
		"CAK of 24":        func() (Key, error) { return DeriveKEK(secret.Clone(make([]byte, 24)), "abc") },
		"short nonce":      func() (Key, error) { return DeriveSAK(cak, make([]byte, 16), nil, 1, 32) },
		"SAK of 24":        func() (Key, error) { return DeriveSAK(cak, make([]byte, 24), nil, 1, 24) },
		"SAK of no CAK":    func() (Key, error) { return DeriveSAK(Key{}, make([]byte, 16), nil, 1, 16) },
		"SAK of no octets": func() (Key, error) { return DeriveSAK(cak, nil, nil, 1, 0) },
	}
	for name, derive := range cases {
		if k, err := derive(); err == nil || k.Len() != 0 {
			t.Errorf("%s: a key of %d octets, error %v", name, k.Len(), err)
		}
	}
}

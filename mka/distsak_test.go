package mka

import (
	"bytes"
	"strings"
	"testing"
)

func TestDistributedSAKRoundTrip(t *testing.T) {
	w24, w40 := bytes.Repeat([]byte{0x24}, 24), bytes.Repeat([]byte{0x40}, 40)
	h24, h40 := strings.Repeat("24", 24), strings.Repeat("40", 40)
	for _, c := range []struct {
		name string
		sak  DistributedSAK
		want string
	}{
		{"GCM-AES-128 is short", DistributedSAK{AN: 3, ConfidentialityOffset: Confidentiality0, KN: 0x01020304, Suite: GCMAES128, Wrapped: w24},
			"04d0001c" + "01020304" + h24},
		{"GCM-AES-256", DistributedSAK{AN: 1, ConfidentialityOffset: Confidentiality30, KN: 2, Suite: GCMAES256, Wrapped: w40},
			"04600034" + "00000002" + "0080c20001000002" + h40},
		{"GCM-AES-XPN-128", DistributedSAK{ConfidentialityOffset: Confidentiality50, KN: 0xffffffff, Suite: GCMAESXPN128, Wrapped: w24},
			"04300024" + "ffffffff" + "0080c20001000003" + h24},
		{"GCM-AES-XPN-256", DistributedSAK{AN: 2, KN: 1, Suite: GCMAESXPN256, Wrapped: w40},
			"04800034" + "00000001" + "0080c20001000004" + h40},
		{"plain", DistributedSAK{Plain: true}, "04000000"},
		{"plain with an AN", DistributedSAK{Plain: true, AN: 1}, "04400000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := hello()
			m.DistributedSAK = c.sak
			m.DistributedSAK.Present = true
			testRoundTrip(t, m, c.want)
		})
	}
}

// TestDistributedSAKSuites reads forms that we do not send.
func TestDistributedSAKSuites(t *testing.T) {
	h24 := strings.Repeat("24", 24)
	for _, c := range []struct {
		name, set string
		suite     CipherSuite
		wrapped   int
	}{
		{"GCM-AES-128 in the long form", "04000024" + "00000001" + "0080c20001000001" + h24, GCMAES128, 24},
		{"GCM-AES-128 by its old number", "04000024" + "00000001" + "0080020001000001" + h24, GCMAES128, 24},
		{"a suite we do not know", "04000028" + "00000001" + "0011223344556677" + h24 + "00112233", 0x0011223344556677, 28},
		{"octets after the wrapped SAK", "04000028" + "00000001" + "0080c20001000003" + h24 + "00112233", GCMAESXPN128, 24},
	} {
		t.Run(c.name, func(t *testing.T) {
			ick := testICK(t)
			m := mustRead(t, signedWith(t, ick, unhex(t, c.set)), ick)
			if d := m.DistributedSAK; !d.Present || d.Suite != c.suite || len(d.Wrapped) != c.wrapped || d.KN != 1 {
				t.Errorf("%+v", d)
			}
		})
	}
}

func TestDistributedSAKTruncation(t *testing.T) {
	testTruncation(t, unhex(t, "0400001c"+strings.Repeat("ab", 28)), func(n int) bool { return n == 0 })
	// Cut to 28 octets, the long form is a short one: the length is all that tells them apart.
	testTruncation(t, unhex(t, "04000034"+"00000001"+"0080c20001000004"+strings.Repeat("ab", 40)),
		func(n int) bool { return n == 0 || n == 28 })
	testTruncation(t, unhex(t, "04000024"+"00000001"+"0080c20001000003"+strings.Repeat("ab", 24)),
		func(n int) bool { return n == 0 || n == 28 })
}

func TestDistributedSAKUnfit(t *testing.T) {
	set := func(d DistributedSAK) func(*MKPDU) {
		d.Present = true
		return func(m *MKPDU) { m.DistributedSAK = d }
	}
	testUnfit(t, map[string]func(*MKPDU){
		"AN":                 set(DistributedSAK{AN: 4, Suite: GCMAES128, Wrapped: make([]byte, 24)}),
		"offset":             set(DistributedSAK{ConfidentialityOffset: 4, Suite: GCMAES128, Wrapped: make([]byte, 24)}),
		"no suite":           set(DistributedSAK{Wrapped: make([]byte, 24)}),
		"no wrapped SAK":     set(DistributedSAK{Suite: GCMAESXPN256}),
		"wrapped for 128":    set(DistributedSAK{Suite: GCMAESXPN256, Wrapped: make([]byte, 24)}),
		"wrapped for 256":    set(DistributedSAK{Suite: GCMAES128, Wrapped: make([]byte, 40)}),
		"AN of a plain set":  set(DistributedSAK{Plain: true, AN: 4}),
		"suite not known":    set(DistributedSAK{Suite: 5, Wrapped: make([]byte, 24)}),
		"wrapped odd length": set(DistributedSAK{Suite: GCMAES256, Wrapped: make([]byte, 41)}),
	})
}

func FuzzDistributedSAK(f *testing.F) {
	fuzzSet(f, SetDistributedSAK, "04000000", "04000024"+"00000001"+"0080020001000001"+strings.Repeat("24", 24))
}

package mka

import (
	"bytes"
	"strings"
	"testing"
)

func TestKMDRoundTrip(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"word", "abcd", "06000004" + "61626364"},
		{"padded", "abcde", "06000005" + "6162636465000000"},
		{"empty", "", "06000000"},
		{"longest", strings.Repeat("z", maxSetBody), "06000fff" + strings.Repeat("7a", maxSetBody) + "00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := hello()
			m.KMD = KMD{Present: true, Value: []byte(c.value)}
			testRoundTrip(t, m, c.want)
		})
	}
}

func TestKMDTruncation(t *testing.T) {
	testTruncation(t, unhex(t, "06000007"+strings.Repeat("61", 7)), func(int) bool { return true })
}

func TestKMDUnfit(t *testing.T) {
	testUnfit(t, map[string]func(*MKPDU){
		"too long": func(m *MKPDU) { m.KMD = KMD{Present: true, Value: bytes.Repeat([]byte("z"), maxSetBody+1)} },
	})
}

func FuzzKMD(f *testing.F) { fuzzSet(f, SetKMD, "0600000568656c6c6f") }

package mka

import (
	"fmt"
	"testing"
)

func TestIdentityStrings(t *testing.T) {
	mac := MAC{2, 0, 0, 0, 0, 0xab}
	mi := MI{0xcd, 0x42, 0x1c, 0xf8, 0x6b, 0xa4, 0x57, 0x93, 0x86, 0x57, 0x67, 0x5b}
	for want, v := range map[string]fmt.Stringer{
		"02:00:00:00:00:ab":          mac,
		"0200000000ab0102":           NewSCI(mac, 0x0102),
		"cd421cf86ba457938657675b":   mi,
		"cd421cf86ba457938657675b/9": KI{MI: mi, KN: 9},
		"616263":                     CKN("abc"),
	} {
		if got := v.String(); got != want {
			t.Errorf("%T: %s, want %s", v, got, want)
		}
	}
}

func TestKIBytes(t *testing.T) {
	k := KI{MI: MI{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, KN: 0x0d0e0f10}
	want := [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	if got := k.Bytes(); got != want {
		t.Errorf("%x, want %x", got, want)
	}
	if got := KIFromBytes(want); got != k {
		t.Errorf("%s, want %s", got, k)
	}
}

func TestSCILess(t *testing.T) {
	order := []SCI{{}, {0, 0, 0, 0, 0, 0, 0, 1}, {0, 0, 0, 0, 0, 0, 1}, {1}, {0x80}, {0xff}}
	for i, a := range order {
		for j, b := range order {
			if got := a.Less(b); got != (i < j) {
				t.Errorf("%s < %s: %v", a, b, got)
			}
		}
	}
}

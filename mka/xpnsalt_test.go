package mka

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestSaltAndSSCIVectors(t *testing.T) {
	var v struct {
		Salt []struct {
			MI   hexOctets `json:"ks_mi"`
			KN   hexOctets
			Salt hexOctets
		}
		SSCI []struct {
			SCIs []hexOctets
			SSCI map[string]uint32
		}
	}
	loadVectors(t, "xpn_salt_ssci.json", &v)
	if len(v.Salt) != 3 || len(v.SSCI) != 2 {
		t.Fatalf("%d salts and %d lists of SCIs, want 3 and 2", len(v.Salt), len(v.SSCI))
	}
	for _, c := range v.Salt {
		if got := Salt(MI(c.MI), binary.BigEndian.Uint32(c.KN)); !bytes.Equal(got[:], c.Salt) {
			t.Errorf("salt of %x/%x: %x, want %x", c.MI, c.KN, got, []byte(c.Salt))
		}
	}
	for _, c := range v.SSCI {
		var all []SCI
		for _, s := range c.SCIs {
			all = append(all, SCI(s))
		}
		for _, s := range all {
			if got, want := SSCIOf(s, all), c.SSCI[s.String()]; got != want {
				t.Errorf("SSCI of %s: %d, want %d", s, got, want)
			}
		}
	}
}

func TestSSCIOf(t *testing.T) {
	a, b, c := NewSCI(MAC{2, 0, 0, 0, 0, 1}, 1), NewSCI(MAC{2, 0, 0, 0, 0, 1}, 2), NewSCI(MAC{0xfe}, 1)
	for _, tc := range []struct {
		name string
		sci  SCI
		all  []SCI
		want uint32
	}{
		{"alone", a, []SCI{a}, 1},
		{"nobody", a, nil, 0},
		{"not a member", a, []SCI{b, c}, 0},
		{"by address", a, []SCI{a, c}, 2},
		{"by port", a, []SCI{a, b}, 2},
		{"unsigned", c, []SCI{a, b, c}, 1},
		{"given twice", a, []SCI{c, a, c, a, b}, 3},
	} {
		if got := SSCIOf(tc.sci, tc.all); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

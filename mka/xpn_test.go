package mka

import "testing"

func TestXPNRoundTrip(t *testing.T) {
	for _, c := range []struct {
		name string
		xpn  XPN
		want string
	}{
		{"nothing", XPN{}, "08000008" + "0000000000000000"},
		{"suspension", XPN{Suspension: 120}, "08780008" + "0000000000000000"},
		{"latest", XPN{LatestLPNHigh: 0x01020304}, "08000008" + "0102030400000000"},
		{"old", XPN{OldLPNHigh: 0xfffefdfc}, "08000008" + "00000000fffefdfc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := hello()
			m.XPN = c.xpn
			m.XPN.Present = true
			testRoundTrip(t, m, c.want)
		})
	}
}

func TestXPNTruncation(t *testing.T) {
	testTruncation(t, unhex(t, "08780008ffffffffffffffff"), func(int) bool { return false })
}

func FuzzXPN(f *testing.F) { fuzzSet(f, SetXPN, "0878000c000000010000000200000003") }

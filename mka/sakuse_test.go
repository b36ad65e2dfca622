package mka

import (
	"strings"
	"testing"
)

func TestSAKUseRoundTrip(t *testing.T) {
	latest := KI{MI: MI{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, KN: 0x0d0e0f10}
	old := KI{MI: MI{0xa1, 0xa2}, KN: 0xffffffff}
	latestHex, oldHex := "0102030405060708090a0b0c0d0e0f10", "a1a2"+strings.Repeat("00", 10)+"ffffffff"
	none := strings.Repeat("00", 40)
	for _, c := range []struct {
		name string
		use  SAKUse
		want string
	}{
		{"keys", SAKUse{Latest: latest, LatestLPN: 0x11121314, Old: old, OldLPN: 0x21222324},
			"03000028" + latestHex + "11121314" + oldHex + "21222324"},
		{"nothing", SAKUse{}, "03000028" + none},
		{"latest AN", SAKUse{LatestAN: 2}, "03800028" + none},
		{"latest tx", SAKUse{LatestTx: true}, "03200028" + none},
		{"latest rx", SAKUse{LatestRx: true}, "03100028" + none},
		{"old AN", SAKUse{OldAN: 3}, "030c0028" + none},
		{"old tx", SAKUse{OldTx: true}, "03020028" + none},
		{"old rx", SAKUse{OldRx: true}, "03010028" + none},
		{"plain tx", SAKUse{PlainTx: true}, "03008028" + none},
		{"plain rx", SAKUse{PlainRx: true}, "03004028" + none},
		{"delay protect", SAKUse{DelayProtect: true}, "03001028" + none},
		{"empty", SAKUse{Empty: true}, "03000000"},
		{"empty and plain", SAKUse{Empty: true, PlainTx: true, PlainRx: true}, "0300c000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := hello()
			m.SAKUse = c.use
			m.SAKUse.Present = true
			testRoundTrip(t, m, c.want)
		})
	}
}

func TestSAKUseTruncation(t *testing.T) {
	testTruncation(t, unhex(t, "03ffd028"+strings.Repeat("ab", 40)), func(n int) bool { return n == 0 })
}

func TestSAKUseUnfit(t *testing.T) {
	testUnfit(t, map[string]func(*MKPDU){
		"latest AN": func(m *MKPDU) { m.SAKUse = SAKUse{Present: true, LatestAN: 4} },
		"old AN":    func(m *MKPDU) { m.SAKUse = SAKUse{Present: true, OldAN: 4} },
	})
}

func FuzzSAKUse(f *testing.F) { fuzzSet(f, SetSAKUse, "0300c000") }

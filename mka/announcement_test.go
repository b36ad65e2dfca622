package mka

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAnnouncementRoundTrip(t *testing.T) {
	suites := NewCipherSuitesTLV(SuiteOffer{GCMAES128, 2}, SuiteOffer{GCMAESXPN256, 3})
	suitesHex := "e014" + "00020080c20001000001" + "00030080c20001000004"
	for _, c := range []struct {
		name string
		tlvs []TLV
		want string
	}{
		{"cipher suites", []TLV{suites}, "07000016" + suitesHex + "0000"},
		{"several", []TLV{{Type: 1, Value: []byte("ab")}, suites, {Type: 127}}, "0700001c" + "02026162" + suitesHex + "fe00"},
		{"long value", []TLV{{Type: 111, Value: bytes.Repeat([]byte{7}, 511)}}, "07000201" + "dfff" + strings.Repeat("07", 511) + "000000"},
		{"empty", nil, "07000000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := hello()
			m.Announcement = Announcement{Present: true, TLVs: c.tlvs}
			testRoundTrip(t, m, c.want)
		})
	}
}

func TestAnnouncementCipherSuites(t *testing.T) {
	a := Announcement{Present: true, TLVs: []TLV{
		NewCipherSuitesTLV(SuiteOffer{legacyGCMAES128, 1}, SuiteOffer{GCMAES256, 2}),
		{Type: 111, Value: make([]byte, 20)},
		{Type: TLVCipherSuites, Value: append(NewCipherSuitesTLV(SuiteOffer{GCMAESXPN128, 3}).Value, 1, 2, 3)},
	}}
	want := []SuiteOffer{{GCMAES128, 1}, {GCMAES256, 2}, {GCMAESXPN128, 3}}
	if diff := cmp.Diff(want, a.CipherSuites()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := (&Announcement{}).CipherSuites(); got != nil {
		t.Errorf("%v from nothing", got)
	}
}

func TestAnnouncementTruncation(t *testing.T) {
	testTruncation(t, unhex(t, "0700000e"+"02026162"+"0400"+"06066162636465ff"), func(n int) bool { return n == 0 || n == 4 || n == 6 })
}

func TestAnnouncementUnfit(t *testing.T) {
	set := func(tlvs ...TLV) func(*MKPDU) {
		return func(m *MKPDU) { m.Announcement = Announcement{Present: true, TLVs: tlvs} }
	}
	testUnfit(t, map[string]func(*MKPDU){
		"type":  set(TLV{Type: 128}),
		"value": set(TLV{Type: 1, Value: make([]byte, 512)}),
		"sum":   set(eightTLVs(511)...),
	})
}

// eightTLVs is eight TLVs, which together are just too long when n is the most
// that one can hold.
func eightTLVs(n int) []TLV {
	tlvs := make([]TLV, 8)
	for i := range tlvs {
		tlvs[i] = TLV{Type: 1, Value: make([]byte, n)}
	}
	return tlvs
}

func FuzzAnnouncement(f *testing.F) {
	fuzzSet(f, SetAnnouncement, "07000016e01400020080c2000100000100030080c200010000040000", "0700000e02026162040006066162636465ff")
}

package mka

import (
	"strings"
	"testing"
)

func TestPeerListRoundTrip(t *testing.T) {
	one := PeerEntry{MI: MI{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, MN: 0x01020304}
	two := PeerEntry{MI: MI{0xff}, MN: 0xffffffff}
	oneHex, twoHex := "0102030405060708090a0b0c01020304", "ff"+strings.Repeat("00", 11)+"ffffffff"
	for _, c := range []struct {
		name            string
		live, potential PeerList
		want            string
	}{
		{"live", PeerList{Present: true, Entries: []PeerEntry{one}}, PeerList{}, "01000010" + oneHex},
		{"potential", PeerList{}, PeerList{Present: true, Entries: []PeerEntry{one}}, "02000010" + oneHex},
		{"SSCI", PeerList{Present: true, KeyServerSSCI: 0xfe, Entries: []PeerEntry{two, one}}, PeerList{}, "01fe0020" + twoHex + oneHex},
		{"both", PeerList{Present: true, Entries: []PeerEntry{one}}, PeerList{Present: true, Entries: []PeerEntry{two}}, "01000010" + oneHex + "02000010" + twoHex},
		{"empty", PeerList{Present: true}, PeerList{}, "01000000"},
		{"full", PeerList{Present: true, Entries: repeatEntry(one, maxPeerEntries)}, PeerList{}, "01000ff0" + strings.Repeat(oneHex, maxPeerEntries)},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := hello()
			m.Live, m.Potential = c.live, c.potential
			testRoundTrip(t, m, c.want)
		})
	}
}

func repeatEntry(e PeerEntry, n int) []PeerEntry {
	s := make([]PeerEntry, n)
	for i := range s {
		s[i] = e
	}
	return s
}

func TestPeerListTruncation(t *testing.T) {
	whole := func(n int) bool { return n%16 == 0 }
	testTruncation(t, unhex(t, "01000030"+strings.Repeat("ab", 48)), whole)
	testTruncation(t, unhex(t, "02000020"+strings.Repeat("ab", 32)), whole)
}

func TestPeerListUnfit(t *testing.T) {
	testUnfit(t, map[string]func(*MKPDU){
		"too many live": func(m *MKPDU) {
			m.Live = PeerList{Present: true, Entries: make([]PeerEntry, maxPeerEntries+1)}
		},
		"too many potential": func(m *MKPDU) {
			m.Potential = PeerList{Present: true, Entries: make([]PeerEntry, maxPeerEntries+1)}
		},
	})
}

func TestPeerListContains(t *testing.T) {
	l := PeerList{Present: true, Entries: []PeerEntry{{MI{1}, 5}, {MI{2}, 6}}}
	if mn, ok := l.Contains(MI{2}); !ok || mn != 6 {
		t.Errorf("%d, %v", mn, ok)
	}
	if mn, ok := l.Contains(MI{3}); ok || mn != 0 {
		t.Errorf("%d, %v for a stranger", mn, ok)
	}
}

func FuzzLivePeers(f *testing.F)      { fuzzSet(f, SetLivePeers) }
func FuzzPotentialPeers(f *testing.F) { fuzzSet(f, SetPotentialPeers) }

package mka

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/lever-link/lever/internal/secret"
)

// TestDecodeInvertsAppend is the property that every message that can be
// encoded comes back as it was.
func TestDecodeInvertsAppend(t *testing.T) {
	var reused MKPDU // across all messages, so that nothing of one stays for the next
	rapid.Check(t, func(t *rapid.T) {
		key := genKey(t, "ICK")
		ick, err := NewICK(secret.Clone(key))
		if err != nil {
			t.Fatal(err)
		}
		want := genMKPDU(t, len(key))
		prefix := rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "prefix")
		out, err := want.Append(bytes.Clone(prefix), ick)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(out, prefix) {
			t.Fatal("the prefix is gone")
		}
		e, err := Open(out[len(prefix):], OpenParams{EtherType: want.EtherType, Destination: want.Destination})
		if err != nil {
			t.Fatal(err)
		}
		if !e.Verify(ick) {
			t.Fatal("the ICV does not hold")
		}
		if err := reused.Decode(&e); err != nil {
			t.Fatal(err)
		}
		got := reused
		got.Basic.CKN = CKN(e.CKN)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func genMKPDU(t *rapid.T, keyLen int) MKPDU {
	octets := func(label string, low, high int) []byte {
		return rapid.SliceOfN(rapid.Byte(), low, high).Draw(t, label)
	}
	yes := func(label string) bool { return rapid.Bool().Draw(t, label) }
	small := func(label string, high uint8) uint8 { return rapid.Uint8Range(0, high).Draw(t, label) }
	number := func(label string) uint32 { return rapid.Uint32().Draw(t, label) }
	mi := func(label string) MI { return MI(octets(label, 12, 12)) }
	peers := func(label string) PeerList {
		if !yes(label) {
			return PeerList{}
		}
		l := PeerList{Present: true, KeyServerSSCI: small(label+" SSCI", 255)}
		for range rapid.IntRange(0, 5).Draw(t, label+" entries") {
			l.Entries = append(l.Entries, PeerEntry{mi(label + " MI"), number(label + " MN")})
		}
		return l
	}
	m := MKPDU{
		Destination: MAC(octets("destination", 6, 6)), Source: MAC(octets("source", 6, 6)),
		EtherType:    rapid.Uint16Min(1).Draw(t, "EtherType"),
		EAPOLVersion: rapid.Uint8Min(1).Draw(t, "EAPOL version"),
		Basic: Basic{
			Version: small("version", 255), Priority: small("priority", 255),
			KeyServer: yes("key server"), MACsecDesired: yes("MACsec desired"), Capability: small("capability", 3),
			SCI: SCI(octets("SCI", 8, 8)), MI: mi("MI"), MN: number("MN"), CKN: CKN(octets("CKN", 1, 32)),
		},
		Live: peers("live"), Potential: peers("potential"),
		ICVIndicator: yes("indicator"),
	}
	m.Destination[0] |= 1 // all zeros stand for the default
	if yes("SAK Use") {
		m.SAKUse = SAKUse{
			Present: true, LatestAN: small("latest AN", 3), LatestTx: yes("ltx"), LatestRx: yes("lrx"),
			OldAN: small("old AN", 3), OldTx: yes("otx"), OldRx: yes("orx"),
			PlainTx: yes("ptx"), PlainRx: yes("prx"), DelayProtect: yes("delay protect"), Empty: yes("SAK Use empty"),
		}
		if !m.SAKUse.Empty {
			m.SAKUse.Latest, m.SAKUse.LatestLPN = KI{mi("latest"), number("latest KN")}, number("latest LPN")
			m.SAKUse.Old, m.SAKUse.OldLPN = KI{mi("old"), number("old KN")}, number("old LPN")
		}
	}
	if yes("Distributed SAK") {
		d := DistributedSAK{Present: true, AN: small("AN", 3), ConfidentialityOffset: small("offset", 3), Plain: yes("plain")}
		if !d.Plain {
			d.Suite = rapid.SampledFrom([]CipherSuite{GCMAES128, GCMAES256, GCMAESXPN128, GCMAESXPN256}).Draw(t, "suite")
			d.KN, d.Wrapped = number("KN"), octets("wrapped SAK", d.Suite.KeyLen()+8, d.Suite.KeyLen()+8)
		}
		m.DistributedSAK = d
	}
	if yes("Distributed CAK") {
		m.DistributedCAK = DistributedCAK{Present: true, Wrapped: octets("wrapped CAK", keyLen+8, keyLen+8), CKN: octets("group CKN", 1, 32)}
	}
	if yes("KMD") {
		m.KMD = KMD{Present: true, Value: octets("KMD value", 0, 20)}
	}
	if yes("Announcement") {
		m.Announcement.Present = true
		for range rapid.IntRange(0, 4).Draw(t, "TLVs") {
			m.Announcement.TLVs = append(m.Announcement.TLVs, TLV{small("TLV type", 127), octets("TLV value", 0, 30)})
		}
	}
	if yes("XPN") {
		m.XPN = XPN{Present: true, Suspension: small("suspension", 255), LatestLPNHigh: number("latest high"), OldLPNHigh: number("old high")}
	}
	return m
}

func TestAppendDefaults(t *testing.T) {
	ick := testICK(t)
	m := hello()
	m.Destination, m.EtherType, m.EAPOLVersion = MAC{}, 0, 0
	frame, err := m.Append(nil, ick)
	if err != nil {
		t.Fatal(err)
	}
	if got := frame[:16]; !bytes.Equal(got, unhex(t, "0180c2000003"+"020000000001"+"888e"+"0305")) {
		t.Errorf("headers %x", got)
	}
}

func TestAppendSetsAscend(t *testing.T) {
	ick := testICK(t)
	m := hello()
	m.Live.Present, m.Potential.Present, m.SAKUse.Present, m.XPN.Present = true, true, true, true
	m.DistributedSAK = DistributedSAK{Present: true, Plain: true}
	m.DistributedCAK = DistributedCAK{Present: true, Wrapped: make([]byte, 24), CKN: []byte("g")}
	m.KMD.Present, m.Announcement.Present, m.ICVIndicator = true, true, true
	frame, err := m.Append(nil, ick)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(frame, OpenParams{})
	if err != nil {
		t.Fatal(err)
	}
	var types []byte
	for at := e.basicEnd; at < e.icvOffset(); {
		types = append(types, frame[at])
		if frame[at] == byte(SetICVIndicator) {
			break
		}
		at += setHeader + padded(setBodyLen(frame[at:]))
	}
	if want := []byte{1, 2, 3, 4, 5, 6, 7, 8, 255}; !slices.Equal(types, want) {
		t.Errorf("sets %v, want %v", types, want)
	}
}

// TestDecodeIgnores adds sets that must not matter: unknown ones, a Basic set
// that is not the first, and repetitions, of which the first counts.
func TestDecodeIgnores(t *testing.T) {
	ick := testICK(t)
	entry := func(b string) string { return strings.Repeat(b, 16) }
	known := "01020010" + entry("11") + "0300002800" + strings.Repeat("00", 39) + "08050008" + entry("00")[:16]
	want := mustRead(t, signedWith(t, ick, unhex(t, known)), ick)
	for name, raw := range map[string]string{
		"unknown first":         "09000004aabbccdd" + known,
		"unknown last":          known + "fe000005" + "aabbccddee000000",
		"unknown empty":         "80000000" + known + "81000000",
		"unknown as type 0":     "0000001c" + strings.Repeat("ab", 28) + known,
		"repeated list":         known + "01ff0020" + entry("22") + entry("33"),
		"repeated, not read":    known + "01000003aabbcc00",
		"repeated SAK Use":      known + "03ff0000",
		"repeated XPN":          known + "08ff0008" + entry("ff")[:16],
		"in descending order":   "08050008" + entry("00")[:16] + "0300002800" + strings.Repeat("00", 39) + "01020010" + entry("11"),
		"padding that is not 0": known + "fe000001" + "aabbccdd",
	} {
		t.Run(name, func(t *testing.T) {
			got := mustRead(t, signedWith(t, ick, unhex(t, raw)), ick)
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestDecodeForgets reuses an MKPDU that a richer message has filled.
func TestDecodeForgets(t *testing.T) {
	ick := testICK(t)
	rich := hello()
	rich.Live = PeerList{Present: true, KeyServerSSCI: 1, Entries: []PeerEntry{{MI{1}, 1}, {MI{2}, 2}}}
	rich.Announcement = Announcement{Present: true, TLVs: []TLV{{Type: 1}}}
	rich.XPN = XPN{Present: true, Suspension: 9}
	rich.KMD = KMD{Present: true, Value: []byte("domain")}
	rich.ICVIndicator = true
	poor := hello()
	var reused MKPDU
	for _, m := range []MKPDU{rich, poor, rich} {
		frame, err := m.Append(nil, ick)
		if err != nil {
			t.Fatal(err)
		}
		if err := read(&reused, frame, ick); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(mustRead(t, frame, ick), reused, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("(-fresh +reused):\n%s", diff)
		}
	}
	reused.Reset()
	if diff := cmp.Diff(MKPDU{}, reused, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("after Reset:\n%s", diff)
	}
	if cap(reused.Live.Entries) < 2 {
		t.Error("Reset gave up the memory of the list")
	}
}

func TestFrameErrorText(t *testing.T) {
	ick := testICK(t)
	var m MKPDU
	err := read(&m, signedWith(t, ick, unhex(t, "0300000400000000")), ick)
	want := "mka: read SAK Use at octet 58: length does not fit: body of 4 octets, want 0 or 40"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	names := map[string]SetType{}
	for s := SetNone; s <= SetICVIndicator; s++ {
		if o, ok := names[s.String()]; ok {
			t.Errorf("%d and %d are both %s", o, s, s)
		}
		names[s.String()] = s
	}
}

// TestHelloDoesNotAllocate is the promise that Open, Verify and Decode make for
// a frame of a live peer, and Append for a buffer that is large enough.
func TestHelloDoesNotAllocate(t *testing.T) {
	for _, g := range goldenFrames(t) {
		ick, err := NewICK(g.ick)
		if err != nil {
			t.Fatal(err)
		}
		var m MKPDU
		if n := testing.AllocsPerRun(100, func() {
			if err := read(&m, g.frame, ick); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations to read", g.name, n)
		}
		m.Basic.CKN = g.ckn
		buf := make([]byte, 0, len(g.frame))
		if n := testing.AllocsPerRun(100, func() {
			if _, err := m.Append(buf, ick); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations to write", g.name, n)
		}
	}
}

// FuzzDecode signs any octets after a Basic set, so that the walk over the sets
// sees what no attacker without the ICK could send.
func FuzzDecode(f *testing.F) {
	for _, g := range goldenFrames(f) {
		e, err := Open(g.frame, OpenParams{})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(g.frame[e.basicEnd:e.icvOffset()])
	}
	f.Add(unhex(f, "ff000010"))
	ick := testICK(f)
	f.Fuzz(func(t *testing.T, sets []byte) {
		if len(sets) > 60000 {
			return
		}
		raw := pad(bytes.Clone(sets), 0)
		frame := signedWith(t, ick, raw)
		var m MKPDU
		if err := read(&m, frame, ick); err != nil {
			var fe *FrameError
			if !errors.As(err, &fe) || fe.Offset < bodyOffset || fe.Offset >= len(frame) {
				t.Fatalf("%v, want a FrameError inside the frame", err)
			}
			return
		}
		m.Basic.CKN = hello().Basic.CKN
		again, err := m.Append(nil, ick)
		if errors.Is(err, ErrRange) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		got := mustRead(t, again, ick)
		got.Basic.CKN = m.Basic.CKN
		if diff := cmp.Diff(m, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("changed by encoding (-first +second):\n%s", diff)
		}
	})
}

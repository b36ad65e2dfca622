package mka

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/lever-link/lever/internal/secret"
)

// hexOctets is octets that JSON spells in hexadecimal.
type hexOctets []byte

func (h *hexOctets) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// loadVectors reads testdata/vectors/name into v.
func loadVectors(t testing.TB, name string, v any) {
	t.Helper()
	loadJSON(t, filepath.Join("testdata", "vectors", name), v)
}

func loadJSON(t testing.TB, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// goldenFrame is a frame that somebody else's encoder made, with its keys.
type goldenFrame struct {
	name           string
	frame          []byte
	cak            Key
	ckn            CKN
	kek, ick, sak  Key
	wrapped        []byte
	capturedOnWire bool
}

// goldenFrames is every frame of the vectors and of the captures.
func goldenFrames(t testing.TB) []goldenFrame {
	t.Helper()
	return append(vectorFrames(t), capturedFrames(t)...)
}

func vectorFrames(t testing.TB) []goldenFrame {
	t.Helper()
	type keys struct{ CAK, CKN, KEK, ICK hexOctets }
	var v struct {
		keys
		SAK     hexOctets
		Wrapped hexOctets `json:"wrapped_sak"`
		Frames  []struct {
			Name string
			Hex  hexOctets
		}
		Frame5 keys
	}
	loadVectors(t, "mkpdu.json", &v)
	var frames []goldenFrame
	for i, f := range v.Frames {
		k, sak, wrapped := v.keys, v.SAK, v.Wrapped
		if i == 4 {
			k, sak, wrapped = v.Frame5, nil, nil
		}
		frames = append(frames, goldenFrame{
			name: f.Name, frame: f.Hex,
			cak: secret.Clone(k.CAK), ckn: CKN(k.CKN), kek: secret.Clone(k.KEK), ick: secret.Clone(k.ICK),
			sak: secret.Clone(sak), wrapped: wrapped,
		})
	}
	if len(frames) != 5 {
		t.Fatalf("%d frames in mkpdu.json, want 5", len(frames))
	}
	return frames
}

func capturedFrames(t testing.TB) []goldenFrame {
	t.Helper()
	captures, err := filepath.Glob(filepath.Join("testdata", "captures", "*", "mka.pcap"))
	if err != nil || len(captures) == 0 {
		t.Fatalf("captures: %v, %v", captures, err)
	}
	var frames []goldenFrame
	for _, path := range captures {
		var k struct {
			CAK, CKN      hexOctets
			KEK, ICK, SAK []hexOctets
			Wrapped       []hexOctets `json:"wrapped_sak"`
		}
		loadJSON(t, filepath.Join(filepath.Dir(path), "keys.json"), &k)
		for _, frame := range readPcap(t, path) {
			frames = append(frames, goldenFrame{
				name: filepath.Base(filepath.Dir(path)), frame: frame,
				cak: secret.Clone(k.CAK), ckn: CKN(k.CKN), kek: secret.Clone(k.KEK[0]), ick: secret.Clone(k.ICK[0]),
				sak: secret.Clone(k.SAK[0]), wrapped: k.Wrapped[0], capturedOnWire: true,
			})
		}
	}
	return frames
}

func readPcap(t testing.TB, path string) [][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	var frames [][]byte
	for {
		frame, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return frames
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		frames = append(frames, frame)
	}
}

// goldenSets is the octets of every set of type typ in the golden frames.
func goldenSets(t testing.TB, typ SetType) [][]byte {
	t.Helper()
	var sets [][]byte
	for _, g := range goldenFrames(t) {
		e, err := Open(g.frame, OpenParams{})
		if err != nil {
			t.Fatalf("%s: %v", g.name, err)
		}
		if typ == SetBasic {
			sets = append(sets, g.frame[bodyOffset:bodyOffset+setHeader+setBodyLen(g.frame[bodyOffset:])])
		}
		for at := e.basicEnd; at < e.icvOffset(); {
			n := setBodyLen(g.frame[at:])
			if SetType(g.frame[at]) == typ {
				sets = append(sets, g.frame[at:at+setHeader+n])
			}
			at += setHeader + padded(n)
		}
	}
	return sets
}

func testICK(t testing.TB) *ICK {
	t.Helper()
	ick, err := NewICK(secret.Clone([]byte("an ICK of 16 oct")))
	if err != nil {
		t.Fatal(err)
	}
	return ick
}

// hello is the least that Append takes.
func hello() MKPDU {
	return MKPDU{
		Destination: GroupAddress, Source: MAC{2, 0, 0, 0, 0, 1}, EtherType: EtherType, EAPOLVersion: eapolVersion,
		Basic: Basic{
			Version: 3, Priority: 16, KeyServer: true, MACsecDesired: true, Capability: CapabilityConfidentiality,
			SCI: NewSCI(MAC{2, 0, 0, 0, 0, 1}, 1), MI: MI{1, 2, 3}, MN: 7, CKN: "link-7",
		},
	}
}

// signedWith is a frame whose ICV holds and whose octets between the Basic set
// and the ICV are raw, which must be whole words.
func signedWith(t testing.TB, ick *ICK, raw []byte) []byte {
	t.Helper()
	m := hello()
	frame, err := m.Append(nil, ick)
	if err != nil {
		t.Fatal(err)
	}
	frame = append(frame[:len(frame)-icvLen], raw...)
	body := len(frame) - bodyOffset + icvLen
	frame[16], frame[17] = byte(body>>8), byte(body)
	frame, err = ick.appendICV(frame, 0)
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

// read is what a receiver does.
func read(m *MKPDU, frame []byte, ick *ICK) error {
	e, err := Open(frame, OpenParams{})
	if err != nil {
		return err
	}
	e.Verify(ick)
	return m.Decode(&e)
}

// mustRead decodes a frame that must be good.
func mustRead(t testing.TB, frame []byte, ick *ICK) MKPDU {
	t.Helper()
	var m MKPDU
	if err := read(&m, frame, ick); err != nil {
		t.Fatalf("%x: %v", frame, err)
	}
	return m
}

// testRoundTrip encodes m, compares the sets after Basic with the golden
// octets, and decodes them again.
func testRoundTrip(t *testing.T, m MKPDU, wantSets string) {
	t.Helper()
	ick := testICK(t)
	frame, err := m.Append(nil, ick)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(frame, OpenParams{})
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(frame[e.basicEnd:e.icvOffset()]); got != wantSets {
		t.Errorf("encoded\n got %s\nwant %s", got, wantSets)
	}
	got := mustRead(t, frame, ick)
	got.Basic.CKN = CKN(e.CKN)
	if diff := cmp.Diff(m, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
}

// testTruncation cuts a set after every octet of its body. Once with the
// length in its header adjusted, when fits says which lengths are still a set
// of that type, and once with the length as it was, when it always runs into
// the ICV.
func testTruncation(t *testing.T, set []byte, fits func(body int) bool) {
	t.Helper()
	ick := testICK(t)
	full := setBodyLen(set)
	for n := range full {
		cut := bytes.Clone(set[:setHeader+n])
		cut[2], cut[3] = cut[2]&0xf0|byte(n>>8), byte(n)
		var m MKPDU
		err := read(&m, signedWith(t, ick, pad(cut, 0)), ick)
		checkLength(t, &m, err, !fits(n), "body of %d of %d octets", n, full)

		cut = bytes.Clone(set[:setHeader+n&^3])
		if padded(full) == n&^3 {
			continue
		}
		err = read(&m, signedWith(t, ick, cut), ick)
		checkLength(t, &m, err, true, "%d octets of a body of %d", n&^3, full)
	}
}

func checkLength(t *testing.T, m *MKPDU, err error, want bool, what string, args ...any) {
	t.Helper()
	if !want {
		if err != nil {
			t.Errorf(what+": %v", append(args, err)...)
		}
		return
	}
	var fe *FrameError
	if !errors.As(err, &fe) || !errors.Is(err, ErrLength) {
		t.Errorf(what+": %v, want a FrameError with ErrLength", append(args, err)...)
	}
	if diff := cmp.Diff(MKPDU{}, *m, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf(what+": the MKPDU is not empty after an error:\n%s", append(args, diff)...)
	}
}

// fuzzSet throws octets at the decoder of one set. What it accepts must come
// out of the encoder in a form that decodes to the same.
func fuzzSet(f *testing.F, typ SetType, seeds ...string) {
	for _, set := range goldenSets(f, typ) {
		f.Add(set)
	}
	for _, s := range seeds {
		f.Add(unhex(f, s))
	}
	ick := testICK(f)
	f.Fuzz(func(t *testing.T, set []byte) {
		if len(set) < setHeader || len(set) > setHeader+maxSetBody {
			return
		}
		raw := bytes.Clone(set)
		raw[0] = byte(typ)
		if n := len(raw) - setHeader; setBodyLen(raw) > n {
			raw[2], raw[3] = raw[2]&0xf0|byte(n>>8), byte(n)
		}
		raw = pad(raw[:setHeader+setBodyLen(raw)], 0)
		var m MKPDU
		if err := read(&m, signedWith(t, ick, raw), ick); err != nil {
			var fe *FrameError
			if !errors.As(err, &fe) || fe.Set != typ || fe.Error() == "" {
				t.Fatalf("%v, want a FrameError of %s", err, typ)
			}
			return
		}
		m.Basic.CKN = hello().Basic.CKN
		again, err := m.Append(nil, ick)
		if errors.Is(err, ErrRange) {
			// What an unknown suite's SAK or an odd length means is not for us to send.
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

// testUnfit tries messages that must not be encoded, and that dst survives.
func testUnfit(t *testing.T, cases map[string]func(m *MKPDU)) {
	t.Helper()
	ick := testICK(t)
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			m := hello()
			spoil(&m)
			got, err := m.Append([]byte("kept"), ick)
			if !errors.Is(err, ErrRange) {
				t.Errorf("%v, want ErrRange", err)
			}
			if string(got) != "kept" {
				t.Errorf("dst became %q", got)
			}
		})
	}
}

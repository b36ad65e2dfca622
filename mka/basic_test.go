package mka

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBasicRoundTrip(t *testing.T) {
	sci, mi := NewSCI(MAC{2, 0, 0, 0, 0, 9}, 0xabcd), MI(bytes.Repeat([]byte{0x5a}, 12))
	for _, c := range []struct {
		name  string
		basic Basic
		want  string
	}{
		{"all set",
			Basic{Version: 3, Priority: 255, KeyServer: true, MACsecDesired: true, Capability: 3, SCI: sci, MI: mi, MN: 0xfffffffe, CKN: "abcd"},
			"03fff020" + "020000000009abcd" + strings.Repeat("5a", 12) + "fffffffe" + "0080c201" + "61626364"},
		{"padded",
			Basic{Version: 1, SCI: sci, MI: mi, MN: 1, CKN: "a"},
			"0100001d" + "020000000009abcd" + strings.Repeat("5a", 12) + "00000001" + "0080c201" + "61000000"},
		{"key server alone",
			Basic{Version: 2, Priority: 1, KeyServer: true, Capability: 1, SCI: sci, MI: mi, MN: 1, CKN: "abc"},
			"0201901f" + "020000000009abcd" + strings.Repeat("5a", 12) + "00000001" + "0080c201" + "61626300"},
		{"desired alone",
			Basic{MACsecDesired: true, Capability: 2, SCI: sci, MI: mi, MN: 1, CKN: CKN(strings.Repeat("z", 32))},
			"0000603c" + "020000000009abcd" + strings.Repeat("5a", 12) + "00000001" + "0080c201" + strings.Repeat("7a", 32)},
	} {
		t.Run(c.name, func(t *testing.T) {
			ick := testICK(t)
			m := hello()
			m.Basic = c.basic
			frame, err := m.Append(nil, ick)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := frame[bodyOffset:len(frame)-icvLen], unhex(t, c.want); !bytes.Equal(got, want) {
				t.Errorf("encoded\n got %x\nwant %x", got, want)
			}
			got := mustRead(t, frame, ick)
			if got.Basic.CKN != "" {
				t.Errorf("Decode gave the CKN %s", got.Basic.CKN)
			}
			got.Basic.CKN = c.basic.CKN
			if diff := cmp.Diff(c.basic, got.Basic); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBasicUnfit(t *testing.T) {
	testUnfit(t, map[string]func(*MKPDU){
		"no CKN":     func(m *MKPDU) { m.Basic.CKN = "" },
		"long CKN":   func(m *MKPDU) { m.Basic.CKN = CKN(strings.Repeat("x", 33)) },
		"capability": func(m *MKPDU) { m.Basic.Capability = 4 },
	})
}

// FuzzBasic signs a Basic set of any octets, so that nothing but its own
// checks stand between them and the decoder.
func FuzzBasic(f *testing.F) {
	for _, set := range goldenSets(f, SetBasic) {
		f.Add(set)
	}
	ick := testICK(f)
	f.Fuzz(func(t *testing.T, set []byte) {
		if len(set) > maxSetBody {
			return
		}
		m := hello()
		frame := m.appendHeaders(nil)
		frame = pad(append(frame, set...), bodyOffset)
		body := len(frame) - bodyOffset + icvLen
		frame[16], frame[17] = byte(body>>8), byte(body)
		frame, err := ick.appendICV(frame, 0)
		if err != nil {
			t.Fatal(err)
		}
		e, err := Open(frame, OpenParams{})
		if err != nil || !e.Verify(ick) || m.Decode(&e) != nil {
			return
		}
		if set[0] != m.Basic.Version || set[1] != m.Basic.Priority {
			t.Fatalf("%x decoded to %+v", set, m.Basic)
		}
		first := m.Basic
		m.Basic.CKN = CKN(e.CKN)
		again, err := m.Append(nil, ick)
		if err != nil {
			return // another set follows in the octets, and it does not fit
		}
		if got := mustRead(t, again, ick); got.Basic != first {
			t.Fatalf("changed by encoding: %+v, %+v", first, got.Basic)
		}
	})
}

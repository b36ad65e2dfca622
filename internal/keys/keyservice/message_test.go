package keyservice

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/lever-link/lever/internal/keys"
)

var sample = Message{
	Kind: Offer, Link: HashLink("fra1-ams1-017"), Side: keys.B, Epoch: keys.Epoch{Number: 29_500_000, Generation: 2},
	KeyID: "bc490419-7d60-487f-adc1-4ddcc177c139",
}

func TestMessage(t *testing.T) {
	b, err := sample.Encode()
	if err != nil {
		t.Fatal(err)
	}
	link := HashLink("fra1-ams1-017")
	want := "010101" + hex.EncodeToString(link[:]) + "0000000001c22260" + "00000002" + "24" + hex.EncodeToString([]byte(sample.KeyID))
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("it is %s, want %s", got, want)
	}
	if back, err := Decode(b); err != nil || back != sample {
		t.Errorf("read back: %+v, %v", back, err)
	}
	if n := MaxMessage; n > 400 {
		t.Errorf("%d octets are more than an announcement carries", n)
	}
	for _, tt := range []struct {
		name   string
		change func(b []byte) []byte
	}{
		{"empty", func([]byte) []byte { return nil }},
		{"cut off", func(b []byte) []byte { return b[:len(b)-1] }},
		{"the header alone", func(b []byte) []byte { return b[:messageFixed-1] }},
		{"too long", func(b []byte) []byte { return append(b, 'x') }},
		{"another version", func(b []byte) []byte { b[0] = 2; return b }},
		{"no kind", func(b []byte) []byte { b[1] = 0; return b }},
		{"another kind", func(b []byte) []byte { b[1] = 4; return b }},
		{"another side", func(b []byte) []byte { b[2] = 2; return b }},
		{"no epoch", func(b []byte) []byte { clear(b[19:27]); return b }},
		{"a generation beyond order", func(b []byte) []byte { b[28] = 0x10; return b }},
		{"an offer of no key", func(b []byte) []byte { b[31] = 0; return b[:messageFixed] }},
		{"an id with a slash", func(b []byte) []byte { b[40] = '/'; return b }},
		{"an id with a line feed", func(b []byte) []byte { b[40] = '\n'; return b }},
		{"an id beyond ASCII", func(b []byte) []byte { b[40] = 0xc3; return b }},
		{"an id that is a path", func(b []byte) []byte { b[31] = 2; return append(b[:messageFixed], "..."[:2]...) }},
	} {
		if m, err := Decode(tt.change(bytes.Clone(b))); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %+v, %v; want ErrMessage", tt.name, m, err)
		}
	}
	for _, bad := range []Message{
		{}, {Kind: Offer, Epoch: sample.Epoch}, {Kind: Got, Epoch: keys.Epoch{}},
		{Kind: Offer, Epoch: sample.Epoch, KeyID: strings.Repeat("x", MaxKeyID+1)},
	} {
		if _, err := bad.Encode(); !errors.Is(err, ErrMessage) {
			t.Errorf("%+v: %v, want ErrMessage", bad, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range []Message{
		sample,
		{Kind: Got, Link: sample.Link, Epoch: sample.Epoch, KeyID: "1726e9ae76234fb1dd1283d4dca1911e"},
		{Kind: Lost, Link: sample.Link, Epoch: keys.Epoch{Number: 1}},
	} {
		b, err := m.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		if again, err := m.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x was read as %+v, which is %x (%v)", b, m, again, err)
		}
	})
}

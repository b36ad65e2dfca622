package mka

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/lever-link/lever/internal/secret"
)

// TestVerifyCoversEveryBit flips each bit of frames with and without an
// indicator. Whatever Open still lets through must not verify, nor decode.
func TestVerifyCoversEveryBit(t *testing.T) {
	ick := testICK(t)
	for _, indicator := range []bool{false, true} {
		m := hello()
		m.ICVIndicator = indicator
		m.Live = PeerList{Present: true, Entries: []PeerEntry{{MI{1}, 2}}}
		frame, err := m.Append(nil, ick)
		if err != nil {
			t.Fatal(err)
		}
		if got := mustRead(t, frame, ick); got.ICVIndicator != indicator || !got.Live.Present {
			t.Fatalf("indicator %v: read as %+v", indicator, got)
		}
		opened := 0
		for i := range len(frame) * 8 {
			bad := bytes.Clone(frame)
			bad[i/8] ^= 0x80 >> (i % 8)
			e, err := Open(bad, OpenParams{})
			if err != nil {
				continue
			}
			opened++
			if e.Verify(ick) {
				t.Errorf("indicator %v: verified with bit %d flipped", indicator, i)
			}
			var got MKPDU
			want := ErrICV
			if i/8 >= agilityOffset && i/8 < agilityOffset+4 {
				want = ErrAgility
			}
			if err := got.Decode(&e); !errors.Is(err, want) || got.Live.Present || got.Basic.Version != 0 {
				t.Errorf("indicator %v, bit %d flipped: %v, want %v; %+v", indicator, i, err, want, got)
			}
		}
		if opened < 8*75 {
			t.Errorf("only %d frames got as far as Verify", opened)
		}
	}
}

func TestICVIndicatorOnTheWire(t *testing.T) {
	ick := testICK(t)
	m := hello()
	m.ICVIndicator = true
	frame, err := m.Append(nil, ick)
	if err != nil {
		t.Fatal(err)
	}
	at := len(frame) - icvLen - setHeader
	if got := frame[at : at+setHeader]; !bytes.Equal(got, []byte{255, 0, 0, 16}) {
		t.Errorf("indicator %x", got)
	}
	if got := int(frame[16])<<8 | int(frame[17]); got != len(frame)-bodyOffset {
		t.Errorf("EAPOL body of %d octets, want %d", got, len(frame)-bodyOffset)
	}
	for name, raw := range map[string]string{
		"other length":   "ff000020",
		"no length":      "ff000000",
		"before the end": "ff000010" + "08000008" + "0000000000000000",
	} {
		var m MKPDU
		err := read(&m, signedWith(t, ick, unhex(t, raw)), ick)
		checkLength(t, &m, err, true, "%s", name)
		var fe *FrameError
		if errors.As(err, &fe) && fe.Set != SetICVIndicator {
			t.Errorf("%s: blamed on %s", name, fe.Set)
		}
	}
}

func TestVerifyNeedsTheRightKey(t *testing.T) {
	for _, g := range goldenFrames(t) {
		other := secret.Clone(bytes.Repeat([]byte{1}, g.ick.Len()))
		wrong, err := NewICK(other)
		if err != nil {
			t.Fatal(err)
		}
		right, err := NewICK(g.ick)
		if err != nil {
			t.Fatal(err)
		}
		e, err := Open(g.frame, OpenParams{})
		if err != nil {
			t.Fatal(err)
		}
		var m MKPDU
		if err := m.Decode(&e); !errors.Is(err, ErrICV) {
			t.Errorf("%s: decoded before Verify: %v", g.name, err)
		}
		if e.Verify(wrong) || e.Verify(nil) || e.Verify(&ICK{}) {
			t.Errorf("%s: verified with a wrong key", g.name)
		}
		if !e.Verify(right) || m.Decode(&e) != nil {
			t.Errorf("%s: does not verify", g.name)
		}
		if e.Verify(wrong) {
			t.Errorf("%s: verified with a wrong key after the right one", g.name)
		}
		if err := m.Decode(&e); !errors.Is(err, ErrICV) {
			t.Errorf("%s: decoded after a failed Verify: %v", g.name, err)
		}
	}
	var zero Envelope
	var m MKPDU
	if zero.Verify(testICK(t)) || !errors.Is(m.Decode(&zero), ErrICV) {
		t.Error("the zero Envelope verifies")
	}
}

func TestICKErase(t *testing.T) {
	ick := testICK(t)
	m := hello()
	frame, err := m.Append(nil, ick)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(frame, OpenParams{})
	if err != nil {
		t.Fatal(err)
	}
	state := ick.ready()
	ick.Erase()
	ick.Erase()
	if *state != (cmac{}) {
		t.Error("the subkeys are still there")
	}
	if e.Verify(ick) {
		t.Error("an erased ICK verifies")
	}
	if got, err := m.Append(nil, ick); !errors.Is(err, ErrErased) || got != nil {
		t.Errorf("an erased ICK signs: %x, %v", got, err)
	}
}

func TestNewICKRefusesOddKeys(t *testing.T) {
	for _, n := range []int{0, 15, 24, 33} {
		if _, err := NewICK(secret.Clone(make([]byte, n))); err == nil {
			t.Errorf("a key of %d octets was taken", n)
		}
	}
}

// TestICKDoesNotPrint looks for the subkeys in every way of printing.
func TestICKDoesNotPrint(t *testing.T) {
	ick := testICK(t)
	k1 := ick.ready().k1
	type holder struct {
		ICK ICK
		p   *ICK
	}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		for _, v := range []any{ick, *ick, holder{*ick, ick}, &holder{*ick, ick}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	text := strings.ToLower(out.String())
	for _, leak := range []string{
		fmt.Sprintf("%x", k1[:4]), fmt.Sprintf("%d %d %d", k1[0], k1[1], k1[2]),
		fmt.Sprintf("%#x, %#x, %#x", k1[0], k1[1], k1[2]), "an ick of",
	} {
		if strings.Contains(text, leak) {
			t.Errorf("%q was printed", leak)
		}
	}
}

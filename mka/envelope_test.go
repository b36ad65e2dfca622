package mka

import (
	"bytes"
	"errors"
	"testing"
)

func TestOpen(t *testing.T) {
	g := vectorFrames(t)[4]
	e, err := Open(g.frame, OpenParams{})
	if err != nil {
		t.Fatal(err)
	}
	if e.Destination != GroupAddress || e.Source != (MAC{2, 0, 0, 0, 0, 1}) || e.EtherType != 0x888e ||
		e.EAPOLVersion != 3 || e.Version != 1 || CKN(e.CKN) != g.ckn {
		t.Errorf("%+v", e)
	}
}

// TestOpenParams moves a frame to another group address and EtherType, as
// operators of WAN equipment do.
func TestOpenParams(t *testing.T) {
	ick := testICK(t)
	m := hello()
	m.Destination, m.EtherType, m.EAPOLVersion = MAC{0x01, 0x80, 0xc2, 0, 0, 0x0e}, 0x876f, 1
	frame, err := m.Append(nil, ick)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		params OpenParams
		want   error
	}{
		{"both", OpenParams{EtherType: 0x876f, Destination: m.Destination}, nil},
		{"neither", OpenParams{}, ErrDestination},
		{"destination alone", OpenParams{Destination: m.Destination}, ErrNotMKA},
		{"EtherType alone", OpenParams{EtherType: 0x876f}, ErrDestination},
	} {
		e, err := Open(frame, c.params)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err != nil {
			continue
		}
		if !e.Verify(ick) {
			t.Errorf("%s: the ICV does not hold", c.name)
		}
		var got MKPDU
		if err := got.Decode(&e); err != nil || got.EtherType != 0x876f || got.Destination != m.Destination || got.EAPOLVersion != 1 {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	good := vectorFrames(t)[0].frame // Basic of 4+44 octets, then the ICV
	edit := func(at int, octets ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], octets)
		return b
	}
	for _, c := range []struct {
		name   string
		frame  []byte
		want   error
		set    SetType
		offset int
	}{
		{"nothing", nil, ErrTruncated, SetNone, 0},
		{"headers alone", good[:17], ErrTruncated, SetNone, 17},
		{"unicast", edit(0, 2), ErrDestination, SetNone, 0},
		{"another group", edit(5, 0x0e), ErrDestination, SetNone, 0},
		{"EtherType", edit(12, 0x08, 0x00), ErrNotMKA, SetNone, 12},
		{"EAPOL-Start", edit(15, 1), ErrNotMKA, SetNone, 15},
		{"body of 0", edit(16, 0, 0), ErrLength, SetNone, 16},
		{"body of 28", edit(16, 0, 28), ErrLength, SetNone, 16},
		{"body of 66", edit(16, 0, 66), ErrLength, SetNone, 16},
		{"body longer than the frame", edit(16, 0, 68), ErrTruncated, SetNone, 82},
		{"body of 65532", edit(16, 0xff, 0xfc), ErrTruncated, SetNone, 82},
		{"no CKN", edit(20, 0xe0, 28), ErrCKNLength, SetBasic, 20},
		{"Basic set of 0", edit(20, 0xe0, 0), ErrCKNLength, SetBasic, 20},
		{"CKN of 33", edit(20, 0xe0, 61), ErrCKNLength, SetBasic, 20},
		{"Basic set of 4095", edit(20, 0xef, 0xff), ErrCKNLength, SetBasic, 20},
		{"CKN runs into the ICV", edit(20, 0xe0, 45), ErrLength, SetBasic, 20},
		{"body leaves no ICV", edit(16, 0, 60), ErrLength, SetBasic, 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Open(c.frame, OpenParams{})
			var fe *FrameError
			if !errors.As(err, &fe) || !errors.Is(err, c.want) {
				t.Fatalf("%v, want a FrameError with %v", err, c.want)
			}
			if fe.Set != c.set || fe.Offset != c.offset || fe.Detail == "" {
				t.Errorf("%v: set %s at %d, want %s at %d", err, fe.Set, fe.Offset, c.set, c.offset)
			}
		})
	}
}

func TestOpenRefusesEveryPrefix(t *testing.T) {
	for _, g := range goldenFrames(t) {
		for n := range len(g.frame) {
			if _, err := Open(g.frame[:n:n], OpenParams{}); !errors.Is(err, ErrTruncated) {
				t.Errorf("%s: %d of %d octets: %v, want ErrTruncated", g.name, n, len(g.frame), err)
			}
		}
	}
}

// TestOpenStripsTrailers appends what network cards leave at the end of a
// frame.
func TestOpenStripsTrailers(t *testing.T) {
	for _, g := range goldenFrames(t) {
		ick, err := NewICK(g.ick)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1, 4, 20, 46, 1000} {
			frame := append(bytes.Clone(g.frame), bytes.Repeat([]byte{0xff}, n)...)
			e, err := Open(frame, OpenParams{})
			if err != nil || !e.Verify(ick) {
				t.Errorf("%s with %d octets more: %v", g.name, n, err)
			}
		}
	}
}

// FuzzOpen takes frames as they come from the wire: no octets may panic, read
// out of bounds or verify unless the ICV is right.
func FuzzOpen(f *testing.F) {
	golden := goldenFrames(f)
	for _, g := range golden {
		f.Add(g.frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		e, err := Open(frame, OpenParams{})
		if err != nil {
			var fe *FrameError
			if !errors.As(err, &fe) || fe.Offset < 0 || fe.Offset > len(frame) {
				t.Fatalf("%v, want a FrameError inside the frame", err)
			}
			return
		}
		if n := len(e.CKN); n < 1 || n > maxCKN || !bytes.Contains(frame, e.CKN) {
			t.Fatalf("CKN %x", e.CKN)
		}
		for _, g := range golden {
			if g.ckn != CKN(e.CKN) {
				continue
			}
			ick, err := NewICK(g.ick)
			if err != nil {
				t.Fatal(err)
			}
			if e.Verify(ick) {
				var m MKPDU
				if err := m.Decode(&e); err != nil {
					t.Fatalf("verified, but: %v", err)
				}
			}
		}
	})
}

package secrettest_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"os"
	"runtime"
	"testing"

	"github.com/lever-link/lever/internal/secret/secrettest"
)

// A search of the own memory finds a key in each form in which it may be, and
// nothing once that is overwritten: neither in the search nor in its buffers.
func TestSelfFindsEachForm(t *testing.T) {
	var s secrettest.Search
	s.AddOctets("control", []byte("a public name in the memory of this test"))
	var names []string
	var held [][]byte
	for _, c := range []struct {
		name   string
		pad    bool
		encode func(key []byte) []byte
	}{
		{name: "octets", encode: bytes.Clone},
		{name: "at an odd address", encode: func(k []byte) []byte { return append([]byte("odd"), k...) }},
		{name: "half of it", encode: func(k []byte) []byte { return bytes.Clone(k[16:]) }},
		{name: "a block of key wrap", encode: func(k []byte) []byte { return bytes.Clone(k[8:16]) }},
		{name: "digits", encode: func(k []byte) []byte { return hex.AppendEncode(nil, k) }},
		{name: "capital digits", encode: func(k []byte) []byte {
			b := hex.AppendEncode(nil, k)
			for i, c := range b { // in place: bytes.ToUpper would leave the others behind
				if c >= 'a' {
					b[i] = c - 'a' + 'A'
				}
			}
			return b
		}},
		{name: "words of SHA-512", encode: func(k []byte) []byte {
			return binary.NativeEndian.AppendUint64(nil, binary.BigEndian.Uint64(k[3:]))
		}},
		{name: "words of SHA-256", encode: func(k []byte) []byte {
			b := binary.NativeEndian.AppendUint32(nil, binary.BigEndian.Uint32(k[5:]))
			return binary.NativeEndian.AppendUint32(b, binary.BigEndian.Uint32(k[9:]))
		}},
		{name: "padded", pad: true, encode: func(k []byte) []byte {
			b := bytes.Clone(k)
			for i := range b {
				b[i] ^= 0x5c
			}
			return b
		}},
	} {
		key := make([]byte, 32)
		_, _ = rand.Read(key)
		if c.pad {
			s.AddPadded(c.name, key)
		} else {
			s.Add(c.name, key)
		}
		names, held = append(names, c.name), append(held, c.encode(key))
		clear(key)
	}
	for _, there := range []bool{true, false} {
		image, err := s.Self()
		if err != nil {
			t.Fatal(err)
		}
		for i, name := range names {
			if image.Has(name) != there {
				t.Errorf("%s: of %d octets in %d regions it is %s, want it there: %v", name, image.Octets, image.Regions, image.Where(name), there)
			}
			clear(held[i])
		}
		if !image.Has("control") {
			t.Error("the control is nowhere")
		}
	}
	runtime.KeepAlive(held)
}

// What lies across the borders of the blocks that are read is found too.
func TestBordersAreNoHidingPlace(t *testing.T) {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	var s secrettest.Search
	s.Add("key", key)
	room := make([]byte, 3<<20)
	for at := 0; at+piece < len(room); at += 4<<10 - 4 {
		copy(room[at:], key[:piece])
	}
	clear(key)
	want := len(room) / (4<<10 - 4)
	image, err := s.Process(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if got := image.Pieces("key"); got < want {
		t.Errorf("%d of %d copies found: %s", got, want, image.Where("key"))
	}
	clear(room)
	runtime.KeepAlive(room)
}

const piece = 8

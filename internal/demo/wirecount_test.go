package demo

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
)

func frame(from byte, etherType uint16, payload string) []byte {
	f := append(bytes.Repeat([]byte{1}, 6), bytes.Repeat([]byte{from}, 6)...)
	return append(append(f, byte(etherType>>8), byte(etherType)), payload...)
}

func TestWireCount(t *testing.T) {
	tests := []struct {
		name                            string
		frames                          [][]byte
		macsec, eapol, plain, readables int
		kinds                           string
	}{
		{"nothing", nil, 0, 0, 0, 0, ""},
		{"what may be there", [][]byte{frame(2, 0x88E5, "x"), frame(3, 0x88E5, ""), frame(2, 0x888E, "x")}, 2, 1, 0, 0, ""},
		{"what may not", [][]byte{frame(2, 0x0800, "x"), frame(2, 0x86DD, "x"), frame(2, 0x86DD, "x")}, 0, 0, 3, 0, "1 of 0800, 2 of 86DD"},
		{"a length is no EtherType and plain", [][]byte{frame(2, 38, "spanning tree")}, 0, 0, 1, 0, "1 of 0026"},
		{"a VLAN tag is plain, whatever is in it", [][]byte{frame(2, 0x8100, "\x00\x01\x88\xe5")}, 0, 0, 1, 0, "1 of 8100"},
		{"too short is plain", [][]byte{{1, 2, 3}}, 0, 0, 1, 0, "1 of 0000"},
		{"MACsec without encryption is readable", [][]byte{frame(2, 0x88E5, "sectag"+payloadMark+"icv")}, 1, 0, 0, 1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c wireCount
			for _, f := range tt.frames {
				c.note(f, time.Unix(1, 0))
			}
			if c.macsec() != tt.macsec || c.eapol() != tt.eapol || c.plain() != tt.plain || c.readable != tt.readables {
				t.Errorf("macsec %d, eapol %d, plain %d, readable %d; want %d, %d, %d, %d", c.macsec(), c.eapol(), c.plain(), c.readable,
					tt.macsec, tt.eapol, tt.plain, tt.readables)
			}
			if c.plainKinds() != tt.kinds || c.total() != len(tt.frames) {
				t.Errorf("%q of %d in total, want %q of %d", c.plainKinds(), c.total(), tt.kinds, len(tt.frames))
			}
		})
	}
}

func TestWireCountKeepsTheFirst(t *testing.T) {
	var c wireCount
	for i, f := range [][]byte{frame(2, 0x88E5, ""), frame(2, 0x888E, ""), frame(3, 0x888E, ""), frame(2, 0x888E, "")} {
		c.note(f, time.Unix(int64(i), 0))
	}
	at, ok := c.first(net.HardwareAddr{2, 2, 2, 2, 2, 2}, 0x888E)
	if !ok || at.Unix() != 1 {
		t.Errorf("first at %v, %v; want second 1", at, ok)
	}
	if _, ok := c.first(net.HardwareAddr{3, 3, 3, 3, 3, 3}, 0x88E5); ok {
		t.Error("a first frame that was never there")
	}
}

func TestPcapIsWhatOthersRead(t *testing.T) {
	var file bytes.Buffer
	w, err := newPcapWriter(&file)
	if err != nil {
		t.Fatal(err)
	}
	frames := [][]byte{frame(2, 0x88E5, "one"), frame(3, 0x888E, "and two")}
	at := time.Unix(1700000000, 123456789)
	for _, f := range frames {
		if err := w.write(f, at); err != nil {
			t.Fatal(err)
		}
	}
	r, err := pcapgo.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range frames {
		got, info, err := r.ReadPacketData()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) || !info.Timestamp.Equal(at) || info.Length != len(want) {
			t.Errorf("read %x of %d at %v, want %x at %v", got, info.Length, info.Timestamp, want, at)
		}
	}
}

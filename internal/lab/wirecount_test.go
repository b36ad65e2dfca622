package lab

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
		Name                            string
		Frames                          [][]byte
		MACsec, EAPOL, Plain, readables int
		kinds                           string
	}{
		{"nothing", nil, 0, 0, 0, 0, ""},
		{"what may be there", [][]byte{frame(2, 0x88E5, "x"), frame(3, 0x88E5, ""), frame(2, 0x888E, "x")}, 2, 1, 0, 0, ""},
		{"what may not", [][]byte{frame(2, 0x0800, "x"), frame(2, 0x86DD, "x"), frame(2, 0x86DD, "x")}, 0, 0, 3, 0, "1 of 0800, 2 of 86DD"},
		{"a length is no EtherType and plain", [][]byte{frame(2, 38, "spanning tree")}, 0, 0, 1, 0, "1 of 0026"},
		{"a VLAN tag is plain, whatever is in it", [][]byte{frame(2, 0x8100, "\x00\x01\x88\xe5")}, 0, 0, 1, 0, "1 of 8100"},
		{"too short is plain", [][]byte{{1, 2, 3}}, 0, 0, 1, 0, "1 of 0000"},
		{"MACsec without encryption is readable", [][]byte{frame(2, 0x88E5, "sectag"+PayloadMark+"icv")}, 1, 0, 0, 1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.Name, func(t *testing.T) {
			var c WireCount
			for _, f := range tt.Frames {
				c.note(f, time.Unix(1, 0))
			}
			if c.MACsec() != tt.MACsec || c.EAPOL() != tt.EAPOL || c.Plain() != tt.Plain || c.Readable != tt.readables {
				t.Errorf("macsec %d, eapol %d, plain %d, readable %d; want %d, %d, %d, %d", c.MACsec(), c.EAPOL(), c.Plain(), c.Readable,
					tt.MACsec, tt.EAPOL, tt.Plain, tt.readables)
			}
			if c.PlainKinds() != tt.kinds || c.Total() != len(tt.Frames) {
				t.Errorf("%q of %d in total, want %q of %d", c.PlainKinds(), c.Total(), tt.kinds, len(tt.Frames))
			}
		})
	}
}

func TestWireCountKeepsSourcesApart(t *testing.T) {
	var c WireCount
	for i, f := range [][]byte{frame(2, 0x88E5, ""), frame(2, 0x888E, ""), frame(3, 0x888E, ""), frame(2, 0x888E, "")} {
		c.note(f, time.Unix(int64(i), 0))
	}
	at, ok := c.First(net.HardwareAddr{2, 2, 2, 2, 2, 2}, 0x888E)
	if !ok || at.Unix() != 1 {
		t.Errorf("first at %v, %v; want second 1", at, ok)
	}
	if _, ok := c.First(net.HardwareAddr{3, 3, 3, 3, 3, 3}, 0x88E5); ok {
		t.Error("a first frame that was never there")
	}
	if n, none := c.From(net.HardwareAddr{2, 2, 2, 2, 2, 2}, 0x888E), c.From(net.HardwareAddr{3, 3, 3, 3, 3, 3}, 0x88E5); n != 2 || none != 0 {
		t.Errorf("%d frames from one and %d from another, want 2 and 0", n, none)
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

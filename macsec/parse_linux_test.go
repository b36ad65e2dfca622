package macsec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// TestTruncatedAnswers cuts the kernel's messages at every octet: an error or
// less content, never a panic.
func TestTruncatedAnswers(t *testing.T) {
	for name, b := range answers(t) {
		for n := range len(b) {
			cut := b[:n:n]
			if _, err := parseSecY(cut, 0); err != nil && !errors.Is(err, unix.EPROTO) {
				t.Errorf("%s cut to %d: %v", name, n, err)
			}
			if _, _, err := parseLink(cut); err != nil && !errors.Is(err, unix.EPROTO) {
				t.Errorf("%s cut to %d: %v", name, n, err)
			}
		}
	}
}

func TestMalformedAnswers(t *testing.T) {
	nest := func(typ uint16, f func(*netlink.AttributeEncoder)) func(*netlink.AttributeEncoder) {
		return func(ae *netlink.AttributeEncoder) {
			ae.Nested(typ, func(nae *netlink.AttributeEncoder) error { f(nae); return nil })
		}
	}
	octets := func(typ uint16, n int) func(*netlink.AttributeEncoder) {
		return func(ae *netlink.AttributeEncoder) { ae.Bytes(typ, make([]byte, n)) }
	}
	for name, f := range map[string]func(*netlink.AttributeEncoder){
		"no index":           octets(attrSecY, 0),
		"short index":        octets(attrIfindex, 3),
		"index zero":         octets(attrIfindex, 4),
		"negative index":     func(ae *netlink.AttributeEncoder) { ae.Uint32(attrIfindex, 1<<31) },
		"SCI of 7":           nest(attrSecY, octets(secyAttrSCI, 7)),
		"SCI of 9":           nest(attrSecY, octets(secyAttrSCI, 9)),
		"wide flag":          nest(attrSecY, octets(secyAttrEncrypt, 2)),
		"packet number of 5": nest(attrTxSAList, nest(1, octets(saAttrPN, 5))),
		"key id of 15":       nest(attrTxSAList, nest(1, octets(saAttrKeyID, 15))),
		"SSCI of 8":          nest(attrTxSAList, nest(1, octets(saAttrSSCI, 8))),
		"AN 4":               nest(attrTxSAList, nest(1, func(ae *netlink.AttributeEncoder) { ae.Uint8(saAttrAN, 4) })),
		"SA counter of 8":    nest(attrTxSAList, nest(1, nest(saAttrStats, octets(saStatsInPktsOK, 8)))),
		"SC counter of 4":    nest(attrTxSCStats, octets(txscStatsOutPktsEncrypted, 4)),
		"SA of a peer":       nest(attrRxSCList, nest(1, nest(rxscAttrSAList, nest(1, octets(saAttrAN, 0))))),
	} {
		ae := netlink.NewAttributeEncoder()
		if name[:2] != "no" && name != "short index" && name != "index zero" && name != "negative index" {
			ae.Uint32(attrIfindex, 4)
		}
		f(ae)
		b, err := ae.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if s, err := parseSecY(append(make([]byte, 4), b...), 0); !errors.Is(err, unix.EPROTO) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

// TestEveryCounter gives each attribute another value.
func TestEveryCounter(t *testing.T) {
	list := func(ae *netlink.AttributeEncoder, typ uint16, n int, wide bool) {
		ae.Nested(typ, func(nae *netlink.AttributeEncoder) error {
			for i := range n {
				if wide {
					nae.Uint64(uint16(i+1), uint64(typ)<<40+uint64(i))
				} else {
					nae.Uint32(uint16(i+1), uint32(i+1))
				}
			}
			return nil
		})
	}
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(attrIfindex, 4)
	list(ae, attrSecYStats, 8, true)
	list(ae, attrTxSCStats, 4, true)
	ae.Nested(attrRxSCList, func(nae *netlink.AttributeEncoder) error {
		nae.Nested(1, func(sc *netlink.AttributeEncoder) error {
			list(sc, rxscAttrStats, 10, true)
			sc.Nested(rxscAttrSAList, func(sas *netlink.AttributeEncoder) error {
				sas.Nested(1, func(sa *netlink.AttributeEncoder) error {
					list(sa, saAttrStats, 7, false)
					return nil
				})
				return nil
			})
			return nil
		})
		return nil
	})
	b, err := ae.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseSecY(append(make([]byte, 4), b...), 4)
	if err != nil {
		t.Fatal(err)
	}
	const secy, tx, rx = attrSecYStats << 40, attrTxSCStats << 40, rxscAttrStats << 40
	for what, c := range map[string]struct{ got, want any }{
		"SecY":     {s.Stats, SecYStats{secy, secy + 1, secy + 2, secy + 3, secy + 4, secy + 5, secy + 6, secy + 7}},
		"transmit": {s.TxSC.Stats, TxSCStats{tx, tx + 1, tx + 2, tx + 3}},
		"receive":  {s.RxSCs[0].Stats, RxSCStats{rx, rx + 1, rx + 2, rx + 3, rx + 4, rx + 5, rx + 6, rx + 7, rx + 8, rx + 9}},
		"SA":       {s.RxSCs[0].SAs[0].Stats, SAStats{1, 2, 3, 4, 5, 6, 7}},
	} {
		if c.got != c.want {
			t.Errorf("%s: %+v, want %+v", what, c.got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, b := range answers(f) {
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseSecY(b, 0); err == nil && s.Index <= 0 {
			t.Errorf("index %d", s.Index)
		}
		if l, _, err := parseLink(b); err == nil && l != nil && len(l.Name) > len(b) {
			t.Errorf("name of %d octets out of %d", len(l.Name), len(b))
		}
	})
}

// BenchmarkParseSecY is one device with one peer that is rekeying.
func BenchmarkParseSecY(b *testing.B) {
	msg := answers(b)["dump-sec"]
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseSecY(msg, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSecYAmong finds one device in a dump of many.
func BenchmarkSecYAmong(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := newScript(b)
			one := s.dump[0]
			s.dump = nil
			for i := range n {
				msg := append([]byte(nil), one...)
				binary.NativeEndian.PutUint32(msg[8:], uint32(1000+i))
				s.dump = append(s.dump, msg)
			}
			s.dump = append(s.dump, one)
			c := s.client(b)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.SecY(4); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

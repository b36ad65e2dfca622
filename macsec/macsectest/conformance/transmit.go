package conformance

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/lever-link/lever/macsec"
)

var transmitCases = []testCase{
	{"transmit/nothing before the first key", func(t *testing.T, l *lab) {
		d := l.closed(t, macsec.GCMAESXPN256)
		l.up(t, d.Index)
		l.sendNone(t, d.Index, frame(100))
		inactive := sa(macsec.GCMAESXPN256, 0, 1)
		inactive.Active = false
		must(t, l.AddTxSA(d.Index, inactive))
		l.sendNone(t, d.Index, frame(100))
		s := l.secY(t, d.Index)
		equal(t, "packet number", s.TxSC.SA(0).NextPN, 1)
		equal(t, "transmitted", s.TxSC.Stats, macsec.TxSCStats{})
	}},
	{"transmit/clear without protection", func(t *testing.T, l *lab) {
		d := l.closed(t, macsec.GCMAES128)
		must(t, l.UpdateDevice(d.Index, macsec.DeviceUpdate{Protect: new(false), Up: new(true)}))
		f := frame(100)
		wire := l.Send(t, d.Index, f, 1)
		if len(wire) != 1 || !bytes.Equal(wire[0], f) {
			t.Errorf("on the wire %x, want the frame in clear", wire)
		}
		equal(t, "untagged", l.secY(t, d.Index).Stats.OutPktsUntagged, 1)
	}},
	{"transmit/counters and header", func(t *testing.T, l *lab) {
		for _, suite := range allSuites {
			for _, encrypt := range []bool{true, false} {
				d := l.closed(t, suite)
				must(t, l.UpdateDevice(d.Index, macsec.DeviceUpdate{Encrypt: &encrypt, Up: new(true), EncodingAN: new(macsec.AN(2))}))
				// The lab's kernel remembers keys of deleted devices.
				must(t, l.AddTxSA(d.Index, sa(suite, 2, byte(suite)<<1|b2i(encrypt))))
				for i, n := range []int{60, 47, 48, 1000} {
					w := l.sendOne(t, d.Index, frame(n))
					tci := byte(0x20 | 2)
					if encrypt {
						tci |= 0x0c
					}
					short := byte(0)
					if n < 48 {
						short = byte(n)
					}
					equal(t, "TCI and AN", w[14], tci)
					equal(t, "short length", w[15], short)
					equal(t, "PN", pn(t, w), uint32(i+1))
					equal(t, "SCI", macsec.SCI(w[20:28]), mine)
					equal(t, "length", len(w), 12+16+n+16)
					equal(t, "in clear", bytes.Contains(w, frame(n)[14:]), !encrypt)
				}
				s := l.secY(t, d.Index)
				equal(t, "next", s.TxSC.SA(2).NextPN, 5)
				stats, saStats := macsec.TxSCStats{OutPktsEncrypted: 4, OutOctetsEncrypted: 1155}, macsec.SAStats{OutPktsEncrypted: 4}
				if !encrypt {
					stats, saStats = macsec.TxSCStats{OutPktsProtected: 4, OutOctetsProtected: 1155}, macsec.SAStats{OutPktsProtected: 4}
				}
				equal(t, "channel", s.TxSC.Stats, stats)
				equal(t, "association", s.TxSC.SA(2).Stats, saStats)
				must(t, l.DeleteDevice(d.Index))
			}
		}
	}},
	{"transmit/encoding association", func(t *testing.T, l *lab) {
		const suite = macsec.GCMAES256
		d := l.closed(t, suite)
		l.up(t, d.Index)
		must(t, l.AddTxSA(d.Index, sa(suite, 0, 1)))
		must(t, l.AddTxSA(d.Index, sa(suite, 1, 2)))
		encode := func(an macsec.AN) { must(t, l.UpdateDevice(d.Index, macsec.DeviceUpdate{EncodingAN: &an})) }
		equal(t, "AN", l.sendOne(t, d.Index, frame(60))[14]&3, 0)
		encode(1)
		equal(t, "AN", l.sendOne(t, d.Index, frame(60))[14]&3, 1)
		encode(3)
		l.sendNone(t, d.Index, frame(60))
		encode(1)
		must(t, l.UpdateTxSA(d.Index, 1, macsec.SAUpdate{Active: new(false)}))
		l.sendNone(t, d.Index, frame(60))
		must(t, l.UpdateTxSA(d.Index, 1, macsec.SAUpdate{Active: new(true)}))
		equal(t, "PN goes on", pn(t, l.sendOne(t, d.Index, frame(60))), 2)
		// Down and up again: the associations stay.
		must(t, l.UpdateDevice(d.Index, macsec.DeviceUpdate{Up: new(false)}))
		l.up(t, d.Index)
		equal(t, "PN after down and up", pn(t, l.sendOne(t, d.Index, frame(60))), 3)
		equal(t, "rest", l.secY(t, d.Index).TxSC.SA(0).NextPN, 2)
	}},
	{"transmit/last packet number", func(t *testing.T, l *lab) {
		for _, suite := range allSuites {
			d := l.closed(t, suite)
			l.up(t, d.Index)
			last := sa(suite, 0, byte(suite))
			last.NextPN = math.MaxUint32
			if suite.XPN() {
				last.NextPN = math.MaxUint64
			}
			must(t, l.AddTxSA(d.Index, last))
			equal(t, suite.String(), pn(t, l.sendOne(t, d.Index, frame(60))), math.MaxUint32)
			l.sendNone(t, d.Index, frame(60))
			s := l.secY(t, d.Index)
			equal(t, "next", s.TxSC.SA(0).NextPN, 0)
			equal(t, "active", s.TxSC.SA(0).Active, false)
			equal(t, "operational", s.Operational, false)
			// And it is not switched on again: the kernel would go on with 1.
			if err := l.UpdateTxSA(d.Index, 0, macsec.SAUpdate{Active: new(true)}); !errors.Is(err, macsec.ErrPNReuse) {
				t.Errorf("%v: switching it on: %v", suite, err)
			}
			l.sendNone(t, d.Index, frame(60))
			l.sendNone(t, d.Index, frame(60))
			must(t, l.UpdateTxSA(d.Index, 0, macsec.SAUpdate{Active: new(false)}))
			must(t, l.DeleteDevice(d.Index))
		}
	}},
	{"transmit/last packet number after an update", func(t *testing.T, l *lab) {
		d := l.closed(t, macsec.GCMAES128)
		l.up(t, d.Index)
		first := sa(macsec.GCMAES128, 0, 1)
		first.Active = false
		must(t, l.AddTxSA(d.Index, first))
		must(t, l.UpdateTxSA(d.Index, 0, macsec.SAUpdate{Active: new(true), NextPN: new(uint64(math.MaxUint32))}))
		equal(t, "PN", pn(t, l.sendOne(t, d.Index, frame(60))), math.MaxUint32)
		l.sendNone(t, d.Index, frame(60))
		equal(t, "active", l.secY(t, d.Index).TxSC.SA(0).Active, false)
	}},
	{"transmit/beyond 32 bits", func(t *testing.T, l *lab) {
		d := l.closed(t, macsec.GCMAESXPN128)
		l.up(t, d.Index)
		s := sa(macsec.GCMAESXPN128, 0, 1)
		s.NextPN = math.MaxUint32
		must(t, l.AddTxSA(d.Index, s))
		equal(t, "PN", pn(t, l.sendOne(t, d.Index, frame(60))), math.MaxUint32)
		equal(t, "PN", pn(t, l.sendOne(t, d.Index, frame(60))), 0)
		equal(t, "next", l.secY(t, d.Index).TxSC.SA(0).NextPN, 1<<32+1)
	}},
	{"transmit/without SCI", func(t *testing.T, l *lab) {
		const suite = macsec.GCMAES128
		for i, c := range []struct {
			cfg    macsec.DeviceConfig
			second bool
			tci    byte
		}{
			{macsec.DeviceConfig{EndStation: true}, true, 0x40},
			{macsec.DeviceConfig{SCB: true}, true, 0x10},
			{macsec.DeviceConfig{}, false, 0x00},
			{macsec.DeviceConfig{}, true, 0x20}, // several peers need it
		} {
			cfg := c.cfg
			cfg.Protect = true
			d := l.create(t, l.Parent, "ms0", cfg)
			l.up(t, d.Index)
			must(t, l.AddTxSA(d.Index, sa(suite, 0, byte(i))))
			must(t, l.AddRxSC(d.Index, peer, true))
			must(t, l.AddRxSC(d.Index, peer2, c.second))
			equal(t, "TCI", l.sendOne(t, d.Index, frame(60))[14], c.tci)
			must(t, l.DeleteDevice(d.Index))
		}
	}},
}

func b2i(b bool) byte {
	if b {
		return 1
	}
	return 0
}

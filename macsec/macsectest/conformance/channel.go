package conformance

import (
	"errors"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/lever-link/lever/macsec"
)

var channelCases = []testCase{
	{"channel/receive", func(t *testing.T, l *lab) {
		d := l.closed(t, macsec.GCMAES256)
		sibling := l.create(t, l.Parent, "ms1", macsec.Closed(peer, macsec.GCMAES256))
		stranger := l.create(t, l.Other, "ms2", macsec.Closed(mine, macsec.GCMAES256))
		must(t, l.AddRxSC(d.Index, peer, true))
		must(t, l.AddRxSC(d.Index, peer2, false))
		refused(t, l.AddRxSC(d.Index, peer, true), macsec.ErrExist)
		refused(t, l.AddRxSC(sibling.Index, peer, true), macsec.ErrExist)
		must(t, l.AddRxSC(stranger.Index, peer, true))
		want := []macsec.RxSC{{SCI: peer2}, {SCI: peer, Active: true}}
		if got := l.secY(t, d.Index).RxSCs; !reflect.DeepEqual(got, want) {
			t.Errorf("channels %+v, want %+v", got, want)
		}
		must(t, l.UpdateRxSC(d.Index, peer2, true))
		must(t, l.UpdateRxSC(d.Index, peer, false))
		s := l.secY(t, d.Index)
		equal(t, "switched on", s.RxSC(peer2).Active, true)
		equal(t, "switched off", s.RxSC(peer).Active, false)
		refused(t, l.UpdateRxSC(d.Index, mine, true), macsec.ErrNotExist)
		refused(t, l.DeleteRxSC(d.Index, mine), macsec.ErrNotExist)
		// Its associations go with it, active or not.
		must(t, l.AddRxSA(d.Index, peer, sa(macsec.GCMAES256, 0, 1)))
		must(t, l.DeleteRxSC(d.Index, peer))
		must(t, l.AddRxSC(d.Index, peer, true))
		if sas := l.secY(t, d.Index).RxSC(peer).SAs; sas != nil {
			t.Errorf("a new channel has associations: %+v", sas)
		}
	}},
	{"association/read", func(t *testing.T, l *lab) {
		for _, suite := range allSuites {
			t.Run(suite.String(), func(t *testing.T) {
				d := l.closed(t, suite)
				must(t, l.AddRxSC(d.Index, peer, true))
				top := uint64(1<<32 - 1)
				if suite.XPN() {
					top = 1<<64 - 1
				}
				a, b, c := sa(suite, 3, 1), sa(suite, 1, 2), sa(suite, 0, 3)
				a.NextPN, b.Active = top, false
				for _, s := range []macsec.SA{a, b, c} {
					must(t, l.AddTxSA(d.Index, s))
				}
				a.NextPN = top - 5
				must(t, l.AddRxSA(d.Index, peer, a))
				c.NextPN, c.Active = 0, false
				must(t, l.AddRxSA(d.Index, peer, c))

				s := l.secY(t, d.Index)
				a.NextPN = top
				c.NextPN, c.Active = 1, true
				if want := []macsec.SA{read(suite, c), read(suite, b), read(suite, a)}; !reflect.DeepEqual(s.TxSC.SAs, want) {
					t.Errorf("transmit\n %+v, want\n %+v", s.TxSC.SAs, want)
				}
				a.NextPN = top - 5
				c.NextPN, c.Active = 1, false
				if want := []macsec.SA{read(suite, c), read(suite, a)}; !reflect.DeepEqual(s.RxSC(peer).SAs, want) {
					t.Errorf("receive\n %+v, want\n %+v", s.RxSC(peer).SAs, want)
				}
				equal(t, "operational", s.Operational, true)
				must(t, l.DeleteDevice(d.Index))
			})
		}
	}},
	{"association/refused", func(t *testing.T, l *lab) {
		for _, suite := range allSuites {
			d := l.closed(t, suite)
			must(t, l.AddRxSC(d.Index, peer, true))
			must(t, l.AddTxSA(d.Index, sa(suite, 0, 1)))
			must(t, l.AddRxSA(d.Index, peer, sa(suite, 0, 1)))
			cases := map[string]struct {
				f    func(*macsec.SA)
				kind error
			}{
				"number taken": {func(s *macsec.SA) { s.AN = 0 }, macsec.ErrBusy},
				"number":       {func(s *macsec.SA) { s.AN = 4 }, macsec.ErrInvalid},
				"no key":       {func(s *macsec.SA) { s.Key = macsec.Key{} }, macsec.ErrInvalid},
				"short key":    {func(s *macsec.SA) { s.Key = macsec.NewKey(make([]byte, suite.KeyLen()-1)) }, macsec.ErrInvalid},
				"other key":    {func(s *macsec.SA) { s.Key = macsec.NewKey(make([]byte, 48-suite.KeyLen())) }, macsec.ErrInvalid},
			}
			if !suite.XPN() {
				cases["wide packet number"] = struct {
					f    func(*macsec.SA)
					kind error
				}{func(s *macsec.SA) { s.NextPN = 1 << 32 }, macsec.ErrInvalid}
			}
			for name, c := range cases {
				t.Run(suite.String()+"/"+name, func(t *testing.T) {
					bad := sa(suite, 2, 9)
					c.f(&bad)
					refused(t, l.AddTxSA(d.Index, bad), c.kind)
					refused(t, l.AddRxSA(d.Index, peer, bad), c.kind)
				})
			}
			none := sa(suite, 2, 9)
			none.NextPN = 0
			refused(t, l.AddTxSA(d.Index, none), macsec.ErrInvalid)
			refused(t, l.AddRxSA(d.Index, peer2, sa(suite, 1, 9)), macsec.ErrNotExist)
			s := l.secY(t, d.Index)
			if len(s.TxSC.SAs) != 1 || len(s.RxSC(peer).SAs) != 1 {
				t.Errorf("%s: refused, yet there: %+v", suite, s)
			}
			must(t, l.DeleteDevice(d.Index))
		}
	}},
	{"association/update", func(t *testing.T, l *lab) {
		const suite = macsec.GCMAES256
		d := l.closed(t, suite)
		must(t, l.AddRxSC(d.Index, peer, true))
		must(t, l.AddRxSA(d.Index, peer, sa(suite, 1, 1)))
		must(t, l.AddTxSA(d.Index, sa(suite, 0, 1)))
		rx := func() macsec.SA { return *l.secY(t, d.Index).RxSC(peer).SA(1) }
		must(t, l.UpdateRxSA(d.Index, peer, 1, macsec.SAUpdate{NextPN: new(uint64(1000))}))
		equal(t, "raised", rx().NextPN, 1000)
		must(t, l.UpdateRxSA(d.Index, peer, 1, macsec.SAUpdate{NextPN: new(uint64(10)), Active: new(false)}))
		equal(t, "lowered", rx().NextPN, 10)
		equal(t, "switched off", rx().Active, false)
		must(t, l.UpdateRxSA(d.Index, peer, 1, macsec.SAUpdate{}))
		for name, c := range map[string]struct {
			err  error
			kind error
		}{
			"RX zero":        {l.UpdateRxSA(d.Index, peer, 1, macsec.SAUpdate{NextPN: new(uint64(0))}), macsec.ErrInvalid},
			"RX wide":        {l.UpdateRxSA(d.Index, peer, 1, macsec.SAUpdate{NextPN: new(uint64(1 << 32))}), macsec.ErrInvalid},
			"RX number":      {l.UpdateRxSA(d.Index, peer, 4, macsec.SAUpdate{Active: new(true)}), macsec.ErrInvalid},
			"RX missing":     {l.UpdateRxSA(d.Index, peer, 2, macsec.SAUpdate{Active: new(true)}), macsec.ErrNotExist},
			"RX no channel":  {l.UpdateRxSA(d.Index, peer2, 1, macsec.SAUpdate{Active: new(true)}), macsec.ErrNotExist},
			"TX zero":        {l.UpdateTxSA(d.Index, 0, macsec.SAUpdate{NextPN: new(uint64(0))}), macsec.ErrInvalid},
			"TX number":      {l.UpdateTxSA(d.Index, 4, macsec.SAUpdate{Active: new(true)}), macsec.ErrInvalid},
			"TX missing":     {l.UpdateTxSA(d.Index, 2, macsec.SAUpdate{Active: new(true)}), macsec.ErrNotExist},
			"TX del number":  {l.DeleteTxSA(d.Index, 4), macsec.ErrInvalid},
			"TX del missing": {l.DeleteTxSA(d.Index, 2), macsec.ErrNotExist},
			"RX del number":  {l.DeleteRxSA(d.Index, peer, 4), macsec.ErrInvalid},
			"RX del missing": {l.DeleteRxSA(d.Index, peer, 2), macsec.ErrNotExist},
			"RX del channel": {l.DeleteRxSA(d.Index, peer2, 1), macsec.ErrNotExist},
		} {
			t.Run(name, func(t *testing.T) { refused(t, c.err, c.kind) })
		}
		// The encoding association's state is the device's.
		equal(t, "operational", l.secY(t, d.Index).Operational, true)
		must(t, l.UpdateTxSA(d.Index, 0, macsec.SAUpdate{Active: new(false)}))
		equal(t, "operational without", l.secY(t, d.Index).Operational, false)
		must(t, l.UpdateTxSA(d.Index, 0, macsec.SAUpdate{Active: new(true)}))
		equal(t, "operational again", l.secY(t, d.Index).Operational, true)
		must(t, l.UpdateDevice(d.Index, macsec.DeviceUpdate{EncodingAN: new(macsec.AN(3))}))
		equal(t, "operational on a missing one", l.secY(t, d.Index).Operational, false)
	}},
	{"association/delete", func(t *testing.T, l *lab) {
		const suite = macsec.GCMAESXPN256
		d := l.closed(t, suite)
		must(t, l.AddRxSC(d.Index, peer, true))
		must(t, l.AddRxSA(d.Index, peer, sa(suite, 1, 1)))
		must(t, l.AddTxSA(d.Index, sa(suite, 1, 1)))
		rx, tx := l.DeleteRxSA(d.Index, peer, 1), l.DeleteTxSA(d.Index, 1)
		for _, err := range []error{rx, tx} {
			refused(t, err, macsec.ErrBusy)
			if !strings.Contains(err.Error(), "deactivate it first") {
				t.Errorf("no hint in %q", err)
			}
		}
		var e *macsec.Error
		if !errors.As(rx, &e) || e.Op != macsec.OpDeleteRxSA || e.Interface != "ms0" || e.Index != d.Index ||
			e.SCI == nil || *e.SCI != peer || e.AN == nil || *e.AN != 1 || !errors.Is(e.Err, syscall.EBUSY) {
			t.Errorf("details of %+v", e)
		}
		off := macsec.SAUpdate{Active: new(false)}
		must(t, l.UpdateRxSA(d.Index, peer, 1, off))
		must(t, l.UpdateTxSA(d.Index, 1, off))
		must(t, l.DeleteRxSA(d.Index, peer, 1))
		must(t, l.DeleteTxSA(d.Index, 1))
		// The number is free for another key.
		must(t, l.AddRxSA(d.Index, peer, sa(suite, 1, 2)))
		must(t, l.AddTxSA(d.Index, sa(suite, 1, 2)))
		equal(t, "new key", l.secY(t, d.Index).TxSC.SA(1).KeyID, sa(suite, 1, 2).KeyID)
	}},
	{"association/packet numbers", func(t *testing.T, l *lab) {
		for _, suite := range []macsec.CipherSuite{macsec.GCMAES128, macsec.GCMAESXPN128} {
			d := l.closed(t, suite)
			first := sa(suite, 0, 1)
			first.Active = false
			to := func(pn uint64) error { return l.UpdateTxSA(d.Index, 0, macsec.SAUpdate{NextPN: &pn}) }
			must(t, l.AddTxSA(d.Index, first))
			must(t, to(500))
			must(t, to(500))
			refused(t, to(499), macsec.ErrPNReuse)
			must(t, l.UpdateTxSA(d.Index, 0, macsec.SAUpdate{Active: new(true)}))
			refused(t, to(600), macsec.ErrPNReuse)
			equal(t, "unmoved", l.secY(t, d.Index).TxSC.SA(0).NextPN, 500)

			twice := first
			twice.AN, twice.NextPN = 1, 700
			refused(t, l.AddTxSA(d.Index, twice), macsec.ErrPNReuse)
			must(t, l.UpdateTxSA(d.Index, 0, macsec.SAUpdate{Active: new(false)}))
			must(t, l.DeleteTxSA(d.Index, 0))
			err := l.AddTxSA(d.Index, first)
			refused(t, err, macsec.ErrPNReuse)
			var pe *macsec.PNError
			if !errors.As(err, &pe) || pe.Current != 500 || pe.Requested != 1 {
				t.Errorf("details of %+v", pe)
			}
			first.NextPN = 500
			must(t, l.AddTxSA(d.Index, first))
			// Not even with a new device in between.
			must(t, l.DeleteDevice(d.Index))
			d = l.closed(t, suite)
			first.NextPN = 100_000
			refused(t, l.AddTxSA(d.Index, first), macsec.ErrPNReuse)
			must(t, l.AddTxSA(d.Index, sa(suite, 0, 2)))
			must(t, l.DeleteDevice(d.Index))
		}
	}},
}

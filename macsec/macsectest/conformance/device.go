package conformance

import (
	"errors"
	"reflect"
	"syscall"
	"testing"

	"github.com/lever-link/lever/macsec"
)

var deviceCases = []testCase{
	{"device/closed", func(t *testing.T, l *lab) {
		for i, suite := range allSuites {
			sci := macsec.NewSCI(l.MAC, uint16(10+i))
			name := "ms" + string(rune('0'+i))
			d := l.create(t, l.Parent, name, macsec.Closed(sci, suite))
			want := macsec.Device{
				Index: d.Index, Name: name, Parent: l.Parent, MTU: 1468, MAC: l.MAC,
				DeviceConfig: macsec.Closed(sci, suite),
			}
			if !reflect.DeepEqual(*d, want) {
				t.Errorf("created\n %+v, want\n %+v", *d, want)
			}
			again, err := l.Device(name)
			must(t, err)
			if !reflect.DeepEqual(*again, want) {
				t.Errorf("read\n %+v, want\n %+v", *again, want)
			}
			s := l.secY(t, d.Index)
			if !reflect.DeepEqual(s.Device, want) {
				t.Errorf("dumped\n %+v, want\n %+v", s.Device, want)
			}
			if s.Operational || s.TxSC.SAs != nil || s.RxSCs != nil || s.Stats != (macsec.SecYStats{}) || s.TxSC.Stats != (macsec.TxSCStats{}) {
				t.Errorf("a new device is not empty: %+v", s)
			}
		}
		devs, err := l.Devices()
		must(t, err)
		secys, err := l.SecYs()
		must(t, err)
		if len(devs) != len(allSuites) || len(secys) != len(allSuites) {
			t.Fatalf("%d devices and %d SecYs, want %d", len(devs), len(secys), len(allSuites))
		}
		for i := range devs {
			if i > 0 && devs[i].Index <= devs[i-1].Index {
				t.Errorf("devices are not in order: %d after %d", devs[i].Index, devs[i-1].Index)
			}
			if !reflect.DeepEqual(devs[i], secys[i].Device) {
				t.Errorf("Devices\n %+v, SecYs\n %+v", devs[i], secys[i].Device)
			}
		}
	}},
	{"device/config", func(t *testing.T, l *lab) {
		for _, c := range []struct {
			name      string
			cfg, want macsec.DeviceConfig
		}{
			{"zero", macsec.DeviceConfig{},
				macsec.DeviceConfig{SCI: macsec.NewSCI(l.MAC, 1), CipherSuite: macsec.GCMAES128, ICVLen: 16}},
			{"port", macsec.DeviceConfig{SCI: macsec.NewSCI(nil, 77), EndStation: true, EncodingAN: 3, Encrypt: true, Validate: macsec.Check},
				macsec.DeviceConfig{SCI: macsec.NewSCI(l.MAC, 77), CipherSuite: macsec.GCMAES128, ICVLen: 16, EndStation: true, EncodingAN: 3, Encrypt: true, Validate: macsec.Check}},
			{"single copy broadcast", macsec.DeviceConfig{SCB: true, Protect: true, ICVLen: 12},
				macsec.DeviceConfig{SCI: macsec.NewSCI(l.MAC, 1), CipherSuite: macsec.GCMAES128, ICVLen: 12, SCB: true, Protect: true}},
			{"window", macsec.DeviceConfig{SCI: mine, IncludeSCI: true, ReplayProtect: true, ReplayWindow: 1<<32 - 1},
				macsec.DeviceConfig{SCI: mine, CipherSuite: macsec.GCMAES128, ICVLen: 16, IncludeSCI: true, ReplayProtect: true, ReplayWindow: 1<<32 - 1}},
			{"window of XPN", macsec.DeviceConfig{SCI: mine, CipherSuite: macsec.GCMAESXPN256, IncludeSCI: true, ReplayProtect: true, ReplayWindow: macsec.MaxXPNWindow},
				macsec.DeviceConfig{SCI: mine, CipherSuite: macsec.GCMAESXPN256, ICVLen: 16, IncludeSCI: true, ReplayProtect: true, ReplayWindow: macsec.MaxXPNWindow}},
			{"window is not shown while unused", macsec.DeviceConfig{ReplayWindow: 9},
				macsec.DeviceConfig{SCI: macsec.NewSCI(l.MAC, 1), CipherSuite: macsec.GCMAES128, ICVLen: 16}},
		} {
			d := l.create(t, l.Parent, "ms0", c.cfg)
			equal(t, c.name, d.DeviceConfig, c.want)
			equal(t, c.name+": MTU", d.MTU, 1500-16-int(c.want.ICVLen))
			equal(t, c.name+": dumped", l.secY(t, d.Index).DeviceConfig, c.want)
			must(t, l.DeleteDevice(d.Index))
		}
	}},
	{"device/refused", func(t *testing.T, l *lab) {
		ok := macsec.Closed(mine, macsec.GCMAESXPN256)
		with := func(f func(*macsec.DeviceConfig)) macsec.DeviceConfig {
			c := ok
			f(&c)
			return c
		}
		l.create(t, l.Parent, "taken", ok)
		other := macsec.Closed(peer, macsec.GCMAES128)
		for _, c := range []struct {
			name   string
			parent int
			dev    string
			cfg    macsec.DeviceConfig
			kind   error
		}{
			{"name exists", l.Parent, "taken", other, macsec.ErrExist},
			{"SCI exists", l.Parent, "ms1", ok, macsec.ErrBusy},
			{"no parent", 9999, "ms1", other, macsec.ErrNotExist},
			{"long name", l.Parent, "a-name-of-16-oct", other, macsec.ErrInvalid},
			{"no name", l.Parent, "", other, macsec.ErrInvalid},
			{"suite", l.Other, "ms1", with(func(c *macsec.DeviceConfig) { c.CipherSuite = 7 }), macsec.ErrInvalid},
			{"ICV too short", l.Other, "ms1", with(func(c *macsec.DeviceConfig) { c.ICVLen = 7 }), macsec.ErrInvalid},
			{"ICV of no GCM", l.Other, "ms1", with(func(c *macsec.DeviceConfig) { c.ICVLen = 9 }), macsec.ErrInvalid},
			{"ICV too long", l.Other, "ms1", with(func(c *macsec.DeviceConfig) { c.ICVLen = 17 }), macsec.ErrInvalid},
			{"AN", l.Other, "ms1", with(func(c *macsec.DeviceConfig) { c.EncodingAN = 4 }), macsec.ErrInvalid},
			{"validate", l.Other, "ms1", with(func(c *macsec.DeviceConfig) { c.Validate = 3 }), macsec.ErrInvalid},
			{"SCI and ES", l.Other, "ms1", with(func(c *macsec.DeviceConfig) { c.EndStation = true }), macsec.ErrInvalid},
			{"SCI and SCB", l.Other, "ms1", with(func(c *macsec.DeviceConfig) { c.SCB = true }), macsec.ErrInvalid},
			{"own SCI not included", l.Other, "ms1", with(func(c *macsec.DeviceConfig) { c.IncludeSCI = false }), macsec.ErrInvalid},
			{"XPN window", l.Other, "ms1", with(func(c *macsec.DeviceConfig) { c.ReplayWindow = 1 << 30 }), macsec.ErrInvalid},
			{"offload to MAC", l.Other, "ms1", with(func(c *macsec.DeviceConfig) { c.Offload = macsec.MAC }), macsec.ErrOffloadUnsupported},
			{"offload to PHY", l.Other, "ms1", with(func(c *macsec.DeviceConfig) { c.Offload = macsec.PHY }), macsec.ErrOffloadUnsupported},
		} {
			t.Run(c.name, func(t *testing.T) {
				_, err := l.CreateDevice(c.parent, c.dev, c.cfg)
				refused(t, err, c.kind)
				var e *macsec.Error
				if errors.As(err, &e) && (e.Op != macsec.OpCreateDevice || e.Interface != c.dev) {
					t.Errorf("the error is about %s of %q", e.Op, e.Interface)
				}
			})
		}
		// The same SCI on another parent is another link.
		l.create(t, l.Other, "ms1", ok)
		devs, err := l.Devices()
		must(t, err)
		equal(t, "devices left", len(devs), 2)
	}},
	{"device/update", func(t *testing.T, l *lab) {
		d := l.closed(t, macsec.GCMAESXPN128)
		want := d.DeviceConfig
		for _, c := range []struct {
			name string
			u    macsec.DeviceUpdate
			f    func(*macsec.DeviceConfig)
		}{
			{"encrypt", macsec.DeviceUpdate{Encrypt: new(false)}, func(c *macsec.DeviceConfig) { c.Encrypt = false }},
			{"protect", macsec.DeviceUpdate{Protect: new(false)}, func(c *macsec.DeviceConfig) { c.Protect = false }},
			{"SCI to ES", macsec.DeviceUpdate{IncludeSCI: new(false), EndStation: new(true)}, func(c *macsec.DeviceConfig) { c.IncludeSCI, c.EndStation = false, true }},
			{"ES to SCB", macsec.DeviceUpdate{EndStation: new(false), SCB: new(true)}, func(c *macsec.DeviceConfig) { c.EndStation, c.SCB = false, true }},
			{"validate", macsec.DeviceUpdate{Validate: new(macsec.Check)}, func(c *macsec.DeviceConfig) { c.Validate = macsec.Check }},
			{"window", macsec.DeviceUpdate{ReplayWindow: new(uint32(64))}, func(c *macsec.DeviceConfig) { c.ReplayWindow = 64 }},
			{"replay off", macsec.DeviceUpdate{ReplayProtect: new(false)}, func(c *macsec.DeviceConfig) { c.ReplayProtect, c.ReplayWindow = false, 0 }},
			{"replay on", macsec.DeviceUpdate{ReplayProtect: new(true), ReplayWindow: new(uint32(32))}, func(c *macsec.DeviceConfig) { c.ReplayProtect, c.ReplayWindow = true, 32 }},
			{"encoding AN", macsec.DeviceUpdate{EncodingAN: new(macsec.AN(2))}, func(c *macsec.DeviceConfig) { c.EncodingAN = 2 }},
			{"nothing", macsec.DeviceUpdate{}, func(*macsec.DeviceConfig) {}},
		} {
			if err := l.UpdateDevice(d.Index, c.u); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			c.f(&want)
			equal(t, c.name, l.secY(t, d.Index).DeviceConfig, want)
		}
		for name, u := range map[string]macsec.DeviceUpdate{
			"replay without window": {ReplayProtect: new(true), Encrypt: new(true)},
			"XPN window":            {ReplayWindow: new(uint32(1 << 30)), Encrypt: new(true)},
			"AN":                    {EncodingAN: new(macsec.AN(4))},
			"validate":              {Validate: new(macsec.Validate(3))},
			"SCI and SCB":           {IncludeSCI: new(true), SCB: new(true)},
			"SCB and ES":            {EndStation: new(true), SCB: new(true)},
		} {
			t.Run(name, func(t *testing.T) {
				refused(t, l.UpdateDevice(d.Index, u), macsec.ErrInvalid)
				equal(t, "after the refusal", l.secY(t, d.Index).DeviceConfig, want)
			})
		}
		for _, up := range []bool{true, true, false} {
			must(t, l.UpdateDevice(d.Index, macsec.DeviceUpdate{Up: &up}))
			equal(t, "up", l.secY(t, d.Index).Up, up)
		}
	}},
	{"device/missing", func(t *testing.T, l *lab) {
		for _, index := range []int{-1, 0, 9999, l.Parent} {
			_, err := l.SecY(index)
			for what, err := range map[string]error{
				"SecY": err, "delete": l.DeleteDevice(index),
				"update":      l.UpdateDevice(index, macsec.DeviceUpdate{Up: new(false)}),
				"offload":     l.SetOffload(index, macsec.Off),
				"add RX SC":   l.AddRxSC(index, peer, true),
				"add TX SA":   l.AddTxSA(index, sa(macsec.GCMAES128, 0, 1)),
				"delete TXSA": l.DeleteTxSA(index, 0),
			} {
				if !errors.Is(err, macsec.ErrNotExist) || errnoOf(err) != syscall.ENODEV {
					t.Errorf("%s of index %d: %v, want ErrNotExist", what, index, err)
				}
			}
		}
		for _, name := range []string{"", "nobody", "lo", "a-name-of-16-oct"} {
			_, err := l.Device(name)
			refused(t, err, macsec.ErrNotExist)
		}
		d := l.closed(t, macsec.GCMAES128)
		must(t, l.DeleteDevice(d.Index))
		_, err := l.Device("ms0")
		refused(t, err, macsec.ErrNotExist)
		secys, err := l.SecYs()
		must(t, err)
		equal(t, "SecYs left", len(secys), 0)
	}},
	{"device/offload", func(t *testing.T, l *lab) {
		d := l.closed(t, macsec.GCMAES128)
		must(t, l.SetOffload(d.Index, macsec.Off))
		for _, o := range []macsec.Offload{macsec.PHY, macsec.MAC} {
			refused(t, l.SetOffload(d.Index, o), macsec.ErrOffloadUnsupported)
		}
		equal(t, "offload", l.secY(t, d.Index).Offload, macsec.Off)
	}},
}

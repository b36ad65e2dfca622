//go:build !kernel

package agent

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/secy"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

var (
	ownMAC = mka.MAC{2, 0, 0, 0, 0, 1}
	ownSCI = mka.NewSCI(ownMAC, 1)
	farSCI = mka.SCI{2, 0, 0, 0, 0, 2, 0, 1}
)

func deviceBench(t *testing.T) (*machine, *platform, parent) {
	t.Helper()
	m := newMachine(t, "r1")
	on := m.platform()
	return m, &on, m.plug("eth4", &wire{}, ownMAC).parent
}

func TestDeviceIsMadeClosed(t *testing.T) {
	for _, suite := range []macsec.CipherSuite{macsec.GCMAES128, macsec.GCMAES256, macsec.GCMAESXPN128, macsec.GCMAESXPN256} {
		m, on, p := deviceBench(t)
		d, repaired, err := ensureDevice(on, m.kernel, p, "eth4-sec", suite, secy.ReplayWindow)
		if err != nil || len(repaired) != 0 {
			t.Fatal(repaired, err)
		}
		if d.Up || !d.Protect || !d.Encrypt || !d.IncludeSCI || d.Validate != macsec.Strict || !d.ReplayProtect ||
			d.ReplayWindow != secy.ReplayWindow || d.CipherSuite != suite || d.SCI != macsec.SCI(ownSCI) || d.ICVLen != macsec.DefaultICVLen || d.Parent != p.index {
			t.Errorf("%v: %+v", suite, d)
		}
		m.noted()
		again, repaired, err := ensureDevice(on, m.kernel, p, "eth4-sec", suite, secy.ReplayWindow)
		if err != nil || len(repaired) != 0 || again.Index != d.Index || len(m.noted()) != 0 {
			t.Errorf("%v: a second time: %+v, repaired %q, %v", suite, again, repaired, err)
		}
	}
}

func TestDeviceIsPutRight(t *testing.T) {
	const suite = macsec.GCMAESXPN256
	for _, c := range []struct {
		name string
		u    macsec.DeviceUpdate
		want []string
	}{
		{"protect", macsec.DeviceUpdate{Protect: new(false)}, []string{"protect off"}},
		{"encrypt", macsec.DeviceUpdate{Encrypt: new(false)}, []string{"encrypt off"}},
		{"validate check", macsec.DeviceUpdate{Validate: new(macsec.Check)}, []string{"validate check"}},
		{"validate disabled", macsec.DeviceUpdate{Validate: new(macsec.Disabled)}, []string{"validate disabled"}},
		{"SCI", macsec.DeviceUpdate{IncludeSCI: new(false)}, []string{"SCI not sent"}},
		{"end station", macsec.DeviceUpdate{IncludeSCI: new(false), EndStation: new(true)}, []string{"SCI not sent"}},
		{"SCB", macsec.DeviceUpdate{IncludeSCI: new(false), SCB: new(true)}, []string{"SCI not sent"}},
		{"replay protection", macsec.DeviceUpdate{ReplayProtect: new(false)}, []string{"replay protection false with window 0"}},
		{"window", macsec.DeviceUpdate{ReplayProtect: new(true), ReplayWindow: new(uint32(1 << 20))}, []string{"replay protection true with window 1048576"}},
		{"several", macsec.DeviceUpdate{Protect: new(false), Encrypt: new(false), Validate: new(macsec.Disabled)},
			[]string{"encrypt off", "protect off", "validate disabled"}},
		{"the encoding SA is MKA's", macsec.DeviceUpdate{EncodingAN: new(macsec.AN(3))}, nil},
		{"whether it is up is the link's", macsec.DeviceUpdate{Up: new(false)}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, on, p := deviceBench(t)
			made, _, err := ensureDevice(on, m.kernel, p, "eth4-sec", suite, secy.ReplayWindow)
			if err != nil {
				t.Fatal(err)
			}
			y := secy.SecY{Kernel: m.kernel, Index: made.Index}
			if err := y.Do(mka.Op{
				Kind: mka.OpAddTransmitSA, AN: 1, KI: mka.KI{MI: mka.MI{7}, KN: 1}, Suite: mka.GCMAESXPN256,
				SAK: secret.New(slices.Repeat([]byte{7}, 32)), SSCI: 2,
			}); err != nil {
				t.Fatal(err)
			}
			if err := m.kernel.UpdateDevice(made.Index, c.u); err != nil {
				t.Fatal(err)
			}
			d, repaired, err := ensureDevice(on, m.kernel, p, "eth4-sec", suite, secy.ReplayWindow)
			if err != nil || !slices.Equal(repaired, c.want) {
				t.Errorf("repaired %q, %v, want %q", repaired, err, c.want)
			}
			want := made.DeviceConfig
			if c.u.EncodingAN != nil {
				want.EncodingAN = *c.u.EncodingAN
			}
			if d.Index != made.Index || d.DeviceConfig != want {
				t.Errorf("now %+v, want %+v", d.DeviceConfig, want)
			}
			if s, err := m.kernel.SecY(d.Index); err != nil || s.TxSC.SA(1) == nil {
				t.Errorf("the SA is gone: %+v, %v", s, err)
			}
		})
	}
}

func TestDeviceThatCannotBePutRight(t *testing.T) {
	m, on, p := deviceBench(t)
	d, _, err := ensureDevice(on, m.kernel, p, "eth4-sec", macsec.GCMAESXPN256, secy.ReplayWindow)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.kernel.UpdateDevice(d.Index, macsec.DeviceUpdate{Protect: new(false)}); err != nil {
		t.Fatal(err)
	}
	m.kernel.Fail(macsec.OpUpdateDevice, -1, syscall.EPERM)
	if _, repaired, err := ensureDevice(on, m.kernel, p, "eth4-sec", macsec.GCMAESXPN256, secy.ReplayWindow); !errors.Is(err, macsec.ErrPermission) {
		t.Errorf("repaired %q, %v", repaired, err)
	}
}

func TestDeviceOfAnotherSuiteIsMadeAnew(t *testing.T) {
	m, on, p := deviceBench(t)
	old, _, err := ensureDevice(on, m.kernel, p, "eth4-sec", macsec.GCMAES128, secy.ReplayWindow)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.kernel.UpdateDevice(old.Index, macsec.DeviceUpdate{Validate: new(macsec.Disabled)}); err != nil {
		t.Fatal(err)
	}
	m.noted()
	d, repaired, err := ensureDevice(on, m.kernel, p, "eth4-sec", macsec.GCMAESXPN256, secy.ReplayWindow)
	if err != nil || d.CipherSuite != macsec.GCMAESXPN256 || d.Index == old.Index || d.Up || d.Validate != macsec.Strict {
		t.Fatalf("%+v, %v", d, err)
	}
	if want := []string{"cipher suite GCM-AES-128 made anew as GCM-AES-XPN-256"}; !slices.Equal(repaired, want) {
		t.Errorf("repaired %q, want %q", repaired, want)
	}
	inOrder(t, "r1", m.noted(), "DeleteDevice eth4-sec", "CreateDevice eth4-sec GCM-AES-XPN-256")

	m.kernel.Fail(macsec.OpDeleteDevice, -1, syscall.EPERM)
	if _, _, err := ensureDevice(on, m.kernel, p, "eth4-sec", macsec.GCMAES256, secy.ReplayWindow); !errors.Is(err, macsec.ErrPermission) {
		t.Errorf("one that cannot be deleted: %v", err)
	}
}

func TestDeviceOfAnotherIsLeftAlone(t *testing.T) {
	m, on, p := deviceBench(t)
	other := m.plug("eth5", &wire{}, mka.MAC{2, 0, 0, 0, 0, 5}).parent
	if _, _, err := ensureDevice(on, m.kernel, other, "eth4-sec", macsec.GCMAESXPN256, secy.ReplayWindow); err != nil {
		t.Fatal(err)
	}
	m.noted()
	_, _, err := ensureDevice(on, m.kernel, p, "eth4-sec", macsec.GCMAES256, secy.ReplayWindow)
	if !isA[*foreignError](err) || !strings.Contains(err.Error(), "it sits on eth5") || len(m.noted()) != 0 {
		t.Errorf("a device on another interface: %v", err)
	}
	// The name of an interface that is no MACsec device is taken.
	m.plug("taken", &wire{}, mka.MAC{2, 0, 0, 0, 0, 6})
	if _, _, err := ensureDevice(on, m.kernel, p, "taken", macsec.GCMAES256, secy.ReplayWindow); !errors.Is(err, macsec.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
}

// The address of the parent may change; the SCI stays as it was made.
func TestDeviceKeepsItsSCI(t *testing.T) {
	m, on, p := deviceBench(t)
	if _, _, err := ensureDevice(on, m.kernel, p, "eth4-sec", macsec.GCMAESXPN256, secy.ReplayWindow); err != nil {
		t.Fatal(err)
	}
	p.address = mka.MAC{2, 0, 0, 0, 0, 9}
	d, repaired, err := ensureDevice(on, m.kernel, p, "eth4-sec", macsec.GCMAESXPN256, secy.ReplayWindow)
	if err != nil || len(repaired) != 0 || d.SCI != macsec.SCI(ownSCI) {
		t.Errorf("%+v, repaired %q, %v", d, repaired, err)
	}
}

package agent

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/secy"
	"github.com/lever-link/lever/macsec"
)

// ensureDevice finds or makes the MACsec device of a link. One that an earlier
// agent left is kept with its SAs, so that traffic goes on; what can be put
// right is, and repaired says what it was.
func ensureDevice(on *platform, k macsec.Kernel, p parent, name string, suite macsec.CipherSuite, window uint32) (dev *macsec.Device, repaired []string, err error) {
	sci := p.known
	if sci == (macsec.SCI{}) {
		sci = macsec.NewSCI(net.HardwareAddr(p.address[:]), 1)
	}
	cfg := secy.DeviceConfig(sci, suite)
	cfg.ReplayWindow = window
	dev, err = k.Device(name)
	if errors.Is(err, macsec.ErrNotExist) {
		dev, err = k.CreateDevice(p.index, name, cfg)
		return dev, nil, err
	}
	if err != nil {
		return nil, nil, err
	}
	if dev.Parent != p.index {
		return nil, nil, &foreignError{name, fmt.Sprintf("it sits on %s", on.interfaceName(dev.Parent))}
	}
	// Cipher suite, ICV length and SCI are fixed at creation
	// (macsec_changelink). The SCI stays as it was made when the parent's
	// address changes; it is ours as long as its port is 1.
	if dev.CipherSuite != suite || dev.ICVLen != macsec.DefaultICVLen {
		if err := k.DeleteDevice(dev.Index); err != nil {
			return nil, nil, err
		}
		repaired = append(repaired, fmt.Sprintf("cipher suite %v made anew as %v", dev.CipherSuite, suite))
		dev, err = k.CreateDevice(p.index, name, cfg)
		return dev, repaired, err
	}
	u, wrong := wantedUpdate(dev, cfg)
	if len(wrong) == 0 {
		return dev, repaired, nil
	}
	repaired = append(repaired, wrong...)
	if err := k.UpdateDevice(dev.Index, u); err != nil {
		return nil, repaired, err
	}
	dev, err = k.Device(name)
	return dev, repaired, err
}

// reclaimName gives the device that an earlier agent made its name back, or the one
// that the inventory has for it by now.
func (t *task) reclaimName() error {
	k, name := t.server.kernel, t.link.Local.Secure
	if _, err := k.Device(name); !errors.Is(err, macsec.ErrNotExist) {
		return nil // nothing to do, or ensureDevice fails as well
	}
	if f, err := readLinkFile(t.server.opts.RunDir, t.link.ID); err != nil || f == nil || f.Interface != t.parent.name {
		return nil // not known to be ours
	}
	all, err := k.Devices()
	if err != nil {
		return err
	}
	for i := range all {
		d := &all[i]
		if d.Parent != t.parent.index || d.SCI.Port() != 1 {
			continue
		}
		t.drifted(health.SecYDrift, "device renamed", fmt.Sprintf("to %s", d.Name), time.Now())
		if err := t.server.platform.rename(d.Index, d.Up, name); err != nil {
			return fmt.Errorf("give %s its name %s back: %w", d.Name, name, err)
		}
		return nil
	}
	return nil
}

// wantedUpdate is what makes dev be as cfg says, and what is wrong with it.
func wantedUpdate(dev *macsec.Device, cfg macsec.DeviceConfig) (u macsec.DeviceUpdate, wrong []string) {
	if dev.Protect != cfg.Protect {
		u.Protect = &cfg.Protect
		wrong = append(wrong, "protect off")
	}
	if dev.Encrypt != cfg.Encrypt {
		u.Encrypt = &cfg.Encrypt
		wrong = append(wrong, "encrypt off")
	}
	if dev.Validate != cfg.Validate {
		u.Validate = &cfg.Validate
		wrong = append(wrong, fmt.Sprintf("validate %v", dev.Validate))
	}
	if dev.IncludeSCI != cfg.IncludeSCI || dev.EndStation != cfg.EndStation || dev.SCB != cfg.SCB {
		u.IncludeSCI, u.EndStation, u.SCB = &cfg.IncludeSCI, &cfg.EndStation, &cfg.SCB
		wrong = append(wrong, "SCI not sent")
	}
	if dev.ReplayProtect != cfg.ReplayProtect || dev.ReplayWindow != cfg.ReplayWindow {
		u.ReplayProtect, u.ReplayWindow = &cfg.ReplayProtect, &cfg.ReplayWindow
		wrong = append(wrong, fmt.Sprintf("replay protection %v with window %d", dev.ReplayProtect, dev.ReplayWindow))
	}
	slices.Sort(wrong)
	return u, wrong
}

type foreignError struct{ name, detail string }

func (e *foreignError) Error() string {
	return fmt.Sprintf("device %s is not this link's: %s", e.name, e.detail)
}

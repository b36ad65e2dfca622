package agent

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/lever-link/lever/internal/secy"
	"github.com/lever-link/lever/macsec"
)

// ensureDevice finds or makes the MACsec device of a link. One that an earlier
// agent left is kept with its SAs, so that traffic goes on; what can be put
// right is, and repaired says what it was.
func ensureDevice(on *platform, k macsec.Kernel, p parent, name string, suite macsec.CipherSuite, window uint32) (dev *macsec.Device, repaired []string, err error) {
	sci := macsec.NewSCI(net.HardwareAddr(p.address[:]), 1)
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
	cfg.SCI, cfg.EncodingAN, cfg.Offload = dev.SCI, dev.EncodingAN, dev.Offload
	var u macsec.DeviceUpdate
	if dev.Protect != cfg.Protect {
		u.Protect = &cfg.Protect
		repaired = append(repaired, "protect off")
	}
	if dev.Encrypt != cfg.Encrypt {
		u.Encrypt = &cfg.Encrypt
		repaired = append(repaired, "encrypt off")
	}
	if dev.Validate != cfg.Validate {
		u.Validate = &cfg.Validate
		repaired = append(repaired, fmt.Sprintf("validate %v", dev.Validate))
	}
	if dev.IncludeSCI != cfg.IncludeSCI || dev.EndStation != cfg.EndStation || dev.SCB != cfg.SCB {
		u.IncludeSCI, u.EndStation, u.SCB = &cfg.IncludeSCI, &cfg.EndStation, &cfg.SCB
		repaired = append(repaired, "SCI not sent")
	}
	if dev.ReplayProtect != cfg.ReplayProtect || dev.ReplayWindow != cfg.ReplayWindow {
		u.ReplayProtect, u.ReplayWindow = &cfg.ReplayProtect, &cfg.ReplayWindow
		repaired = append(repaired, fmt.Sprintf("replay protection %v with window %d", dev.ReplayProtect, dev.ReplayWindow))
	}
	if len(repaired) == 0 {
		return dev, nil, nil
	}
	slices.Sort(repaired)
	if err := k.UpdateDevice(dev.Index, u); err != nil {
		return nil, repaired, err
	}
	dev, err = k.Device(name)
	return dev, repaired, err
}

type foreignError struct{ name, detail string }

func (e *foreignError) Error() string {
	return fmt.Sprintf("device %s is not this link's: %s", e.name, e.detail)
}

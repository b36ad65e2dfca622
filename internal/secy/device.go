package secy

import "github.com/lever-link/lever/macsec"

// ReplayWindow is how far, in frames, a frame may be overtaken on the way.
// Linux counts transmit PNs before its crypto is done and carriers balance by
// flow, so that a window of zero loses frames on good links.
const ReplayWindow = 64

// DeviceConfig is the configuration that the MACsec device of a link must have.
func DeviceConfig(sci macsec.SCI, suite macsec.CipherSuite) macsec.DeviceConfig {
	cfg := macsec.Closed(sci, suite)
	cfg.ReplayProtect, cfg.ReplayWindow = true, ReplayWindow
	return cfg
}

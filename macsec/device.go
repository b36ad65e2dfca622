package macsec

import "net"

// DefaultICVLen is the length of an ICV in octets unless configured otherwise.
const DefaultICVLen = 16

// MaxXPNWindow is the widest replay window of the XPN suites
// (IEEE 802.1AEbw 10.7.8; MACSEC_XPN_MAX_REPLAY_WINDOW).
const MaxXPNWindow = 1<<30 - 1

// DeviceConfig is the configuration of a MACsec device. SCI, CipherSuite and
// ICVLen are fixed at creation.
//
// The zero values are what they say: a zero Encrypt does not encrypt and a zero
// Protect sends in clear. Start from Closed.
type DeviceConfig struct {
	// SCI of the transmit channel. With a zero MAC part the kernel puts the
	// device's MAC address there, and port 1 for a zero port.
	SCI SCI
	// CipherSuite; zero means GCMAES128, as it does to the kernel.
	CipherSuite CipherSuite
	// ICVLen in octets, 8 to 16; zero means DefaultICVLen.
	ICVLen uint8
	// Encrypt: confidentiality, not integrity alone.
	Encrypt bool
	// Protect: transmitted frames carry MACsec at all.
	Protect bool
	// IncludeSCI puts the SCI into every frame. Excludes EndStation and SCB.
	IncludeSCI bool
	// EndStation sets ES: the receiver derives the SCI from the source address.
	EndStation bool
	// SCB sets the single copy broadcast bit.
	SCB bool
	// Validate is what happens to received frames that do not verify.
	Validate Validate
	// ReplayProtect drops frames older than ReplayWindow frames.
	ReplayProtect bool
	// ReplayWindow in frames; at most MaxXPNWindow with XPN.
	ReplayWindow uint32
	// EncodingAN is the association that transmits. While it is missing or
	// inactive everything is dropped.
	EncodingAN AN
	// Offload is what does the cryptography.
	Offload Offload
}

// Closed is a configuration that never leaks: it protects, encrypts, accepts
// only what verifies, and so drops everything until it has keys. Replay
// protection is strict (window 0): a link that reorders needs a wider window.
func Closed(sci SCI, suite CipherSuite) DeviceConfig {
	return DeviceConfig{
		SCI: sci, CipherSuite: suite, ICVLen: DefaultICVLen,
		Encrypt: true, Protect: true, IncludeSCI: true,
		Validate: Strict, ReplayProtect: true,
	}
}

// Device is a MACsec device as the kernel has it.
type Device struct {
	// Index is the interface index in the client's network namespace.
	Index int
	// Name is the interface name.
	Name string
	// Parent is the interface index of the interface below. It belongs to the
	// parent's network namespace, which is another one after the device moved.
	Parent int
	// Up is the administrative state.
	Up bool
	// MTU in octets; the kernel makes it 32 less than the parent's.
	MTU int
	// MAC is the device's own address; a later change does not change the SCI.
	MAC net.HardwareAddr
	DeviceConfig
}

// DeviceUpdate changes what is not nil.
type DeviceUpdate struct {
	Encrypt       *bool
	Protect       *bool
	IncludeSCI    *bool
	EndStation    *bool
	SCB           *bool
	Validate      *Validate
	ReplayProtect *bool
	ReplayWindow  *uint32
	EncodingAN    *AN
	Up            *bool
}

package macsec

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"

	"github.com/lever-link/lever/internal/secret"
)

// NumAN is the number of secure associations of a channel.
const NumAN = 4

// SCI is a secure channel identifier, as on the wire: a MAC address of six
// octets and a port number of two, big-endian (IEEE 802.1AE 9.9).
type SCI [8]byte

// NewSCI makes the identifier of a port of the station mac. Only the first six
// octets of mac count; a shorter mac is padded with zeros.
func NewSCI(mac net.HardwareAddr, port uint16) SCI {
	var s SCI
	copy(s[:6], mac)
	binary.BigEndian.PutUint16(s[6:], port)
	return s
}

// ParseSCI reads the form that String writes: 16 hexadecimal digits.
func ParseSCI(s string) (SCI, error) {
	var sci SCI
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(sci) {
		return SCI{}, fmt.Errorf("macsec: SCI %q is not 16 hexadecimal digits", s)
	}
	copy(sci[:], b)
	return sci, nil
}

// MAC is the station part.
func (s SCI) MAC() net.HardwareAddr { return net.HardwareAddr(append([]byte(nil), s[:6]...)) }

// Port is the port number part.
func (s SCI) Port() uint16 { return binary.BigEndian.Uint16(s[6:]) }

// String is 16 hexadecimal digits, as iproute2 prints it.
func (s SCI) String() string { return hex.EncodeToString(s[:]) }

// MarshalText implements encoding.TextMarshaler with the form of String.
func (s SCI) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *SCI) UnmarshalText(b []byte) (err error) {
	*s, err = ParseSCI(string(b))
	return err
}

// KeyID names a key without disclosing it. The kernel stores it and gives it
// back; MKA puts its key identifier there: member identifier and key number.
type KeyID [16]byte

// String is 32 hexadecimal digits.
func (k KeyID) String() string { return hex.EncodeToString(k[:]) }

// SSCI is the short secure channel identifier of the XPN suites
// (IEEE 802.1AEbw). Zero is not a valid one.
type SSCI uint32

// Salt is the salt of the XPN suites.
type Salt [12]byte

// AN is an association number, 0 to 3.
type AN uint8

// Key is a secure association key. It prints as a placeholder. The kernel
// never gives keys back.
type Key = secret.Key

// NewKey takes ownership of b: the caller must not use it afterwards.
func NewKey(b []byte) Key { return secret.New(b) }

// CipherSuite is a cipher suite identifier (IEEE 802.1AE table 14-1).
type CipherSuite uint64

// The cipher suites that Linux implements.
const (
	GCMAES128    CipherSuite = 0x0080C20001000001
	GCMAES256    CipherSuite = 0x0080C20001000002
	GCMAESXPN128 CipherSuite = 0x0080C20001000003
	GCMAESXPN256 CipherSuite = 0x0080C20001000004
)

// legacyGCMAES128 is what the kernel calls GCM-AES-128 in everything it sends
// (MACSEC_DEFAULT_CIPHER_ID), and accepts as well: the identifier of the first
// drafts. It is read as GCMAES128 and never written.
const legacyGCMAES128 CipherSuite = 0x0080020001000001

var suites = map[CipherSuite]struct {
	name   string
	xpn    bool
	keyLen int
}{
	GCMAES128:       {"GCM-AES-128", false, 16},
	GCMAES256:       {"GCM-AES-256", false, 32},
	GCMAESXPN128:    {"GCM-AES-XPN-128", true, 16},
	GCMAESXPN256:    {"GCM-AES-XPN-256", true, 32},
	legacyGCMAES128: {"GCM-AES-128", false, 16},
}

// String is the standard's name, or the number of an unknown suite.
func (c CipherSuite) String() string {
	if s, ok := suites[c]; ok {
		return s.name
	}
	return fmt.Sprintf("CipherSuite(%#016x)", uint64(c))
}

// Valid reports whether c is one of the four suites.
func (c CipherSuite) Valid() bool { _, ok := suites[c]; return ok }

// XPN reports whether packet numbers have 64 bits.
func (c CipherSuite) XPN() bool { return suites[c].xpn }

// KeyLen is the length of a key in octets, 0 for an unknown suite.
func (c CipherSuite) KeyLen() int { return suites[c].keyLen }

// canonical replaces the kernel's old identifier of GCM-AES-128.
func (c CipherSuite) canonical() CipherSuite {
	if c == legacyGCMAES128 {
		return GCMAES128
	}
	return c
}

// Validate is what a SecY does with received frames that do not verify.
type Validate uint8

// The validation modes (enum macsec_validation_type).
const (
	// Disabled accepts without looking at the ICV.
	Disabled Validate = iota
	// Check counts what does not verify and delivers it if it is not encrypted.
	Check
	// Strict drops it.
	Strict
)

// String is the word that iproute2 uses.
func (v Validate) String() string {
	switch v {
	case Disabled:
		return "disabled"
	case Check:
		return "check"
	case Strict:
		return "strict"
	}
	return fmt.Sprintf("Validate(%d)", uint8(v))
}

// Offload says what does the cryptography.
type Offload uint8

// The offload modes (enum macsec_offload).
const (
	// Off is software.
	Off Offload = iota
	// PHY is the transceiver.
	PHY
	// MAC is the network controller.
	MAC
)

// String is the word that iproute2 uses.
func (o Offload) String() string {
	switch o {
	case Off:
		return "off"
	case PHY:
		return "phy"
	case MAC:
		return "mac"
	}
	return fmt.Sprintf("Offload(%d)", uint8(o))
}

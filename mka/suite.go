package mka

import (
	"fmt"
	"strings"
)

// CipherSuite is the 64-bit reference number of a MACsec cipher suite,
// IEEE 802.1AE-2018 table 14-1.
type CipherSuite uint64

// The cipher suites of IEEE 802.1AE-2018.
const (
	GCMAES128    CipherSuite = 0x0080C20001000001
	GCMAES256    CipherSuite = 0x0080C20001000002
	GCMAESXPN128 CipherSuite = 0x0080C20001000003
	GCMAESXPN256 CipherSuite = 0x0080C20001000004
)

// legacyGCMAES128 is what the first edition of 802.1AE, and the kernel's
// MACSEC_DEFAULT_CIPHER_ID, call GCM-AES-128.
const legacyGCMAES128 CipherSuite = 0x0080020001000001

// normalised gives one suite one number.
func (c CipherSuite) normalised() CipherSuite {
	if c == legacyGCMAES128 {
		return GCMAES128
	}
	return c
}

// ParseCipherSuite reads a suite's name, in any case.
func ParseCipherSuite(name string) (CipherSuite, error) {
	for _, c := range []CipherSuite{GCMAES128, GCMAES256, GCMAESXPN128, GCMAESXPN256} {
		if strings.EqualFold(name, c.String()) {
			return c, nil
		}
	}
	return 0, fmt.Errorf("mka: parse cipher suite: %q is none of GCM-AES-128, GCM-AES-256, GCM-AES-XPN-128, GCM-AES-XPN-256", name)
}

// Known reports whether the suite is one of the four of IEEE 802.1AE-2018.
func (c CipherSuite) Known() bool { return c.KeyLen() != 0 }

// XPN reports whether packet numbers have 64 bits.
func (c CipherSuite) XPN() bool { return c == GCMAESXPN128 || c == GCMAESXPN256 }

// KeyLen is the octets of a SAK: 16, 32, or 0 for a suite that is not known.
func (c CipherSuite) KeyLen() int {
	switch c {
	case GCMAES128, legacyGCMAES128, GCMAESXPN128:
		return 16
	case GCMAES256, GCMAESXPN256:
		return 32
	}
	return 0
}

// String is the name in the standard, such as GCM-AES-XPN-256.
func (c CipherSuite) String() string {
	switch c {
	case GCMAES128, legacyGCMAES128:
		return "GCM-AES-128"
	case GCMAES256:
		return "GCM-AES-256"
	case GCMAESXPN128:
		return "GCM-AES-XPN-128"
	case GCMAESXPN256:
		return "GCM-AES-XPN-256"
	}
	return fmt.Sprintf("cipher suite %016x", uint64(c))
}

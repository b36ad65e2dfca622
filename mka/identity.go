package mka

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/lever-link/lever/internal/secret"
)

// Key is secret octets: a CAK, KEK, ICK or SAK.
type Key = secret.Key

// MAC is a 48-bit address.
type MAC [6]byte

// GroupAddress is where MKPDUs go unless a link is told otherwise: the
// nearest non-TPMR bridge group address, IEEE 802.1X-2020 table 11-1.
var GroupAddress = MAC{0x01, 0x80, 0xc2, 0x00, 0x00, 0x03}

// String is six pairs of hexadecimal digits with colons.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// SCI is a Secure Channel Identifier: a MAC address and a 16-bit port number.
type SCI [8]byte

// NewSCI puts an SCI together.
func NewSCI(mac MAC, port uint16) SCI {
	var s SCI
	copy(s[:], mac[:])
	binary.BigEndian.PutUint16(s[6:], port)
	return s
}

// String is 16 hexadecimal digits, as ip-macsec prints it.
func (s SCI) String() string { return hex.EncodeToString(s[:]) }

// Less orders SCIs as 64-bit numbers. The order decides the key server among
// equal priorities (the lower wins) and the SSCIs of an XPN SAK.
func (s SCI) Less(o SCI) bool { return bytes.Compare(s[:], o[:]) < 0 }

// MI is a Member Identifier: 96 random bits, new whenever its owner can no
// longer continue the message numbers of the last.
type MI [12]byte

// String is 24 hexadecimal digits.
func (m MI) String() string { return hex.EncodeToString(m[:]) }

// KI is a Key Identifier: the key server's MI and its key number. It names a
// SAK for good, and is what the kernel keeps with an SA as its KEYID.
type KI struct {
	MI MI
	KN uint32
}

// KIFromBytes is the inverse of [KI.Bytes].
func KIFromBytes(b [16]byte) KI {
	return KI{MI: MI(b[:12]), KN: binary.BigEndian.Uint32(b[12:])}
}

// Bytes is MI | KN with KN big-endian: the 16 octets of the kernel's
// MACSEC_SA_ATTR_KEYID.
func (k KI) Bytes() [16]byte {
	var b [16]byte
	copy(b[:], k.MI[:])
	binary.BigEndian.PutUint32(b[12:], k.KN)
	return b
}

// String is the MI in hexadecimal, a slash and the key number in decimal.
func (k KI) String() string { return fmt.Sprintf("%s/%d", k.MI, k.KN) }

// CKN is a CAK Name: 1 to 32 raw octets, compared octet by octet and without
// padding. It is no secret.
type CKN string

// String is the name in hexadecimal.
func (c CKN) String() string { return hex.EncodeToString([]byte(c)) }

// AN is an Association Number, 0 to 3.
type AN = uint8

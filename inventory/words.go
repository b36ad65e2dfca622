package inventory

import "slices"

// Custody is the class of a segment: who can lay hands on it. A word that is
// not one of the constants stays as it was written and counts as outside.
type Custody string

// The custody classes, from the most to the least controlled.
const (
	ControlledRoom     Custody = "controlled-room"
	ControlledBuilding Custody = "controlled-building"
	CampusDuct         Custody = "campus-duct"
	OwnedDuct          Custody = "owned-duct"
	DarkFibre          Custody = "dark-fibre"
	LeasedWave         Custody = "leased-wave"
	CarrierEthernet    Custody = "carrier-ethernet"
	Submarine          Custody = "submarine"
	Microwave          Custody = "microwave"
	ThirdPartyColo     Custody = "third-party-colo"
	UnknownCustody     Custody = "unknown"
)

var custodies = []string{
	string(ControlledRoom), string(ControlledBuilding), string(CampusDuct), string(OwnedDuct), string(DarkFibre),
	string(LeasedWave), string(CarrierEthernet), string(Submarine), string(Microwave), string(ThirdPartyColo),
	string(UnknownCustody),
}

// Known reports whether c is one of the classes of this package, which includes
// [UnknownCustody].
func (c Custody) Known() bool { return slices.Contains(custodies, string(c)) }

// withinSite reports whether a segment of this class lies in a room or a
// building, so that it cannot be what joins two sites.
func (c Custody) withinSite() bool {
	return c == ControlledRoom || c == ControlledBuilding || c == ThirdPartyColo
}

// operatedByOthers reports whether the class is by its nature in other hands,
// or, as the air, in everybody's.
func (c Custody) operatedByOthers() bool {
	return slices.Contains([]Custody{DarkFibre, LeasedWave, CarrierEthernet, Submarine, Microwave, ThirdPartyColo}, c)
}

// Control is the name of a physical control, such as locked-duct. The policy
// says which controls there are.
type Control string

// Protocol is a link protocol that may pass in the clear beside MACsec and MKA
// where a link allows it by name.
type Protocol string

// The protocols that a link may allow: those that tell the far end of a cable
// about the cable, that no bridge forwards, and that carry nothing for anybody
// else.
const (
	LLDP  Protocol = "lldp"  // IEEE 802.1AB
	LACP  Protocol = "lacp"  // IEEE 802.1AX
	Pause Protocol = "pause" // IEEE 802.3 31B, and by priority 802.1Q
)

var protocols = []string{string(LLDP), string(LACP), string(Pause)}

// Cipher is a MACsec cipher suite. The zero value is GCM-AES-XPN-256, the
// default of a policy.
type Cipher uint8

// The cipher suites of IEEE 802.1AE.
const (
	GCMAESXPN256 Cipher = iota
	GCMAES256
	GCMAESXPN128
	GCMAES128
)

var ciphers = []string{"gcm-aes-xpn-256", "gcm-aes-256", "gcm-aes-xpn-128", "gcm-aes-128"}

// String returns the name used in inventories, such as gcm-aes-xpn-256.
func (c Cipher) String() string { return word(ciphers, int(c)) }

// MarshalText implements [encoding.TextMarshaler].
func (c Cipher) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Bits returns the length of the suite's key: 128 or 256.
func (c Cipher) Bits() int {
	if c == GCMAES128 || c == GCMAESXPN128 {
		return 128
	}
	return 256
}

// XPN reports whether packet numbers have 64 bits.
func (c Cipher) XPN() bool { return c == GCMAESXPN256 || c == GCMAESXPN128 }

// Mode says what an agent does with a link that is not secured. The zero value
// is [Enforce].
type Mode uint8

// The modes of a policy.
const (
	Enforce Mode = iota // the fence is closed: nothing passes in the clear
	Monitor             // negotiate and report, but leave the fence open
)

var modes = []string{"enforce", "monitor"}

// String returns the name used in inventories.
func (m Mode) String() string { return word(modes, int(m)) }

// MarshalText implements [encoding.TextMarshaler].
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// Kind is what is to be done with a link. The zero value is [Encrypt], so that a
// verdict nobody has set is the safe one.
type Kind uint8

// The kinds of verdict, and the actions of an override.
const (
	Encrypt Kind = iota // outside physical control, or overridden to be encrypted
	Inside              // every segment is inside physical control: left alone
	Exempt              // outside, and left in the clear by an override
)

var kinds = []string{"encrypt", "inside", "exempt"}

// String returns encrypt, inside or exempt.
func (k Kind) String() string { return word(kinds, int(k)) }

// MarshalText implements [encoding.TextMarshaler].
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

func word(words []string, i int) string {
	if i < len(words) {
		return words[i]
	}
	return "invalid"
}

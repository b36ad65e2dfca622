package mka

import (
	"encoding/binary"
	"slices"
)

// Salt is the 96-bit salt of an XPN SAK, IEEE 802.1AE-2018 10.7.8: the key
// server's MI with the key number's low half folded into the first two octets
// and its high half into the next two. It is no secret; it makes the nonces of
// two SAKs differ.
func Salt(mi MI, kn uint32) [12]byte {
	salt := [12]byte(mi)
	binary.BigEndian.PutUint16(salt[0:], binary.BigEndian.Uint16(mi[0:])^uint16(kn))
	binary.BigEndian.PutUint16(salt[2:], binary.BigEndian.Uint16(mi[2:])^uint16(kn>>16))
	return salt
}

// SSCIOf is the Short SCI of sci among all members of an XPN SAK, its own SCI
// included: 1 for the numerically greatest, then 2, and so on. An SCI that is
// given twice counts once. 0, which is no SSCI, means that sci is no member.
func SSCIOf(sci SCI, all []SCI) uint32 {
	member, ssci := false, uint32(1)
	for i, o := range all {
		if o == sci {
			member = true
		}
		if sci.Less(o) && !slices.Contains(all[:i], o) {
			ssci++
		}
	}
	if !member {
		return 0
	}
	return ssci
}

package keys

import (
	"fmt"
	"slices"

	"github.com/lever-link/lever/internal/keys/keyfile"
)

// LoadPSK reads the static CAK of a link whose far end Lever does not run on: a
// file of 32 or 64 hexadecimal digits with the same rules as every key file
// (0600, a regular file, owned by the agent's user or root).
func LoadPSK(ckn []byte, cakFile string) (CAK, error) {
	if len(ckn) < 1 || len(ckn) > 32 {
		return CAK{}, fmt.Errorf("pre-shared key %s: its CKN has %d octets; MKA allows 1 to 32, written as hexadecimal digits", cakFile, len(ckn))
	}
	key, err := keyfile.Read(cakFile, keyfile.Format{Sizes: []int{16, 32}, NewlineOptional: true})
	if err != nil {
		return CAK{}, fmt.Errorf("pre-shared key for CKN %x: %w", ckn, err)
	}
	return CAK{CKN: slices.Clone(ckn), Key: key}, nil
}

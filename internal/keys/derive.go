package keys

import (
	"crypto/sha512"
	"fmt"

	"github.com/lever-link/lever/internal/secret"
)

const (
	labelDerive = "lever-derive/1"
	infoDerive  = "pre-key material\x00"
)

// Derive computes one channel's pre-key material of a link's epoch from a seed
// that only the channel's issuer has: HKDF with SHA-384, bound to link, nodes,
// epoch and generation, which each have the place that they have in Combine. So an
// issuer keeps a seed where it would keep the material of every link, and what it
// hands to one end it hands to the other, whenever that is. The seed is random and
// at least MinMaterial octets; once it is erased nobody computes the material again.
func Derive(seed secret.Key, id Identity, e Epoch) (secret.Key, error) {
	who, err := id.who(e)
	if err != nil {
		return secret.Key{}, err
	}
	if seed.Len() < MinMaterial || seed.IsZero() {
		return secret.Key{}, fmt.Errorf("deriving material for epoch %s of link %q: the seed is %d octets or erased, not at least %d random ones", e, id.Link, seed.Len(), MinMaterial)
	}
	salt := sha512.Sum384([]byte(labelDerive + " extract"))
	return hkdfSHA384(seed.Bytes(), salt[:], infoDerive+string(appendLP(nil, labelDerive))+string(who), MinMaterial), nil
}

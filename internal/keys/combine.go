package keys

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/lever-link/lever/internal/secret"
)

// The construction is fixed to the octet by testdata/combine.json: both ends and
// every later version must compute the same, so a change here is a new label.
const (
	labelCombine = "lever-combine/1"
	labelSuite   = "hkdf-sha384"
	labelCKN     = "lever-ckn/1"
	labelPrint   = "lever-fingerprint/1"
	infoCAK      = "mka cak\x00"

	// MinMaterial is the least number of octets of one channel's material.
	MinMaterial = 32
	// maxField is the most that a 16-bit length prefix can say.
	maxField = 1<<16 - 1
	// cakLen is the length of a combined CAK, CKNLen that of its name.
	cakLen = 32
	// CKNLen is the length of the CKN of a combined CAK, the most that MKA
	// allows.
	CKNLen = 32
)

// Errors that callers tell apart.
var (
	// ErrMaterialShort is material of fewer than MinMaterial octets.
	ErrMaterialShort = errors.New("fewer than 32 octets of pre-key material")
	// ErrMaterialLong is material or a key id beyond a 16-bit length.
	ErrMaterialLong = errors.New("more than 65535 octets of pre-key material or key id")
	// ErrMaterialEqual is the same material from both channels: whoever holds
	// one channel would hold the key.
	ErrMaterialEqual = errors.New("both channels deliver the same material")
	// ErrIdentity is a link identity that cannot enter the derivation.
	ErrIdentity = errors.New("unusable link identity")
)

// Identity is what a link's keys are bound to: its id and the names of the nodes
// on it, in any order. Both ends must have it from the same inventory.
type Identity struct {
	Link  string
	Nodes []string
}

// Validate reports whether keys can be derived for the identity.
func (id Identity) Validate() error {
	_, err := id.who(Epoch{Number: 1})
	return err
}

// who is the public context of one epoch: LP(link) u8(n) n×LP(node) u64(epoch)
// u32(generation), node names sorted bytewise so that both ends agree.
func (id Identity) who(e Epoch) ([]byte, error) {
	fail := func(format string, args ...any) ([]byte, error) {
		return nil, fmt.Errorf("deriving keys for link %q with nodes %q: %w: %s; correct it in the inventory of every end",
			id.Link, id.Nodes, ErrIdentity, fmt.Sprintf(format, args...))
	}
	switch {
	case id.Link == "":
		return fail("the link has no id")
	case len(id.Link) > maxField:
		return fail("the id is longer than %d octets", maxField)
	case len(id.Nodes) < 2:
		return fail("a link has at least two nodes")
	case len(id.Nodes) > 255:
		return fail("a link has at most 255 nodes")
	}
	nodes := slices.Clone(id.Nodes)
	slices.Sort(nodes)
	out := appendLP(nil, id.Link)
	out = append(out, byte(len(nodes)))
	for i, n := range nodes {
		switch {
		case n == "":
			return fail("a node has no name")
		case len(n) > maxField:
			return fail("a node's name is longer than %d octets", maxField)
		case i > 0 && nodes[i-1] == n:
			return fail("node %q is listed twice", n)
		}
		out = appendLP(out, n)
	}
	out = binary.BigEndian.AppendUint64(out, e.Number)
	return binary.BigEndian.AppendUint32(out, e.Generation), nil
}

// appendLP appends a 16-bit big-endian length and x.
func appendLP[T string | []byte](b []byte, x T) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(x)))
	return append(b, x...)
}

// Material is one channel's pre-key material for one epoch of one link. Alone it
// says nothing about the CAK.
type Material struct {
	// KeyID is the channel's own name for it; it enters the derivation, so both
	// ends must get the same.
	KeyID string
	// Key is at least MinMaterial octets.
	Key secret.Key
	// File is where it came from, for findings; it does not enter the derivation.
	File string
}

// Fingerprint identifies the material without disclosing it: SHA-256 over a
// label, the key id and the octets, which are random and at least 256 bits, so
// guessing is hopeless. Two operators compare the first digits aloud.
func (m Material) Fingerprint() Fingerprint {
	head := appendLP(appendLP(nil, labelPrint), m.KeyID)
	var f Fingerprint
	secret.Do(func() {
		h := sha256.New()
		defer secret.Scrub(h) // which holds the octets until its block is full
		h.Write(head)
		h.Write(m.Key.Bytes())
		h.Sum(f[:0])
	})
	return f
}

// Fingerprint is what Material.Fingerprint computes.
type Fingerprint [sha256.Size]byte

// Short is the first eight hexadecimal digits.
func (f Fingerprint) Short() string { return hex.EncodeToString(f[:4]) }

// String is all of its hexadecimal digits.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// MarshalText implements encoding.TextMarshaler.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *Fingerprint) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(f) {
		return fmt.Errorf("a fingerprint is %d hexadecimal digits, this is %d characters", 2*len(f), len(text))
	}
	copy(f[:], b)
	return nil
}

// CAK is a key for MKA with its name.
type CAK struct {
	// Epoch is zero for a static PSK.
	Epoch Epoch
	// From are the channels' epochs that it is the Pair of; set by a Ring, for logs.
	From [2]Epoch
	// CKN is public, 1 to 32 octets; 32 for a combined CAK.
	CKN []byte
	// Key is 16 or 32 octets; 32 for a combined CAK. Its octets are zero once
	// the Ring has withdrawn the epoch.
	Key secret.Key
}

// CKN is the name of an epoch's CAK: SHA-256 over public context alone, so that
// ends with differing material still recognise each other's MKPDUs and see the
// integrity check fail, which is a fault with a name, instead of silence.
func CKN(id Identity, e Epoch) ([]byte, error) {
	who, err := id.who(e)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append(appendLP(nil, labelCKN), who...))
	return sum[:], nil
}

// checkMaterial reports why a's and b's material may not be combined.
func checkMaterial(a, b Material) error {
	for side, m := range []Material{a, b} {
		switch {
		case m.Key.Len() < MinMaterial:
			return fmt.Errorf("%w from channel %s (%d)", ErrMaterialShort, Side(side), m.Key.Len())
		case m.Key.Len() > maxField || len(m.KeyID) > maxField:
			return fmt.Errorf("%w from channel %s", ErrMaterialLong, Side(side))
		}
	}
	if a.Key.Equal(b.Key) {
		return ErrMaterialEqual
	}
	return nil
}

// Combine computes the CAK of an epoch from both channels' material: HKDF with
// SHA-384 over length-prefixed inputs, bound to link, nodes, epoch, generation
// and key ids. It erases its intermediate values; a and b stay the caller's.
func Combine(id Identity, e Epoch, a, b Material) (CAK, error) {
	who, err := id.who(e)
	if err != nil {
		return CAK{}, err
	}
	fail := func(err error) (CAK, error) {
		return CAK{}, fmt.Errorf("combining epoch %s of link %q: %w; issue it again as a new generation", e, id.Link, err)
	}
	if err := checkMaterial(a, b); err != nil {
		return fail(err)
	}

	context := appendLP(appendLP(nil, labelCombine), labelSuite)
	context = append(context, who...)
	context = appendLP(appendLP(context, "a"), a.KeyID)
	context = appendLP(appendLP(context, "b"), b.KeyID)

	salt := sha512.Sum384([]byte(labelCombine + " extract"))
	// One allocation of the full size: append must not leave a copy behind.
	ikm := make([]byte, 0, 2*(2+1+2)+a.Key.Len()+b.Key.Len())
	ikm = appendLP(appendLP(ikm, "a"), a.Key.Bytes())
	ikm = appendLP(appendLP(ikm, "b"), b.Key.Bytes())
	cak := hkdfSHA384(ikm, salt[:], infoCAK+string(context), cakLen)
	clear(ikm)
	ckn := sha256.Sum256(append(appendLP(nil, labelCKN), who...))
	return CAK{Epoch: e, CKN: ckn[:], Key: cak}, nil
}

package lab

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
)

// Hostile makes the MKPDUs of an attacker who sees a link and can send on it,
// and has no key: he knows addresses and CKNs, and can repeat what he heard. A
// seed gives the same frames again.
type Hostile struct {
	rand *rand.Rand
	seen [][]byte
	buf  []byte
	next int
}

// NewHostile makes one who has heard these frames, each a valid MKPDU.
func NewHostile(seed uint64, seen [][]byte) *Hostile {
	return &Hostile{rand: rand.New(rand.NewPCG(seed, 0)), seen: seen, buf: make([]byte, 0, 1514)}
}

// HostileKind is one of the things that he does.
type HostileKind int

// What he does in turn.
const (
	// Garbage is random octets after a header of EAPOL-MKA.
	Garbage HostileKind = iota
	// UnknownCKN is an MKPDU under a CKN of his.
	UnknownCKN
	// BadICV is an MKPDU under a CKN of the link from an address of his.
	BadICV
	// Spoofed is the same from the address of a peer.
	Spoofed
	// Replayed is a frame that he has heard.
	Replayed
	// Truncated is one that ends early.
	Truncated
	// Oversize is as long as the medium allows, in the name of a peer.
	Oversize

	// HostileKinds is how many there are.
	HostileKinds = 7
)

// Next is the next frame, of each kind in turn; it is valid until the one after
// it.
func (h *Hostile) Next() []byte {
	k := HostileKind(h.next % HostileKinds)
	h.next++
	return h.Make(k)
}

// Make makes a frame of a kind.
func (h *Hostile) Make(k HostileKind) []byte {
	const source, icv, body, ckn = 6, 16, 18, 50
	f := append(h.buf[:0], h.seen[h.rand.IntN(len(h.seen))]...)
	switch k {
	case Garbage:
		f = f[:min(60+h.rand.IntN(200), cap(f))]
		h.fill(f[body:])
		h.stranger(f[source:])
	case UnknownCKN:
		f[ckn] ^= 0xff
		h.fill(f[ckn+1 : ckn+1+h.rand.IntN(16)])
		h.stranger(f[source:])
	case BadICV:
		h.stranger(f[source:])
	case Spoofed:
		h.fill(f[len(f)-icv:])
	case Replayed:
	case Truncated:
		f = f[:20+h.rand.IntN(len(f)-20)]
	case Oversize:
		f = f[:cap(f)]
		h.fill(f[len(f)-1300:])
		binary.BigEndian.PutUint16(f[16:], uint16(len(f)-body)&^3)
	}
	return f
}

// fill makes octets random.
func (h *Hostile) fill(b []byte) {
	for i := range b {
		b[i] = byte(h.rand.Uint32())
	}
}

// stranger writes an address that is nobody's.
func (h *Hostile) stranger(address []byte) {
	copy(address, []byte{0x06, 0, 0})
	h.fill(address[3:6])
}

// Heard keeps the last of the frames that an attacker hears: those of a few
// seconds are the most that he can hope to repeat with success.
type Heard struct{ frames [][]byte }

// Keep takes a frame in.
func (h *Heard) Keep(frame []byte) {
	const most = 64
	if len(h.frames) == most {
		h.frames = slices.Delete(h.frames, 0, 1)
	}
	h.frames = append(h.frames, slices.Clone(frame))
}

// Frames are what was kept.
func (h *Heard) Frames() [][]byte { return h.frames }

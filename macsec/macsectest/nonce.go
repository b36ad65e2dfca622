package macsectest

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"github.com/lever-link/lever/macsec"
)

// Nonce names what must be unique per transmitted frame: a key, a channel and a
// packet number.
type Nonce struct {
	// KeyID is the identifier under which the key was installed.
	KeyID macsec.KeyID
	// SCI of the sender; with the XPN suites the nonce holds SSCI and salt in
	// its place.
	SCI  macsec.SCI
	SSCI macsec.SSCI
	Salt macsec.Salt
	// PN is the packet number.
	PN uint64
	// key tells keys apart whatever their identifier.
	key [sha256.Size]byte
	xpn bool
}

// String names the nonce for a test's failure.
func (n Nonce) String() string {
	if n.xpn {
		return fmt.Sprintf("key %s SSCI %d PN %d (SCI %s)", n.KeyID, n.SSCI, n.PN, n.SCI)
	}
	return fmt.Sprintf("key %s SCI %s PN %d", n.KeyID, n.SCI, n.PN)
}

// NonceLog records every nonce that was used. Kernels whose keys are shared, the
// ends of a link, can share a log: two of them with the same SSCI under one key
// is reuse as well. The zero value is ready; it is safe for concurrent use.
type NonceLog struct {
	mu     sync.Mutex
	used   map[stream][]span
	reused []Nonce
}

// stream is what packet numbers count within.
type stream struct {
	key    [sha256.Size]byte
	prefix [12]byte
	xpn    bool
}

// span is packet numbers first to last.
type span struct{ first, last uint64 }

// Reused lists the nonces that were used again; empty is how it should be.
func (l *NonceLog) Reused() []Nonce {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.reused)
}

// record notes the packet numbers n.PN to last and says whether one of them had
// been used. The first such one is kept in Reused.
func (l *NonceLog) record(n Nonce, last uint64) bool {
	s := stream{key: n.key, xpn: n.xpn}
	if n.xpn {
		s.prefix = n.Salt
		for i := range 4 {
			s.prefix[i] ^= byte(n.SSCI >> (24 - 8*i))
		}
	} else {
		copy(s.prefix[:], n.SCI[:])
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used == nil {
		l.used = map[stream][]span{}
	}
	add := span{n.PN, last}
	kept := l.used[s][:0:0]
	reused := false
	for _, u := range l.used[s] {
		if add.first <= u.last && u.first <= add.last {
			if !reused {
				reused = true
				n.PN = max(u.first, n.PN)
				l.reused = append(l.reused, n)
			}
		}
		// Overlapping or adjacent: one span.
		if add.first <= u.last+1 && u.first <= add.last+1 {
			add = span{min(add.first, u.first), max(add.last, u.last)}
			continue
		}
		kept = append(kept, u)
	}
	l.used[s] = append(kept, add)
	return reused
}

// ShareNonces makes the kernel record in l what it sends from now on, in place
// of a log of its own.
func (k *Kernel) ShareNonces(l *NonceLog) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.nonces = l
}

// ReusedNonces lists the nonces that this kernel's log saw more than once.
func (k *Kernel) ReusedNonces() []Nonce {
	k.mu.Lock()
	l := k.nonces
	k.mu.Unlock()
	return l.Reused()
}

// OnNonce installs a function that learns of every nonce as it is used, and
// whether it had been used before. It must not call the kernel.
func (k *Kernel) OnNonce(f func(n Nonce, reused bool)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.onNonce = f
}

// spend records count packet numbers from first on.
func (k *Kernel) spend(d *device, sa *association, first, count uint64) {
	n := Nonce{
		KeyID: sa.KeyID, SCI: d.SCI, SSCI: sa.SSCI, Salt: sa.Salt, PN: first,
		key: sa.cipher.id, xpn: d.CipherSuite.XPN(),
	}
	reused := k.nonces.record(n, first+count-1)
	if k.onNonce != nil {
		k.onNonce(n, reused)
	}
}

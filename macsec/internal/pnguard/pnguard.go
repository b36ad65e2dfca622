// Package pnguard remembers which packet numbers a transmit key has used, for
// the real kernel's client and the one in memory alike.
//
// The kernel accepts any packet number with any key, backwards too, and a
// deleted association leaves no trace. Nothing belongs here but that memory; it
// is a guard rail within one process, not a substitute for never distributing a
// key twice.
package pnguard

import "sync"

// perChannel bounds the memory of a channel. A key comes back, if ever, soon
// after it was deleted: when something reinstalls what it thinks is missing.
const perChannel = 32

// Exhausted as a next packet number says that the key must not be used again.
const Exhausted = ^uint64(0)

// Memory holds the next packet number of keys that were removed from a transmit
// channel. The zero value is ready; it is safe for concurrent use.
type Memory struct {
	mu       sync.Mutex
	channels map[[8]byte][]used
}

type used struct {
	key  [16]byte
	next uint64
}

// Retire notes that a key was removed from the channel of sci when its next
// packet number was next. The zero key identifier names no key and is ignored.
func (m *Memory) Retire(sci [8]byte, key [16]byte, next uint64) {
	if key == ([16]byte{}) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.channels == nil {
		m.channels = map[[8]byte][]used{}
	}
	keys := m.channels[sci]
	for i := range keys {
		if keys[i].key == key {
			keys[i].next = max(keys[i].next, next)
			return
		}
	}
	keys = append(keys, used{key, next})
	if len(keys) > perChannel {
		keys = append(keys[:0:0], keys[len(keys)-perChannel:]...)
	}
	m.channels[sci] = keys
}

// Next is the lowest packet number that the key may still use in the channel of
// sci, 0 if it was never retired there.
func (m *Memory) Next(sci [8]byte, key [16]byte) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range m.channels[sci] {
		if u.key == key {
			return u.next
		}
	}
	return 0
}

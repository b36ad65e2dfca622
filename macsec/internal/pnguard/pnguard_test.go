package pnguard_test

import (
	"testing"

	"github.com/lever-link/lever/macsec/internal/pnguard"
)

func TestMemory(t *testing.T) {
	var m pnguard.Memory
	a, b := [8]byte{1}, [8]byte{2}
	k := [16]byte{9}
	if got := m.Next(a, k); got != 0 {
		t.Errorf("unknown key: %d, want 0", got)
	}
	m.Retire(a, k, 70)
	m.Retire(a, k, 50)
	if got := m.Next(a, k); got != 70 {
		t.Errorf("retired at 70 and 50: %d, want the higher", got)
	}
	if got := m.Next(b, k); got != 0 {
		t.Errorf("another channel has other nonces: %d, want 0", got)
	}
	m.Retire(a, [16]byte{}, 9)
	if got := m.Next(a, [16]byte{}); got != 0 {
		t.Errorf("the zero identifier names no key: %d, want 0", got)
	}
}

func TestMemoryIsBoundedAndForgetsTheOldest(t *testing.T) {
	var m pnguard.Memory
	sci := [8]byte{1}
	for i := range 1000 {
		m.Retire(sci, [16]byte{1, byte(i), byte(i >> 8)}, 5)
	}
	if m.Next(sci, [16]byte{1, 0, 0}) != 0 {
		t.Error("the oldest key is still there")
	}
	last := 999
	if m.Next(sci, [16]byte{1, byte(last), byte(last >> 8)}) != 5 {
		t.Error("the newest key is not there")
	}
}

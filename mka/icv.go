package mka

import (
	"crypto/subtle"
	"errors"
	"fmt"
)

// ErrErased is wrapped when an erased ICK is asked to work.
var ErrErased = errors.New("the ICK is erased or was never set")

// ICK is an Integrity Check value Key made ready for use. It serves one
// goroutine at a time.
type ICK struct {
	// A function, for the reason given in internal/secret: fmt can print
	// nothing of it but an address.
	mac    func() *cmac
	octets int
}

// NewICK expands key, of 16 or 32 octets. The caller keeps key and may erase
// it.
func NewICK(key Key) (*ICK, error) {
	c, err := newCMAC(key.Bytes())
	if err != nil {
		return nil, fmt.Errorf("make an ICK ready: %w", err)
	}
	return &ICK{mac: func() *cmac { return c }, octets: key.Len()}, nil
}

// ready gives the state, or nil when there is none (any more).
func (k *ICK) ready() *cmac {
	if k == nil || k.mac == nil {
		return nil
	}
	if c := k.mac(); c.block != nil {
		return c
	}
	return nil
}

// Erase overwrites the expanded key and the subkeys. From then on nothing
// verifies and nothing is signed.
func (k *ICK) Erase() {
	if c := k.ready(); c != nil {
		c.erase()
	}
}

// appendICV signs b[start:], a frame up to its ICV.
func (k *ICK) appendICV(b []byte, start int) ([]byte, error) {
	c := k.ready()
	if c == nil {
		return nil, fmt.Errorf("mka: sign an MKPDU: %w", ErrErased)
	}
	return append(b, c.sum(b[start:])[:]...), nil
}

// Verify checks the algorithm agility and then the ICV, in constant time. The
// ICV is over everything before it: the addresses, the EtherType, EAPOL and
// the sets, with an indicator's header where there is one (IEEE 802.1X-2020
// 9.4.1). Only after Verify said yes will [MKPDU.Decode] read the frame; after
// a no, its error says whether agility or ICV is to blame.
func (e *Envelope) Verify(ick *ICK) bool {
	e.icvKey, e.refused = 0, ErrICV
	c := ick.ready()
	if c == nil || len(e.frame) < agilityOffset+4+icvLen {
		return false
	}
	if [4]byte(e.frame[agilityOffset:]) != algorithmAgility {
		e.refused = ErrAgility
		return false
	}
	at := e.icvOffset()
	if subtle.ConstantTimeCompare(c.sum(e.frame[:at])[:], e.frame[at:]) != 1 {
		return false
	}
	e.icvKey, e.refused = ick.octets, nil
	return true
}

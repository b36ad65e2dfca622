// Package secret holds key material in a type that no formatting path can print.
//
// It belongs at the bottom of the import graph: mka, macsec and internal/keys
// use it so that a CAK, a SAK or pre-key material is one type with one set of
// rules. Nothing else belongs here; in particular nothing that does I/O.
package secret

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// Key is secret octets. Every way of printing it yields a placeholder with its
// length; the octets come out through Bytes alone, so that a search for callers
// of Bytes finds every place that touches them. The zero Key is empty.
//
// Copies of a Key share the same octets: Erase empties all of them.
//
// The octets sit inside a closure because fmt does not call the methods of
// unexported fields or for unusual verbs, and follows pointers there; of a
// function it can print the address only.
type Key struct{ octets func() []byte }

// New takes ownership of b: the caller must not use it afterwards.
func New(b []byte) Key { return Key{func() []byte { return b }} }

// Clone copies b into a new Key; the caller keeps b.
func Clone(b []byte) Key { return New(append([]byte(nil), b...)) }

// Bytes returns the octets themselves, not a copy. They are zero after Erase.
func (k Key) Bytes() []byte {
	if k.octets == nil {
		return nil
	}
	return k.octets()
}

// Len is the number of octets.
func (k Key) Len() int { return len(k.Bytes()) }

// IsZero reports whether the key holds nothing: never set, or erased.
func (k Key) IsZero() bool {
	var or byte
	for _, x := range k.Bytes() {
		or |= x
	}
	return or == 0
}

// Equal compares in constant time.
func (k Key) Equal(o Key) bool { return subtle.ConstantTimeCompare(k.Bytes(), o.Bytes()) == 1 }

// Erase overwrites the octets with zeros, in every copy of k.
func (k Key) Erase() { clear(k.Bytes()) }

func (k Key) placeholder() string { return fmt.Sprintf("[secret, %d octets]", k.Len()) }

// Format implements fmt.Formatter, so that no verb prints the octets.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.placeholder())) }

// String implements fmt.Stringer.
func (k Key) String() string { return k.placeholder() }

// MarshalText implements encoding.TextMarshaler, and with it JSON and YAML.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.placeholder()), nil }

// LogValue implements slog.LogValuer.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.placeholder()) }

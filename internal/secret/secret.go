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
type Key struct{ b []byte }

// New takes ownership of b: the caller must not use it afterwards.
func New(b []byte) Key { return Key{b} }

// Clone copies b into a new Key; the caller keeps b.
func Clone(b []byte) Key { return Key{append([]byte(nil), b...)} }

// Bytes returns the octets themselves, not a copy. They are zero after Erase.
func (k Key) Bytes() []byte { return k.b }

// Len is the number of octets.
func (k Key) Len() int { return len(k.b) }

// IsZero reports whether the key holds nothing: never set, or erased.
func (k Key) IsZero() bool {
	var or byte
	for _, x := range k.b {
		or |= x
	}
	return or == 0
}

// Equal compares in constant time.
func (k Key) Equal(o Key) bool { return subtle.ConstantTimeCompare(k.b, o.b) == 1 }

// Erase overwrites the octets with zeros, in every copy of k.
func (k Key) Erase() { clear(k.b) }

func (k Key) placeholder() string { return fmt.Sprintf("[secret, %d octets]", len(k.b)) }

// Format implements fmt.Formatter, so that no verb prints the octets.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.placeholder())) }

// String implements fmt.Stringer.
func (k Key) String() string { return k.placeholder() }

// MarshalText implements encoding.TextMarshaler, and with it JSON and YAML.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.placeholder()), nil }

// LogValue implements slog.LogValuer.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.placeholder()) }

package mka

import (
	"encoding/hex"
	"fmt"
)

// MarshalText writes 24 hexadecimal digits.
func (m MI) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, m[:]), nil }

// UnmarshalText reads what MarshalText writes.
func (m *MI) UnmarshalText(text []byte) error { return parseHex("MI", m[:], text) }

// MarshalText writes 16 hexadecimal digits.
func (s SCI) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads what MarshalText writes.
func (s *SCI) UnmarshalText(text []byte) error { return parseHex("SCI", s[:], text) }

// MarshalText writes two hexadecimal digits an octet.
func (c CKN) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, []byte(c)), nil }

// UnmarshalText reads what MarshalText writes.
func (c *CKN) UnmarshalText(text []byte) error {
	b := make([]byte, hex.DecodedLen(len(text)))
	if err := parseHex("CKN", b, text); err != nil {
		return err
	}
	*c = CKN(b)
	return nil
}

func parseHex(what string, dst, text []byte) error {
	if len(text) != hex.EncodedLen(len(dst)) {
		return fmt.Errorf("%s %q: want %d hexadecimal digits", what, text, hex.EncodedLen(len(dst)))
	}
	if _, err := hex.Decode(dst, text); err != nil {
		return fmt.Errorf("%s %q: %w", what, text, err)
	}
	return nil
}

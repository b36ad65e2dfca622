package signed

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	kindOverride = "override"
	// overrideSigners is how many must agree that a key may be too old.
	overrideSigners = 2
)

// Override lets links go on with keys that are older than the policy's max_age.
type Override struct {
	// All links, or the ones named in Links.
	All   bool
	Links []string
	// Reason is for those who see that it holds, as long as it does.
	Reason          string
	Issued, Expires time.Time
}

// overrideFields are what an override adds to a header.
type overrideFields struct {
	All    bool     `json:"all,omitempty"`
	Links  []string `json:"links,omitempty"`
	Reason string   `json:"reason"`
}

// Covers tells whether it is about the link.
func (o Override) Covers(link string) bool { return o.All || slices.Contains(o.Links, link) }

func (f overrideFields) check() error {
	switch {
	case f.All == (len(f.Links) > 0):
		return malformed("it names neither all links nor some, or both")
	case f.Reason == "" || len(f.Reason) > 1000:
		return malformed("its reason is not 1 to 1000 octets")
	case !slices.IsSorted(f.Links) || len(slices.Compact(slices.Clone(f.Links))) != len(f.Links) || slices.Contains(f.Links, ""):
		return malformed("its links are not in order, or one is there twice")
	}
	return nil
}

// NewOverride is the statement of an override, for two to sign.
func NewOverride(o Override) (*Statement, error) {
	links := slices.Compact(slices.Sorted(slices.Values(o.Links)))
	f := overrideFields{All: o.All, Links: links, Reason: o.Reason}
	err := f.check()
	if err == nil && (strings.TrimSpace(o.Reason) == "" || !utf8.ValidString(o.Reason) || strings.ContainsFunc(o.Reason, unicode.IsControl)) {
		err = malformed("its reason is not a line of text")
	}
	if err != nil {
		return nil, fmt.Errorf("making an override of the age of keys: %w", err)
	}
	return New(kindOverride, o.Issued, o.Expires, f, nil)
}

// VerifyOverride reads an override. Two distinct trusted keys must have signed it,
// and its time must not be over; then the error is ErrExpired, and what it said is
// returned all the same.
func VerifyOverride(text []byte, trusted []PublicKey, now time.Time) (Override, error) {
	fail := func(err error) (Override, error) {
		return Override{}, fmt.Errorf("reading an override of the age of keys: %w", err)
	}
	s, err := Parse(text)
	if err != nil {
		return fail(err)
	}
	if err := s.Verify(trusted, overrideSigners); err != nil {
		return fail(err)
	}
	var f overrideFields
	if err := s.Decode(kindOverride, &f); err != nil {
		return fail(err)
	}
	if err := f.check(); err != nil {
		return fail(err)
	}
	if s.Size != 0 {
		return fail(malformed("it has a payload"))
	}
	o := Override{All: f.All, Links: f.Links, Reason: f.Reason, Issued: s.Issued, Expires: s.Expires}
	if !now.Before(o.Expires) {
		_, err := fail(refuse(ErrExpired, "it held until %s", []any{o.Expires.Format(time.RFC3339)}))
		return o, err
	}
	return o, nil
}

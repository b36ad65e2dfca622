package signed_test

import (
	"errors"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/signed"
)

func override(t testing.TB, o signed.Override, signers ...*signed.Key) []byte {
	t.Helper()
	o.Issued, o.Expires = issued, expires
	s, err := signed.NewOverride(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range signers {
		if err := s.Sign(k); err != nil {
			t.Fatal(err)
		}
	}
	return s.Text()
}

func TestOverride(t *testing.T) {
	a, b, c := key(t), key(t), key(t)
	trusted := []signed.PublicKey{a.Public(), b.Public()}
	some := signed.Override{Links: []string{"l2", "l1", "l2"}, Reason: "the issuer's machine burnt down"}

	o, err := signed.VerifyOverride(override(t, some, a, b), trusted, issued)
	if err != nil {
		t.Fatal(err)
	}
	if !o.Covers("l1") || !o.Covers("l2") || o.Covers("l3") || o.Reason != some.Reason || !o.Expires.Equal(expires) {
		t.Errorf("%+v", o)
	}
	all, err := signed.VerifyOverride(override(t, signed.Override{All: true, Reason: "x"}, a, b), trusted, issued)
	if err != nil || !all.Covers("any") {
		t.Errorf("%+v, %v", all, err)
	}
	// What is over still says what it was, for those who are told.
	if o, err := signed.VerifyOverride(override(t, some, a, b), trusted, expires); !errors.Is(err, signed.ErrExpired) || o.Reason != some.Reason {
		t.Errorf("%+v, %v", o, err)
	}
	other, err := signed.New("override", issued, expires, struct {
		All    bool   `json:"all"`
		Reason string `json:"reason"`
	}{false, "nothing"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(other.Sign(a), other.Sign(b)); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		text []byte
		want error
	}{
		"one signer":                {override(t, some, a), signed.ErrUntrusted},
		"one of them trusted":       {override(t, some, a, c), signed.ErrUntrusted},
		"neither all nor some":      {other.Text(), signed.ErrMalformed},
		"a statement of other kind": {statement(t, "", a, b), signed.ErrMalformed},
		"cut off":                   {override(t, some, a, b)[:200], signed.ErrTruncated},
	} {
		if _, err := signed.VerifyOverride(test.text, trusted, issued); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	for name, o := range map[string]signed.Override{
		"no links":    {Reason: "x"},
		"both":        {All: true, Links: []string{"l1"}, Reason: "x"},
		"no reason":   {All: true},
		"blank":       {All: true, Reason: " \t"},
		"two lines":   {All: true, Reason: "ticket\n4711"},
		"not UTF-8":   {All: true, Reason: "ticket \xff"},
		"no name":     {Links: []string{""}, Reason: "x"},
		"never valid": {All: true, Reason: "x", Issued: expires, Expires: issued},
	} {
		if o.Expires.IsZero() {
			o.Issued, o.Expires = issued, expires
		}
		if _, err := signed.NewOverride(o); err == nil {
			t.Errorf("%s: made", name)
		}
	}
}

func FuzzVerifyOverride(f *testing.F) {
	a, b := key(f), key(f)
	trusted := []signed.PublicKey{a.Public(), b.Public()}
	f.Add(override(f, signed.Override{All: true, Reason: "x"}, a, b))
	f.Add(override(f, signed.Override{Links: []string{"l1"}, Reason: "x"}, a))
	f.Fuzz(func(t *testing.T, text []byte) {
		if o, err := signed.VerifyOverride(text, trusted, issued.Add(time.Hour)); err == nil && o.All == (len(o.Links) > 0) {
			t.Errorf("accepted %+v", o)
		}
	})
}

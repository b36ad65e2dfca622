package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"filippo.io/age"

	"github.com/lever-link/lever/internal/secret"
)

// hybridStanza is the type of an age stanza for an ML-KEM-768 and X25519 recipient.
const hybridStanza = "mlkem768x25519"

// fingerprintSize is how much of a recipient's digest tells it from others.
const fingerprintSize = 16

// Fingerprint is how the header of a bundle names a recipient.
func Fingerprint(recipient string) string {
	sum := sha256.Sum256([]byte(recipient))
	return hex.EncodeToString(sum[:fingerprintSize])
}

// errClassical is a recipient that a quantum computer breaks: whoever records a
// bundle sealed to it now opens it then.
var errClassical = errors.New("not safe against quantum computers")

// parseRecipients reads age1pq… recipients, and others only if classical is set.
// It tells whether there is one of those.
func parseRecipients(texts []string, classical bool) (to []age.Recipient, prints []string, weak bool, err error) {
	for _, text := range slices.Compact(slices.Sorted(slices.Values(texts))) {
		r, err := hybridRecipient(text)
		if err != nil {
			old, oldErr := age.ParseX25519Recipient(text)
			switch {
			case oldErr != nil:
				return nil, nil, false, fmt.Errorf("recipient %q is none of age (age1pq…): take it as lever node show prints it", text)
			case !classical:
				return nil, nil, false, fmt.Errorf("recipient %q is %w: enrol one that is (age1pq…, lever node init)", text, errClassical)
			}
			r, weak = old, true
		}
		to, prints = append(to, r), append(prints, Fingerprint(text))
	}
	if len(to) == 0 {
		return nil, nil, false, errors.New("it has no recipients: enrol its identity (lever node enrol)")
	}
	slices.Sort(prints)
	return to, prints, weak, nil
}

func hybridRecipient(text string) (age.Recipient, error) {
	r, err := age.ParseHybridRecipient(text)
	if err != nil {
		return nil, err // a nil *age.HybridRecipient is not a nil age.Recipient
	}
	return r, nil
}

// seal encrypts a text to recipients. What age keeps of its last 64 KiB it has
// encrypted in place.
func seal(plain []byte, to []age.Recipient) ([]byte, error) {
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, to...)
	if err != nil {
		return nil, err
	}
	defer secret.Scrub(w)
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return sealed.Bytes(), nil
}

// unseal opens what seal made; the caller erases the text.
func unseal(sealed []byte, identities []age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), identities...)
	if err != nil {
		return nil, err
	}
	defer secret.Scrub(r) // which holds the chunk that it has decrypted last
	// What is sealed is shorter, so that reading it moves nothing.
	plain := make([]byte, len(sealed))
	for n := 0; ; {
		m, err := r.Read(plain[n:])
		n += m
		switch {
		case errors.Is(err, io.EOF):
			return plain[:n], nil
		case err == nil && n == len(plain):
			err = errors.New("it decrypts to more than it is")
		}
		if err != nil {
			clear(plain)
			return nil, err
		}
	}
}

// stanzas are the types of the recipients that a sealed text has.
func stanzas(sealed []byte) ([]string, error) {
	var l lister
	_, err := age.Decrypt(bytes.NewReader(sealed), &l)
	if l.types == nil {
		return nil, fmt.Errorf("it does not begin as what age seals: %w", err)
	}
	return l.types, nil
}

// lister is an age.Identity that opens nothing.
type lister struct{ types []string }

// Unwrap implements age.Identity.
func (l *lister) Unwrap(all []*age.Stanza) ([]byte, error) {
	for _, s := range all {
		l.types = append(l.types, s.Type)
	}
	return nil, age.ErrIncorrectIdentity
}

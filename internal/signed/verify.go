package signed

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
)

// What can be wrong with a statement. Each error of Parse, Verify and Decode is
// one of these, and says what was found.
var (
	// ErrMalformed: it is no statement, or not in its one spelling.
	ErrMalformed = errors.New("malformed")
	// ErrTruncated: it is the beginning of one.
	ErrTruncated = errors.New("truncated")
	// ErrTampered: a key that is trusted has signed something else.
	ErrTampered = errors.New("tampered with")
	// ErrUntrusted: too few of the trusted keys have signed it.
	ErrUntrusted = errors.New("not trusted")
	// ErrExpired: its time is over.
	ErrExpired = errors.New("expired")
)

// refusal is one of the errors above with what was found.
type refusal struct {
	kind   error
	detail string
}

func (r *refusal) Error() string { return r.detail }
func (r *refusal) Unwrap() error { return r.kind }

func refuse(kind error, format string, args []any) error {
	return &refusal{kind, fmt.Sprintf(format, args...)}
}

func malformed(format string, args ...any) error { return refuse(ErrMalformed, format, args) }
func truncated(format string, args ...any) error { return refuse(ErrTruncated, format, args) }
func tampered(format string, args ...any) error  { return refuse(ErrTampered, format, args) }
func untrusted(format string, args ...any) error { return refuse(ErrUntrusted, format, args) }

// domain begins every message that is signed, so that a signature of ours is none
// of anything else that the same key may sign.
const domain = "lever signed v1 header\x00"

func (s *Statement) message() []byte { return append([]byte(domain), s.line...) }

// Sign adds a signature, or replaces the one that the key has there.
func (s *Statement) Sign(k *Key) error {
	sig := signature{by: k.Public()}
	copy(sig.value[:], k.sign(s.message()))
	if err := s.put(sig); err != nil {
		return fmt.Errorf("signing a statement of kind %q: %w", s.Kind, err)
	}
	return nil
}

// Verify reports whether at least threshold of the trusted keys have signed the
// statement. A signature of a trusted key that is wrong is never made up for by
// others. Signatures of keys that are not trusted count for nothing and against
// nothing. A threshold below 1 is 1.
func (s *Statement) Verify(trusted []PublicKey, threshold int) error {
	threshold = max(threshold, 1)
	message := s.message()
	good := 0
	for _, sig := range s.signatures { // distinct, as Parse and put have it
		if !slices.Contains(trusted, sig.by) {
			continue
		}
		if !ed25519.Verify(sig.by[:], message, sig.value[:]) {
			return tampered("the signature of %s, which is trusted, is not one of this header", sig.by)
		}
		good++
	}
	if good < threshold {
		return untrusted("%d of the %d trusted keys have signed it, and %d must", good, len(trusted), threshold)
	}
	return nil
}

// Intact reports whether every signature is what its key has made of this header,
// trusted or not.
func (s *Statement) Intact() error {
	return s.Verify(s.Signers(), len(s.signatures))
}

// AddSignature adds the signature of a further key to a file. Adding one that is
// there changes nothing. What others have signed must be intact.
func AddSignature(text []byte, k *Key) ([]byte, error) {
	s, err := Parse(text)
	if err == nil {
		err = s.Intact()
	}
	if err == nil {
		err = s.Sign(k)
	}
	if err != nil {
		return nil, fmt.Errorf("adding a signature: %w", err)
	}
	return s.Text(), nil
}

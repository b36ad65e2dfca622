package bundle

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"filippo.io/age"
	"golang.org/x/crypto/chacha20poly1305"

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

// seal encrypts a text to recipients. Package age wraps the file key and writes the
// header; see payload for the rest.
func seal(plain []byte, to []age.Recipient) ([]byte, error) {
	if len(to) == 0 {
		return nil, errors.New("there is nobody to seal it to")
	}
	first := &recorder{Recipient: to[0]}
	defer func() { clear(first.fileKey) }()
	var empty bytes.Buffer
	w, err := age.Encrypt(&empty, append([]age.Recipient{first}, to[1:]...)...)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, err
	}
	header, err := age.ExtractHeader(&empty)
	if err != nil {
		return nil, err
	}
	sealed := make([]byte, 0, len(header)+payloadNonce+len(plain)+(len(plain)/chunkSize+1)*chacha20poly1305.Overhead)
	sealed = append(sealed, header...)
	nonce := sealed[len(header) : len(header)+payloadNonce]
	_, _ = rand.Read(nonce) // never fails
	p, err := newPayload(first.fileKey, nonce)
	if err != nil {
		return nil, err
	}
	defer p.erase()
	sealed = sealed[:len(header)+payloadNonce]
	secret.Do(func() {
		for {
			chunk := plain[:min(len(plain), chunkSize)]
			plain = plain[len(chunk):]
			sealed = p.aead.Seal(sealed, p.next(len(plain) == 0), chunk, nil)
			if len(plain) == 0 {
				return
			}
		}
	})
	return sealed, nil
}

// recorder is a recipient that keeps the file key, until it is erased.
type recorder struct {
	age.Recipient
	fileKey []byte
}

// WrapWithLabels implements age.RecipientWithLabels, which keeps classical
// recipients away from those that are not.
func (r *recorder) WrapWithLabels(fileKey []byte) ([]*age.Stanza, []string, error) {
	r.fileKey = bytes.Clone(fileKey)
	if l, ok := r.Recipient.(age.RecipientWithLabels); ok {
		return l.WrapWithLabels(fileKey)
	}
	s, err := r.Wrap(fileKey)
	return s, nil, err
}

// unseal opens what seal made; the caller erases the text. Package age finds the
// file key; see payload for the rest.
func unseal(sealed []byte, identities []age.Identity) ([]byte, error) {
	header, err := age.ExtractHeader(bytes.NewReader(sealed))
	if err != nil {
		return nil, err
	}
	rest, ok := bytes.CutPrefix(sealed, header)
	if !ok || len(rest) < payloadNonce {
		return nil, errors.New("its payload does not follow its header")
	}
	fileKey, err := age.DecryptHeader(header, identities...)
	if err != nil {
		return nil, err
	}
	defer clear(fileKey)
	p, err := newPayload(fileKey, rest[:payloadNonce])
	if err != nil {
		return nil, err
	}
	defer p.erase()
	rest = rest[payloadNonce:]
	plain := make([]byte, 0, len(rest))
	secret.Do(func() {
		for n := 1; ; n++ {
			chunk := rest[:min(len(rest), chunkSize+chacha20poly1305.Overhead)]
			rest = rest[len(chunk):]
			longer, failed := p.aead.Open(plain, p.next(len(rest) == 0), chunk, nil)
			if failed != nil || n > 1 && len(longer) == len(plain) {
				err = fmt.Errorf("chunk %d of it does not decrypt, or is empty", n)
				return
			}
			if plain = longer; len(rest) == 0 {
				return
			}
		}
	})
	if err != nil {
		clear(plain[:cap(plain)])
		return nil, err
	}
	return plain, nil
}

// payload is what follows the header of an age file (c2sp.org/age, Payload): a
// nonce for the key, and chunks, each with a tag, whose nonces are their number and
// whether it is the last. It is ours in both directions, with the text in one buffer
// of the full size: package age leaves copies of it in memory that nobody can erase.
type payload struct {
	aead  cipher.AEAD
	chunk uint64
	nonce [chacha20poly1305.NonceSize]byte
}

const (
	payloadNonce = 16
	chunkSize    = 64 << 10
	lastChunk    = 1
)

func newPayload(fileKey, nonce []byte) (*payload, error) {
	key, err := hkdf.Key(sha256.New, fileKey, nonce, "payload", chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		return nil, err
	}
	return &payload{aead: aead}, nil
}

// next is the nonce of the next chunk.
func (p *payload) next(last bool) []byte {
	binary.BigEndian.PutUint64(p.nonce[3:], p.chunk)
	p.chunk++
	if p.nonce[len(p.nonce)-1] = 0; last {
		p.nonce[len(p.nonce)-1] = lastChunk
	}
	return p.nonce[:]
}

func (p *payload) erase() { secret.Scrub(p.aead) }

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

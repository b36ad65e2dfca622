// Package signed is the form of what an offline issuer says and a node believes:
// a statement with a validity, a payload, and ed25519 signatures of one or more
// signers.
//
// The form of such a file, signing it, adding a signature on another machine,
// checking m of n signatures, and the keys to sign with belong here, and the
// statement that overrides the age of keys, which is nothing but signed. What the
// payload of any other kind is does not, nor where files come from or go to.
//
// A file is, line by line:
//
//	lever signed v1
//	{"kind":…,"issued":…,"expires":…,"sha256":…,"size":…,"fields":{…}}
//	sig <public key, base64> <signature, base64>      1 to 16 of them, sorted
//	---
//	the payload, size octets, to the end of the file
//
// The signatures are over the header line, which has the payload's digest. There
// is one spelling of each statement: what Text would not write, Parse refuses.
package signed

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	magic     = "lever signed v1\n"
	separator = "---\n"
	sigWord   = "sig "

	// MaxSize is the most octets of a file.
	MaxSize = 16 << 20
	// MaxHeader is the most octets of its header line.
	MaxHeader = 64 << 10
	// MaxSignatures is the most signatures that it may have.
	MaxSignatures = 16

	// Overhead is the most octets of a file beside its payload.
	Overhead = MaxHeader + MaxSignatures*sigLine + len(magic+separator)

	// sigLine is the length of a signature's line: both parts have one length.
	sigLine = len(sigWord) + 44 + 1 + 88 + 1
)

// Header is what is signed.
type Header struct {
	// Kind tells what the statement is about, so that one never passes for another.
	Kind string `json:"kind"`
	// Issued and Expires are in UTC and whole seconds. What follows from a time
	// that is over is the reader's to say.
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
	// SHA256 and Size are the payload's, so that one that is cut off is told from
	// one that was changed.
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
	// Fields are what the kind adds: see Statement.Decode.
	Fields json.RawMessage `json:"fields"`
}

// Statement is a file in memory.
type Statement struct {
	Header
	// Payload is what the header's digest is of. It may be empty.
	Payload []byte

	line       []byte // the header as it is signed, with its newline
	signatures []signature
}

type signature struct {
	by    PublicKey
	value [64]byte
}

// New makes a statement that nobody has signed yet. Times are cut to seconds.
func New(kind string, issued, expires time.Time, fields any, payload []byte) (*Statement, error) {
	fail := func(err error) (*Statement, error) {
		return nil, fmt.Errorf("making a statement of kind %q: %w", kind, err)
	}
	raw, err := Marshal(fields)
	if err != nil {
		return fail(err)
	}
	sum := sha256.Sum256(payload)
	s := &Statement{
		Header: Header{
			Kind: kind, Issued: issued.UTC().Truncate(time.Second), Expires: expires.UTC().Truncate(time.Second),
			SHA256: hex.EncodeToString(sum[:]), Size: int64(len(payload)), Fields: raw,
		},
		Payload: payload,
	}
	line, err := Marshal(s.Header)
	if err != nil {
		return fail(err)
	}
	s.line = append(line, '\n')
	if err := s.check(); err != nil {
		return fail(err)
	}
	if len(s.line) > MaxHeader || len(payload) > MaxSize-Overhead {
		return fail(fmt.Errorf("it would be larger than %d octets, or its header than %d", MaxSize, MaxHeader))
	}
	return s, nil
}

// check says what is wrong with a header whose JSON is in order.
func (s *Statement) check() error {
	utc := func(t time.Time) bool {
		return t.Nanosecond() == 0 && t.Format(time.RFC3339) == t.UTC().Format(time.RFC3339)
	}
	switch {
	case s.Kind == "" || len(s.Kind) > 32:
		return malformed("its kind is not a word of 1 to 32 octets")
	case !utc(s.Issued) || !utc(s.Expires):
		return malformed("its times are not in UTC and whole seconds")
	case !s.Issued.Before(s.Expires):
		return malformed("it expires at %s, which is not after %s, when it was issued", s.Expires.Format(time.RFC3339), s.Issued.Format(time.RFC3339))
	case !isDigest(s.SHA256):
		return malformed("its digest is not 64 lower-case hexadecimal digits")
	case s.Size < 0 || s.Size > MaxSize:
		return malformed("its payload would be %d octets, at most %d are allowed", s.Size, MaxSize)
	case len(s.Fields) == 0 || s.Fields[0] != '{':
		return malformed("its fields are no object")
	}
	return nil
}

func isDigest(text string) bool {
	return len(text) == 2*sha256.Size && strings.Trim(text, "0123456789abcdef") == ""
}

// Digest is SHA-256 of the header: two statements that have the same say the same.
func (s *Statement) Digest() string {
	sum := sha256.Sum256(s.line)
	return hex.EncodeToString(sum[:])
}

// Decode reads the fields of the statement's kind into v, and nothing that v does
// not name.
func (s *Statement) Decode(kind string, v any) error {
	if s.Kind != kind {
		return malformed("it is a statement of kind %q, not %q", s.Kind, kind)
	}
	return Unmarshal(s.Fields, v)
}

// Text is the file.
func (s *Statement) Text() []byte {
	text := make([]byte, 0, len(magic)+len(s.line)+len(s.signatures)*sigLine+len(separator)+len(s.Payload))
	text = append(append(text, magic...), s.line...)
	for _, sig := range s.signatures {
		text = append(text, sigWord...)
		text = base64.StdEncoding.AppendEncode(text, sig.by[:])
		text = append(text, ' ')
		text = base64.StdEncoding.AppendEncode(text, sig.value[:])
		text = append(text, '\n')
	}
	return append(append(text, separator...), s.Payload...)
}

// Parse reads a file. What it returns is well-formed and complete; whether to
// believe it, Verify says. The payload is part of text, not a copy.
func Parse(text []byte) (*Statement, error) {
	if len(text) > MaxSize {
		return nil, malformed("it is larger than %d octets", MaxSize)
	}
	rest, ok := bytes.CutPrefix(text, []byte(magic))
	if !ok {
		if strings.HasPrefix(magic, string(text)) {
			return nil, truncated("it ends within its first line, after %d octets", len(text))
		}
		return nil, malformed("its first line is not %q", strings.TrimSpace(magic))
	}
	end := bytes.IndexByte(rest, '\n')
	switch {
	case end >= MaxHeader || end < 0 && len(rest) >= MaxHeader:
		return nil, malformed("its header is larger than %d octets", MaxHeader)
	case end < 0:
		return nil, truncated("it ends within its header, after %d octets", len(text))
	}
	s := &Statement{line: bytes.Clone(rest[:end+1])}
	if err := Unmarshal(s.line[:end], &s.Header); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	rest = rest[end+1:]
	for {
		if after, ok := bytes.CutPrefix(rest, []byte(separator)); ok {
			rest = after
			break
		}
		line := rest[:min(len(rest), sigLine)]
		begun := bytes.HasPrefix(line, []byte(sigWord)) || strings.HasPrefix(sigWord, string(line)) || strings.HasPrefix(separator, string(line))
		if len(line) < sigLine && begun {
			return nil, truncated("it ends within its signatures, after %d octets", len(text))
		}
		if err := s.addLine(line); err != nil {
			return nil, err
		}
		rest = rest[sigLine:]
	}
	if len(s.signatures) == 0 {
		return nil, malformed("nobody has signed it")
	}
	s.Payload = rest
	if n := int64(len(rest)); n < s.Size {
		return nil, truncated("%d octets of %d follow its header", n, s.Size)
	} else if n > s.Size {
		return nil, tampered("%d octets follow its header where %d were signed", n, s.Size)
	}
	if sum := sha256.Sum256(s.Payload); hex.EncodeToString(sum[:]) != s.SHA256 {
		return nil, tampered("its payload has another digest than the one that was signed")
	}
	return s, nil
}

// addLine takes a signature's line.
func (s *Statement) addLine(line []byte) error {
	body, ok := bytes.CutPrefix(line, []byte(sigWord))
	if !ok || len(line) != sigLine || line[sigLine-1] != '\n' || body[44] != ' ' {
		return malformed("line %d is neither a signature nor %q", 3+len(s.signatures), strings.TrimSpace(separator))
	}
	var sig signature
	if !decode64(sig.by[:], body[:44]) || !decode64(sig.value[:], body[45:133]) {
		return malformed("line %d is not a key of 32 octets and a signature of 64 in base64", 3+len(s.signatures))
	}
	if n := len(s.signatures); n > 0 && bytes.Compare(s.signatures[n-1].by[:], sig.by[:]) >= 0 {
		return malformed("its signatures are not in the order of their keys, or one is there twice")
	}
	if len(s.signatures) == MaxSignatures {
		return malformed("it has more than %d signatures", MaxSignatures)
	}
	s.signatures = append(s.signatures, sig)
	return nil
}

// decode64 fills out from base64 in its one spelling: without the newlines that
// encoding/base64 skips, and with zeros in the bits that it has to spare.
func decode64(out, text []byte) bool {
	octets := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(octets, text)
	return err == nil && n == len(out) && !bytes.ContainsAny(text, "\r\n") && copy(out, octets[:n]) == n
}

// Signers are the keys whose signatures it has, whether they verify or not.
func (s *Statement) Signers() []PublicKey {
	keys := make([]PublicKey, len(s.signatures))
	for i, sig := range s.signatures {
		keys[i] = sig.by
	}
	return keys
}

// put adds a signature or replaces the one of the same key.
func (s *Statement) put(sig signature) error {
	i, found := slices.BinarySearchFunc(s.signatures, sig, func(a, b signature) int { return bytes.Compare(a.by[:], b.by[:]) })
	switch {
	case found:
		s.signatures[i] = sig
	case len(s.signatures) == MaxSignatures:
		return fmt.Errorf("it has %d signatures already, the most that it can have", MaxSignatures)
	default:
		s.signatures = slices.Insert(s.signatures, i, sig)
	}
	return nil
}

package identity

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/lever-link/lever/internal/secret"
)

// What stands before a secret key in age's files.
const (
	hybridPrefix    = "AGE-SECRET-KEY-PQ-1"
	classicalPrefix = "AGE-SECRET-KEY-1"
	publicKey       = "# public key: "
)

// encodePlain is a file as age-keygen -pq writes it.
func encodePlain(made time.Time, recipient string, key secret.Key) secret.Key {
	head := header(made, recipient)
	text := make([]byte, 0, len(head)+key.Len()+1)
	text = append(text, head...)
	text = append(text, key.Bytes()...)
	return secret.New(append(text, '\n'))
}

func header(made time.Time, recipient string) string {
	return "# created: " + made.UTC().Format(time.RFC3339) + "\n" + publicKey + recipient + "\n"
}

// decodePlain returns the one line of a file that is no comment. It is a part of
// text.
func decodePlain(text []byte) (secret.Key, error) {
	var key []byte
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		line = bytes.TrimSuffix(line, []byte("\r"))
		switch {
		case len(line) == 0 || line[0] == '#':
		case key != nil:
			return secret.Key{}, fmt.Errorf("it holds more than one secret key; keep each in a file of its own: %w", ErrDamaged)
		default:
			key = line
		}
	}
	if key == nil {
		return secret.Key{}, ErrDamaged
	}
	return secret.New(key), nil
}

// parse makes an identity of a secret key and tells its recipient. The library's
// errors are kept back: they can tell characters of the key.
func parse(key secret.Key) (id age.Identity, recipient string, err error) {
	switch text := string(key.Bytes()); {
	case strings.HasPrefix(text, hybridPrefix):
		if i, e := age.ParseHybridIdentity(text); e == nil {
			return i, i.Recipient().String(), nil
		}
	case strings.HasPrefix(text, classicalPrefix):
		// Nothing here makes them; who has enrolled one was warned.
		if i, e := age.ParseX25519Identity(text); e == nil {
			return i, i.Recipient().String(), nil
		}
	}
	return nil, "", ErrDamaged
}

// sealedText is a file of an identity that a TPM has sealed. Nothing in it is
// secret, without the TPM.
type sealedText struct {
	recipient       string
	device          string
	public, private []byte // TPM2B_PUBLIC and TPM2B_PRIVATE of the sealed object
}

// The blocks of a sealed file.
const (
	publicBlock  = "TPM2B PUBLIC"
	privateBlock = "TPM2B PRIVATE"
	deviceHeader = "Device"
)

func (s sealedText) encode(made time.Time) []byte {
	var b bytes.Buffer
	b.WriteString(header(made, s.recipient))
	for _, block := range []*pem.Block{
		{Type: publicBlock, Headers: map[string]string{deviceHeader: s.device}, Bytes: s.public},
		{Type: privateBlock, Bytes: s.private},
	} {
		// It fails for a header with a colon in its key only.
		_ = pem.Encode(&b, block)
	}
	return b.Bytes()
}

func decodeSealed(text []byte) (s sealedText, err error) {
	for line := range strings.Lines(string(text)) {
		if r, ok := strings.CutPrefix(line, publicKey); ok {
			s.recipient = strings.TrimSpace(r)
		}
	}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch block.Type {
		case publicBlock:
			s.public, s.device = block.Bytes, block.Headers[deviceHeader]
		case privateBlock:
			s.private = block.Bytes
		}
	}
	if s.recipient == "" || s.device == "" || len(s.public) == 0 || len(s.private) == 0 {
		return sealedText{}, ErrDamaged
	}
	return s, nil
}

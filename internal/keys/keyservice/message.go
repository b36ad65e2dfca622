package keyservice

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/lever-link/lever/internal/keys"
)

// MaxMessage is how long a message can be, and MaxKeyID how long a key id.
const (
	MaxMessage = messageFixed + MaxKeyID
	MaxKeyID   = 128
)

// Kind is what a message says.
type Kind uint8

// The kinds.
const (
	// Offer: the service here has given a key for the epoch, and this is its id.
	Offer Kind = iota + 1
	// Got: the epoch is taken here, by the key with this id; by one that is gone, if
	// there is no id.
	Got
	// Lost: the service here does not give the key with this id. Without an id there is
	// no key for the number here at all, after a restart for instance, and the
	// generation is the first that is free.
	Lost
)

// String is the kind's name.
func (k Kind) String() string {
	switch k {
	case Offer:
		return "offer"
	case Got:
		return "got"
	case Lost:
		return "lost"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Message is what two ends tell each other of a key. Nothing of it is secret, and
// nothing of it is authenticated: whoever is on the link may write one.
type Message struct {
	Kind  Kind
	Link  [16]byte // HashLink of its id
	Side  keys.Side
	Epoch keys.Epoch
	KeyID string // as the service spells it; empty with Got and Lost only
}

// HashLink is how a message names its link: the start of SHA-256 of the link's id.
func HashLink(link string) [16]byte {
	sum := sha256.Sum256([]byte(link))
	return [16]byte(sum[:16])
}

// A message is: version, kind, side, link, number and generation of the epoch, all
// integers big-endian, length of the key id and the key id. There is one way to
// write each.
const (
	messageVersion = 1
	messageFixed   = 1 + 1 + 1 + 16 + 8 + 4 + 1
)

// ErrMessage means that octets are no message.
var ErrMessage = errors.New("not a message about a key")

// Encode is the message's octets. It fails with what Decode would refuse.
func (m Message) Encode() ([]byte, error) {
	if err := m.valid(); err != nil {
		return nil, err
	}
	b := make([]byte, 0, messageFixed+len(m.KeyID))
	b = append(b, messageVersion, byte(m.Kind), byte(m.Side))
	b = append(b, m.Link[:]...)
	b = binary.BigEndian.AppendUint64(b, m.Epoch.Number)
	b = binary.BigEndian.AppendUint32(b, m.Epoch.Generation)
	b = append(b, byte(len(m.KeyID)))
	return append(b, m.KeyID...), nil
}

// Decode reads what Encode writes, and nothing else.
func Decode(b []byte) (Message, error) {
	if len(b) < messageFixed {
		return Message{}, fmt.Errorf("%w: %d octets, want at least %d", ErrMessage, len(b), messageFixed)
	}
	if b[0] != messageVersion {
		return Message{}, fmt.Errorf("%w: version %d, want %d", ErrMessage, b[0], messageVersion)
	}
	m := Message{
		Kind: Kind(b[1]), Side: keys.Side(b[2]), Link: [16]byte(b[3:]),
		Epoch: keys.Epoch{Number: binary.BigEndian.Uint64(b[19:]), Generation: binary.BigEndian.Uint32(b[27:])},
	}
	if n := int(b[31]); n != len(b)-messageFixed {
		return Message{}, fmt.Errorf("%w: a key id of %d octets, %d follow", ErrMessage, n, len(b)-messageFixed)
	}
	m.KeyID = string(b[messageFixed:])
	return m, m.valid()
}

func (m Message) valid() error {
	switch {
	case m.Kind < Offer || m.Kind > Lost:
		return fmt.Errorf("%w: %v", ErrMessage, m.Kind)
	case m.Side > keys.B:
		return fmt.Errorf("%w: side %d", ErrMessage, uint8(m.Side))
	case m.Epoch.Number == 0:
		return fmt.Errorf("%w: no epoch", ErrMessage)
	case m.Epoch.Generation > keys.MaxGeneration:
		return fmt.Errorf("%w: generation %d", ErrMessage, m.Epoch.Generation)
	case m.KeyID == "" && m.Kind != Offer:
		return nil
	case !ValidKeyID(m.KeyID):
		return fmt.Errorf("%w: a key id that no service gives", ErrMessage)
	}
	return nil
}

// ValidKeyID says whether a key id can be one: 1 to MaxKeyID letters, digits and
// - . _ ~ : of ASCII. That has room for the UUIDs of ETSI GS QKD 014 and for the
// hexadecimal digits of SKIP, and nothing that means something in a URL or a log.
func ValidKeyID(id string) bool {
	if id == "" || len(id) > MaxKeyID || id == "." || id == ".." {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '-', c == '.', c == '_', c == '~', c == ':':
		default:
			return false
		}
	}
	return true
}

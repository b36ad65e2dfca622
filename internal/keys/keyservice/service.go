package keyservice

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
)

// MinKey is the least number of octets that a key must have, and what is asked for.
// A service may give more, up to MaxKey; all of them are used.
const (
	MinKey = keys.MinMaterial
	MaxKey = 512
)

// Service is a node's key service as this node sees it: one protocol. It is called
// for one link at a time, but for several links at once.
type Service interface {
	// Kind is the type of the channel in the inventory.
	Kind() string
	// Where is the service's URL.
	Where() string
	// New asks for a key that the far node can ask for, too. The id is a ValidKeyID.
	New(ctx context.Context, far string) (id string, key secret.Key, err error)
	// Get asks for the key that the far node was given under that id.
	Get(ctx context.Context, far, id string) (secret.Key, error)
	// Findings are what is wrong with the way to the service although it works, or
	// soon will be: certificates, and how keys are agreed on.
	Findings() []keys.Finding
}

// Refusal is an answer of the service that has no key in it. Other errors of a
// Service mean that there was no answer.
type Refusal struct {
	Status int // of HTTP
	// Unknown is set when the service says no more than that it does not have the key.
	Unknown bool
	// Detail is the rest in words, without anything that might be a key.
	Detail string
}

// Error implements error.
func (e *Refusal) Error() string {
	if e.Status == 0 || e.Status == http.StatusOK {
		return e.Detail
	}
	s := fmt.Sprintf("status %d", e.Status)
	if text := http.StatusText(e.Status); text != "" {
		s += " (" + text + ")"
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Malformed is the Refusal for an answer that is not what the protocol says.
func Malformed(format string, args ...any) *Refusal {
	return &Refusal{Detail: "its answer is not one: " + fmt.Sprintf(format, args...)}
}

// finding is an error of a Service as operators see it.
func finding(err error) keys.Finding {
	if refused, ok := errors.AsType[*Refusal](err); ok {
		return keys.Finding{Code: health.KeyServiceRefused, Detail: refused.Error()}
	}
	return keys.Finding{Code: health.ChannelUnreachable, Detail: err.Error()}
}

// maxQuote is how much is shown of what somebody else wrote.
const maxQuote = 200

// perhapsKey is what might be a key: 32 octets have 43 characters in base64, and 64 in
// hexadecimal. A UUID has 36.
var perhapsKey = regexp.MustCompile(`[A-Za-z0-9+/_=-]{41,}`)

// Quote makes what somebody else wrote fit to be shown: one line of printable ASCII,
// of a bounded length, without anything that might be a key where none should be.
func Quote(text string) string {
	text = text[:min(len(text), 16*maxQuote)]
	text = perhapsKey.ReplaceAllLiteralString(text, "(left out)")
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\r', r == '\t':
			return ' '
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, text)
	text = strings.TrimSpace(text)
	if len(text) > maxQuote {
		text = text[:maxQuote] + " (and more)"
	}
	return text
}

// Package skip is the channel type skip: pre-key material from a key provider by the
// Secure Key Integration Protocol (draft-cisco-skip, and its successor
// draft-singh-skip).
//
// What belongs here: its requests and answers. When a key is asked for, how its id
// comes to the far end and what is done about faults is the same for all key services
// and does not belong here, nor does the HTTPS client: see internal/keys/keyservice.
package skip

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyservice"
	"github.com/lever-link/lever/internal/secret"
)

// New makes the channel. The nodes' names are the system ids of their key providers.
func New(o keyservice.Options) (*keyservice.Channel, error) {
	s, err := newService(o)
	if err != nil {
		return nil, err
	}
	return keyservice.New(s, o)
}

// service is a key provider. The draft has TLS with pre-shared keys as well, with which
// Go's TLS does not begin: providers must be set up for certificates.
type service struct {
	client *keyservice.Client
	node   string

	mu sync.Mutex
	// capable are the far ends for which the provider was found to give keys.
	capable map[string]bool
}

var _ keyservice.Service = (*service)(nil)

func newService(o keyservice.Options) (*service, error) {
	client, err := keyservice.NewClient(o)
	if err != nil {
		return nil, err
	}
	return &service{client: client, node: o.Node, capable: map[string]bool{}}, nil
}

// Kind implements keyservice.Service.
func (*service) Kind() string { return "skip" }

// Where implements keyservice.Service.
func (s *service) Where() string { return s.client.Where() }

// Findings implements keyservice.Service.
func (s *service) Findings() []keys.Finding { return s.client.Findings() }

// bits is the size of key that is asked for.
const bits = 8 * keyservice.MinKey

// capabilities is what a provider can do (section 4.1).
type capabilities struct {
	Entropy bool     `json:"entropy"`
	Key     bool     `json:"key"`
	Local   string   `json:"localSystemID"`
	Remote  []string `json:"remoteSystemID"`
}

// keyAnswer is a key and its id (section 4.2).
type keyAnswer struct {
	ID  string          `json:"keyId"`
	Key json.RawMessage `json:"key"`
}

// New implements keyservice.Service: the method key (section 4.2).
func (s *service) New(ctx context.Context, far string) (string, secret.Key, error) {
	if err := s.check(ctx, far); err != nil {
		return "", secret.Key{}, err
	}
	return s.key(ctx, "/key", fmt.Sprintf("remoteSystemID=%s&size=%d", url.QueryEscape(far), bits))
}

// Get implements keyservice.Service: the method key with an id (section 4.2).
func (s *service) Get(ctx context.Context, far, id string) (secret.Key, error) {
	if err := s.check(ctx, far); err != nil {
		return secret.Key{}, err
	}
	// An id that is not known is a bad request; some say not found.
	got, key, err := s.key(ctx, "/key/"+url.PathEscape(id), "remoteSystemID="+url.QueryEscape(far), http.StatusBadRequest, http.StatusNotFound)
	if err == nil && !strings.EqualFold(got, id) {
		key.Erase()
		err = keyservice.Malformed("it has the key of another id")
	}
	if err != nil {
		return secret.Key{}, err
	}
	return key, nil
}

func (s *service) key(ctx context.Context, path, query string, unknown ...int) (string, secret.Key, error) {
	answer, err := s.client.Do(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return "", secret.Key{}, err
	}
	if answer.Status != http.StatusOK {
		return "", secret.Key{}, keyservice.Refused(answer, unknown...)
	}
	var a keyAnswer
	defer func() { clear(a.Key) }()
	if err := keyservice.Read(answer, &a); err != nil {
		return "", secret.Key{}, err
	}
	key, err := keyservice.HexKey(a.Key)
	return a.ID, key, err
}

// check asks once what the provider can do: what it cannot it would refuse, and say
// less.
func (s *service) check(ctx context.Context, far string) error {
	s.mu.Lock()
	done := s.capable[far]
	s.mu.Unlock()
	if done {
		return nil
	}
	answer, err := s.client.Do(ctx, http.MethodGet, "/capabilities", "", nil)
	if err != nil {
		return err
	}
	if answer.Status != http.StatusOK {
		return keyservice.Refused(answer)
	}
	var c capabilities
	if err := keyservice.Read(answer, &c); err != nil {
		return err
	}
	switch {
	case !c.Key:
		return &keyservice.Refusal{Detail: "by its capabilities it gives no keys"}
	case c.Local != "" && c.Local != s.node:
		return &keyservice.Refusal{Detail: fmt.Sprintf("by its capabilities it is the provider %q, and the far end asks for keys with %q, this node's name", keyservice.Quote(c.Local), s.node)}
	case len(c.Remote) > 0 && !slices.ContainsFunc(c.Remote, func(pattern string) bool { return matches(pattern, far) }):
		return &keyservice.Refusal{Detail: fmt.Sprintf("by its capabilities it has no keys with %q", far)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.capable[far] = true
	return nil
}

// matches compares a system id with one of a provider's, which may have asterisks in
// it for any text.
func matches(pattern, id string) bool {
	ok, err := path.Match(pattern, id)
	return err == nil && ok
}

// Entropy is random octets of the provider's (section 4.3). No key needs them; with
// them an operator sees that a provider works.
func (s *service) Entropy(ctx context.Context, bits int) (secret.Key, error) {
	answer, err := s.client.Do(ctx, http.MethodGet, "/entropy", fmt.Sprintf("minentropy=%d", bits), nil)
	if err != nil {
		return secret.Key{}, err
	}
	if answer.Status != http.StatusOK {
		return secret.Key{}, keyservice.Refused(answer)
	}
	var a struct {
		Random json.RawMessage `json:"randomStr"`
		Bits   int             `json:"minentropy"`
	}
	defer func() { clear(a.Random) }()
	if err := keyservice.Read(answer, &a); err != nil {
		return secret.Key{}, err
	}
	key, err := keyservice.HexKey(a.Random)
	if err == nil && (a.Bits < bits || 8*key.Len() < bits) {
		key.Erase()
		err = keyservice.Malformed("it has less entropy than was asked for")
	}
	if err != nil {
		return secret.Key{}, err
	}
	return key, nil
}

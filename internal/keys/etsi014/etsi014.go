// Package etsi014 is the channel type etsi014: pre-key material from a key management
// entity (KME) by ETSI GS QKD 014 V1.1.1, the REST interface of systems for quantum
// key distribution.
//
// What belongs here: its requests and answers. When a key is asked for, how its id
// comes to the far end and what is done about faults is the same for all key services
// and does not belong here, nor does the HTTPS client: see internal/keys/keyservice.
package etsi014

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyservice"
	"github.com/lever-link/lever/internal/secret"
)

// New makes the channel. The nodes' names are the ids of their SAEs, as the KMEs know
// the applications that they serve.
func New(o keyservice.Options) (*keyservice.Channel, error) {
	s, err := newService(o)
	if err != nil {
		return nil, err
	}
	return keyservice.New(s, o)
}

// service is a KME. The clauses are those of ETSI GS QKD 014 V1.1.1.
type service struct {
	client *keyservice.Client
	// getOnly is set once the KME has refused the method POST: a request that wants
	// one key of a size may be made by GET just as well (5.2, 5.3).
	getOnly atomic.Bool
}

var _ keyservice.Service = (*service)(nil)

func newService(o keyservice.Options) (*service, error) {
	client, err := keyservice.NewClient(o)
	if err != nil {
		return nil, err
	}
	return &service{client: client}, nil
}

// Kind implements keyservice.Service.
func (*service) Kind() string { return "etsi014" }

// Where implements keyservice.Service.
func (s *service) Where() string { return s.client.Where() }

// Findings implements keyservice.Service.
func (s *service) Findings() []keys.Finding { return s.client.Findings() }

// bits is the size of key that is asked for.
const bits = 8 * keyservice.MinKey

// keyContainer is the key container of 6.3. There is more in it for extensions.
type keyContainer struct {
	Keys []struct {
		ID  string          `json:"key_ID"`
		Key json.RawMessage `json:"key"`
	} `json:"keys"`
}

// status is the part of the status of 6.1 that says why there may be no key.
type status struct {
	StoredKeys *int `json:"stored_key_count"`
	MaxKeySize *int `json:"max_key_size"`
	MinKeySize *int `json:"min_key_size"`
}

// path is that of a method for the SAE at the far end (5.1 to 5.3).
func path(far, method string) string { return "/api/v1/keys/" + url.PathEscape(far) + "/" + method }

// New implements keyservice.Service: "get key" (5.2) with this node as master.
func (s *service) New(ctx context.Context, far string) (string, secret.Key, error) {
	request := struct {
		Number int `json:"number"`
		Size   int `json:"size"`
	}{1, bits}
	answer, err := s.do(ctx, path(far, "enc_keys"), fmt.Sprintf("number=1&size=%d", bits), request)
	if err != nil {
		return "", secret.Key{}, err
	}
	if answer.Status != http.StatusOK {
		refused := keyservice.Refused(answer)
		s.explain(ctx, far, refused)
		return "", secret.Key{}, refused
	}
	return one(answer)
}

// Get implements keyservice.Service: "get key with key IDs" (5.3), for which the far
// end is the master.
func (s *service) Get(ctx context.Context, far, id string) (secret.Key, error) {
	type keyID struct {
		ID string `json:"key_ID"`
	}
	request := struct {
		IDs []keyID `json:"key_IDs"`
	}{[]keyID{{id}}}
	answer, err := s.do(ctx, path(far, "dec_keys"), "key_ID="+url.QueryEscape(id), request)
	if err != nil {
		return secret.Key{}, err
	}
	if answer.Status != http.StatusOK {
		// A key that is not there is a bad request (5.3); some say not found, or gone.
		return secret.Key{}, keyservice.Refused(answer, http.StatusBadRequest, http.StatusNotFound, http.StatusGone)
	}
	got, key, err := one(answer)
	if err == nil && !strings.EqualFold(got, id) {
		key.Erase()
		err = keyservice.Malformed("it has the key of another id")
	}
	if err != nil {
		return secret.Key{}, err
	}
	return key, nil
}

// do makes a request by POST, or by GET if the KME knows that alone.
func (s *service) do(ctx context.Context, path, query string, body any) (keyservice.Answer, error) {
	if !s.getOnly.Load() {
		text, err := json.Marshal(body)
		if err != nil {
			return keyservice.Answer{}, fmt.Errorf("make a request: %w", err)
		}
		answer, err := s.client.Do(ctx, http.MethodPost, path, "", text)
		if err != nil || answer.Status != http.StatusMethodNotAllowed {
			return answer, err
		}
		s.getOnly.Store(true)
	}
	return s.client.Do(ctx, http.MethodGet, path, query, nil)
}

// one is the single key of an answer, which it erases.
func one(answer keyservice.Answer) (id string, key secret.Key, err error) {
	var c keyContainer
	// Whatever becomes of it, none of the keys stays.
	defer func() {
		for _, k := range c.Keys {
			clear(k.Key)
		}
	}()
	if err := keyservice.Read(answer, &c); err != nil {
		return "", secret.Key{}, err
	}
	if len(c.Keys) != 1 {
		return "", secret.Key{}, keyservice.Malformed("there are %d keys in it, and one was asked for", len(c.Keys))
	}
	key, err = keyservice.Base64Key(c.Keys[0].Key)
	return c.Keys[0].ID, key, err
}

// explain adds to a refusal what the KME's status (5.1) says about it.
func (s *service) explain(ctx context.Context, far string, r *keyservice.Refusal) {
	answer, err := s.client.Do(ctx, http.MethodGet, path(far, "status"), "", nil)
	if err != nil {
		return
	}
	if answer.Status != http.StatusOK {
		answer.Erase()
		return
	}
	var st status
	if keyservice.Read(answer, &st) != nil {
		return
	}
	var why error
	switch {
	case st.StoredKeys != nil && *st.StoredKeys <= 0:
		why = errors.New("by its status it has no keys for the far end in store")
	case st.MaxKeySize != nil && *st.MaxKeySize < bits, st.MinKeySize != nil && *st.MinKeySize > bits:
		why = fmt.Errorf("by its status it has no keys of %d bits for the far end", bits)
	default:
		return
	}
	if r.Detail != "" {
		r.Detail += "; "
	}
	r.Detail += why.Error()
}

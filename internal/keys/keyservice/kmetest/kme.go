// Package kmetest is a key service for tests: key management entities, one beside each
// node, that share keys, each of which is given once to each of two nodes.
//
// What belongs here: the protocols' server side, written from the fields of ETSI GS
// QKD 014 and of SKIP, its faults, and transcripts of what was said. What does not:
// anything that an agent needs. Its keys are computed from their ids and secret to
// nobody.
package kmetest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

// Network is entities that are connected.
type Network struct {
	mu   sync.Mutex
	keys map[string]*entry
	made int
}

// entry is a key that one node was given and another can ask for.
type entry struct {
	key      []byte
	from, to string
	arrives  time.Time // at the other entity
	never    bool
}

// NewNetwork makes one without entities.
func NewNetwork() *Network { return &Network{keys: map[string]*entry{}} }

// Faults of an entity. The zero Faults are none.
type Faults struct {
	// Unsynchronised: keys that are given here never arrive at the other entity.
	Unsynchronised bool
	// Late: they arrive after this time.
	Late time.Duration
	// Empty: there is no key in store.
	Empty bool
	// WrongKey: another key is given for an id.
	WrongKey bool
	// Slow: each answer takes this time.
	Slow time.Duration
	// Status and Body, if set, are the answer to everything.
	Status int
	Body   string
	// GetOnly: the method POST is not known.
	GetOnly bool
	// Local is the system id that it says that it has, instead of its node's name.
	Local string
}

// KME is the entity beside one node.
type KME struct {
	net  *Network
	node string

	mu       sync.Mutex
	faults   Faults
	requests map[string]int
}

// KME makes the entity beside a node.
func (n *Network) KME(node string) *KME {
	return &KME{net: n, node: node, requests: map[string]int{}}
}

// Set sets the faults.
func (k *KME) Set(f Faults) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.faults = f
}

// Requests is how many requests there were of a kind: status, new, get, capabilities,
// entropy.
func (k *KME) Requests(kind string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.requests[kind]
}

// count counts a request and returns the faults of now.
func (k *KME) count(kind string) Faults {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.requests[kind]++
	return k.faults
}

// Key is the key that has an id, which any entity computes alike.
func Key(id string) []byte {
	sum := sha256.Sum256([]byte("test key " + id))
	return sum[:]
}

// give makes a key for a node and another.
func (n *Network) give(from, to string, f Faults) (id string, key []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.made++
	sum := sha256.Sum256(fmt.Appendf(nil, "test key id %d", n.made))
	h := hex.EncodeToString(sum[:16])
	id = fmt.Sprintf("%s-%s-%s-%s-%s", h[:8], h[8:12], h[12:16], h[16:20], h[20:])
	n.keys[id] = &entry{key: Key(id), from: from, to: to, arrives: time.Now().Add(f.Late), never: f.Unsynchronised}
	return id, Key(id)
}

// take gives the other node its key, once.
func (n *Network) take(from, to, id string, f Faults) ([]byte, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.keys[id]
	if e == nil || e.from != from || e.to != to || e.never || time.Now().Before(e.arrives) {
		return nil, false
	}
	delete(n.keys, id)
	if f.WrongKey {
		return Key("another than " + id), true
	}
	return e.key, true
}

// ServeHTTP implements http.Handler: both protocols, each at its own paths.
func (k *KME) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mux := http.NewServeMux()
	k.etsi014(mux)
	k.skip(mux)
	k.mu.Lock()
	f := k.faults
	k.mu.Unlock()
	if f.Slow > 0 {
		slow := time.NewTimer(f.Slow)
		defer slow.Stop()
		select {
		case <-slow.C:
		case <-r.Context().Done():
			return
		}
	}
	if r.TLS != nil && (len(r.TLS.PeerCertificates) == 0 || r.TLS.PeerCertificates[0].Subject.CommonName != k.node) {
		message(w, http.StatusUnauthorized, "the certificate is another node's")
		return
	}
	if f.Status != 0 {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(f.Status)
		_, _ = w.Write([]byte(f.Body))
		return
	}
	mux.ServeHTTP(w, r)
}

// RoundTrip implements http.RoundTripper, so that a client can have the entity without
// a network.
func (k *KME) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	k.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

package agent

import (
	"encoding/json"
	"time"

	"github.com/lever-link/lever/internal/health"
)

// State is where a link stands.
type State string

// The states of a link.
const (
	StateSecured     State = "secured"          // both ways, with every peer
	StateNegotiating State = "negotiating"      // MKA has not, or not yet again, agreed
	StateWaiting     State = "waiting-for-keys" // no epoch that both channels delivered
	StateFailed      State = "failed"           // the link cannot be set up, see its faults
	StateInside      State = "inside"           // inside physical control: left alone
	StateExempt      State = "exempt"           // an approved override: left alone
	StateDown        State = "down"             // taken down by `lever down`
	StateRemoved     State = "removed"          // no longer in the inventory: without keys, and without plain frames
)

// Status is what an agent says of its node.
type Status struct {
	Node   string         `json:"node"`
	Faults []health.Fault `json:"faults"` // of the node as a whole, such as of its inventory
	Links  []LinkStatus   `json:"links"`
}

// LinkStatus is what it says of a link. Identifiers are hexadecimal.
type LinkStatus struct {
	ID              string         `json:"id"`
	Interface       string         `json:"interface"`
	SecureInterface string         `json:"secure_interface,omitempty"`
	Verdict         string         `json:"verdict"`
	Reason          string         `json:"reason"`
	State           State          `json:"state"`
	Cipher          string         `json:"cipher,omitempty"`
	CKN             string         `json:"ckn,omitempty"`
	Epoch           string         `json:"epoch,omitempty"`
	Offers          []string       `json:"offers,omitempty"`     // the CKNs that this end speaks MKA with, the best first
	KeyServer       string         `json:"key_server,omitempty"` // SCI
	LocalSCI        string         `json:"local_sci,omitempty"`
	AN              *uint8         `json:"an,omitempty"`
	KN              uint32         `json:"kn,omitempty"`
	Peers           []PeerStatus   `json:"peers,omitempty"`
	DelayProtect    bool           `json:"delay_protect,omitempty"`
	SuspendedUntil  *time.Time     `json:"suspended_until,omitempty"` // this end has announced to be away
	SecuredSince    *time.Time     `json:"secured_since,omitempty"`
	LastRekey       *time.Time     `json:"last_rekey,omitempty"`
	Rekeys          uint64         `json:"rekeys"`
	Faults          []health.Fault `json:"faults"`
}

// PeerStatus is one member at the far end.
type PeerStatus struct {
	SCI  string `json:"sci"`
	Live bool   `json:"live"`
	// SuspendedUntil is until when it has announced to be silent; its silence is
	// no fault before.
	SuspendedUntil *time.Time `json:"suspended_until,omitempty"`
}

// MarshalJSON writes an empty list, not null, for a link without faults.
func (l LinkStatus) MarshalJSON() ([]byte, error) {
	type plain LinkStatus
	if l.Faults == nil {
		l.Faults = []health.Fault{}
	}
	return json.Marshal(plain(l))
}

// setStatus publishes a link's status and wakes whoever watches.
func (s *server) setStatus(l LinkStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status[l.ID] = l
	close(s.changed)
	s.changed = make(chan struct{})
}

// snapshot is the status of all links in the inventory's order, and a channel
// that closes when it is out of date.
func (s *server) snapshot() (Status, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Node: s.opts.Node, Faults: s.nodeFaults.List(), Links: make([]LinkStatus, 0, len(s.order))}
	for _, id := range s.order {
		st.Links = append(st.Links, s.status[id])
	}
	return st, s.changed
}

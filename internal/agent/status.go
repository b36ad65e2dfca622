package agent

import (
	"encoding/json"
	"reflect"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/mka"
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
	StateUnattended  State = "unattended"       // no agent answers: see what the kernel has
)

// States are all states that an agent gives a link.
func States() []State {
	return []State{StateSecured, StateNegotiating, StateWaiting, StateFailed, StateInside, StateExempt, StateDown, StateRemoved}
}

// Traffic is what becomes of what is sent on a link's secured device.
type Traffic string

// The kinds of traffic.
const (
	TrafficProtected Traffic = "protected" // it leaves encrypted
	TrafficStopped   Traffic = "stopped"   // it is dropped: no SA is in use
	TrafficPlain     Traffic = "plain"     // the link was taken down: nothing is encrypted
)

// Status is what an agent says of its node.
type Status struct {
	Node   string         `json:"node"`
	Faults []health.Fault `json:"faults"` // of the node as a whole, such as of its inventory
	Links  []LinkStatus   `json:"links"`
	// Unanswered is why the agent's own word is missing; what there is comes from
	// the run directory and the kernel then.
	Unanswered string `json:"unanswered,omitempty"`
	// Unseen is why the kernel's side is missing.
	Unseen string `json:"unseen,omitempty"`
}

// LinkStatus is what it says of a link. Identifiers are hexadecimal.
type LinkStatus struct {
	ID              string   `json:"id"`
	Interface       string   `json:"interface"`
	SecureInterface string   `json:"secure_interface,omitempty"`
	Verdict         string   `json:"verdict"`
	Reason          string   `json:"reason"`
	State           State    `json:"state"`
	Cipher          string   `json:"cipher,omitempty"`
	CKN             string   `json:"ckn,omitempty"`
	Epoch           string   `json:"epoch,omitempty"`
	Offers          []string `json:"offers,omitempty"`     // the CKNs that this end speaks MKA with, the best first
	KeyServer       string   `json:"key_server,omitempty"` // SCI
	LocalSCI        string   `json:"local_sci,omitempty"`
	AN              *uint8   `json:"an,omitempty"`
	KN              uint32   `json:"kn,omitempty"`
	// Traffic says what the state means for frames; TrafficDetail is why.
	Traffic        Traffic        `json:"traffic,omitempty"`
	TrafficDetail  string         `json:"traffic_detail,omitempty"`
	Peers          []PeerStatus   `json:"peers,omitempty"`
	DelayProtect   bool           `json:"delay_protect,omitempty"`
	SuspendedUntil *time.Time     `json:"suspended_until,omitempty"` // this end has announced to be away
	SecuredSince   *time.Time     `json:"secured_since,omitempty"`
	LastRekey      *time.Time     `json:"last_rekey,omitempty"`
	Rekeys         uint64         `json:"rekeys"`
	Faults         []health.Fault `json:"faults"`
	// Fence and Associations are what the kernel should have; absent when there
	// is nothing, or nothing known at the moment.
	Fence        *FenceStatus        `json:"fence,omitempty"`
	Associations []AssociationStatus `json:"associations,omitzero"`
	// Kernel is what it does have. It is not the agent's word: whoever asks for
	// the status reads it.
	Kernel *KernelStatus `json:"kernel,omitempty"`
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
	s.said[l.ID], s.status[l.ID] = l, s.whole(l)
	s.wakeWatchers()
}

// setStatusIfNew is setStatus for what is said again and again.
func (s *server) setStatusIfNew(l LinkStatus) {
	s.mu.Lock()
	old, known := s.said[l.ID]
	s.mu.Unlock()
	if !known || !reflect.DeepEqual(old, l) {
		s.setStatus(l)
	}
}

// wakeWatchers tells whoever watches that the status has changed. The caller holds
// s.mu.
func (s *server) wakeWatchers() {
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

// trafficNow says what becomes of frames, whatever MKA says at the moment. When
// the far end's agent is away, its kernel need not be: what works keeps working.
func (t *task) trafficNow(st *mka.Status) (Traffic, string) {
	lost := len(t.lost) > 0
	switch {
	case !st.Carrying && lost:
		return TrafficStopped, "no SA is in use: frames are dropped, and nothing leaves in plain"
	case !st.Carrying:
		return TrafficStopped, "no key is agreed yet: frames are dropped, and nothing leaves in plain"
	case st.Secured:
		return TrafficProtected, "frames leave encrypted, and every live peer has the key"
	case lost:
		return TrafficProtected, "the SAs that worked are kept: frames leave encrypted, and arrive if the far end has kept its own; nothing leaves in plain"
	}
	return TrafficProtected, "the SAs of before are kept: frames leave encrypted while MKA agrees anew"
}

// lose remembers a peer that has fallen silent.
func (t *task) lose(peer mka.SCI, now time.Time) {
	if t.lost == nil {
		t.lost = map[mka.SCI]time.Time{}
	}
	t.lost[peer] = now.Add(-t.link.MKA.Life)
}

// welcome forgets of whom was missing when as many are live as there are far ends:
// one has come back under another SCI.
func (t *task) welcome(st *mka.Status) {
	live := 0
	for _, pe := range peersOf(st) {
		if pe.Live {
			live++
		}
	}
	if live >= len(t.link.Remote) {
		t.lost = nil
	}
}

// mourn has faults say which peers have fallen silent, and what becomes of frames
// meanwhile.
func (t *task) mourn(traffic string) {
	var faults []health.Fault
	for peer := range t.lost {
		faults = append(faults, t.lostFault(peer, traffic))
	}
	t.faults.Replace([]health.Code{health.PeerLost}, faults)
}

func (t *task) lostFault(peer mka.SCI, traffic string) health.Fault {
	heard := t.lost[peer]
	return health.Raise(health.PeerLost, heard.Add(t.link.MKA.Life), "peer", peer, "interface", t.parent.name,
		"since", heard.Format(time.TimeOnly), "traffic", traffic)
}

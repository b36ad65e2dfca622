package lab

import (
	"fmt"
	"strings"
	"time"
)

// NodeStatus is what is read of `lever status -o json`. It reads it as
// anybody's script would, hence the types of its own.
type NodeStatus struct {
	Node  string       `json:"node"`
	Links []LinkStatus `json:"links"`
}

// LinkStatus is what is read of a link there.
type LinkStatus struct {
	ID              string        `json:"id"`
	Interface       string        `json:"interface"`
	SecureInterface string        `json:"secure_interface"`
	Verdict         string        `json:"verdict"`
	Reason          string        `json:"reason"`
	State           string        `json:"state"`
	Cipher          string        `json:"cipher"`
	CKN             string        `json:"ckn"`
	Epoch           string        `json:"epoch"`
	KeyServer       string        `json:"key_server"`
	LocalSCI        string        `json:"local_sci"`
	AN              int           `json:"an"`
	KN              uint32        `json:"kn"`
	SecuredSince    time.Time     `json:"secured_since"`
	Rekeys          int           `json:"rekeys"`
	Faults          []FaultStatus `json:"faults"`
}

// FaultStatus is what is read of a fault there.
type FaultStatus struct {
	Code string `json:"code"`
	Text string `json:"text"`
	Next string `json:"next"`
}

// StateSecured is a link's state when both ways are encrypted.
const StateSecured = "secured"

// Of finds what the status of a node says of a link.
func (s NodeStatus) Of(node, link string) (LinkStatus, error) {
	if s.Node != node {
		return LinkStatus{}, fmt.Errorf("lever status -o json on %s says that it is node %q", node, s.Node)
	}
	for _, l := range s.Links {
		if l.ID == link {
			return l, nil
		}
	}
	return LinkStatus{}, fmt.Errorf("lever status -o json on %s does not list link %s", node, link)
}

// Fault finds a fault by its code.
func (l LinkStatus) Fault(code string) (FaultStatus, bool) {
	for _, f := range l.Faults {
		if f.Code == code {
			return f, true
		}
	}
	return FaultStatus{}, false
}

// String is for errors.
func (l LinkStatus) String() string {
	parts := []string{fmt.Sprintf("state %s, CKN %s, KN %d, AN %d", l.State, Abbreviated(l.CKN), l.KN, l.AN)}
	for _, f := range l.Faults {
		parts = append(parts, f.Code+": "+f.Text)
	}
	return strings.Join(parts, "; ")
}

// Abbreviated keeps as much of a long identifier as tells it from others.
func Abbreviated(id string) string {
	const keep = 12
	if len(id) <= keep {
		return id
	}
	return id[:keep] + "…"
}

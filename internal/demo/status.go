package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// nodeStatus is what the demo reads of `lever status -o json`. It reads it as
// anybody's script would, hence the types of its own.
type nodeStatus struct {
	Node  string       `json:"node"`
	Links []linkStatus `json:"links"`
}

type linkStatus struct {
	ID              string          `json:"id"`
	Interface       string          `json:"interface"`
	SecureInterface string          `json:"secure_interface"`
	Verdict         string          `json:"verdict"`
	Reason          string          `json:"reason"`
	State           string          `json:"state"`
	Cipher          string          `json:"cipher"`
	CKN             string          `json:"ckn"`
	Epoch           json.RawMessage `json:"epoch"`
	KeyServer       string          `json:"key_server"`
	LocalSCI        string          `json:"local_sci"`
	AN              int             `json:"an"`
	KN              uint32          `json:"kn"`
	SecuredSince    time.Time       `json:"secured_since"`
	Rekeys          int             `json:"rekeys"`
	Faults          []faultStatus   `json:"faults"`
}

type faultStatus struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

const stateSecured = "secured"

// status asks the agent about a link.
func (r *router) status(ctx context.Context, link string) (linkStatus, error) {
	out, err := r.lever(ctx, "status", "-o", "json")
	if err != nil {
		return linkStatus{}, err
	}
	return parseStatus(out, r.name, link)
}

func parseStatus(out []byte, node, link string) (linkStatus, error) {
	var s nodeStatus
	if err := json.Unmarshal(out, &s); err != nil {
		return linkStatus{}, fmt.Errorf("lever status -o json on %s: %w", node, err)
	}
	if s.Node != node {
		return linkStatus{}, fmt.Errorf("lever status -o json on %s says that it is node %q", node, s.Node)
	}
	for _, l := range s.Links {
		if l.ID == link {
			return l, nil
		}
	}
	return linkStatus{}, fmt.Errorf("lever status -o json on %s does not list link %s", node, link)
}

// fault finds a fault by its code.
func (l linkStatus) fault(code string) (faultStatus, bool) {
	for _, f := range l.Faults {
		if f.Code == code {
			return f, true
		}
	}
	return faultStatus{}, false
}

// String is for errors.
func (l linkStatus) String() string {
	s := fmt.Sprintf("state %s, CKN %s, KN %d, AN %d", l.State, abbreviated(l.CKN), l.KN, l.AN)
	for _, f := range l.Faults {
		s += "; " + f.Code + ": " + f.Text
	}
	return s
}

// abbreviated keeps as much of a long identifier as tells it from others.
func abbreviated(id string) string {
	const keep = 12
	if len(id) <= keep {
		return id
	}
	return id[:keep] + "…"
}

// bothStatus waits until both ends' status is as it should be, and returns it.
func (d *demo) bothStatus(ctx context.Context, limit time.Duration, what string, good func(linkStatus) bool) ([2]linkStatus, error) {
	var both [2]linkStatus
	var askErr error
	err := d.await(ctx, limit, what, func() (bool, string) {
		held, seen := true, ""
		for i, r := range d.routers {
			if both[i], askErr = r.status(ctx, d.secured.ID); askErr != nil {
				return false, askErr.Error()
			}
			held = held && good(both[i])
			seen += fmt.Sprintf("%s: %s. ", r.name, both[i])
		}
		return held, seen
	})
	return both, err
}

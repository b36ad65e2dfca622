package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
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

// parseStatus reads one answer.
func parseStatus(out []byte, node, link string) (linkStatus, error) {
	var s nodeStatus
	if err := json.Unmarshal(out, &s); err != nil {
		return linkStatus{}, fmt.Errorf("lever status -o json on %s: %w", node, err)
	}
	return s.of(node, link)
}

// of finds what the status of a node says of a link.
func (s nodeStatus) of(node, link string) (linkStatus, error) {
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

// A statusUpdate is what a router's agent says from now on, or why it could not
// be asked.
type statusUpdate struct {
	router int
	link   linkStatus
	err    error
}

// bothStatus waits until both ends' status is as it should be, and returns it.
// The agents tell of each change by themselves.
func (d *demo) bothStatus(ctx context.Context, limit time.Duration, what string, good func(linkStatus) bool) ([2]linkStatus, error) {
	ctx, cancel := context.WithCancel(ctx)
	updates := make(chan statusUpdate)
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer cancel()
	for i, r := range d.routers {
		watchers.Go(func() { r.watchStatus(ctx, i, d.secured.ID, updates) })
	}
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	var last [2]statusUpdate
	var both [2]linkStatus
	for i := range last {
		last[i].err = errors.New("no answer yet")
	}
	for {
		select {
		case <-ctx.Done():
			return both, context.Cause(ctx)
		case <-deadline.C:
			seen := ""
			for i, r := range d.routers {
				if last[i].err != nil {
					seen += fmt.Sprintf(" %s: %v.", r.name, last[i].err)
				} else {
					seen += fmt.Sprintf(" %s: %s.", r.name, last[i].link)
				}
			}
			return both, fmt.Errorf("waited %v for %s; seen last:%s", limit, what, seen)
		case u := <-updates:
			last[u.router], both[u.router] = u, u.link
			for _, r := range d.routers {
				if err := r.alive(); err != nil {
					return both, err
				}
			}
		}
		held := true
		for _, u := range last {
			held = held && u.err == nil && good(u.link)
		}
		if held {
			return both, nil
		}
	}
}

// watchStatus runs `lever status --watch`, and again while there is no agent to
// ask, until ctx ends.
func (r *router) watchStatus(ctx context.Context, index int, link string, updates chan<- statusUpdate) {
	tell := func(l linkStatus, err error) {
		select {
		case updates <- statusUpdate{index, l, err}:
		case <-ctx.Done():
		}
	}
	again := time.NewTicker(4 * pollEvery)
	defer again.Stop()
	for ctx.Err() == nil {
		cmd := exec.CommandContext(ctx, r.binary, "status", "--watch", "-o", "json", "--run-dir", r.path(runDir))
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			tell(linkStatus{}, fmt.Errorf("lever status: %w", err))
			return
		}
		for dec := json.NewDecoder(out); ; {
			var s nodeStatus
			if err = dec.Decode(&s); err != nil {
				break
			}
			tell(s.of(r.name, link))
		}
		if waitErr := cmd.Wait(); waitErr != nil {
			err = waitErr
		}
		if ctx.Err() == nil {
			tell(linkStatus{}, fmt.Errorf("lever status --watch: %w: %s", err, strings.TrimSpace(stderr.String())))
		}
		select {
		case <-ctx.Done():
		case <-again.C:
		}
	}
}

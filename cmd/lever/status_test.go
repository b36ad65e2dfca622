//go:build !kernel

package main

import (
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/lever-link/lever/internal/agent"
	"github.com/lever-link/lever/internal/health"
)

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		900 * time.Millisecond:            "0s",
		59 * time.Second:                  "59s",
		5*time.Minute + 12*time.Second:    "5m12s",
		3*time.Hour + 59*time.Minute:      "3h59m",
		400*24*time.Hour + 23*time.Hour:   "400d23h",
		24*time.Hour - time.Nanosecond:    "23h59m",
		time.Hour + time.Second:           "1h0m",
		2*24*time.Hour + 30*time.Minute:   "2d0h",
		time.Minute - time.Nanosecond:     "59s",
		time.Hour - time.Nanosecond:       "59m59s",
		10*time.Minute + time.Millisecond: "10m0s",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%v) is %s, want %s", d, got, want)
		}
	}
}

// A row of the table fits a terminal of 100 columns with everything in it.
func TestStatusTableWidth(t *testing.T) {
	const own, far = "0245a3b2c4d50001", "0245a3b2c4d60001"
	since := time.Now().Add(-29 * time.Hour)
	row := agent.LinkStatus{
		ID: "fra1-ams1-017", Interface: "eth4", SecureInterface: "eth4-sec", Verdict: "encrypt", Reason: "segment 2",
		State: agent.StateSecured, Cipher: "GCM-AES-XPN-256", Epoch: "100.10", KeyServer: own, LocalSCI: own,
		AN: new(uint8(3)), KN: 1234567, SecuredSince: &since, Rekeys: 12345, Peers: []agent.PeerStatus{{SCI: far, Live: true}},
	}
	theirs, group, inside := row, row, agent.LinkStatus{ID: "fra1-r1-r2-001", Interface: "eth1", Verdict: "inside", State: agent.StateInside}
	theirs.KeyServer = far
	group.KeyServer, group.Peers = far, append(group.Peers, agent.PeerStatus{SCI: "0245a3b2c4d70001"})
	for _, tt := range []struct {
		name  string
		links []agent.LinkStatus
		want  []string
	}{
		{"of this end", []agent.LinkStatus{row, inside}, []string{"this end", "1d5h", "3/1234567", "inside"}},
		{"of the far end", []agent.LinkStatus{theirs, inside}, []string{"far end"}},
		{"of a group", []agent.LinkStatus{group}, []string{far}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			if err := printStatus(&out, agent.Status{Node: "fra1-r1", Links: tt.links}); err != nil {
				t.Fatal(err)
			}
			table, _, _ := strings.Cut(out.String(), "\n\n")
			for line := range strings.Lines(table) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 100 && tt.name != "of a group" {
					t.Errorf("%d columns: %s", n, line)
				}
			}
			for _, w := range tt.want {
				if !strings.Contains(table, w) {
					t.Errorf("no %q in\n%s", w, table)
				}
			}
		})
	}
}

// statusExamples are one of each kind that status shows.
func statusExamples() (attended, unattended agent.Status) {
	const own, far, ki = "0245a3b2c4d50001", "0245a3b2c4d60001", "a25f234e4708d4b010f5e87000000002"
	day := time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC)
	rx := []agent.KernelRx{{SCI: far, AN: 1, KI: ki, Active: true, NextPN: 4711}}
	secured := agent.LinkStatus{
		ID: "fra1-ams1-017", Interface: "eth4", SecureInterface: "eth4-sec", Verdict: "encrypt", Reason: "segment 2 (leased-wave) is outside physical control",
		State: agent.StateSecured, Cipher: "GCM-AES-XPN-256", Epoch: "42.0", CKN: "82c8397275af", KeyServer: own, LocalSCI: own, AN: new(uint8(1)), KN: 2,
		Traffic: agent.TrafficProtected, TrafficDetail: "frames leave encrypted, and every live peer has the key",
		Peers: []agent.PeerStatus{{SCI: far, Live: true}}, Rekeys: 1, Fence: &agent.FenceStatus{Mode: "enforce", EtherType: 0x888e},
		Associations: []agent.AssociationStatus{{AN: 1, KI: ki, Transmit: true, Encoding: true, Receive: []string{far}}},
		Kernel: &agent.KernelStatus{
			Cipher: "GCM-AES-XPN-256", Encrypt: true, AN: new(uint8(1)), KI: ki, TxPN: 4242, Rx: rx, Fence: "closed",
			Dropped: agent.Dropped{Egress: 3, Ingress: 5}, Agrees: true,
		},
	}
	differs := secured
	differs.ID, differs.Interface, differs.SecureInterface = "fra1-ams1-018", "eth5", "eth5-sec"
	differs.Kernel = &agent.KernelStatus{
		Cipher: "GCM-AES-XPN-256", AN: new(uint8(1)), KI: ki, TxPN: 4242, Rx: rx, Fence: "open",
		Differs: []string{"the fence on eth5 is not closed: egress priority 5: missing: drop all else", "eth5-sec does not encrypt: encrypt is off"},
	}
	away := secured
	away.ID, away.State, away.KeyServer, away.Peers = "fra1-ams1-019", agent.StateNegotiating, "", []agent.PeerStatus{{SCI: far}}
	away.TrafficDetail = "the SAs that worked are kept: frames leave encrypted, and arrive if the far end has kept its own; nothing leaves in plain"
	away.Faults = []health.Fault{health.Raise(health.PeerLost, day, "peer", far, "interface", "eth4", "since", "17:59:54", "traffic", away.TrafficDetail)}
	inside := agent.LinkStatus{ID: "fra1-r1-r2-001", Interface: "eth1", Verdict: "inside", Reason: "every segment is inside physical control", State: agent.StateInside}
	attended = agent.Status{
		Node: "fra1-r1", Links: []agent.LinkStatus{secured, differs, away, inside},
		Faults: []health.Fault{health.Raise(health.InventoryInvalid, day, "detail", "net.yaml:3:1: no such site")},
	}
	left := agent.LinkStatus{
		ID: secured.ID, Interface: secured.Interface, SecureInterface: secured.SecureInterface, Verdict: "encrypt",
		Reason: "an agent has set it up, and recorded it in /run/lever", State: agent.StateUnattended, Fence: secured.Fence,
		Associations: secured.Associations, Kernel: secured.Kernel,
	}
	unattended = agent.Status{Links: []agent.LinkStatus{left}, Unanswered: "ask the agent at /run/lever/agent.sock: no agent runs here", Faults: []health.Fault{}}
	return attended, unattended
}

// TestStatusGolden holds what people and programs read to files that are read
// before they are committed; go test ./cmd/lever -run TestStatusGolden -update
// writes them.
func TestStatusGolden(t *testing.T) {
	attended, unattended := statusExamples()
	for name, print := range map[string]func(*strings.Builder) error{
		"status.golden":            func(b *strings.Builder) error { return printStatus(b, attended) },
		"status_json.golden":       func(b *strings.Builder) error { return printStatusJSON(b, attended, true) },
		"status_unattended.golden": func(b *strings.Builder) error { return printStatus(b, unattended) },
		"status_line.golden":       func(b *strings.Builder) error { return printStatusJSON(b, unattended, false) },
	} {
		var got strings.Builder
		if err := print(&got); err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile("testdata/"+name, []byte(got.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want := read(t, "testdata/"+name); got.String() != want {
			t.Errorf("%s: look at it, and rewrite it with go test ./cmd/lever -run TestStatusGolden -update:\n%s", name, got.String())
		}
	}
}

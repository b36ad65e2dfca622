//go:build !kernel

package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/lever-link/lever/internal/agent"
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

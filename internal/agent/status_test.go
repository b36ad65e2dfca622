//go:build !kernel

package agent

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/inventory"
)

// decoded is a status as somebody else's program reads it.
func decoded(t *testing.T, v any) map[string]any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func fields(v any) string {
	m, _ := v.(map[string]any)
	return strings.Join(slices.Sorted(maps.Keys(m)), " ")
}

// The names are an interface: dashboards and alerts are written against them.
func TestStatusFieldNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		if err := p.r1.ask("rekey"); err != nil {
			t.Fatal(err)
		}
		e := epoch(t, "2.0")
		p.r1.channels[0].put(e, octets(e, 0))
		p.r1.awaitFault(time.Second, health.ChannelLate)
		all, _ := p.r1.server.snapshot()
		top := decoded(t, all)
		if got, want := fields(top), "faults links node"; got != want || top["node"] != "r1" {
			t.Errorf("the status has %q of %v, want %q", got, top["node"], want)
		}
		link := top["links"].([]any)[0].(map[string]any)
		want := "an associations cipher ckn epoch faults fence id interface key_server kn last_rekey local_sci offers peers reason rekeys " +
			"secure_interface secured_since state traffic traffic_detail verdict"
		if got := fields(link); got != want {
			t.Errorf("a link has\n%s\nwant\n%s", got, want)
		}
		if got, want := fields(link["associations"].([]any)[0]), "an encoding ki receive transmit"; got != want {
			t.Errorf("an association has %q, want %q", got, want)
		}
		if got, want := fields(link["fence"]), "ethertype mode"; got != want {
			t.Errorf("a fence has %q, want %q", got, want)
		}
		kernel := decoded(t, p.r1.looked())["kernel"].(map[string]any)
		if got, want := fields(kernel), "agrees an cipher dropped encrypt fence ki rx tx_pn"; got != want {
			t.Errorf("the kernel's side has %q, want %q", got, want)
		}
		if got, want := fields(kernel["rx"].([]any)[0])+" "+fields(kernel["dropped"]), "active an ki next_pn sci egress ingress"; got != want {
			t.Errorf("a receive SA and drops have %q, want %q", got, want)
		}
		if got, want := fields(link["peers"].([]any)[0]), "live sci"; got != want {
			t.Errorf("a peer has %q, want %q", got, want)
		}
		if got, want := fields(link["faults"].([]any)[0]), "code next severity since text"; got != want {
			t.Errorf("a fault has %q, want %q", got, want)
		}
		for name, want := range map[string]any{
			"id": "l1", "interface": "eth4", "secure_interface": "eth4-sec", "verdict": "encrypt", "state": "secured",
			"cipher": "GCM-AES-XPN-256", "epoch": "1.0", "local_sci": "0200000000010001", "rekeys": 1.0, "kn": 2.0, "an": 1.0,
		} {
			if link[name] != want {
				t.Errorf("%s is %v, want %v", name, link[name], want)
			}
		}
	})
}

func TestLinksLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		inside := inventory.NodeLink{
			Link:  &inventory.Link{ID: "l0", Verdict: inventory.Verdict{Kind: inventory.Inside, Reason: "it stays in building A"}},
			Local: inventory.End{Interface: "eth0", Secure: "eth0-sec"},
		}
		exempt := inventory.NodeLink{
			Link: &inventory.Link{
				ID: "l00", Verdict: inventory.Verdict{Kind: inventory.Exempt, Reason: "override"},
				Override: &inventory.Override{
					Action: inventory.Exempt, Approvers: []string{"ann", "bob"}, Reason: "the optical layer encrypts",
					Expires: time.Date(2030, 5, 1, 0, 0, 0, 0, time.UTC),
				},
			},
			Local: inventory.End{Interface: "eth1", Secure: "eth1-sec"},
		}
		p.r1.start(inside, exempt)
		p.r1.awaitState(0, StateWaiting)
		all, _ := p.r1.server.snapshot()
		if len(all.Links) != 3 || all.Links[0].ID != "l0" || all.Links[1].ID != "l00" || all.Links[2].ID != "l1" {
			t.Fatalf("not in the inventory's order: %+v", all.Links)
		}
		if got := decoded(t, all.Links[0]); fields(got) != "faults id interface reason rekeys state verdict" ||
			got["state"] != "inside" || got["reason"] != "it stays in building A" || len(got["faults"].([]any)) != 0 {
			t.Errorf("inside: %v", got)
		}
		st := all.Links[1]
		if st.State != StateExempt || len(st.Faults) != 1 || st.Faults[0].Code != health.Exempt || st.Faults[0].Severity != health.Info {
			t.Fatalf("exempt: %+v", st)
		}
		for _, part := range []string{"2030-05-01", "the optical layer encrypts", "ann bob"} {
			if !strings.Contains(st.Faults[0].String(), part) {
				t.Errorf("%s does not tell %s", st.Faults[0], part)
			}
		}
		// They have no task, and nobody touches their interfaces.
		if len(p.r1.server.tasks) != 1 {
			t.Errorf("tasks: %v", p.r1.server.tasks)
		}
		for _, did := range p.r1.noted() {
			if strings.Contains(did, "eth0") || strings.Contains(did, "eth1") {
				t.Errorf("a link that is left alone: %s", did)
			}
		}
		for _, verb := range []string{"rekey", "down"} {
			err := p.r1.server.ask(t.Context(), command{Verb: verb, Link: "l0"})
			if err == nil || !strings.Contains(err.Error(), "not encrypted here (inside: it stays in building A)") || !strings.Contains(err.Error(), verb) {
				t.Errorf("%s: %v", verb, err)
			}
		}
	})
}

func TestMonitorOpensTheFenceAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.r1.policy.Mode = inventory.Monitor
		p.r1.port.fenced = true // by an earlier agent
		p.deliver(epoch(t, "1.0"))
		p.start()
		f := p.r1.awaitFault(time.Second, health.FenceOpen)
		if !strings.Contains(f.Text, "eth4") || !strings.Contains(f.Text, "stopped 0 frames") || p.r1.now().fenced || !p.r2.now().fenced {
			t.Errorf("%s; fences %v and %v", f, p.r1.now().fenced, p.r2.now().fenced)
		}
		p.r1.awaitState(time.Second, StateSecured)
		p.r1.change(p.r1.port, func(p *port) { p.plain = 21 })
		time.Sleep(2 * time.Second)
		f = p.r1.awaitFault(0, health.FenceOpen)
		if !strings.Contains(f.Text, "stopped 21 frames on their way out and 42 on their way in") {
			t.Errorf("after plain frames: %s", f)
		}
	})
}

//go:build kernel

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/lab"
)

// wpa_supplicant 2.10 takes a SAK for GCM-AES-256, its driver cannot install it,
// and its MKA goes on as if it had: the ends agree in words, and no data passes.
func TestTrafficMissing(t *testing.T) {
	t.Parallel()
	cak, ckn := octets(32), octets(32)
	m := newMixed(t,
		partySpec{lever: true, cak: cak, ckn: ckn, priority: serving, cipher: "gcm-aes-256"},
		partySpec{cak: cak, ckn: ckn, priority: obeying})
	m.turnOn(0)
	m.turnOn(1)
	m.await("MKA to be content", isSecured)
	began := time.Now()
	var found lab.FaultStatus
	m.must(lab.AwaitAlive(m.ctx(), m.routers, 2*time.Minute, "the fault", func() (bool, string) {
		n, err := lab.Ping(m.ctx(), m.parties[0].space, m.parties[0].addr, m.parties[1].addr, 3, refusedPatience)
		m.must(err)
		if n != 0 {
			t.Fatalf("%d pings were answered", n)
		}
		l := m.await("an answer", func(lab.LinkStatus) bool { return true })[0]
		var raised bool
		found, raised = l.Fault(string(health.TrafficMissing))
		return raised, l.String()
	}))
	t.Logf("after %v: %s", time.Since(began).Round(time.Second), found.Text)
	if !strings.Contains(found.Text, "the direction from there to here is dead") || !strings.Contains(found.Next, "agrees on GCM-AES-256 in MKA") {
		t.Errorf("%+v", found)
	}
	m.await("MKA to be content all the same", isSecured)
}

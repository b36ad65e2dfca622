//go:build kernel

package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/lab"
)

// wpaFaults is what must not come to be secured, with the words of both sides.
func wpaFaults(t *testing.T) {
	cak, ckn := octets(32), octets(32)
	for _, tt := range []struct {
		name       string
		lever, wpa partySpec
		want       health.Code
		words      []string
		wpaSays    string
		wpaSaysNot string
	}{
		{
			name:    "wrong CAK",
			lever:   partySpec{cak: cak, ckn: ckn, priority: serving, cipher: "gcm-aes-128"},
			wpa:     partySpec{cak: octets(32), ckn: ckn, priority: obeying},
			want:    health.ICVMismatch,
			words:   []string{hex.EncodeToString(ckn)},
			wpaSays: "KaY: Computed ICV is not equal to Received ICV",
		},
		{
			name:       "wrong CKN",
			lever:      partySpec{cak: cak, ckn: ckn, priority: serving, cipher: "gcm-aes-128"},
			wpa:        partySpec{cak: cak, ckn: bytes.Repeat([]byte{0xC7}, 16), priority: obeying},
			want:       health.UnknownCKN,
			words:      []string{strings.Repeat("c7", 16)},
			wpaSays:    "KaY: CKN is not included in my CA", // when it is asked for every word; otherwise nothing
			wpaSaysNot: "ICV is not equal",
		},
		{
			name:  "Lever with GCM-AES-256 as client",
			lever: partySpec{cak: cak, ckn: ckn, priority: obeying, cipher: "gcm-aes-256"},
			wpa:   partySpec{cak: cak, ckn: ckn, priority: serving},
			want:  health.SuiteMismatch,
			words: []string{"for GCM-AES-128,", "made for GCM-AES-256:"},
		},
		{
			name:  "Lever with the policy's suite as client",
			lever: partySpec{cak: cak, ckn: ckn, priority: obeying},
			wpa:   partySpec{cak: cak, ckn: ckn, priority: serving},
			want:  health.SuiteMismatch,
			words: []string{"for GCM-AES-128,", "made for GCM-AES-XPN-256:"},
		},
		{
			name:    "Lever with the policy's suite as key server",
			lever:   partySpec{cak: cak, ckn: ckn, priority: serving},
			wpa:     partySpec{cak: cak, ckn: ckn, priority: obeying},
			want:    health.SAKNotTaken,
			words:   []string{"does not take the key", "GCM-AES-XPN-256"},
			wpaSays: "KaY: I can't support the Cipher Suite advised by key server",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.lever.lever = true
			m := newMixed(t, tt.lever, tt.wpa)
			m.turnOn(1)
			m.turnOn(0)
			m.fault(0, tt.want, tt.words...)
			if tt.wpaSays != "" {
				m.wpaSays(1, tt.wpaSays)
			}
			if tt.wpaSaysNot != "" && m.wpaLines(1, tt.wpaSaysNot) > 0 {
				t.Errorf("wpa_supplicant says %q", tt.wpaSaysNot)
			}
			if n := m.pingsBetween(1, 0, refusedPatience); n != 0 {
				t.Errorf("%d pings were answered", n)
			}
			m.await("Lever not to be secured", func(l lab.LinkStatus) bool { return !isSecured(l) })
		})
	}
}

// As client, wpa_supplicant unwraps a SAK for GCM-AES-256, fails to install it and
// goes on in MKA as if it had. Lever must not be content with words: the link is
// called secured, for MKA is, and carries nothing.
func wpaDeadDataPath(t *testing.T) {
	cak, ckn := octets(32), octets(32)
	m := newMixed(t,
		partySpec{lever: true, cak: cak, ckn: ckn, priority: serving, cipher: "gcm-aes-256"},
		partySpec{cak: cak, ckn: ckn, priority: obeying})
	m.turnOn(0)
	m.turnOn(1)
	m.await("MKA to be content", isSecured)
	mac, err := m.parties[1].space.MAC(theParent)
	m.must(err)
	m.must(m.parties[0].space.Neighbour(theDevice, m.parties[1].addr.AsSlice(), mac))
	m.must(lab.Await(m.ctx(), 4*patience, "Lever to miss traffic", func() (bool, string) {
		// Somebody has to send for an answer to be missing.
		if n := m.pingsBetween(0, 1, 10*time.Millisecond); n != 0 {
			t.Fatalf("%d pings were answered", n)
		}
		all, err := lab.AwaitStatus(m.ctx(), m.routers, theLink, time.Millisecond, "the fault", func(all []lab.LinkStatus) bool {
			f, raised := all[0].Fault(string(health.TrafficMissing))
			return raised && strings.Contains(f.Text, m.sci(1)) && f.Next != ""
		})
		return err == nil, fmt.Sprint(all, err)
	}))
}

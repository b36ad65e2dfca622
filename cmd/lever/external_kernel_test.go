//go:build kernel

package main

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/macsec"
)

// externalInventory is one router's own inventory: what is at the other end is
// none of its business. The PSK's file is keys/psk.
func externalInventory(node int, cipher string, more string) string {
	return inventoryOf("", fmt.Sprintf(`
  - id: link-1
    a: {node: r%d, interface: up0, addresses: [10.0.17.%[1]d/24]}
    z: external
    cipher: %s
    psk: [{ckn: "61626364", cak_file: keys/psk.cak}]%s
`, node, cipher, more))
}

// psk gives both ends a static key of as many octets.
func (s *site) psk(octets int) {
	s.Helper()
	cak := s.material()[:octets]
	for _, r := range s.routers {
		s.must(os.MkdirAll(r.Path("keys"), 0o700))
		s.must(os.WriteFile(r.Path("keys/psk.cak"), []byte(hex.EncodeToString(cak)+"\n"), 0o600))
	}
}

// Two agents that know nothing of each other but a CAK secure the link, as with
// anybody else's equipment.
func TestExternalEnds(t *testing.T) {
	for _, tt := range []struct {
		cipher string
		suite  macsec.CipherSuite
		octets int
		mka    string
	}{
		{"gcm-aes-256", macsec.GCMAES256, 32, ""},
		{"gcm-aes-xpn-256", macsec.GCMAESXPN256, 32, ""},
		{"gcm-aes-128", macsec.GCMAES128, 16, ""},
		{"gcm-aes-xpn-128", macsec.GCMAESXPN128, 16, ""},
		{"gcm-aes-256", macsec.GCMAES256, 16, ""},
		{"gcm-aes-256", macsec.GCMAES256, 32, "\n    mka: {ethertype: 0x876F, destination: \"01:80:c2:00:00:00\"}"},
	} {
		name := fmt.Sprintf("%s with a CAK of %d octets", tt.cipher, tt.octets)
		if tt.mka != "" {
			name += " and the EtherType of a carrier"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, externalInventory(1, tt.cipher, tt.mka), externalInventory(2, tt.cipher, tt.mka))
			s.psk(tt.octets)
			s.start()
			key := s.secured()
			for _, r := range s.routers {
				v, err := r.SecY(theDevice)
				s.must(err)
				if v.CipherSuite != tt.suite || !v.Encrypt || v.Validate != macsec.Strict {
					t.Errorf("%s: %v, encrypt %v, validate %v", r.Name, v.CipherSuite, v.Encrypt, v.Validate)
				}
			}
			s.carries()
			if tt.mka != "" {
				s.plainAllowed = true // to the counter it is none of the two
				s.wire.Look(func(c *lab.WireCount) {
					if c.EAPOL() != 0 || c.Frames[0x876F] == 0 || c.Plain() != c.Frames[0x876F] {
						t.Errorf("on the wire %v", c.Frames)
					}
				})
				return
			}
			s.underStream(0, 1, besides, func() {
				end := s.keyServer()
				s.lever(end, "rekey", theLink)
				key = s.securedAnew(key)
				if _, err := s.routers[1-end].Lever(s.ctx(), "rekey", theLink); err == nil || !strings.Contains(err.Error(), "rekey there") {
					t.Errorf("lever rekey where other equipment is key server: %v", err)
				}
				s.kill(end)
				s.carries()
				s.start(end)
				s.secured()
			})
			s.onlyEncrypted()
		})
	}
}

func TestExternalEndsOfDifferentCiphers(t *testing.T) {
	t.Parallel()
	s := newSite(t, externalInventory(1, "gcm-aes-256", ""), externalInventory(2, "gcm-aes-xpn-256", ""))
	s.psk(32)
	s.start()
	server := s.keyServer()
	ciphers := []string{"GCM-AES-256", "GCM-AES-XPN-256"}
	s.fault(1-server, health.SuiteMismatch, "for "+ciphers[server]+",", "made for "+ciphers[1-server]+":")
	s.fault(server, health.SAKNotTaken, "does not take the key", ciphers[server])
	// The key server transmits with its key all the same when the transmit delay
	// of CP is over: encrypted, and to nobody.
	s.neverSecured()
	n, err := lab.Ping(s.ctx(), s.routers[server].Space, inner(server), inner(1-server), 3, refusedPatience)
	s.must(err)
	if n != 0 {
		t.Errorf("%d pings were answered between different ciphers", n)
	}
}

// A PSK file that others can read is refused, and an external link's status
// says so.
func TestExternalKeyFileThatOthersCanRead(t *testing.T) {
	t.Parallel()
	s := newSite(t, externalInventory(1, "gcm-aes-256", ""), externalInventory(2, "gcm-aes-256", ""))
	s.psk(32)
	path := s.routers[0].Path("keys/psk.cak")
	s.must(os.Chmod(path, 0o640))
	s.start()
	s.fault(0, health.KeyFilePermissions, path, "0640")
	for _, l := range s.await("r1 to answer", func(lab.LinkStatus) bool { return true }, 0) {
		if isSecured(l) || strings.Contains(l.String(), hex.EncodeToString(s.secrets[0][:4])) {
			t.Errorf("%v", l)
		}
	}
}

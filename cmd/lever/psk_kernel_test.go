//go:build kernel

package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/agent"
	"github.com/lever-link/lever/internal/lab"
)

// status is all that an agent says of the link.
func (s *site) status(i int) agent.LinkStatus {
	s.Helper()
	var all agent.Status
	s.must(json.Unmarshal([]byte(s.lever(i, "status", "-o", "json")), &all))
	if len(all.Links) != 1 || all.Links[0].ID != theLink {
		s.Fatalf("%+v", all)
	}
	return all.Links[0]
}

// A chain of two static keys, at two ends that know nothing of each other but
// these: the second replaces the first while both are valid, and loses nothing.
func TestPSKChain(t *testing.T) {
	t.Parallel()
	// The link is secured under the first key before the second begins.
	now := time.Now().UTC()
	begins, ends := now.Add(patience).Format(time.RFC3339), now.Add(patience+20*time.Second).Format(time.RFC3339)
	inventory := func(node int) string {
		return inventoryOf("", fmt.Sprintf(`
  - id: link-1
    a: {node: r%d, interface: up0, addresses: [10.0.17.%[1]d/24]}
    z: external
    psk:
      - {ckn: "0a", cak_file: keys/a.cak, not_after: %s}
      - {ckn: "0b", cak_file: keys/b.cak, not_before: %s}
`, node, ends, begins))
	}
	s := newSite(t, inventory(1), inventory(2))
	for _, name := range []string{"a", "b"} {
		digits := hex.EncodeToString(s.material())
		for _, r := range s.routers {
			s.must(os.MkdirAll(r.Path("keys"), 0o700))
			s.must(os.WriteFile(r.Path("keys/"+name+".cak"), []byte(digits+"\n"), 0o600))
		}
	}
	s.start()
	key := s.secured()
	offers := func(i int, want ...string) {
		t.Helper()
		s.must(lab.Await(s.ctx(), 2*patience, fmt.Sprintf("r%d to use the first and offer all of %q", i+1, want), func() (bool, string) {
			l := s.status(i)
			return slices.Equal(l.Offers, want) && l.CKN == want[0] && len(l.Faults) == 0, fmt.Sprintf("%+v", l)
		}))
	}
	for i := range s.routers {
		offers(i, "0a")
	}
	s.underStream(0, 1, besides, func() {
		key = s.securedAnew(key)
		for i := range s.routers {
			offers(i, "0b")
		}
		s.pings(0, 1)
	})
	if again := s.secured(); again.ID != key.ID {
		t.Errorf("%v after %v: the end of the first key has changed the SAK", again, key)
	}
	for _, r := range s.routers {
		// The second is in use before the first ends.
		log := strings.Join(r.LastLines(200), "\n")
		_, after, inUse := strings.Cut(log, "msg=in_use link=link-1 epoch=static ckn=0b")
		if !inUse || !strings.Contains(after, `msg="static CAK withdrawn" link=link-1 ckn=0a`) || strings.Contains(log, "peer_lost") {
			t.Errorf("%s did not withdraw the first key in order:\n%s", r.Name, log)
		}
	}
	s.onlyEncrypted()
}

//go:build kernel

package main

import (
	"testing"
)

// Three routers on a shared segment are one group CA.
func TestThreeMembers(t *testing.T) {
	t.Parallel()
	inv := inventoryOf("", `
  - id: link-1
    members:
      - {node: r1, interface: up0, addresses: [10.0.17.1/24]}
      - {node: r2, interface: up0, addresses: [10.0.17.2/24]}
      - {node: r3, interface: up0, addresses: [10.0.17.3/24]}
    segments: [{custody: carrier-ethernet}]
`)
	s := newSite(t, inv, inv, inv)
	s.plainAllowed = true // no agent runs yet
	if n := s.plainPings(0, 2); n != 3 {
		t.Fatalf("%d of 3 pings answered over the bridge: this laboratory is broken", n)
	}
	s.capture(nil)
	s.plainAllowed = false
	s.deliver(1, "ab")
	s.start()
	key := s.secured()
	s.closedDevices()
	pairs := [][2]int{{0, 1}, {0, 2}, {1, 2}}
	for _, p := range pairs {
		s.pings(p[0], p[1])
	}
	server := s.keyServer()
	for _, victim := range []int{server, (server + 1) % 3} {
		others := [2]int{(victim + 1) % 3, (victim + 2) % 3}
		s.underStream(others[0], others[1], besides, func() {
			s.kill(victim)
			for _, p := range pairs {
				s.pings(p[0], p[1])
			}
			s.start(victim)
			s.secured()
		})
	}
	s.underStream(0, 1, besides, func() {
		s.lever(2, "rekey", theLink)
		key = s.securedAnew(key)
		s.deliver(2, "ab")
		s.onEpoch("2.0")
		s.secured()
	})
	for _, p := range pairs {
		s.pings(p[0], p[1])
		if n := s.plainPings(p[0], p[1]); n != 0 {
			t.Errorf("%d plain pings were answered from r%d to r%d", n, p[0]+1, p[1]+1)
		}
	}
	for _, l := range s.await("all agents to see two live peers", isSecured) {
		if len(l.Faults) != 0 {
			t.Errorf("%v", l)
		}
	}
	s.onlyEncrypted()
}

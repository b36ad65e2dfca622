//go:build kernel

package main

import (
	"fmt"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/lab"
)

// Lever and wpa_supplicant, whose MKA and MACsec driver are not ours. Its driver
// can do GCM-AES-128 only.
func TestWPASupplicant(t *testing.T) {
	t.Parallel()
	f := &figures{}
	t.Cleanup(func() { f.print(t) })
	t.Run("secured", func(t *testing.T) { t.Parallel(); wpaSecured(t, f) })
	t.Run("restarts", func(t *testing.T) { t.Parallel(); wpaRestarts(t, f) })
	t.Run("rekey", func(t *testing.T) { t.Parallel(); wpaRekey(t) })
	t.Run("group", func(t *testing.T) { t.Parallel(); wpaGroup(t, f) })
	t.Run("faults", func(t *testing.T) { t.Parallel(); wpaFaults(t) })
}

// Priorities: the lower one serves.
const (
	serving = 16
	obeying = 32
	neither = 64
)

// A pairing is two ends that must come to be secured.
type pairing struct {
	server   string    // who must be key server
	peers    [2]string // what runs at the ends
	priority [2]int
	mac      [2]string // empty is the kernel's choice
	wpaFirst bool
	cak, ckn int // octets
	remark   string
}

const (
	lever = "Lever"
	wpa   = "wpa_supplicant"
)

// pairings is every combination that must come to be secured: both roles, either
// first, both sizes of a CAK, CKNs of all lengths that are special, and priorities
// that leave the election to the SCI. And, to compare with, two of theirs.
func pairings() []pairing {
	ends := [2]string{lever, wpa}
	var all []pairing
	add := func(leverServes, wpaFirst bool, cak, ckn int) {
		p := pairing{server: wpa, peers: ends, priority: [2]int{obeying, serving}, wpaFirst: wpaFirst, cak: cak, ckn: ckn}
		if leverServes {
			p.server, p.priority = lever, [2]int{serving, obeying}
		}
		all = append(all, p)
	}
	for _, cak := range []int{16, 32} {
		for _, wpaFirst := range []bool{false, true} {
			add(true, wpaFirst, cak, 32)
			add(false, wpaFirst, cak, 32)
		}
	}
	for i, ckn := range []int{1, 2, 16, 31} {
		odd := i%2 == 1
		add(true, odd, 16<<(i%2), ckn)
		add(false, !odd, 32>>(i%2), ckn)
	}
	const low, high = "02:00:00:00:00:01", "02:00:00:00:00:02"
	equal := [2]int{serving, serving}
	theirs := [2]string{wpa, wpa}
	return append(all,
		pairing{server: lever, peers: ends, priority: equal, mac: [2]string{low, high}, cak: 16, ckn: 32, remark: ", equal priority"},
		pairing{server: wpa, peers: ends, priority: equal, mac: [2]string{high, low}, wpaFirst: true, cak: 32, ckn: 32, remark: ", equal priority"},
		pairing{server: wpa, peers: theirs, priority: [2]int{serving, obeying}, cak: 16, ckn: 32},
		pairing{server: wpa, peers: theirs, priority: [2]int{obeying, serving}, cak: 32, ckn: 32})
}

func (p *pairing) kind() string {
	switch {
	case p.peers[0] == wpa:
		return "two wpa_supplicants"
	case p.server == lever:
		return "Lever serves wpa_supplicant"
	}
	return "wpa_supplicant serves Lever"
}

func (p *pairing) what() string {
	order := "Lever first"
	switch {
	case p.peers[0] == wpa:
		order = fmt.Sprintf("priorities %d and %d", p.priority[0], p.priority[1])
	case p.wpaFirst:
		order = "wpa_supplicant first"
	}
	return fmt.Sprintf("CAK of %d octets, CKN of %2d, %s%s", p.cak, p.ckn, order, p.remark)
}

func wpaSecured(t *testing.T, f *figures) {
	for _, p := range pairings() {
		t.Run(p.kind()+", "+p.what(), func(t *testing.T) {
			t.Parallel()
			cak, ckn := octets(p.cak), octets(p.ckn)
			var specs [2]partySpec
			for i := range specs {
				mac, _ := net.ParseMAC(p.mac[i]) // nil for none
				specs[i] = partySpec{lever: p.peers[i] == lever, cak: cak, ckn: ckn, priority: p.priority[i], cipher: "gcm-aes-128", mac: mac}
			}
			m := newMixed(t, specs[:]...)
			order := []int{0, 1}
			if p.wpaFirst {
				order = []int{1, 0}
			}
			f.add(p.kind(), p.what(), m.secure(order...))
			if len(m.routers) > 0 {
				m.serves(slices.Index(p.peers[:], p.server))
			}
			m.streams(0, 1, besides/4)
		})
	}
}

// wpaRestarts: whoever comes back is taken back; that Lever was away costs no
// packet.
func wpaRestarts(t *testing.T, f *figures) {
	for _, tt := range []struct {
		name       string
		lever, wpa int
	}{{"Lever serves", serving, obeying}, {"wpa_supplicant serves", obeying, serving}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cak, ckn := octets(16), octets(32)
			m := newMixed(t,
				partySpec{lever: true, cak: cak, ckn: ckn, priority: tt.lever, cipher: "gcm-aes-128"},
				partySpec{cak: cak, ckn: ckn, priority: tt.wpa})
			m.secure(0, 1)
			for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
				m.restartLever(sig)
			}
			key := m.oneKey(noKey)
			m.turnOff(1, syscall.SIGTERM)
			began := time.Now()
			m.turnOn(1)
			f.add("wpa_supplicant restarted, from its start", tt.name, m.dataPasses().Sub(began))
			m.oneKey(key)
			m.streams(0, 1, besides/4)
		})
	}
}

// forgets is after which absence wpa_supplicant may have dropped a peer and its
// keys: the life time, less a hello that was due, and its own grid.
const forgets = 2 * time.Second

// restartLever ends Lever under a stream, starts it again, and expects neither a
// packet to be missing nor another SAK. Where the machine is so busy that Lever
// takes as long as a peer may be forgotten in, it tries again.
func (m *mixed) restartLever(sig syscall.Signal) {
	m.Helper()
	const tries = 4
	for try := 1; ; try++ {
		key := m.oneKey(noKey)
		m.talks(0)
		stream, err := lab.StartStream(m.ctx(), m.endpoint(0), m.endpoint(1), besides)
		m.must(err)
		m.must(stream.Flowing(m.ctx()))
		began := time.Now()
		m.turnOff(0, sig)
		m.turnOn(0)
		m.await("Lever to answer again", func(lab.LinkStatus) bool { return true })
		away := time.Since(began)
		now := m.oneKey(noKey)
		m.talks(0)
		m.arrive(stream, besides/2)
		reports, err := stream.Stop(m.ctx())
		m.must(err)
		clean := reports[0].Clean() && reports[1].Clean() && now == key
		if !clean && away > forgets && try < tries {
			m.Logf("%v: Lever was away for %v, again", sig, away)
			continue
		}
		if !clean {
			m.Errorf("%v: Lever was away for %v; %s to %s: %s; back: %s; resumed: %v", sig, away,
				reports[0].From, reports[0].To, reports[0], reports[1], now == key)
		}
		return
	}
}

// wpaRekey: as key server, Lever replaces the SAK and nothing is lost.
func wpaRekey(t *testing.T) {
	cak, ckn := octets(32), octets(32)
	m := newMixed(t,
		partySpec{lever: true, cak: cak, ckn: ckn, priority: serving, cipher: "gcm-aes-128"},
		partySpec{cak: cak, ckn: ckn, priority: obeying})
	m.secure(0, 1)
	key := m.oneKey(noKey)
	m.underStreamOf(m.endpoint(0), m.endpoint(1), 2*besides, func(s *lab.Stream) {
		for range 5 { // more than there are ANs
			m.lever(0, "rekey", theLink)
			key = m.oneKey(key)
			m.arrive(s, besides/4)
		}
	})
}

// wpaGroup: three on a bridge, and one SAK for all.
func wpaGroup(t *testing.T, f *figures) {
	for _, tt := range []struct {
		name       string
		lever      bool
		priorities [3]int
	}{
		{"Lever serves", true, [3]int{serving, obeying, neither}},
		{"wpa_supplicant serves Lever and another", true, [3]int{obeying, serving, neither}},
		{"three wpa_supplicants", false, [3]int{serving, obeying, neither}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cak, ckn := octets(32), octets(32)
			m := newMixed(t,
				partySpec{lever: tt.lever, cak: cak, ckn: ckn, priority: tt.priorities[0], cipher: "gcm-aes-128"},
				partySpec{cak: cak, ckn: ckn, priority: tt.priorities[1]},
				partySpec{cak: cak, ckn: ckn, priority: tt.priorities[2]})
			// One at a time: to a member that becomes live just after it made a SAK,
			// wpa_supplicant as key server gives no receive SA, and makes no other SAK.
			m.secure(0, 1)
			f.add("third one joins on a bridge", tt.name, m.secure(2))
			if tt.lever {
				m.serves(slices.Index(tt.priorities[:], serving))
			}
			for i := range m.parties {
				for j := range i {
					m.streamsOnceSettled(i, j)
				}
			}
		})
	}
}

// streamsOnceSettled is streams for a group with supplicants in it. When one of
// them is listed with a message number that is not among its last two, it takes
// that for a reason to become another member, and what it is sent until the
// next SAK is lost. That is its own doing, and excuses a loss.
func (m *mixed) streamsOnceSettled(i, j int) {
	m.Helper()
	births := func() (n int) {
		for k, p := range m.parties {
			if p.wpa != nil {
				n += m.wpaLines(k, "KaY: Selected a new random MI")
			}
		}
		return n
	}
	for deadline := time.Now().Add(patience); ; {
		before, key := births(), m.oneKey(noKey)
		stream, err := lab.StartStream(m.ctx(), m.endpoint(i), m.endpoint(j), besides)
		m.must(err)
		m.must(stream.Flowing(m.ctx()))
		m.arrive(stream, besides/4)
		reports, err := stream.Stop(m.ctx())
		m.must(err)
		same := m.oneKey(noKey) == key && births() == before
		if reports[0].Clean() && reports[1].Clean() {
			return
		}
		if same || time.Now().After(deadline) {
			m.Errorf("%s to %s: %s; back: %s", reports[0].From, reports[0].To, reports[0], reports[1])
			return
		}
	}
}

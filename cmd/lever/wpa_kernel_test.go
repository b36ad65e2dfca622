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

// How long it takes to secure a link. These few pairs have the processor to
// themselves.
func TestWPATimes(t *testing.T) {
	t.Cleanup(func() { wpaFigures.print(t) })
	times, _ := pairings()
	for _, p := range times {
		wpaSecured(t, p, p.kind())
	}
}

// Lever and wpa_supplicant, whose MKA and MACsec driver are not ours. Its driver
// can do GCM-AES-128 only.
func TestWPASupplicant(t *testing.T) {
	t.Parallel()
	t.Cleanup(func() { wpaFigures.print(t) })
	t.Run("dead data path", func(t *testing.T) { t.Parallel(); wpaDeadDataPath(t) })
	t.Run("faults", func(t *testing.T) { t.Parallel(); wpaFaults(t) })
	t.Run("restarts", func(t *testing.T) { t.Parallel(); wpaRestarts(t) })
	t.Run("rekey", func(t *testing.T) { t.Parallel(); wpaRekey(t) })
	t.Run("group", func(t *testing.T) { t.Parallel(); wpaGroup(t) })
	_, more := pairings()
	for _, p := range more {
		wpaSecured(t, p, p.kind()+besideOthers)
	}
}

// besideOthers marks figures of what ran while the processor had much else to do.
const besideOthers = ", beside other tests"

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
// that leave the election to the SCI. The first few are for taking times, two
// supplicants among them, to compare with.
func pairings() (times, more []pairing) {
	ends, theirs := [2]string{lever, wpa}, [2]string{wpa, wpa}
	leverServes := func(wpaFirst bool, cak, ckn int) pairing {
		return pairing{server: lever, peers: ends, priority: [2]int{serving, obeying}, wpaFirst: wpaFirst, cak: cak, ckn: ckn}
	}
	wpaServes := func(wpaFirst bool, cak, ckn int) pairing {
		return pairing{server: wpa, peers: ends, priority: [2]int{obeying, serving}, wpaFirst: wpaFirst, cak: cak, ckn: ckn}
	}
	for _, wpaFirst := range []bool{false, true} {
		times = append(times, leverServes(wpaFirst, 16, 32), wpaServes(wpaFirst, 16, 32))
		more = append(more, leverServes(wpaFirst, 32, 32), wpaServes(wpaFirst, 32, 32))
	}
	times = append(times,
		pairing{server: wpa, peers: theirs, priority: [2]int{serving, obeying}, cak: 16, ckn: 32},
		pairing{server: wpa, peers: theirs, priority: [2]int{obeying, serving}, cak: 16, ckn: 32})
	for i, ckn := range []int{1, 2, 16, 31} {
		odd := i%2 == 1
		more = append(more, leverServes(odd, 16<<(i%2), ckn), wpaServes(!odd, 32>>(i%2), ckn))
	}
	const low, high = "02:00:00:00:00:01", "02:00:00:00:00:02"
	equal := [2]int{serving, serving}
	more = append(more,
		pairing{server: lever, peers: ends, priority: equal, mac: [2]string{low, high}, cak: 16, ckn: 32, remark: ", equal priority"},
		pairing{server: wpa, peers: ends, priority: equal, mac: [2]string{high, low}, wpaFirst: true, cak: 32, ckn: 32, remark: ", equal priority"})
	return times, more
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

// wpaSecured is one of them, and its time counts as of a kind.
func wpaSecured(t *testing.T, p pairing, kind string) {
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
		wpaFigures.add(kind, p.what(), m.secure(order...))
		if len(m.routers) > 0 {
			m.serves(slices.Index(p.peers[:], p.server))
		}
		m.streams(0, 1, besides/4)
	})
}

// wpaRestarts: whoever comes back is taken back; that Lever was away costs no
// packet.
func wpaRestarts(t *testing.T) {
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
			u := newUpgrader(m.site)
			longest, again := time.Duration(0), 0
			for range *trialWPA {
				for _, how := range []struct {
					name string
					end  func()
				}{
					{"SIGTERM", func() { m.turnOff(0, syscall.SIGTERM) }},
					{"SIGKILL", func() { m.turnOff(0, syscall.SIGKILL) }},
					{"upgrade", func() { u.upgrade(0) }},
				} {
					away, tries := m.restartLever(how.name, how.end)
					longest, again = max(longest, away), again+tries-1
				}
			}
			t.Logf("%d each of SIGTERM, SIGKILL and upgrade without a packet lost; away for %v at most; %d tried again", *trialWPA, longest.Round(time.Millisecond), again)
			key := m.oneKey(noKey)
			m.turnOff(1, syscall.SIGTERM)
			began := time.Now()
			m.turnOn(1)
			wpaFigures.add("wpa_supplicant restarted, from its start"+besideOthers, tt.name, m.dataPasses().Sub(began))
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
// takes as long as a peer may be forgotten in, it tries again. It returns how long
// Lever was away, and how often it tried.
func (m *mixed) restartLever(name string, end func()) (away time.Duration, tried int) {
	m.Helper()
	const tries = 4
	rate := besides
	if *trialWPA > 1 {
		rate = trialRate
	}
	for try := 1; ; try++ {
		key := m.oneKey(noKey)
		m.talks(0)
		stream, err := lab.StartStream(m.ctx(), m.endpoint(0), m.endpoint(1), rate)
		m.must(err)
		m.must(stream.Flowing(m.ctx()))
		began := time.Now()
		end()
		m.turnOn(0)
		m.await("Lever to answer again", func(lab.LinkStatus) bool { return true })
		away := time.Since(began)
		now := m.oneKey(noKey)
		m.talks(0)
		m.arrive(stream, rate/2)
		reports, err := stream.Stop(m.ctx())
		m.must(err)
		clean := reports[0].Clean() && reports[1].Clean() && now == key
		if !clean && away > forgets && try < tries {
			m.Logf("%s: Lever was away for %v, again", name, away)
			continue
		}
		if !clean {
			m.Errorf("%s: Lever was away for %v; %s to %s: %s; back: %s; resumed: %v", name, away,
				reports[0].From, reports[0].To, reports[0], reports[1], now == key)
		}
		return away, try
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

// wpaGroup: three on a bridge, and one SAK for all. Lever comes last, for
// supplicants give each other no receive SA for a SAK that was made before they
// were live to each other, nor later: three of them, without Lever, often end
// with a direction in which nothing passes.
func wpaGroup(t *testing.T) {
	for _, tt := range []struct {
		name     string
		priority int
		server   int
	}{{"Lever takes over", serving, 0}, {"a wpa_supplicant stays key server", neither, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cak, ckn := octets(32), octets(32)
			m := newMixed(t,
				partySpec{lever: true, cak: cak, ckn: ckn, priority: tt.priority, cipher: "gcm-aes-128"},
				partySpec{cak: cak, ckn: ckn, priority: obeying},
				partySpec{cak: cak, ckn: ckn, priority: obeying + 1})
			m.secure(1, 2)
			// A supplicant that has made a SAK within a life time (6 s, three hellos)
			// forgets that a new member needs one.
			for range 4 {
				m.talks(1)
			}
			wpaFigures.add("Lever joins two on a bridge"+besideOthers, tt.name, m.secure(0))
			m.serves(tt.server)
			for i := range m.parties {
				for j := range i {
					m.streamsOnceSettled(i, j)
				}
			}
		})
	}
}

// unrest are what a supplicant logs when it changes its mind about who is there.
// One that is listed with a message number not among its last two, or has not
// had the processor for a life time, becomes another member or forgets one.
var unrest = []string{"KaY: Selected a new random MI", "KaY: Live peer removed", "KaY: Create transmit SA"}

// streamsOnceSettled is streams for a group with supplicants in it: what is lost
// while they change their minds is their own doing, and excused for a while.
func (m *mixed) streamsOnceSettled(i, j int) {
	m.Helper()
	changes := func() (n int) {
		for k, p := range m.parties {
			for _, words := range unrest {
				if p.wpa != nil {
					n += m.wpaLines(k, words)
				}
			}
		}
		return n
	}
	for deadline := time.Now().Add(2 * patience); ; {
		m.oneKey(noKey)
		before := changes()
		stream, err := lab.StartStream(m.ctx(), m.endpoint(i), m.endpoint(j), besides)
		m.must(err)
		flowing := stream.Flowing(m.ctx())
		if flowing == nil {
			m.arrive(stream, besides/4)
		}
		reports, err := stream.Stop(m.ctx())
		m.must(err)
		if flowing == nil && reports[0].Clean() && reports[1].Clean() {
			return
		}
		if after := changes(); after == before || time.Now().After(deadline) {
			m.Errorf("%s to %s: %s; back: %s; %v; the supplicants changed their minds %d times", reports[0].From, reports[0].To, reports[0], reports[1], flowing, after-before)
			return
		}
	}
}

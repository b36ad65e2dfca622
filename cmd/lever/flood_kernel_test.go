//go:build kernel

package main

import (
	"context"
	"encoding/binary"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/lab"
)

// What a flood may cost an agent.
const (
	floodLogLines = 40
	floodResident = 16 << 20 // octets that it grows by
	// floodStream is the rate of the data under flood: enough to see a gap of
	// ten milliseconds.
	floodStream = 100
	// fromNobody is an EtherType that nobody listens to (IEEE 802 local
	// experimental 1): what a frame of it costs is what a frame costs.
	fromNobody = 0x88B5
)

// flooded is the state of an agent that a flood must not change, or not by much.
type flooded struct {
	since    time.Time
	lines    int
	resident int
}

func (s *site) beforeFlood() []flooded {
	s.Helper()
	var all []flooded
	for i, l := range s.await("all agents to be secured", isSecured) {
		f := flooded{since: l.SecuredSince}
		var err error
		f.lines, err = s.routers[i].LogLines()
		s.must(err)
		f.resident, err = s.routers[i].Resident()
		s.must(err)
		all = append(all, f)
	}
	return all
}

// afterFlood compares. The time since when a link is secured begins anew with
// every moment at which it was not.
func (s *site) afterFlood(before []flooded) {
	s.Helper()
	for i, now := range s.beforeFlood() {
		r, was := s.routers[i], before[i]
		if !now.since.Equal(was.since) {
			s.Errorf("%s was secured since %v, and now since %v", r.Name, was.since, now.since)
		}
		if lines := now.lines - was.lines; lines > floodLogLines {
			s.Errorf("%s logged %d lines, want at most %d: %s", r.Name, lines, floodLogLines, strings.Join(r.LastLines(5), "\n"))
		}
		if grown := now.resident - was.resident; grown > floodResident {
			s.Errorf("%s grew by %d octets, want at most %d", r.Name, grown, floodResident)
		}
		s.Logf("%s: %d lines of log, resident memory from %d to %d KiB", r.Name, now.lines-was.lines, was.resident>>10, now.resident>>10)
		log, err := os.ReadFile(r.Path(lab.LogFile))
		s.must(err)
		if strings.Contains(string(log), "peer_lost") {
			s.Errorf("%s lost its peer", r.Name)
		}
	}
}

// lossUnder runs play while data goes both ways, and returns what was lost of it.
func (s *site) lossUnder(what string, play func()) (lost int) {
	s.Helper()
	at := func(i int) lab.Endpoint {
		return lab.Endpoint{Name: s.routers[i].Name, Space: s.routers[i].Space, Addr: inner(i)}
	}
	stream, err := lab.StartStream(s.ctx(), at(0), at(1), floodStream)
	s.must(err)
	s.must(stream.Flowing(s.ctx()))
	play()
	reports, err := stream.Stop(s.ctx())
	s.must(err)
	for _, r := range reports {
		s.Logf("%s, %s to %s: %s; the longest silence was %v", what, r.From, r.To, r, r.Longest.Round(time.Millisecond))
		lost += r.Lost()
	}
	return lost
}

// carrier is the namespace of the bridge between the routers. What is sent there
// on a port goes to its router and to nobody else: sent into the bridge, frames
// with the address of a router would lead its data astray, as they do in any
// bridge that learns.
func (s *site) carrier() *lab.Netspace {
	s.Helper()
	name := strings.TrimSuffix(s.routers[0].Space.Name, "r1") + "switch"
	ns, err := netns.GetFromName(name)
	s.must(err)
	s.Cleanup(func() { s.mustNot(ns.Close()) })
	return &lab.Netspace{Name: name, Handle: ns}
}

// roomInBacklog gives what is on its way between interfaces room enough to wait
// for the guest's one processor (netif_rx, gro_cells_receive). Without it any
// load costs frames, whatever is in them.
func roomInBacklog() error {
	return os.WriteFile("/proc/sys/net/core/netdev_max_backlog", []byte("1000000\n"), 0)
}

// TestFlood has whoever carries the link hear the MKPDUs of both ends and send
// all that can be made of them without a key, as if from the other end: 5000
// frames a second, and then as many as the guest can carry. The processor is
// this test's alone, and one for attacker, network and victims, so that in the
// second part the same number of frames that nobody listens to is what it is
// compared with.
func TestFlood(t *testing.T) {
	inv := pairInventory("")
	s := newSite(t, inv, inv, inv)
	carrier, ports := s.carrier(), []string{"p1", "p2"}
	s.routers, s.ends = s.routers[:2], s.ends[:2]
	s.deliver(1, "ab")
	s.start()
	key := s.secured()
	s.carries()
	s.onlyEncrypted()
	heard, err := lab.Overhear(carrier, ports[0], lab.EtherTypeEAPOL, 6, patience)
	s.must(err)
	// A capture of the flood would cost more than the flood.
	s.must(s.wire.Stop())
	s.wire, err = lab.StartCapture(s.routers[0].Space, "lo", nil)
	s.must(err)

	s.must(roomInBacklog())

	flood := func(ctx context.Context, rate, most int, next func() []byte) *lab.Flood {
		f, err := lab.StartFlood(ctx, carrier, ports, rate, most, next)
		s.must(err)
		return f
	}
	before := s.beforeFlood()
	lost := s.lossUnder("5000 a second", func() {
		ctx, cancel := context.WithTimeout(s.ctx(), 8*time.Second)
		defer cancel()
		f := flood(ctx, 5000, 0, lab.NewHostile(1, heard.Frames()).Next)
		s.fault(0, health.ICVMismatch)
		s.lever(0, "rekey", theLink)
		key = s.securedAnew(key)
		s.must(f.Wait())
		t.Logf("%v", f)
	})
	if lost != 0 {
		t.Errorf("%d packets were lost at 5000 frames a second", lost)
	}
	s.afterFlood(before)

	var most int
	lost = s.lossUnder("as many as it can", func() {
		// Longer than the life of a peer that is not heard.
		ctx, cancel := context.WithTimeout(s.ctx(), 7*time.Second)
		defer cancel()
		f := flood(ctx, 0, 0, lab.NewHostile(2, heard.Frames()).Next)
		s.must(f.Wait())
		t.Logf("%v", f)
		most = f.Sent
	})
	s.afterFlood(before)
	control := lab.NewHostile(2, heard.Frames())
	idle := s.lossUnder("as many that nobody listens to", func() {
		f := flood(s.ctx(), 0, most, func() []byte {
			frame := control.Next()
			binary.BigEndian.PutUint16(frame[12:], fromNobody)
			return frame
		})
		s.must(f.Wait())
		t.Logf("%v", f)
	})
	if lost > idle {
		t.Errorf("%d packets were lost under the flood, %d under as many frames that nobody listens to", lost, idle)
	}
	s.afterFlood(before)
	s.capture(nil)
	s.pings(0, 1)
	s.passes(2, (*lab.WireCount).EAPOL)
	s.onlyEncrypted()
}

// Package script reads scenarios: commands to a simulated segment, and the diary of
// what came of them, in the manner of etcd raft's testdata. A scenario is a text of
// blocks: commands, one a line, then ----, then the diary as it was when somebody
// read it last. `go test ./mka -run TestScenarios -rewrite` writes it anew.
//
//	member NAME [priority=] [suite=] [external] [hello=] [life=] [rekey=]
//	       [delay-protect] [icv-indicator] [destination=] [ethertype=] [mi=zero]
//	peer NAME kind=wpa_supplicant|mkadaemon|scripted [priority=] [suite=] …
//	start NAME… [cak=] [record=last|earlier|none] [mn=] [kn=]
//	secure NAME… [cak=]: start them and run until they are secured, untold
//	kill NAME | restart NAME [down=] [record=] | leave NAME | suspend NAME 30s
//	cak NAME CKN [octet=] [rank=] | remove NAME CKN | revoke NAME CKN
//	rekey NAME | pn NAME VALUE | fail NAME op= [n=] | slow NAME 1s
//	cut A>B | heal | loss 0.2 | replay NAME mn= [mi=]
//	lenient: two may use one MI, because the scenario makes them
//	run 10s [until=secured] | status [NAME…] | data [NAME…] | gaps [NAME…]
//	show|hide frames|drops|lpn|hellos|ssci|again (at first the first two are shown)
//	say NAME … | send NAME …: see hand.go
//
// A CAK is named by its CKN. That of epoch-1 consists of octets 1 and has the rank
// 1, and so on.
//
// The diary has a line for each frame that says something which its sender did not
// say before, numbers apart; a line for each operation on a SecY, for each notice
// (*), for each condition that comes (!) or goes, and for each frame that was
// dropped. A frame is MI.MN and what its parameter sets say; member identifiers are
// named after their owner, a1 before a2; a1/2 is the SAK with the key number 2 of
// the server a1. Version, priority and CKN are told when they change.
//
// What belongs here: commands, and the words of the diary. What does not: the
// harness and the behaviour of other makes (internal/sim), and the scenarios, which
// are in testdata of what they test.
package script

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/lever-link/lever/internal/sim"
	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/mka"
)

// Script is one scenario under way.
type Script struct {
	sim      *sim.Sim
	fail     func(format string, args ...any)
	sign     Sign
	stations []*station
	gaps     gaps
	attacker *simlink.Station
	diary
}

// station is somebody with a name.
type station struct {
	name   string
	member *sim.Member // every station has a device
	wpa    *sim.WPA
	mkad   *sim.MKAdaemon
	hand   *hand
	caks   []sim.CAK
	frames [][]byte // all that it sent
}

// ours says whether it runs Lever's MKA.
func (st *station) ours() bool { return st.wpa == nil && st.mkad == nil && st.hand == nil }

// Sign appends the ICV to a frame that the codec would not make.
type Sign func(ick *mka.ICK, frame []byte) ([]byte, error)

// New makes an empty segment. What must not be, in the script or on the segment, is
// given to fail, and is in the diary, too.
func New(fail func(format string, args ...any), sign Sign) *Script {
	s := &Script{sim: sim.New(1), fail: fail, sign: sign, diary: newDiary()}
	s.sim.Fail = func(format string, args ...any) { s.fail(format, args...) }
	s.sim.Trace = s.trace
	s.sim.Segment.Tap = s.tap
	s.sim.Stepped = func(m *sim.Member, _ *mka.Output) {
		s.changes(m)
		s.lookForGaps()
	}
	return s
}

// Close checks what can be checked at the end only.
func (s *Script) Close() { s.sim.CheckNonces() }

// Run carries out a block and gives its diary.
func (s *Script) Run(d *datadriven.TestData) string {
	s.out.Reset()
	err := s.command(d.Cmd, d.CmdArgs)
	for line := range strings.SplitSeq(d.Input, "\n") {
		if err != nil || line == "" {
			break
		}
		cmd, args, e := datadriven.ParseLine(line)
		if err = e; err == nil {
			err = s.command(cmd, args)
		}
	}
	if err != nil {
		s.fail("%s: %v", d.Pos, err)
		fmt.Fprintf(&s.out, "error: %v\n", err)
	}
	s.sumUp()
	if s.out.Len() == 0 {
		return "ok\n"
	}
	return s.out.String()
}

func (s *Script) command(cmd string, list []argument) error {
	a := newArgs(list)
	do, ok := commands[cmd]
	if !ok {
		return fmt.Errorf("%q is no command", cmd)
	}
	if err := do(s, a); err != nil {
		return fmt.Errorf("%s: %w", cmd, err)
	}
	if rest := a.unused(); len(rest) > 0 {
		return fmt.Errorf("%s: %q mean nothing here", cmd, rest)
	}
	return nil
}

func (s *Script) station(name string) (*station, error) {
	i := slices.IndexFunc(s.stations, func(st *station) bool { return st.name == name })
	if i < 0 {
		return nil, fmt.Errorf("nobody is called %q", name)
	}
	return s.stations[i], nil
}

// named is the station that the next word names.
func (s *Script) named(a *args, what string) (*station, error) {
	name, err := a.word(what)
	if err != nil {
		return nil, err
	}
	return s.station(name)
}

// secured says whether all stations that are there, the hand-made ones apart, are
// secured and can talk to each other.
func (s *Script) secured() bool {
	there := slices.DeleteFunc(slices.Clone(s.stations), func(st *station) bool {
		switch {
		case st.wpa != nil:
			return !st.wpa.Joined()
		case st.mkad != nil:
			return !st.mkad.Joined()
		}
		return st.hand != nil || st.member.Port == nil
	})
	for _, a := range there {
		if a.ours() && !a.member.Status().Secured {
			return false
		}
		for _, b := range there {
			if a != b && !s.sim.Carries(a.member, b.member) {
				return false
			}
		}
	}
	return len(there) > 1
}

// run lets time pass.
func (s *Script) run(d time.Duration) { s.sim.Net.Run(d) }

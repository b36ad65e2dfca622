package mka_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/sim"
	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

var epoch1 = sim.CAK{CKN: "epoch-1", Octet: 1, Rank: 1}
var epoch2 = sim.CAK{CKN: "epoch-2", Octet: 2, Rank: 2}

// pair is two members that are secured under epoch 1.
func pair(t *testing.T, change func(*mka.Config)) (s *scene, a, b *sim.Member) {
	t.Helper()
	s = newSim(t, 1)
	a, b = s.Add("a", 1, change), s.Add("b", 2, change)
	a.Start(epoch1)
	b.Start(epoch1)
	s.mustSecure(time.Second)
	s.Net.Run(10 * time.Second)
	return s, a, b
}

func TestEitherSideMayStartFirstWithAnyPriority(t *testing.T) {
	for _, tt := range []struct {
		a, b   uint8
		server string
	}{{16, 16, "a"}, {16, 15, "b"}, {255, 16, "b"}, {0, 255, "a"}, {254, 255, "a"}} {
		for _, first := range []string{"a", "b"} {
			t.Run(fmt.Sprintf("%d-%d-%s", tt.a, tt.b, first), func(t *testing.T) {
				s := newSim(t, 1)
				a := s.Add("a", 1, func(c *mka.Config) { c.Priority = tt.a })
				b := s.Add("b", 2, func(c *mka.Config) { c.Priority = tt.b })
				if first == "b" {
					a, b = b, a
				}
				a.Start(epoch1)
				s.Net.Run(3 * time.Second)
				b.Start(epoch1)
				s.mustSecure(100 * time.Millisecond)
				for _, m := range s.Members {
					if m.Status().IsKeyServer != (m.Name == tt.server) {
						t.Errorf("%s is key server: %v", m.Name, m.Status().IsKeyServer)
					}
				}
			})
		}
	}
}

func TestRekeysLoseNothingAndAlternateANs(t *testing.T) {
	for _, asker := range []string{"key server", "client"} {
		t.Run(asker, func(t *testing.T) {
			s, a, b := pair(t, nil)
			who := a
			if asker == "client" {
				who = b
			}
			last := a.Status()
			for i := range 20 {
				who.Step(mka.Event{Kind: mka.EventRekey})
				if _, ok := s.Net.RunUntil(10*time.Second, func() bool { return s.Secured() && a.Status().KI != last.KI }); !ok {
					t.Fatalf("rekey %d: still on %v", i, last.KI)
				}
				if an := a.Status().AN; an != (last.AN+1)%4 {
					t.Errorf("rekey %d: AN %d after %d", i, an, last.AN)
				}
				last = a.Status()
				s.Net.Run(4 * time.Second)
			}
			s.noGaps()
			for _, m := range s.Members {
				if n := m.Saw(mka.NoticeSecured); n != 21 {
					t.Errorf("%s said %d times that it is secured, want once a SAK", m.Name, n)
				}
				if m.SAs.TransmitSAs() != 1 || m.SAs.ReceiveSCs() != 1 {
					t.Errorf("%s keeps %d transmit SAs and %d receive SCs", m.Name, m.SAs.TransmitSAs(), m.SAs.ReceiveSCs())
				}
			}
		})
	}
}

func TestRekeysOnTheTimerAndOnPacketNumbers(t *testing.T) {
	t.Run("timer", func(t *testing.T) {
		s, a, _ := pair(t, func(c *mka.Config) { c.SAKRekey = 30 * time.Second })
		s.Net.Run(10 * time.Minute)
		if n := a.Saw(mka.NoticeSAK); n < 18 || n > 21 {
			t.Errorf("%d SAKs in ten minutes at 30 s", n)
		}
		s.noGaps()
	})
	for _, tt := range []struct {
		suite mka.CipherSuite
		pn    uint64
	}{{mka.GCMAES256, 0xC0000000}, {mka.GCMAESXPN256, 0xC000000000000000}} {
		for _, who := range []int{0, 1} {
			t.Run(fmt.Sprintf("%v at member %d", tt.suite, who), func(t *testing.T) {
				s, a, _ := pair(t, func(c *mka.Config) { c.Suite = tt.suite })
				m := s.Members[who]
				old := a.Status().KI
				sends(t, m, tt.pn-2) // the next one is the one before
				s.Net.Run(5 * time.Second)
				if a.Status().KI != old {
					t.Fatal("rekeyed below the threshold")
				}
				// LPN is a hello old when it is reported: it takes two.
				sends(t, m, 1)
				s.Net.Run(10 * time.Second)
				if a.Status().KI == old || !s.Secured() {
					t.Error("not rekeyed at the threshold")
				}
				s.noGaps()
			})
		}
	}
}

// sends lets m have sent n frames.
func sends(t *testing.T, m *sim.Member, n uint64) {
	t.Helper()
	if err := m.Kernel.MoveTx(m.Index, macsec.AN(m.SAs.EncodingAN), n); err != nil {
		t.Fatal(err)
	}
}

func TestCAKRolloverIsMakeBeforeBreak(t *testing.T) {
	s, a, b := pair(t, nil)
	a.AddCAK(epoch2)
	s.Net.Run(20 * time.Second)
	if got := a.Status().CKN; got != epoch1.CKN {
		t.Fatalf("one end alone moved to %q", got)
	}
	b.AddCAK(epoch2)
	s.Net.Run(time.Second)
	for _, m := range s.Members {
		if m.Status().CKN != epoch2.CKN {
			t.Fatalf("%s is still on %q", m.Name, m.Status().CKN)
		}
		if m.Saw(mka.NoticeInUse) != 2 {
			t.Errorf("%s: %d CAKs in use, want 2", m.Name, m.Saw(mka.NoticeInUse))
		}
		m.Step(mka.Event{Kind: mka.EventRemoveCAK, CKN: epoch1.CKN})
	}
	s.Net.Run(time.Minute)
	s.noGaps()
	if !s.Secured() || a.Saw(mka.NoticeSAK) != 2 {
		t.Errorf("secured %v after %d SAKs", s.Secured(), a.Saw(mka.NoticeSAK))
	}
}

func TestCAKRolloverWaitsForARekeyUnderWay(t *testing.T) {
	s, a, b := pair(t, nil)
	for i := range uint64(10) {
		next := sim.CAK{CKN: mka.CKN(fmt.Sprint("next", i)), Octet: byte(10 + i), Rank: 10 + i}
		a.Step(mka.Event{Kind: mka.EventRekey})
		b.AddCAK(next)
		s.Net.Run(time.Duration(i) * time.Millisecond)
		a.AddCAK(next)
		s.Net.Run(8 * time.Second)
		if a.Status().CKN != next.CKN || !s.Secured() {
			t.Fatalf("rollover %d: on %q", i, a.Status().CKN)
		}
		for _, m := range s.Members {
			for _, p := range m.Status().Participants {
				if p.CKN != next.CKN {
					m.Step(mka.Event{Kind: mka.EventRemoveCAK, CKN: p.CKN})
				}
			}
		}
	}
	s.noGaps()
}

func TestRestartWithTheRecordIsNotNoticed(t *testing.T) {
	for _, down := range []time.Duration{0, 500 * time.Millisecond, 3 * time.Second} {
		for who := range 2 {
			t.Run(fmt.Sprintf("%v down, member %d", down, who), func(t *testing.T) {
				s, a, b := pair(t, nil)
				m, other := a, b
				if who == 1 {
					m, other = b, a
				}
				before := m.Status()
				for range 5 {
					m.Kill()
					s.Net.Run(down)
					m.Start(epoch1)
					if d := s.mustSecure(3 * time.Second); d > 10*time.Millisecond {
						t.Errorf("secured again after %v", d)
					}
					s.Net.Run(10 * time.Second)
				}
				after := m.Status()
				if after.KI != before.KI || after.Participants[0].MI != before.Participants[0].MI {
					t.Error("it came back as another member or with another SAK")
				}
				if other.Saw(mka.NoticePeerLost) != 0 || other.Saw(mka.NoticePeerLive) != 1 {
					t.Error("the far end noticed")
				}
				m.Step(mka.Event{Kind: mka.EventRekey})
				s.Net.Run(5 * time.Second)
				if !s.Secured() || m.Status().KI == before.KI {
					t.Error("no rekey after the restart")
				}
				s.noGaps()
			})
		}
	}
}

func TestRestartWhileTheOldCAKsSAKRetiresIsNotNoticed(t *testing.T) {
	for who := range 2 {
		t.Run(fmt.Sprintf("member %d", who), func(t *testing.T) {
			s, a, b := pair(t, nil)
			a.AddCAK(epoch2)
			b.AddCAK(epoch2)
			s.Net.Run(time.Second)
			for _, m := range s.Members {
				m.Step(mka.Event{Kind: mka.EventRemoveCAK, CKN: epoch1.CKN})
			}
			m, other := s.Members[who], s.Members[1-who]
			before, live := m.Status(), other.Saw(mka.NoticePeerLive)
			if m.SAs.TransmitSAs() != 2 {
				t.Fatalf("%d transmit SAs: the old SAK should still be there", m.SAs.TransmitSAs())
			}
			m.Kill()
			m.Start(epoch2)
			s.Net.Run(10 * time.Second)
			if after := m.Status(); !s.Secured() || after.KI != before.KI || other.Saw(mka.NoticePeerLive) != live {
				t.Errorf("secured %v on %v, before on %v", s.Secured(), after.KI, before.KI)
			}
			if m.SAs.TransmitSAs() != 1 {
				t.Errorf("%d transmit SAs are left", m.SAs.TransmitSAs())
			}
			s.noGaps()
		})
	}
}

func TestRestartWithoutTheRecordLosesNothing(t *testing.T) {
	for who := range 2 {
		t.Run(fmt.Sprintf("member %d", who), func(t *testing.T) {
			s, a, _ := pair(t, nil)
			m := s.Members[who]
			old := a.Status().KI
			for range 5 {
				m.Kill()
				s.Net.Run(700 * time.Millisecond)
				m.StartFrom(nil, epoch1)
				s.mustSecure(20 * time.Second)
				s.Net.Run(5 * time.Second)
				if a.Status().KI == old || !s.Secured() {
					t.Fatal("no fresh SAK under a fresh MI")
				}
				old = a.Status().KI
			}
			s.noGaps()
		})
	}
}

// Whoever dies in the midst of a rekey, wherever that is, and comes back with its
// record or without it: nothing is lost.
func TestKilledAtEveryStepOfARekey(t *testing.T) {
	for _, c := range []struct {
		name  string
		start func(*sim.Member)
	}{
		{"with its record", func(m *sim.Member) { m.Start(epoch1) }},
		{"without", func(m *sim.Member) { m.StartFrom(nil, epoch1) }},
	} {
		for who := range 2 {
			for step := range 40 {
				t.Run(fmt.Sprintf("%s/member %d step %d", c.name, who, step), func(t *testing.T) {
					s, a, _ := pair(t, nil)
					m := s.Members[who]
					for _, x := range s.Members {
						x.OpDelay = 10 * time.Microsecond
					}
					a.Step(mka.Event{Kind: mka.EventRekey})
					end := s.Net.Now().Add(10 * time.Second)
					for range step {
						s.Net.Next(end)
					}
					m.Kill()
					s.Net.Run(300 * time.Millisecond)
					c.start(m)
					s.mustSecure(20 * time.Second)
					s.Net.Run(20 * time.Second)
					if !s.Secured() {
						t.Error("not secured any more")
					}
					s.noGaps()
				})
			}
		}
	}
}

func TestLossyLinkIsSecuredAndStaysSo(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newSim(t, seed)
			a := s.Add("a", 1, func(c *mka.Config) { c.SAKRekey = time.Minute })
			b := s.Add("b", 2, nil)
			s.Segment.Faults = simlink.Faults{
				Loss: 0.2, Duplicate: 0.1, Reorder: 0.2, ReorderBy: 5 * time.Millisecond, Corrupt: 0.05,
			}
			a.Start(epoch1)
			b.Start(epoch1)
			s.mustSecure(30 * time.Second)
			s.Net.Run(30 * time.Minute)
			s.Segment.Faults = simlink.Faults{}
			s.mustSecure(10 * time.Second)
			s.noGaps()
		})
	}
}

func TestGroupOfFour(t *testing.T) {
	s := newSim(t, 3)
	for i := range byte(4) {
		s.Add(string('a'+rune(i)), i+1, func(c *mka.Config) { c.Priority = 16 + i }).Start(epoch1)
		s.Net.Run(time.Duration(i) * time.Second)
	}
	s.mustSecure(10 * time.Second)
	a, rest := s.Members[0], s.Members[1:]
	a.Step(mka.Event{Kind: mka.EventRekey})
	s.Net.Run(5 * time.Second)
	s.noGaps()

	a.Kill() // the key server: its SecY goes on
	s.Net.Run(10 * time.Second)
	if !s.Secured(rest...) || !rest[0].Status().IsKeyServer {
		t.Fatalf("after the key server's death: %+v", rest[0].Status())
	}
	a.StartFrom(nil, epoch1)
	s.mustSecure(20 * time.Second)
	s.Net.Run(10 * time.Second)
	if !s.Secured() || !a.Status().IsKeyServer {
		t.Errorf("after its return: %+v", a.Status())
	}
	for _, from := range rest {
		for _, to := range rest {
			if from != to && !s.Carries(from, to) {
				t.Errorf("%s does not reach %s", from.Name, to.Name)
			}
		}
	}
}

// Members that come one by one, over a link that loses and with a SecY that is
// slow, learn of each other late: the SAK must live until the last receive SA
// has it, and no longer.
func TestGroupOnALossyLinkWithSlowSecYs(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newSim(t, seed)
			r := s.Net.Rand()
			for i := range 3 + r.IntN(4) {
				m := s.Add(string(rune('a'+i)), byte(i+1), nil)
				m.OpDelay = time.Duration(r.Int64N(int64(200 * time.Millisecond)))
				s.Net.After(time.Duration(r.Int64N(int64(3*time.Second))), func() { m.Start(epoch1) })
			}
			s.Segment.Faults = simlink.Faults{Loss: 0.2, Duplicate: 0.1, Reorder: 0.2, ReorderBy: 300 * time.Millisecond}
			s.Net.Run(time.Minute)
			s.Segment.Faults = simlink.Faults{}
			s.mustSecure(30 * time.Second)
			s.Members[0].Step(mka.Event{Kind: mka.EventRekey})
			s.Net.Run(20 * time.Second)
			if !s.Secured() {
				t.Error("not secured after a rekey")
			}
		})
	}
}

func TestWrongCAKNeverSecuresAndBothSidesSayWhy(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.Add("a", 1, nil), s.Add("b", 2, nil)
	a.Start(epoch1)
	b.Start(sim.CAK{CKN: epoch1.CKN, Octet: 9, Rank: 1})
	s.Net.Run(time.Minute)
	for _, m := range s.Members {
		c := m.Condition(mka.ConditionICVMismatch)
		if c == nil || c.CKN != epoch1.CKN || m.Status().Carrying || m.SAs.TransmitSAs() > 0 {
			t.Errorf("%s: %+v", m.Name, m.Status())
		}
	}
}

func TestUnknownCKNIsNamed(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.Add("a", 1, nil), s.Add("b", 2, nil)
	a.Start(epoch1)
	b.Start(epoch2)
	s.Net.Run(time.Minute)
	if c := a.Condition(mka.ConditionUnknownCKN); c == nil || c.CKN != epoch2.CKN || c.Source != b.Config.Address {
		t.Errorf("a: %+v", a.Status().Conditions)
	}
	b.AddCAK(epoch1)
	s.mustSecure(5 * time.Second)
}

func TestSuiteMismatchNamesBothSuites(t *testing.T) {
	s := newSim(t, 1)
	a := s.Add("a", 1, func(c *mka.Config) { c.Suite = mka.GCMAES256 })
	b := s.Add("b", 2, nil)
	a.Start(epoch1)
	b.Start(epoch1)
	s.Net.Run(10 * time.Second)
	if c := b.Condition(mka.ConditionSuiteMismatch); c == nil || c.Theirs != mka.GCMAES256 || c.Ours != mka.GCMAESXPN256 {
		t.Errorf("b: %+v", b.Status().Conditions)
	}
}

func TestFailedInstallationKeepsTheOldSAKAndRetries(t *testing.T) {
	for who := range 2 {
		for _, kind := range []mka.OpKind{mka.OpAddReceiveSA, mka.OpAddTransmitSA} {
			t.Run(fmt.Sprintf("member %d %v", who, kind), func(t *testing.T) {
				s, a, _ := pair(t, nil)
				old := a.Status().KI
				m := s.Members[who]
				failures := 2
				m.OpFault = func(op mka.Op) error {
					if op.Kind == kind && failures > 0 {
						failures--
						return errors.New("no memory")
					}
					return nil
				}
				a.Step(mka.Event{Kind: mka.EventRekey})
				s.Net.Run(time.Second)
				if m.Condition(mka.ConditionInstallFailed) == nil {
					t.Error("the failure is not reported")
				}
				s.Net.Run(30 * time.Second)
				if !s.Secured() || a.Status().KI == old {
					t.Errorf("secured %v on %v", s.Secured(), a.Status().KI)
				}
				s.noGaps()
			})
		}
	}
}

func TestReplayedFramesChangeNothing(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.Add("a", 1, nil), s.Add("b", 2, nil)
	var old [][]byte
	s.Segment.Tap = func(_ time.Time, _ *simlink.Station, f []byte) { old = append(old, append([]byte(nil), f...)) }
	a.Start(epoch1)
	b.Start(epoch1)
	s.mustSecure(time.Second)
	s.Net.Run(10 * time.Second)
	// A former life of b: everything it said is on record, and its MI is not
	// known any more.
	b.Kill()
	b.StartFrom(nil, epoch1)
	s.mustSecure(20 * time.Second)
	s.Net.Run(20 * time.Second)
	s.Segment.Tap = nil
	before, saks := a.Status(), a.Saw(mka.NoticeSAK)
	attacker := s.Segment.Attach(func([]byte) {})
	for range 3 {
		for _, f := range old {
			attacker.Send(f)
		}
		s.Net.Run(5 * time.Second)
	}
	if got := a.Status(); got.KI != before.KI || a.Saw(mka.NoticeSAK) != saks || !s.Secured() {
		t.Errorf("replays led to %+v", got)
	}
	s.noGaps()
}

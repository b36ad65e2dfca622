package mka_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/mka"
)

var epoch1 = cak{ckn: "epoch-1", key: 1, rank: 1}
var epoch2 = cak{ckn: "epoch-2", key: 2, rank: 2}

// pair is two members that are secured under epoch 1.
func pair(t *testing.T, change func(*mka.Config)) (s *sim, a, b *member) {
	t.Helper()
	s = newSim(t, 1)
	a, b = s.add("a", 1, change), s.add("b", 2, change)
	a.start(false, epoch1)
	b.start(false, epoch1)
	s.mustSecure(time.Second)
	s.net.Run(10 * time.Second)
	return s, a, b
}

func TestSecuresInThreeExchangesWithoutWaitingForATimer(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.add("a", 1, nil), s.add("b", 2, nil)
	a.start(false, epoch1)
	s.net.Run(30 * time.Second) // the first waits for the second, at hello pace
	frames := 0
	s.segment.Tap = func(time.Time, *simlink.Station, []byte) { frames++ }
	b.start(false, epoch1)
	if d := s.mustSecure(time.Second); d > time.Millisecond {
		t.Errorf("secured after %v of a link with 50 µs delay", d)
	}
	if frames > 9 {
		t.Errorf("%d MKPDUs to secure, want 9 at most", frames)
	}
	if st := a.status(); !st.IsKeyServer || b.status().IsKeyServer {
		t.Error("with equal priorities the lower SCI must be key server")
	}
	s.net.Run(time.Minute)
	s.noGaps()
	if n := a.saw(mka.NoticeSAK); n != 1 {
		t.Errorf("%d SAKs in a quiet minute, want 1", n)
	}
}

func TestEitherSideMayStartFirstWithAnyPriority(t *testing.T) {
	for _, tt := range []struct {
		a, b   uint8
		server string
	}{{16, 16, "a"}, {16, 15, "b"}, {255, 16, "b"}, {0, 255, "a"}, {254, 255, "a"}} {
		for _, first := range []string{"a", "b"} {
			t.Run(fmt.Sprintf("%d-%d-%s", tt.a, tt.b, first), func(t *testing.T) {
				s := newSim(t, 1)
				a := s.add("a", 1, func(c *mka.Config) { c.Priority = tt.a })
				b := s.add("b", 2, func(c *mka.Config) { c.Priority = tt.b })
				if first == "b" {
					a, b = b, a
				}
				a.start(false, epoch1)
				s.net.Run(3 * time.Second)
				b.start(false, epoch1)
				s.mustSecure(100 * time.Millisecond)
				for _, m := range s.members {
					if m.status().IsKeyServer != (m.name == tt.server) {
						t.Errorf("%s is key server: %v", m.name, m.status().IsKeyServer)
					}
				}
			})
		}
	}
}

func TestNobodyServesWhenAllPrioritiesAre255(t *testing.T) {
	s := newSim(t, 1)
	for i := range byte(2) {
		s.add(string('a'+rune(i)), i+1, func(c *mka.Config) { c.Priority = 255 }).start(false, epoch1)
	}
	s.net.Run(10 * time.Second)
	for _, m := range s.members {
		if m.condition(mka.ConditionNoKeyServer) == nil || m.status().Carrying {
			t.Errorf("%s: %+v", m.name, m.status())
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
			last := a.status()
			for i := range 20 {
				who.step(mka.Event{Kind: mka.EventRekey})
				if _, ok := s.net.RunUntil(10*time.Second, func() bool { return s.secured() && a.status().KI != last.KI }); !ok {
					t.Fatalf("rekey %d: still on %v", i, last.KI)
				}
				if an := a.status().AN; an != (last.AN+1)%4 {
					t.Errorf("rekey %d: AN %d after %d", i, an, last.AN)
				}
				last = a.status()
				s.net.Run(4 * time.Second)
			}
			s.noGaps()
			for _, m := range s.members {
				if n := m.saw(mka.NoticeSecured); n != 21 {
					t.Errorf("%s said %d times that it is secured, want once a SAK", m.name, n)
				}
				if len(m.secy.tx) != 1 || len(m.secy.rx) != 1 {
					t.Errorf("%s keeps %d transmit SAs and %d receive SCs", m.name, len(m.secy.tx), len(m.secy.rx))
				}
			}
		})
	}
}

func TestRekeysOnTheTimerAndOnPacketNumbers(t *testing.T) {
	t.Run("timer", func(t *testing.T) {
		s, a, _ := pair(t, func(c *mka.Config) { c.SAKRekey = 30 * time.Second })
		s.net.Run(10 * time.Minute)
		if n := a.saw(mka.NoticeSAK); n < 18 || n > 21 {
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
				m := s.members[who]
				old := a.status().KI
				m.step(mka.Event{Kind: mka.EventPN, KI: old, NextPN: tt.pn - 1})
				s.net.Run(5 * time.Second)
				if a.status().KI != old {
					t.Fatal("rekeyed below the threshold")
				}
				// LPN is a hello old when it is reported: report it twice.
				m.step(mka.Event{Kind: mka.EventPN, KI: old, NextPN: tt.pn})
				s.net.Run(3 * time.Second)
				m.step(mka.Event{Kind: mka.EventPN, KI: old, NextPN: tt.pn + 1})
				s.net.Run(5 * time.Second)
				if a.status().KI == old || !s.secured() {
					t.Error("not rekeyed at the threshold")
				}
				s.noGaps()
			})
		}
	}
}

func TestCAKRolloverIsMakeBeforeBreak(t *testing.T) {
	s, a, b := pair(t, nil)
	a.addCAK(epoch2)
	s.net.Run(20 * time.Second)
	if got := a.status().CKN; got != epoch1.ckn {
		t.Fatalf("one end alone moved to %q", got)
	}
	b.addCAK(epoch2)
	s.net.Run(time.Second)
	for _, m := range s.members {
		if m.status().CKN != epoch2.ckn {
			t.Fatalf("%s is still on %q", m.name, m.status().CKN)
		}
		if m.saw(mka.NoticeInUse) != 2 {
			t.Errorf("%s: %d CAKs in use, want 2", m.name, m.saw(mka.NoticeInUse))
		}
		m.step(mka.Event{Kind: mka.EventRemoveCAK, CKN: epoch1.ckn})
	}
	s.net.Run(time.Minute)
	s.noGaps()
	if !s.secured() || a.saw(mka.NoticeSAK) != 2 {
		t.Errorf("secured %v after %d SAKs", s.secured(), a.saw(mka.NoticeSAK))
	}
}

func TestCAKRolloverWaitsForARekeyUnderWay(t *testing.T) {
	s, a, b := pair(t, nil)
	for i := range uint64(10) {
		next := cak{ckn: mka.CKN(fmt.Sprint("next", i)), key: byte(10 + i), rank: 10 + i}
		a.step(mka.Event{Kind: mka.EventRekey})
		b.addCAK(next)
		s.net.Run(time.Duration(i) * time.Millisecond)
		a.addCAK(next)
		s.net.Run(8 * time.Second)
		if a.status().CKN != next.ckn || !s.secured() {
			t.Fatalf("rollover %d: on %q", i, a.status().CKN)
		}
		for _, m := range s.members {
			for _, p := range m.status().Participants {
				if p.CKN != next.ckn {
					m.step(mka.Event{Kind: mka.EventRemoveCAK, CKN: p.CKN})
				}
			}
		}
	}
	s.noGaps()
}

func TestRevocationClosesAtOnce(t *testing.T) {
	s, a, b := pair(t, nil)
	a.step(mka.Event{Kind: mka.EventRevokeCAK, CKN: epoch1.ckn})
	s.net.Run(time.Millisecond)
	if len(a.secy.tx) != 0 || len(a.secy.rx) != 0 || a.status().Carrying {
		t.Errorf("after the revocation the SecY still has %v", a.secy)
	}
	s.net.Run(10 * time.Second)
	if b.saw(mka.NoticePeerLost) != 1 {
		t.Error("the far end did not notice")
	}
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
				before := m.status()
				for range 5 {
					m.kill()
					s.net.Run(down)
					m.start(false, epoch1)
					if d := s.mustSecure(3 * time.Second); d > 10*time.Millisecond {
						t.Errorf("secured again after %v", d)
					}
					s.net.Run(10 * time.Second)
				}
				after := m.status()
				if after.KI != before.KI || after.Participants[0].MI != before.Participants[0].MI {
					t.Error("it came back as another member or with another SAK")
				}
				if other.saw(mka.NoticePeerLost) != 0 || other.saw(mka.NoticePeerLive) != 1 {
					t.Error("the far end noticed")
				}
				m.step(mka.Event{Kind: mka.EventRekey})
				s.net.Run(5 * time.Second)
				if !s.secured() || m.status().KI == before.KI {
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
			a.addCAK(epoch2)
			b.addCAK(epoch2)
			s.net.Run(time.Second)
			for _, m := range s.members {
				m.step(mka.Event{Kind: mka.EventRemoveCAK, CKN: epoch1.ckn})
			}
			m, other := s.members[who], s.members[1-who]
			before, live := m.status(), other.saw(mka.NoticePeerLive)
			if len(m.secy.tx) != 2 {
				t.Fatalf("%d transmit SAs: the old SAK should still be there", len(m.secy.tx))
			}
			m.kill()
			m.start(false, epoch2)
			s.net.Run(10 * time.Second)
			if after := m.status(); !s.secured() || after.KI != before.KI || other.saw(mka.NoticePeerLive) != live {
				t.Errorf("secured %v on %v, before on %v", s.secured(), after.KI, before.KI)
			}
			if len(m.secy.tx) != 1 {
				t.Errorf("%d transmit SAs are left", len(m.secy.tx))
			}
			s.noGaps()
		})
	}
}

func TestRestartWithoutTheRecordLosesNothing(t *testing.T) {
	for who := range 2 {
		t.Run(fmt.Sprintf("member %d", who), func(t *testing.T) {
			s, a, _ := pair(t, nil)
			m := s.members[who]
			old := a.status().KI
			for range 5 {
				m.kill()
				s.net.Run(700 * time.Millisecond)
				m.start(true, epoch1)
				s.mustSecure(20 * time.Second)
				s.net.Run(5 * time.Second)
				if a.status().KI == old || !s.secured() {
					t.Fatal("no fresh SAK under a fresh MI")
				}
				old = a.status().KI
			}
			s.noGaps()
		})
	}
}

func TestKilledAtEveryStepOfARekey(t *testing.T) {
	for who := range 2 {
		for step := range 40 {
			t.Run(fmt.Sprintf("member %d step %d", who, step), func(t *testing.T) {
				s, a, _ := pair(t, nil)
				m := s.members[who]
				for _, x := range s.members {
					x.opDelay = 10 * time.Microsecond
				}
				a.step(mka.Event{Kind: mka.EventRekey})
				end := s.net.Now().Add(10 * time.Second)
				for range step {
					s.net.Next(end)
				}
				m.kill()
				s.net.Run(300 * time.Millisecond)
				m.start(false, epoch1)
				s.mustSecure(20 * time.Second)
				s.net.Run(20 * time.Second)
				if !s.secured() {
					t.Error("not secured any more")
				}
				s.noGaps()
			})
		}
	}
}

func TestLossyLinkIsSecuredAndStaysSo(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newSim(t, seed)
			a := s.add("a", 1, func(c *mka.Config) { c.SAKRekey = time.Minute })
			b := s.add("b", 2, nil)
			s.segment.Faults = simlink.Faults{
				Loss: 0.2, Duplicate: 0.1, Reorder: 0.2, ReorderBy: 5 * time.Millisecond, Corrupt: 0.05,
			}
			a.start(false, epoch1)
			b.start(false, epoch1)
			s.mustSecure(30 * time.Second)
			s.net.Run(30 * time.Minute)
			s.segment.Faults = simlink.Faults{}
			s.mustSecure(10 * time.Second)
			s.noGaps()
		})
	}
}

func TestGroupOfFour(t *testing.T) {
	s := newSim(t, 3)
	for i := range byte(4) {
		s.add(string('a'+rune(i)), i+1, func(c *mka.Config) { c.Priority = 16 + i }).start(false, epoch1)
		s.net.Run(time.Duration(i) * time.Second)
	}
	s.mustSecure(10 * time.Second)
	a, rest := s.members[0], s.members[1:]
	a.step(mka.Event{Kind: mka.EventRekey})
	s.net.Run(5 * time.Second)
	s.noGaps()

	a.kill() // the key server: its SecY goes on
	s.net.Run(10 * time.Second)
	if !s.secured(rest...) || !rest[0].status().IsKeyServer {
		t.Fatalf("after the key server's death: %+v", rest[0].status())
	}
	a.start(true, epoch1)
	s.mustSecure(20 * time.Second)
	s.net.Run(10 * time.Second)
	if !s.secured() || !a.status().IsKeyServer {
		t.Errorf("after its return: %+v", a.status())
	}
	for _, from := range rest {
		for _, to := range rest {
			if from != to && !s.carries(from, to) {
				t.Errorf("%s does not reach %s", from.name, to.name)
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
			r := s.net.Rand()
			for i := range 3 + r.IntN(4) {
				m := s.add(string(rune('a'+i)), byte(i+1), nil)
				m.opDelay = time.Duration(r.Int64N(int64(200 * time.Millisecond)))
				s.net.After(time.Duration(r.Int64N(int64(3*time.Second))), func() { m.start(false, epoch1) })
			}
			s.segment.Faults = simlink.Faults{Loss: 0.2, Duplicate: 0.1, Reorder: 0.2, ReorderBy: 300 * time.Millisecond}
			s.net.Run(time.Minute)
			s.segment.Faults = simlink.Faults{}
			s.mustSecure(30 * time.Second)
			s.members[0].step(mka.Event{Kind: mka.EventRekey})
			s.net.Run(20 * time.Second)
			if !s.secured() {
				t.Error("not secured after a rekey")
			}
		})
	}
}

func TestWrongCAKNeverSecuresAndBothSidesSayWhy(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.add("a", 1, nil), s.add("b", 2, nil)
	a.start(false, epoch1)
	b.start(false, cak{ckn: epoch1.ckn, key: 9, rank: 1})
	s.net.Run(time.Minute)
	for _, m := range s.members {
		c := m.condition(mka.ConditionICVMismatch)
		if c == nil || c.CKN != epoch1.ckn || m.status().Carrying || len(m.secy.tx) > 0 {
			t.Errorf("%s: %+v", m.name, m.status())
		}
	}
}

func TestUnknownCKNIsNamed(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.add("a", 1, nil), s.add("b", 2, nil)
	a.start(false, epoch1)
	b.start(false, epoch2)
	s.net.Run(time.Minute)
	if c := a.condition(mka.ConditionUnknownCKN); c == nil || c.CKN != epoch2.ckn || c.Source != b.cfg.Address {
		t.Errorf("a: %+v", a.status().Conditions)
	}
	b.addCAK(epoch1)
	s.mustSecure(5 * time.Second)
}

func TestSuiteMismatchNamesBothSuites(t *testing.T) {
	s := newSim(t, 1)
	a := s.add("a", 1, func(c *mka.Config) { c.Suite = mka.GCMAES256 })
	b := s.add("b", 2, nil)
	a.start(false, epoch1)
	b.start(false, epoch1)
	s.net.Run(10 * time.Second)
	if c := b.condition(mka.ConditionSuiteMismatch); c == nil || c.Theirs != mka.GCMAES256 || c.Ours != mka.GCMAESXPN256 {
		t.Errorf("b: %+v", b.status().Conditions)
	}
}

func TestFailedInstallationKeepsTheOldSAKAndRetries(t *testing.T) {
	for who := range 2 {
		for _, kind := range []mka.OpKind{mka.OpAddReceiveSA, mka.OpAddTransmitSA} {
			t.Run(fmt.Sprintf("member %d %v", who, kind), func(t *testing.T) {
				s, a, _ := pair(t, nil)
				old := a.status().KI
				m := s.members[who]
				failures := 2
				m.opFail = func(op mka.Op) error {
					if op.Kind == kind && failures > 0 {
						failures--
						return errors.New("no memory")
					}
					return nil
				}
				a.step(mka.Event{Kind: mka.EventRekey})
				s.net.Run(time.Second)
				if m.condition(mka.ConditionInstallFailed) == nil {
					t.Error("the failure is not reported")
				}
				s.net.Run(30 * time.Second)
				if !s.secured() || a.status().KI == old {
					t.Errorf("secured %v on %v", s.secured(), a.status().KI)
				}
				s.noGaps()
			})
		}
	}
}

func TestReplayedFramesChangeNothing(t *testing.T) {
	s := newSim(t, 1)
	a, b := s.add("a", 1, nil), s.add("b", 2, nil)
	var old [][]byte
	s.segment.Tap = func(_ time.Time, _ *simlink.Station, f []byte) { old = append(old, append([]byte(nil), f...)) }
	a.start(false, epoch1)
	b.start(false, epoch1)
	s.mustSecure(time.Second)
	s.net.Run(10 * time.Second)
	// A former life of b: everything it said is on record, and its MI is not
	// known any more.
	b.kill()
	b.start(true, epoch1)
	s.mustSecure(20 * time.Second)
	s.net.Run(20 * time.Second)
	s.segment.Tap = nil
	before, saks := a.status(), a.saw(mka.NoticeSAK)
	attacker := s.segment.Attach(func([]byte) {})
	for range 3 {
		for _, f := range old {
			attacker.Send(f)
		}
		s.net.Run(5 * time.Second)
	}
	if got := a.status(); got.KI != before.KI || a.saw(mka.NoticeSAK) != saks || !s.secured() {
		t.Errorf("replays led to %+v", got)
	}
	s.noGaps()
}

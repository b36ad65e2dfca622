package mka_test

import (
	"testing"
	"time"

	"github.com/lever-link/lever/internal/sim"
	"github.com/lever-link/lever/mka"
)

// beside is a member of ours beside a wpa_supplicant, from when they are secured.
type beside struct {
	*scene
	ours *sim.Member
	wpa  *sim.WPA
	said []string // what wpa_supplicant would have logged
	gaps int      // moments at which frames did not pass both ways
}

func besideWPA(t *testing.T, ours, theirs uint8) *beside {
	t.Helper()
	s := &beside{scene: newSim(t, 1)}
	s.ours = s.Add("a", 1, func(c *mka.Config) {
		c.External, c.Suite, c.Priority = true, mka.GCMAES128, ours
	})
	s.wpa = s.AddWPA("w", 2, func(c *mka.Config) { c.Priority = theirs })
	s.ours.Start(epoch1)
	s.Net.Run(700 * time.Millisecond)
	if err := s.wpa.Run(epoch1); err != nil {
		t.Fatal(err)
	}
	s.Trace = func(e sim.Entry) {
		switch {
		case e.Member != s.wpa.Member:
		case e.Kind == sim.TraceNote:
			s.said = append(s.said, e.Text)
		case e.Kind == sim.TraceOp && e.Err != nil:
			t.Errorf("wpa_supplicant's kernel refuses: %v", e.Err)
		}
	}
	d, ok := s.Net.RunUntil(20*time.Second, func() bool { return s.ours.Status().Secured && s.passes() })
	if !ok {
		t.Fatalf("not secured: %+v", s.ours.Status())
	}
	if d > 8*time.Second {
		t.Errorf("secured after %v: of a peer that speaks every 2 s four hellos are enough", d)
	}
	s.Stepped = func(*sim.Member, *mka.Output) {
		if !s.passes() {
			s.gaps++
		}
	}
	s.Net.Run(10 * time.Second)
	return s
}

// passes says whether frames go both ways between the two.
func (s *beside) passes() bool {
	return s.Carries(s.ours, s.wpa.Member) && s.Carries(s.wpa.Member, s.ours)
}

func TestBesideWPASupplicant(t *testing.T) {
	for _, tt := range []struct {
		name         string
		ours, theirs uint8
		server       bool
	}{
		{"we are key server", 16, 255, true},
		{"it is key server", 17, 16, false},
		{"equal priorities", 16, 16, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := besideWPA(t, tt.ours, tt.theirs)
			a := s.ours
			if st := a.Status(); st.IsKeyServer != tt.server || st.Suite != mka.GCMAES128 {
				t.Errorf("key server %v, suite %v", st.IsKeyServer, st.Suite)
			}
			s.Net.Run(10 * time.Minute)
			if n := a.Saw(mka.NoticeSAK); n != 1 || !a.Status().Secured {
				t.Errorf("after ten quiet minutes: %d SAKs, %+v", n, a.Status())
			}

			for i := range 5 {
				if tt.server {
					a.Rekey()
				} else {
					s.wpa.Rekey() // on packet number exhaustion
				}
				s.Net.Run(15 * time.Second)
				theirs, _ := s.wpa.SAs.Encoding()
				if n, st := a.Saw(mka.NoticeSAK), a.Status(); n != i+2 || !st.Secured || st.KI != theirs {
					t.Fatalf("rekey %d: %d SAKs, theirs is %v, %+v", i, n, theirs, st)
				}
			}

			// Restarts with the record are not noticed, however soon.
			for _, down := range []time.Duration{0, 100 * time.Millisecond, time.Second, 2500 * time.Millisecond} {
				before := a.Status().KI
				a.Kill()
				s.Net.Run(down)
				a.Start(epoch1)
				s.Net.Run(20 * time.Second)
				if a.Status().KI != before || !a.Status().Secured {
					t.Errorf("restart after %v: %+v", down, a.Status())
				}
			}
			if len(s.said) > 0 {
				t.Errorf("wpa_supplicant says %q", s.said)
			}
			if s.gaps != 0 {
				t.Errorf("%d moments without a way for a frame", s.gaps)
			}
			if (a.Port.CanRekey() == nil) != tt.server {
				t.Errorf("CanRekey says %v", a.Port.CanRekey())
			}
		})
	}
}

// Some equipment keeps its MI over a restart and counts keys from 1 again: the
// packet numbers of a KI that was in use would start again.
func TestKeyNumbersUsedBeforeAreRefused(t *testing.T) {
	s := besideWPA(t, 17, 16)
	a, w := s.ours, s.wpa
	w.Rekey()
	s.Net.Run(15 * time.Second)
	before := a.Status()
	if before.KI.KN != 2 || !before.Secured {
		t.Fatalf("KN 2: %+v", before)
	}
	w.KN = 0
	w.Rekey()
	s.Net.Run(10 * time.Second)
	c := a.Condition(mka.ConditionReplayedKI)
	if c == nil || c.KI != (mka.KI{MI: w.MI, KN: 1}) || c.SCI != w.Config.SCI {
		t.Errorf("conditions %+v", a.Status().Conditions)
	}
	if got, _ := a.SAs.Encoding(); got != before.KI {
		t.Errorf("it transmits with %v", got)
	}
	if s.gaps != 0 {
		t.Errorf("the SAK in use was given up: %d gaps", s.gaps)
	}
	// What helps is a key number that was not used, and it is taken at once.
	w.KN = 2
	w.Rekey()
	s.Net.Run(10 * time.Second)
	if st := a.Status(); !st.Secured || st.KI.KN != 3 {
		t.Errorf("KN 3: %+v", st)
	}
	// Equipment that keeps to the one that was refused is asked for another,
	// by a fresh MI.
	mi := a.Status().Participants[0].MI
	w.KN = 1
	w.Rekey()
	s.Net.Run(3 * time.Second)
	if c := a.Condition(mka.ConditionReplayedKI); c == nil || c.KI.KN != 2 {
		t.Errorf("conditions %+v", a.Status().Conditions)
	}
	w.KN = 3
	s.Net.Run(time.Minute)
	if st := a.Status(); !st.Secured || st.KI.KN != 4 || st.Participants[0].MI == mi || !s.passes() {
		t.Errorf("after a refusal of a minute: %+v", st)
	}
}

package simlink_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/simlink"
)

func TestTimersFireInOrderAndCanBeStopped(t *testing.T) {
	n := simlink.New(1)
	var got string
	n.After(3*time.Second, func() { got += "c" })
	stopped := n.After(2*time.Second, func() { got += "x" })
	n.After(time.Second, func() {
		got += "a"
		n.After(0, func() { got += "b" })
	})
	n.After(time.Second, func() { got += "A" })
	n.Stop(stopped)
	n.Stop(stopped)
	n.Stop(nil)
	n.Run(10 * time.Second)
	if got != "aAbc" {
		t.Errorf("order %q, want aAbc", got)
	}
	if d := n.Now().Sub(simlink.Epoch); d != 10*time.Second {
		t.Errorf("%v passed, want 10s", d)
	}
}

func TestRunUntilReportsWhenAndWhether(t *testing.T) {
	n := simlink.New(1)
	done := false
	n.After(4*time.Second, func() { done = true })
	if d, ok := n.RunUntil(10*time.Second, func() bool { return done }); d != 4*time.Second || !ok {
		t.Errorf("RunUntil = %v, %v", d, ok)
	}
	if d, ok := n.RunUntil(time.Second, func() bool { return false }); d != time.Second || ok {
		t.Errorf("RunUntil = %v, %v", d, ok)
	}
}

// carry sends a thousand numbered frames a millisecond apart and returns what
// arrives at the other station.
func carry(seed uint64, f simlink.Faults) []string {
	n := simlink.New(seed)
	s := n.Segment(100 * time.Microsecond)
	s.Faults = f
	var got []string
	a := s.Attach(func([]byte) {})
	s.Attach(func(frame []byte) { got = append(got, string(frame)) })
	for i := range 1000 {
		n.After(time.Duration(i)*time.Millisecond, func() { a.Send(fmt.Appendf(nil, "%04d", i)) })
	}
	n.Run(time.Minute)
	return got
}

func TestFaultsHappenAtTheirRateAndReplayWithTheSeed(t *testing.T) {
	clean := carry(1, simlink.Faults{})
	if len(clean) != 1000 || clean[0] != "0000" || clean[999] != "0999" {
		t.Fatalf("without faults: %d frames", len(clean))
	}
	tests := []struct {
		name   string
		faults simlink.Faults
		check  func(got []string) bool
	}{
		{"loss", simlink.Faults{Loss: 0.3}, func(g []string) bool { return len(g) > 600 && len(g) < 800 }},
		{"duplicate", simlink.Faults{Duplicate: 0.3}, func(g []string) bool { return len(g) > 1200 && len(g) < 1400 }},
		{"reorder", simlink.Faults{Reorder: 0.5, ReorderBy: 20 * time.Millisecond}, func(g []string) bool {
			late := 0
			for i := 1; i < len(g); i++ {
				if g[i] < g[i-1] {
					late++
				}
			}
			return len(g) == 1000 && late > 100
		}},
		{"corrupt", simlink.Faults{Corrupt: 0.3}, func(g []string) bool {
			changed := 0
			for i, f := range g {
				if f != clean[i] {
					changed++
				}
			}
			return len(g) == 1000 && changed > 200 && changed < 400
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := carry(7, tt.faults)
			if !tt.check(got) {
				t.Errorf("%d frames arrived, not as the rate says", len(got))
			}
			if again := carry(7, tt.faults); fmt.Sprint(again) != fmt.Sprint(got) {
				t.Error("the same seed gave another run")
			}
		})
	}
}

func TestCutIsOneWayAndHeals(t *testing.T) {
	n := simlink.New(1)
	s := n.Segment(0)
	var atA, atB int
	a := s.Attach(func([]byte) { atA++ })
	b := s.Attach(func([]byte) { atB++ })
	exchange := func() {
		a.Send([]byte("x"))
		b.Send([]byte("y"))
		n.Run(time.Second)
	}
	b.Cut(a)
	exchange()
	if atA != 1 || atB != 0 {
		t.Errorf("cut towards b: a got %d, b got %d", atA, atB)
	}
	b.Heal()
	exchange()
	if atA != 2 || atB != 1 {
		t.Errorf("healed: a got %d, b got %d", atA, atB)
	}
	a.Send([]byte("z"))
	b.Detach()
	n.Run(time.Second)
	if atB != 1 {
		t.Error("a detached station got a frame")
	}
}

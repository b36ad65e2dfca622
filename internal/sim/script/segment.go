package script

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// What happens to the segment, and time.

func (s *Script) cmdCut(a *args) error {
	for _, w := range a.words() {
		from, to, ok := strings.Cut(w, ">")
		if !ok {
			return fmt.Errorf("%q is not A>B", w)
		}
		x, err := s.station(from)
		if err != nil {
			return err
		}
		y, err := s.station(to)
		if err != nil {
			return err
		}
		y.member.Station.Cut(x.member.Station)
	}
	return nil
}

func (s *Script) cmdHeal(*args) error {
	for _, st := range s.stations {
		st.member.Station.Heal()
	}
	return nil
}

func (s *Script) cmdLoss(a *args) error {
	text, err := a.word("a probability")
	if err == nil {
		s.sim.Segment.Faults.Loss, err = strconv.ParseFloat(text, 64)
	}
	return err
}

// cmdReplay has an attacker send what somebody sent before, once more.
func (s *Script) cmdReplay(a *args) error {
	st, err := s.named(a, "whose frame")
	if err != nil {
		return err
	}
	mn, mi := uint32(a.number("mn", 0)), a.text("mi", st.name+"1")
	if s.attacker == nil {
		s.attacker = s.sim.Segment.Attach(func([]byte) {})
	}
	for _, f := range st.frames {
		if m, _ := s.decode(f); m != nil && m.Basic.MN == mn && m.Basic.MI == s.mis[mi] {
			s.attacker.Send(f)
			return nil
		}
	}
	return fmt.Errorf("%s sent no MKPDU %s.%d", st.name, mi, mn)
}

func (s *Script) cmdRun(a *args) error {
	until := a.text("until", "")
	text, err := a.word("how long")
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	switch until {
	case "":
		s.run(d)
	case "secured":
		if took, ok := s.sim.Net.RunUntil(d, s.secured); ok {
			s.line("all are secured, after %v", took)
		} else {
			s.line("not all are secured within %v", d)
		}
	default:
		return fmt.Errorf("run until %q?", until)
	}
	return nil
}

func (s *Script) cmdShow(a *args) error {
	for _, w := range a.words() {
		s.show[w] = true
	}
	return nil
}

// cmdHide takes show back; frames are shown until then.
func (s *Script) cmdHide(a *args) error {
	for _, w := range a.words() {
		s.show[w] = false
	}
	return nil
}

// cmdLenient says that two may use one MI, or one two, because the scenario makes them.
func (s *Script) cmdLenient(*args) error {
	s.sim.Lenient = true
	return nil
}

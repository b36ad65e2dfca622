package script

import (
	"fmt"
	"strings"
	"time"

	"github.com/lever-link/lever/mka"
)

// these are the stations that a command names, or all.
func (s *Script) these(a *args) ([]*station, error) {
	names := a.words()
	if len(names) == 0 {
		return s.stations, nil
	}
	var list []*station
	for _, name := range names {
		st, err := s.station(name)
		if err != nil {
			return nil, err
		}
		list = append(list, st)
	}
	return list, nil
}

func (s *Script) cmdStatus(a *args) error {
	list, err := s.these(a)
	if err != nil {
		return err
	}
	for _, st := range list {
		switch {
		case !st.ours():
		case st.member.Port == nil:
			s.line("%s is dead; %s", st.name, s.sas(st))
		default:
			s.line("%s is %s", st.name, s.status(st.member.Status()))
			s.line("%s has %s", st.name, s.sas(st))
		}
	}
	return nil
}

func (s *Script) status(st mka.Status) string {
	var b strings.Builder
	b.WriteString("not secured")
	switch {
	case st.Secured:
		b.Reset()
		b.WriteString("secured")
	case st.Carrying:
		b.WriteString(", carrying")
	}
	if st.Rekeying {
		b.WriteString(", rekeying")
	}
	switch {
	case st.IsKeyServer:
		b.WriteString(", key server")
	case st.KeyServer != mka.SCI{}:
		fmt.Fprintf(&b, ", key server %s", s.who(st.KeyServer))
	default:
		b.WriteString(", no key server")
	}
	if st.KI != (mka.KI{}) {
		fmt.Fprintf(&b, ", SAK %s AN %d %v%s", s.ki(st.KI), st.AN, st.Suite, s.under(st.CKN))
	}
	if st.DelayProtect {
		b.WriteString(", delay protection")
	}
	if !st.Suspension.Until.IsZero() {
		fmt.Fprintf(&b, ", suspended for %v", s.left(st.Suspension.Until))
		if st.Suspension.Heard {
			b.WriteString(", heard by all")
		}
	}
	for _, pa := range st.Participants {
		for _, pe := range pa.Peers {
			state := "potential"
			if pe.Live {
				state = "live"
			}
			fmt.Fprintf(&b, "; %s %s%s", state, s.mi(pe.MI, s.who(pe.SCI)), s.under(pa.CKN))
			if len(pe.Suites) > 0 {
				fmt.Fprintf(&b, " announces %v", pe.Suites)
			}
			if !pe.SuspendedUntil.IsZero() {
				fmt.Fprintf(&b, " away for %v", s.left(pe.SuspendedUntil))
			}
		}
	}
	for _, c := range st.Conditions {
		fmt.Fprintf(&b, "; ! %s", s.condition(c))
	}
	return b.String()
}

func (s *Script) left(t time.Time) time.Duration {
	return t.Sub(s.sim.Net.Now()).Round(time.Millisecond)
}

// sas are the SAs of a device.
func (s *Script) sas(st *station) string {
	a := &st.member.SAs
	var parts []string
	for an, ki := range a.Transmit {
		if ki == (mka.KI{}) {
			continue
		}
		what := "transmit SA"
		if enc, ok := a.Encoding(); ok && enc == ki && a.EncodingAN == mka.AN(an) {
			what = "encoding SA"
		}
		parts = append(parts, fmt.Sprintf("%s %d of %s", what, an, s.ki(ki)))
	}
	for _, o := range s.stations {
		sci := o.member.Config.SCI
		for an := range mka.AN(4) {
			if ki := a.Receive(sci, an); ki != (mka.KI{}) {
				parts = append(parts, fmt.Sprintf("from %s %d of %s%s", o.name, an, s.ki(ki), s.ssci(ki, sci)))
			}
		}
	}
	if len(parts) == 0 {
		return "no SAs"
	}
	return strings.Join(parts, ", ")
}

func (s *Script) ssci(ki mka.KI, sci mka.SCI) string {
	if n := s.sim.SSCI(ki, sci); n != 0 && s.show["ssci"] {
		return fmt.Sprintf(" SSCI %d", n)
	}
	return ""
}

// cmdData has each send one frame to all, and tells who got it.
func (s *Script) cmdData(a *args) error {
	list, err := s.these(a)
	if err != nil {
		return err
	}
	for _, from := range list {
		ki, _ := from.member.SAs.Encoding()
		var got []string
		for _, to := range s.stations {
			to.member.Data = func([]byte) { got = append(got, to.name) }
		}
		if !from.member.SendData() {
			s.line("%s lets no data out", from.name)
			continue
		}
		an := from.member.SAs.EncodingAN
		s.run(s.sim.Segment.Delay + time.Microsecond)
		if len(got) == 0 {
			got = []string{"nobody"}
		}
		s.line("%s => data under %s AN %d reaches %s", from.name, s.ki(ki), an, strings.Join(got, " "))
	}
	for _, to := range s.stations {
		to.member.Data = nil
	}
	return nil
}

// gaps are moments at which somebody who was secured sent where another who was
// could not have received it: by pair, from and to.
type gaps map[[2]string]*gap

type gap struct {
	count int
	first time.Duration
}

// lookForGaps looks after every step. A pair counts from when it could first talk.
func (s *Script) lookForGaps() {
	if s.gaps == nil {
		s.gaps = gaps{}
	}
	for _, from := range s.stations {
		for _, to := range s.stations {
			if from == to || from.hand != nil || to.hand != nil {
				continue
			}
			g := s.gaps[[2]string{from.name, to.name}]
			switch ok := s.sim.Carries(from.member, to.member); {
			case g == nil && ok:
				s.gaps[[2]string{from.name, to.name}] = &gap{}
			case g != nil && !ok:
				if g.count++; g.count == 1 {
					g.first = s.sim.Since()
				}
			}
		}
	}
}

// cmdGaps tells of them, between those who are named, and starts to count anew.
func (s *Script) cmdGaps(a *args) error {
	list, err := s.these(a)
	if err != nil {
		return err
	}
	none := true
	for _, from := range list {
		for _, to := range list {
			if g := s.gaps[[2]string{from.name, to.name}]; g != nil && g.count > 0 {
				none = false
				s.line("%d gaps from %s to %s, the first at %v", g.count, from.name, to.name, g.first.Round(time.Microsecond))
			}
		}
	}
	if none {
		s.line("no gap")
	}
	for _, g := range s.gaps {
		g.count = 0
	}
	return nil
}

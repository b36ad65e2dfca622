package script

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lever-link/lever/internal/sim"
	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/mka"
)

// diary writes down what happens.
type diary struct {
	out   strings.Builder
	muted bool // what happens is remembered and not told
	names sim.Namer
	mis   map[string]mka.MI       // by name
	keys  map[mka.CKN][]*mka.ICK  // of every CAK that somebody has
	said  map[string]string       // by sender and CKN: what it said last
	is    map[string]string       // by sender and CKN: who it is
	same  map[string]int          // by sender: frames that say nothing new, since the last sum
	show  map[string]bool         // what is told besides
	state map[*sim.Member]*before // as last looked at
}

// before is what changes tells the differences to.
type before struct {
	secured    bool
	conditions []mka.Condition
	counters   mka.Counters
}

func newDiary() diary {
	return diary{
		mis: map[string]mka.MI{}, keys: map[mka.CKN][]*mka.ICK{}, said: map[string]string{}, is: map[string]string{},
		same: map[string]int{}, show: map[string]bool{"frames": true, "drops": true}, state: map[*sim.Member]*before{},
	}
}

func (s *Script) line(format string, args ...any) {
	if s.muted {
		return
	}
	fmt.Fprintf(&s.out, "%-12v %s\n", s.sim.Since().Round(time.Microsecond), fmt.Sprintf(format, args...))
}

// sumUp tells how many frames were left out.
func (s *Script) sumUp() {
	var parts []string
	for _, st := range s.stations {
		if n := s.same[st.name]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", st.name, n))
		}
	}
	clear(s.same)
	if len(parts) > 0 {
		fmt.Fprintf(&s.out, "%-12v (nothing new in MKPDUs: %s)\n", s.sim.Since().Round(time.Microsecond), strings.Join(parts, ", "))
	}
}

// mi names a member identifier; owner counts when it is new.
func (s *Script) mi(mi mka.MI, owner string) string {
	name := s.names.MI(mi, owner)
	s.mis[name] = mi
	return name
}

func (s *Script) ki(ki mka.KI) string {
	if ki == (mka.KI{}) {
		return "none"
	}
	return fmt.Sprintf("%s/%d", s.mi(ki.MI, "?"), ki.KN)
}

// who is the station of an SCI.
func (s *Script) who(sci mka.SCI) string {
	if m := s.sim.Member(sci); m != nil {
		return m.Name
	}
	return sci.String()
}

// learn lets the diary read what is sent under a CAK.
func (s *Script) learn(c sim.CAK) {
	key, err := mka.DeriveICK(c.Key(), c.CKN)
	if err != nil {
		return
	}
	if ick, err := mka.NewICK(key); err == nil {
		s.keys[c.CKN] = append(s.keys[c.CKN], ick)
	}
}

// trace tells what happens besides frames.
func (s *Script) trace(e sim.Entry) {
	switch e.Kind {
	case sim.TraceSent, sim.TraceReceived, sim.TraceEvent:
	case sim.TraceStart:
		if e.Resumed || len(e.Adopted) > 0 {
			s.line("%s", s.sim.Line(&s.names, e))
		}
	case sim.TraceNotice:
		n := e.Notice
		text := n.Kind.String()
		if n.SCI != (mka.SCI{}) {
			text += " " + s.who(n.SCI)
		}
		if n.KI != (mka.KI{}) {
			text += fmt.Sprintf(" %s AN %d", s.ki(n.KI), n.AN)
		}
		s.line("%s * %s%s", e.Member.Name, text, s.under(n.CKN))
	default:
		text, _, _ := strings.Cut(s.sim.Line(&s.names, e), "; check") // what to do about it
		s.line("%s", text)
	}
}

// under names a CKN if there are several.
func (s *Script) under(ckn mka.CKN) string {
	if len(s.keys) < 2 || ckn == "" {
		return ""
	}
	return fmt.Sprintf(" (%s)", string(ckn))
}

// changes tells what became different in a Port by its last step.
func (s *Script) changes(m *sim.Member) {
	b := s.state[m]
	if b == nil {
		b = &before{}
		s.state[m] = b
	}
	if m.Port == nil {
		*b = before{}
		return
	}
	st := m.Status()
	for _, x := range []struct {
		what     string
		was, now uint64
	}{
		{"malformed", b.counters.Malformed, st.Counters.Malformed},
		{"unknown CKN", b.counters.UnknownCKN, st.Counters.UnknownCKN},
		{"ICV mismatch", b.counters.ICVMismatch, st.Counters.ICVMismatch},
		{"own SCI", b.counters.OwnSCI, st.Counters.OwnSCI},
		{"replayed", b.counters.Replayed, st.Counters.Replayed},
		{"too many peers", b.counters.TooMany, st.Counters.TooMany},
	} {
		if x.now > x.was && s.show["drops"] {
			s.line("%s drops it: %s", m.Name, x.what)
		}
	}
	for _, c := range st.Conditions {
		if !slices.ContainsFunc(b.conditions, func(o mka.Condition) bool { return o.Kind == c.Kind && o.CKN == c.CKN }) {
			s.line("%s ! %s", m.Name, s.condition(c))
		}
	}
	for _, c := range st.Conditions {
		if s.show["again"] && slices.ContainsFunc(b.conditions, func(o mka.Condition) bool { return o.Kind == c.Kind && o.CKN == c.CKN && o.Count < c.Count }) {
			s.line("%s ! again: %s", m.Name, s.condition(c))
		}
	}
	for _, c := range b.conditions {
		if !slices.ContainsFunc(st.Conditions, func(o mka.Condition) bool { return o.Kind == c.Kind && o.CKN == c.CKN }) {
			s.line("%s ! no longer: %v", m.Name, c.Kind)
		}
	}
	if b.secured && !st.Secured {
		s.line("%s * no longer secured", m.Name)
	}
	*b = before{st.Secured, st.Conditions, st.Counters}
}

func (s *Script) condition(c mka.Condition) string {
	text := c.Kind.String()
	if c.Kind == mka.ConditionUnknownCKN {
		text += fmt.Sprintf(" %q", string(c.CKN))
	} else {
		text += s.under(c.CKN)
	}
	if c.Source != (mka.MAC{}) {
		text += " from " + c.Source.String()
	}
	if c.SCI != (mka.SCI{}) {
		text += " of " + s.who(c.SCI)
	}
	if c.KI != (mka.KI{}) {
		text += " " + s.ki(c.KI)
	}
	if c.Theirs != 0 {
		text += fmt.Sprintf(" (ours %v, theirs %v)", c.Ours, c.Theirs)
	}
	if c.Err != nil {
		text += ": " + c.Err.Error()
	}
	return text
}

// tap sees each frame as it is sent.
func (s *Script) tap(_ time.Time, from *simlink.Station, frame []byte) {
	i := slices.IndexFunc(s.stations, func(st *station) bool { return st.member.Station == from })
	if binary.BigEndian.Uint16(frame[12:]) == 0x88e5 {
		return // data frames have a command of their own
	}
	name := "attacker"
	if i >= 0 {
		name = s.stations[i].name
		s.stations[i].frames = append(s.stations[i].frames, slices.Clone(frame))
	}
	m, notes := s.decode(frame)
	if m == nil {
		s.line("%s -> a frame that nobody accepts: %s", name, strings.Join(notes, ", "))
		return
	}
	text := s.mi(m.Basic.MI, s.who(m.Basic.SCI)) + fmt.Sprintf(".%d", m.Basic.MN)
	key := name + string(m.Basic.CKN)
	who := s.identity(m)
	is := s.mi(m.Basic.MI, "?") + who
	content, plain := s.content(m)
	for _, n := range notes {
		content += ", " + n
		plain += ", " + n
	}
	news := s.is[key] != is
	if !news && s.said[key] == plain && !s.show["hellos"] && i >= 0 {
		if !s.muted && s.show["frames"] {
			s.same[name]++
		}
		return
	}
	if news {
		text += who
	}
	if i >= 0 {
		s.is[key], s.said[key] = is, plain
	}
	if !s.show["frames"] {
		return
	}
	s.line("%s -> %s%s%s", name, text, s.under(m.Basic.CKN), content)
}

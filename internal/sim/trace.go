package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/lever-link/lever/mka"
)

// EntryKind says what an Entry of the diary tells.
type EntryKind uint8

// The kinds of entries.
const (
	TraceNote     EntryKind = iota // Text
	TraceFailure                   // Text
	TraceStart                     // Resumed, Adopted
	TraceKill                      //
	TraceEvent                     // Event, of a kind that is not told otherwise
	TraceSent                      // Frame, MKPDU
	TraceReceived                  // Frame, MKPDU
	TraceOp                        // Op, Err: it was carried out
	TraceNotice                    // Notice
)

// Entry is one thing that happened. Its slices are valid during the call only.
type Entry struct {
	At      time.Duration
	Kind    EntryKind
	Member  *Member // nil: nobody's
	Text    string
	Resumed bool
	Adopted []mka.AdoptedKey
	Event   mka.Event
	Frame   []byte
	MKPDU   *mka.MKPDU // nil if the frame is none of a CAK that somebody has
	Op      mka.Op
	Err     error
	Notice  mka.Notice
}

func (s *Sim) trace(e Entry) {
	if s.Trace != nil {
		e.At = s.Since()
		s.Trace(e)
	}
}

// Note writes a line of the diary.
func (s *Sim) Note(format string, args ...any) {
	if s.Trace != nil {
		s.trace(Entry{Kind: TraceNote, Text: fmt.Sprintf(format, args...)})
	}
}

func (s *Sim) traceFrame(kind EntryKind, m *Member, frame []byte) {
	pdu, _ := s.Decode(frame)
	s.trace(Entry{Kind: kind, Member: m, Frame: frame, MKPDU: pdu})
}

func (s *Sim) traceEvent(m *Member, ev mka.Event) {
	switch ev.Kind {
	case mka.EventFrame, mka.EventTick, mka.EventOpDone, mka.EventPN:
		return // seen as what they come from, or without effect in themselves
	default:
	}
	s.trace(Entry{Kind: TraceEvent, Member: m, Event: ev})
}

// Namer gives member identifiers short names in the order in which they appear, so
// that a diary can be read and compared: A's first MI is a1, its second a2.
type Namer struct {
	names map[mka.MI]string
	count map[string]int
}

// MI is the name of a member identifier; owner is used when it is new.
func (n *Namer) MI(mi mka.MI, owner string) string {
	if n.names == nil {
		n.names, n.count = map[mka.MI]string{}, map[string]int{}
	}
	name, ok := n.names[mi]
	if !ok {
		n.count[owner]++
		name = fmt.Sprintf("%s%d", owner, n.count[owner])
		n.names[mi] = name
	}
	return name
}

// KI is the name of a SAK: its server's MI and key number.
func (n *Namer) KI(ki mka.KI) string {
	if ki == (mka.KI{}) {
		return "none"
	}
	return fmt.Sprintf("%s/%d", n.MI(ki.MI, "?"), ki.KN)
}

// Line is an entry in words, without its time.
func (s *Sim) Line(n *Namer, e Entry) string {
	var b strings.Builder
	if e.Member != nil {
		fmt.Fprintf(&b, "%s ", e.Member.Name)
	}
	switch e.Kind {
	case TraceNote:
		b.WriteString(e.Text)
	case TraceFailure:
		b.WriteString("FAILURE " + e.Text)
	case TraceStart:
		b.WriteString("starts afresh")
		if e.Resumed {
			b.Reset()
			fmt.Fprintf(&b, "%s starts from its record", e.Member.Name)
		}
		for _, k := range e.Adopted {
			fmt.Fprintf(&b, ", finds AN %d of %s", k.AN, n.KI(k.KI))
			if k.Encoding {
				b.WriteString(" encoding")
			}
		}
	case TraceKill:
		b.WriteString("is killed")
	case TraceEvent:
		b.WriteString(eventText(e.Event))
	case TraceSent:
		b.WriteString("-> " + s.PDU(n, e.MKPDU))
	case TraceReceived:
		b.WriteString("<- " + s.PDU(n, e.MKPDU))
	case TraceOp:
		fmt.Fprintf(&b, "%v", e.Op.Kind)
		if e.Op.SCI != e.Member.Config.SCI && e.Op.SCI != (mka.SCI{}) {
			fmt.Fprintf(&b, " of %s", s.who(e.Op.SCI))
		}
		if e.Op.KI != (mka.KI{}) {
			fmt.Fprintf(&b, " AN %d %s", e.Op.AN, n.KI(e.Op.KI))
		}
		if e.Op.LowestPN != 0 {
			fmt.Fprintf(&b, " to %d", e.Op.LowestPN)
		}
		if e.Err != nil {
			fmt.Fprintf(&b, ": %v", e.Err)
		}
	case TraceNotice:
		fmt.Fprintf(&b, "* %v", e.Notice.Kind)
		if e.Notice.CKN != "" {
			fmt.Fprintf(&b, " %q", string(e.Notice.CKN))
		}
		if e.Notice.SCI != (mka.SCI{}) {
			fmt.Fprintf(&b, " %s", s.who(e.Notice.SCI))
		}
		if e.Notice.KI != (mka.KI{}) {
			fmt.Fprintf(&b, " %s AN %d", n.KI(e.Notice.KI), e.Notice.AN)
		}
	}
	return b.String()
}

func eventText(ev mka.Event) string {
	switch ev.Kind {
	case mka.EventAddCAK:
		return fmt.Sprintf("is given %q, rank %d", string(ev.CKN), ev.Rank)
	case mka.EventRemoveCAK:
		return fmt.Sprintf("loses %q, replaced", string(ev.CKN))
	case mka.EventRevokeCAK:
		return fmt.Sprintf("loses %q, revoked", string(ev.CKN))
	case mka.EventRekey:
		return "is asked to rekey"
	case mka.EventSuspend:
		return fmt.Sprintf("is asked to suspend for %v", ev.Suspend)
	case mka.EventLinkUp:
		return "link is up"
	case mka.EventLeave:
		return "leaves"
	case mka.EventSALost:
		return fmt.Sprintf("loses an SA of %v", ev.KI)
	case mka.EventTick, mka.EventFrame, mka.EventOpDone, mka.EventPN:
	}
	return fmt.Sprintf("event %d", ev.Kind)
}

// who is a member's name, or the SCI of somebody who is none.
func (s *Sim) who(sci mka.SCI) string {
	if m := s.Member(sci); m != nil {
		return m.Name
	}
	return sci.String()
}

// PDU is an MKPDU in one line.
func (s *Sim) PDU(n *Namer, m *mka.MKPDU) string {
	if m == nil {
		return "not an MKPDU of this CA"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s.%d %q", n.MI(m.Basic.MI, s.who(m.Basic.SCI)), m.Basic.MN, string(m.Basic.CKN))
	if m.Basic.KeyServer {
		b.WriteString(" server")
	}
	list := func(name string, l *mka.PeerList) {
		if !l.Present {
			return
		}
		fmt.Fprintf(&b, " %s", name)
		for i, e := range l.Entries {
			sep := ","
			if i == 0 {
				sep = " "
			}
			fmt.Fprintf(&b, "%s%s.%d", sep, n.MI(e.MI, "?"), e.MN)
		}
	}
	list("live", &m.Live)
	list("potential", &m.Potential)
	if u := &m.SAKUse; u.Present {
		use := func(name string, ki mka.KI, an mka.AN, rx, tx bool) {
			if ki == (mka.KI{}) {
				return
			}
			fmt.Fprintf(&b, " %s %s AN %d", name, n.KI(ki), an)
			if rx {
				b.WriteString(" rx")
			}
			if tx {
				b.WriteString(" tx")
			}
		}
		use("latest", u.Latest, u.LatestAN, u.LatestRx, u.LatestTx)
		use("old", u.Old, u.OldAN, u.OldRx, u.OldTx)
		if u.DelayProtect {
			b.WriteString(" delay-protect")
		}
	}
	if d := &m.DistributedSAK; d.Present {
		fmt.Fprintf(&b, " SAK %s/%d AN %d", n.MI(m.Basic.MI, "?"), d.KN, d.AN)
	}
	if m.XPN.Suspension != 0 {
		fmt.Fprintf(&b, " away %ds", m.XPN.Suspension)
	}
	return b.String()
}

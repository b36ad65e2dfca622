package script

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lever-link/lever/mka"
)

// decode reads a frame as far as anybody could, and says what is odd about it.
func (s *Script) decode(frame []byte) (*mka.MKPDU, []string) {
	p := mka.OpenParams{}
	if len(frame) >= 14 {
		p = mka.OpenParams{Destination: mka.MAC(frame[:6]), EtherType: binary.BigEndian.Uint16(frame[12:])}
	}
	e, err := mka.Open(frame, p)
	if err != nil {
		return nil, []string{err.Error()}
	}
	var notes []string
	if p.Destination != mka.GroupAddress {
		notes = append(notes, "to "+p.Destination.String())
	}
	if p.EtherType != mka.EtherType {
		notes = append(notes, fmt.Sprintf("EtherType %04x", p.EtherType))
	}
	keys := s.keys[mka.CKN(e.CKN)]
	i := slices.IndexFunc(keys, func(k *mka.ICK) bool { return e.Verify(k) })
	switch {
	case i < 0:
		return nil, []string{fmt.Sprintf("CKN %q, %v", string(e.CKN), mka.ErrICV)}
	case i > 0:
		notes = append(notes, "under another CAK of this name")
	}
	m := &mka.MKPDU{}
	if err := m.Decode(&e); err != nil {
		if f, ok := errors.AsType[*mka.FrameError](err); ok {
			return nil, []string{fmt.Sprintf("%v: %v", f.Set, f.Reason)}
		}
		return nil, []string{err.Error()}
	}
	m.Basic.CKN = mka.CKN(e.CKN)
	return m, append(notes, oddSets(frame)...)
}

// oddSets names parameter sets that the standard does not have, and tells when they
// are not in ascending order.
func oddSets(frame []byte) []string {
	var notes []string
	last, icv := 0, 16
	end := 18 + int(binary.BigEndian.Uint16(frame[16:])) - icv
	for at := 18; at+4 <= end; {
		t := int(frame[at])
		n := int(binary.BigEndian.Uint16(frame[at+2:]) & 0xfff)
		if at > 18 {
			if mka.SetType(t).String() == fmt.Sprintf("parameter set %d", t) {
				notes = append(notes, fmt.Sprintf("unknown set %d", t))
			}
			if t < last {
				notes = append(notes, fmt.Sprintf("set %d after %d", t, last))
			}
			last = t
		}
		at += 4 + (n+3)&^3
	}
	return notes
}

// identity is what seldom changes.
func (s *Script) identity(m *mka.MKPDU) string {
	text := fmt.Sprintf(" v%d priority %d", m.Basic.Version, m.Basic.Priority)
	if m.EAPOLVersion != 3 {
		text += fmt.Sprintf(", EAPOL version %d", m.EAPOLVersion)
	}
	if m.Basic.Capability != mka.CapabilityConfidentiality {
		text += fmt.Sprintf(", capability %d", m.Basic.Capability)
	}
	return text
}

// content is what an MKPDU says, and the same without the numbers that change with
// each.
func (s *Script) content(m *mka.MKPDU) (text, plain string) {
	var b strings.Builder
	numbers := strings.NewReplacer() // filled below: number -> nothing
	var drop []string
	say := func(format string, args ...any) { b.WriteString(", " + fmt.Sprintf(format, args...)) }
	if m.Basic.KeyServer {
		say("server")
	}
	if !m.Basic.MACsecDesired {
		say("MACsec not desired")
	}
	list := func(name string, l *mka.PeerList) {
		if !l.Present {
			return
		}
		var parts []string
		for _, e := range l.Entries {
			mn := fmt.Sprintf(".%d", e.MN)
			drop = append(drop, s.mi(e.MI, "?")+mn, s.mi(e.MI, "?"))
			parts = append(parts, s.mi(e.MI, "?")+mn)
		}
		say("%s %s", name, strings.Join(parts, " "))
		if l.KeyServerSSCI != 0 {
			fmt.Fprintf(&b, " (server's SSCI %d)", l.KeyServerSSCI)
		}
	}
	list("live", &m.Live)
	list("potential", &m.Potential)
	s.sakUse(&m.SAKUse, &m.XPN, say)
	switch d := &m.DistributedSAK; {
	case d.Plain:
		say("SAK: none, plain")
	case d.Present:
		say("SAK %s AN %d %v", s.ki(mka.KI{MI: m.Basic.MI, KN: d.KN}), d.AN, d.Suite)
		switch d.ConfidentialityOffset {
		case mka.ConfidentialityNone:
			b.WriteString(" integrity only")
		case mka.Confidentiality30:
			b.WriteString(" offset 30")
		case mka.Confidentiality50:
			b.WriteString(" offset 50")
		}
	}
	if m.DistributedCAK.Present {
		say("CAK")
	}
	if m.KMD.Present {
		say("KMD")
	}
	if m.Announcement.Present {
		var suites []string
		for _, o := range m.Announcement.CipherSuites() {
			suites = append(suites, o.Suite.String())
		}
		say("announces %s", strings.Join(suites, " "))
	}
	if m.XPN.Present {
		say("XPN set")
		if m.XPN.Suspension != 0 {
			away := fmt.Sprintf(" away %ds", m.XPN.Suspension)
			b.WriteString(away)
			drop = append(drop, away, " away")
		}
	}
	if m.ICVIndicator {
		say("ICV indicator")
	}
	text = b.String()
	if len(drop) > 0 {
		numbers = strings.NewReplacer(drop...)
	}
	return text, numbers.Replace(text)
}

// number is a packet number as people like it: near the end in hexadecimal.
func number(pn uint64) string {
	if pn > 0xffffff {
		return fmt.Sprintf("%#x", pn)
	}
	return fmt.Sprint(pn)
}

func (s *Script) sakUse(u *mka.SAKUse, x *mka.XPN, say func(string, ...any)) {
	if u.Empty {
		say("SAK Use empty")
	}
	use := func(name string, ki mka.KI, an mka.AN, rx, tx bool, lpn uint64) {
		text := fmt.Sprintf("%s %s AN %d", name, s.ki(ki), an)
		if rx {
			text += " rx"
		}
		if tx {
			text += " tx"
		}
		if s.show["lpn"] {
			text += " LPN " + number(lpn)
		}
		say("%s", text)
	}
	switch {
	case !u.Present || u.Empty:
		return
	case u.Latest == mka.KI{} && u.Old == mka.KI{}:
		say("SAK Use of none")
	}
	if u.Latest != (mka.KI{}) {
		use("latest", u.Latest, u.LatestAN, u.LatestRx, u.LatestTx, uint64(x.LatestLPNHigh)<<32|uint64(u.LatestLPN))
	}
	if u.Old != (mka.KI{}) {
		use("old", u.Old, u.OldAN, u.OldRx, u.OldTx, uint64(x.OldLPNHigh)<<32|uint64(u.OldLPN))
	}
	if u.DelayProtect {
		say("delay-protect")
	}
	if u.PlainTx {
		say("plain tx")
	}
	if u.PlainRx {
		say("plain rx")
	}
}

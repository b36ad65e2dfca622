package script

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lever-link/lever/internal/sim"
	"github.com/lever-link/lever/mka"
)

// hand is a peer that says what it is told to, as `say` lays down for good and
// `send` for one time:
//
//	version= priority= eapol= capability= mi=NAME|new mn= sci=NAME ckn= octet=
//	server|server=false  undesired  icv=wrong  icv-indicator
//	live=none|(a, b.7) potential=none|(…)  ssci=
//	use=(KI, AN, rx, tx) old=(KI, AN, rx, tx) use=empty lpn= oldlpn= delay-protect plain
//	sak=KN an= offset=none|30|50 suite= nonce= broken|sak=plain
//	xpn away=SECONDS announce=SUITE unknown-set descending odd=truncated
//
// It speaks every hello, and at once to somebody new. Those who list it are in its
// live list, others in its potential one, unless it is told otherwise. Of somebody who
// takes a new MI it knows the new one at once.
type hand struct {
	*sim.Other
	script  *Script
	hello   time.Duration
	answers bool
	said    []argument
	spoken  bool
}

func newHand(s *Script, o *sim.Other, hello time.Duration, answers bool) *hand {
	h := &hand{Other: o, script: s, hello: hello, answers: answers}
	o.Hear = h.hear
	return h
}

func (h *hand) start(c sim.CAK) error {
	h.said, h.spoken = nil, false
	if err := h.Join(c); err != nil {
		return err
	}
	h.script.mi(h.MI, h.Name)
	if h.hello > 0 {
		h.Every(h.hello, func() {
			if h.spoken {
				h.again()
			}
		})
	}
	return nil
}

func (h *hand) hear(m *mka.MKPDU) {
	h.Heard = slices.DeleteFunc(h.Heard, func(o *sim.Heard) bool { return o.SCI == m.Basic.SCI && o.MI != m.Basic.MI })
	x := h.Note(m)
	if x == nil {
		return
	}
	_, live := m.Live.Contains(h.MI)
	_, potential := m.Potential.Contains(h.MI)
	news := x.MN == m.Basic.MN && x.Live != (live || potential) || x.Priority == 0 && !x.Live
	x.Live, x.Use = live || potential, m.SAKUse
	if news && h.answers && h.spoken {
		h.again()
	}
}

// again says what was laid down.
func (h *hand) again() {
	if err := h.speak(nil); err != nil {
		h.script.fail("%s: %v", h.Name, err)
	}
}

func (s *Script) hand(a *args) (*hand, error) {
	name, err := a.word("a name")
	if err != nil {
		return nil, err
	}
	st, err := s.station(name)
	switch {
	case err != nil:
		return nil, err
	case st.hand == nil:
		return nil, fmt.Errorf("%s is not made by hand", name)
	case len(st.caks) == 0:
		return nil, fmt.Errorf("%s was not started", name)
	}
	return st.hand, nil
}

func (s *Script) cmdSay(a *args) error {
	h, err := s.hand(a)
	if err != nil {
		return err
	}
	for _, x := range a.list {
		h.said = slices.DeleteFunc(h.said, func(o argument) bool { return o.Key == x.Key })
		if len(x.Vals) != 1 || x.Vals[0] != "" { // key= takes it back
			h.said = append(h.said, x)
		}
	}
	a.list, h.spoken = nil, true
	return h.speak(nil)
}

func (s *Script) cmdSend(a *args) error {
	h, err := s.hand(a)
	if err != nil {
		return err
	}
	list := a.list
	a.list = nil
	return h.speak(list)
}

// speak says what was laid down, with what is different this once.
func (h *hand) speak(once []argument) error {
	list := slices.DeleteFunc(slices.Clone(h.said), func(x argument) bool {
		return slices.ContainsFunc(once, func(o argument) bool { return o.Key == x.Key })
	})
	a := newArgs(append(list, once...))
	frame, err := h.compose(a)
	if err == nil && len(a.unused()) > 0 {
		err = fmt.Errorf("%q mean nothing here", a.unused())
	}
	if err != nil {
		return err
	}
	h.Station.Send(frame)
	return nil
}

func (h *hand) compose(a *args) ([]byte, error) {
	s := h.script
	if text := a.text("mi", ""); text == "new" {
		if err := h.FreshMI(); err != nil {
			return nil, err
		}
		s.mi(h.MI, h.Name)
	} else if text != "" {
		mi, ok := s.mis[text]
		if !ok {
			return nil, fmt.Errorf("no MI is called %q", text)
		}
		if mi != h.MI { // its message numbers go on from what was asked for
			h.MI = mi
		}
	}
	h.MN = uint32(a.number("mn", uint64(h.MN)+1))
	m := &mka.MKPDU{EAPOLVersion: uint8(a.number("eapol", 3)), Basic: mka.Basic{
		Version: uint8(a.number("version", 3)), Priority: uint8(a.number("priority", uint64(h.Config.Priority))),
		KeyServer: a.flag("server"), MACsecDesired: !a.flag("undesired"), Capability: uint8(a.number("capability", mka.CapabilityConfidentiality)),
		SCI: h.Config.SCI, MI: h.MI, MN: h.MN, CKN: mka.CKN(a.text("ckn", string(h.CAK.CKN))),
	}}
	if name := a.text("sci", ""); name != "" {
		st, err := s.station(name)
		if err != nil {
			return nil, err
		}
		m.Basic.SCI = st.member.Config.SCI
	}
	if err := h.lists(a, m); err != nil {
		return nil, err
	}
	if err := h.keys(a, m); err != nil {
		return nil, err
	}
	m.XPN = mka.XPN{Suspension: uint8(a.number("away", 0)), LatestLPNHigh: uint32(a.number("lpnhigh", 0))}
	m.XPN.Present = a.flag("xpn") || m.XPN.Suspension > 0 || m.XPN.LatestLPNHigh > 0
	if suite := a.suite("announce", 0); suite != 0 {
		m.Announcement = mka.Announcement{Present: true, TLVs: []mka.TLV{
			mka.NewCipherSuitesTLV(mka.SuiteOffer{Suite: suite, Capability: mka.CapabilityConfidentiality}),
		}}
	}
	m.ICVIndicator = a.flag("icv-indicator")
	m.Source, m.Destination, m.EtherType = h.Config.Address, h.Config.Destination, h.Config.EtherType
	return h.sign(a, m)
}

// lists fills the peer lists with those who were heard, or as told.
func (h *hand) lists(a *args, m *mka.MKPDU) error {
	ssci := uint8(a.number("ssci", 0))
	for _, x := range []struct {
		name string
		live bool
		list *mka.PeerList
	}{{"live", true, &m.Live}, {"potential", false, &m.Potential}} {
		vals, told := a.take(x.name)
		if !told {
			for _, o := range h.Heard {
				if o.Live == x.live {
					x.list.Entries = append(x.list.Entries, mka.PeerEntry{MI: o.MI, MN: o.MN})
				}
			}
		}
		for _, v := range vals {
			if v == "none" {
				continue
			}
			e, err := h.entry(v)
			if err != nil {
				return err
			}
			x.list.Entries = append(x.list.Entries, e)
		}
		x.list.Present = len(x.list.Entries) > 0
	}
	m.Live.KeyServerSSCI = ssci
	return nil
}

// entry is a peer in a list: a, a1, a.7 or a1.7. A member's last MI and message
// number are those that were heard.
func (h *hand) entry(text string) (mka.PeerEntry, error) {
	name, mn, numbered := strings.Cut(text, ".")
	var e mka.PeerEntry
	for _, o := range h.Heard {
		if h.script.who(o.SCI) == name || h.script.mis[name] == o.MI {
			e = mka.PeerEntry{MI: o.MI, MN: o.MN}
		}
	}
	if mi, ok := h.script.mis[name]; ok && e.MI == (mka.MI{}) {
		e.MI = mi
	}
	if e.MI == (mka.MI{}) {
		return e, fmt.Errorf("%s has heard nobody called %q", h.Name, name)
	}
	if numbered {
		n, err := strconv.ParseUint(mn, 10, 32)
		if err != nil {
			return e, err
		}
		e.MN = uint32(n)
	}
	return e, nil
}

// keys fills SAK Use and Distributed SAK.
func (h *hand) keys(a *args, m *mka.MKPDU) error {
	u := &m.SAKUse
	var err error
	if vals, ok := a.take("use"); ok && vals[0] != "" {
		u.Present = true
		if len(vals) == 1 && vals[0] == "empty" {
			u.Empty = true
		} else if u.Latest, u.LatestAN, u.LatestRx, u.LatestTx, err = h.script.use(vals); err != nil {
			return err
		}
	}
	if vals, ok := a.take("old"); ok && vals[0] != "" {
		u.Present = true
		if u.Old, u.OldAN, u.OldRx, u.OldTx, err = h.script.use(vals); err != nil {
			return err
		}
	}
	u.LatestLPN, u.OldLPN = uint32(a.number("lpn", 1)), uint32(a.number("oldlpn", 1))
	u.DelayProtect = a.flag("delay-protect")
	u.PlainTx = a.flag("plain")
	u.PlainRx = u.PlainTx
	d := &m.DistributedSAK
	an := mka.AN(a.number("an", 0))
	suite := a.suite("suite", h.Config.Suite)
	offset := map[string]uint8{"": 1, "none": 0, "30": 2, "50": 3}[a.text("offset", "")]
	broken, nonce := a.flag("broken"), byte(a.number("nonce", 0))
	text := a.text("sak", "")
	switch text {
	case "":
		return nil
	case "plain":
		*d = mka.DistributedSAK{Present: true, Plain: true}
		return nil
	}
	kn, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return err
	}
	_, wrapped, err := h.NewSAK(uint32(kn), nonce, suite)
	if err != nil {
		return err
	}
	if broken {
		wrapped[0] ^= 1
	}
	*d = mka.DistributedSAK{Present: true, AN: an, ConfidentialityOffset: offset, KN: uint32(kn), Suite: suite, Wrapped: wrapped}
	return nil
}

// use reads (KI, AN, rx, tx).
func (s *Script) use(vals []string) (ki mka.KI, an mka.AN, rx, tx bool, err error) {
	if len(vals) < 2 {
		return ki, 0, false, false, errors.New("want (KI, AN, rx, tx)")
	}
	name, kn, _ := strings.Cut(vals[0], "/")
	mi, ok := s.mis[name]
	n, err := strconv.ParseUint(kn, 10, 32)
	if err != nil || !ok {
		return ki, 0, false, false, fmt.Errorf("no SAK is called %q", vals[0])
	}
	a, err := strconv.ParseUint(vals[1], 10, 2)
	return mka.KI{MI: mi, KN: uint32(n)}, mka.AN(a), slices.Contains(vals, "rx"), slices.Contains(vals, "tx"), err
}

// sign makes the frame, and then what the codec would not make.
func (h *hand) sign(a *args, m *mka.MKPDU) ([]byte, error) {
	c := sim.CAK{CKN: m.Basic.CKN, Octet: byte(a.number("octet", uint64(h.CAK.Octet)))}
	if c.CKN != h.CAK.CKN || c.Octet != h.CAK.Octet {
		h.script.learn(c)
	}
	key, err := mka.DeriveICK(c.Key(), c.CKN)
	if err != nil {
		return nil, err
	}
	ick, err := mka.NewICK(key)
	if err != nil {
		return nil, err
	}
	frame, err := m.Append(nil, ick)
	if err != nil {
		return nil, err
	}
	sets := split(frame)
	var indicator [][]byte // stays the last
	if m.ICVIndicator {
		sets, indicator = slices.Clip(sets[:len(sets)-1]), sets[len(sets)-1:]
	}
	odd := false
	if a.flag("unknown-set") {
		sets = slices.Insert(sets, len(sets), []byte{99, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0})
		odd = true
	}
	if a.flag("descending") {
		slices.Reverse(sets[1:])
		odd = true
	}
	if a.flag("twice") {
		sets = append(sets, sets[len(sets)-1])
		odd = true
	}
	if odd {
		frame = join(frame, append(sets, indicator...))
		if frame, err = h.script.sign(ick, frame); err != nil {
			return nil, err
		}
	}
	switch how := a.text("icv", ""); how {
	case "":
	case "wrong":
		frame[len(frame)-1] ^= 1
	case "agility":
		frame[18+28+3] ^= 1
	default:
		return nil, fmt.Errorf("icv=%s?", how)
	}
	return frame, nil
}

// split takes a frame's parameter sets apart, the ICV left out.
func split(frame []byte) [][]byte {
	var sets [][]byte
	for at, end := 18, len(frame)-16; at < end; {
		n := 4 + (int(binary.BigEndian.Uint16(frame[at+2:])&0xfff)+3)&^3
		if frame[at] == byte(mka.SetICVIndicator&0xff) {
			n = 4 // its body is the ICV
		}
		sets = append(sets, frame[at:at+n:at+n])
		at += n
	}
	return sets
}

// join puts headers and sets together, for an ICV to follow.
func join(frame []byte, sets [][]byte) []byte {
	b := slices.Clone(frame[:18])
	for _, s := range sets {
		b = append(b, s...)
	}
	binary.BigEndian.PutUint16(b[16:], uint16(len(b)-18+16))
	return b
}

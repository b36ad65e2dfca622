package sim

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/mka"
)

// CalmBound is how soon after the last fault everybody is secured on one SAK of the
// best CAK that all have: a life time for what is dead to be forgotten, another one
// for which a potential peer may hold up a SAK, retries at hello pace, and the old
// SAK's retirement.
const CalmBound = 30 * time.Second

// settleBound is how soon after that nothing is left of any other SAK: an old one
// waits a minute for a peer that does not come over, and is then retired.
const settleBound = 2 * time.Minute

// rekeyBound is how soon a rekey that somebody asks for in calm is complete.
const rekeyBound = 20 * time.Second

// dataEvery is how often each member sends a data frame to all others.
const dataEvery = 4 * time.Second

// Hour is a run of members that keep rings of CAKs as internal/keys does, in which
// everything that can go wrong does, in an order that the seed decides: bursts of
// faults, and after each a calm in which everything must come right.
type Hour struct {
	*Sim
	Faults [faultKinds]uint64 // injected, by kind
	Calms  int                // phases that were survived
	SAKs   int                // that were made

	length   time.Duration
	rings    []*ring
	open     [maxMembers][maxMembers]bool
	troubled [maxMembers]int
	fails    [maxMembers]float64 // how likely a SecY operation is refused
	doomed   [maxMembers]int     // after how many SecY operations it dies, before it knows of the last
	ckns     map[mka.KI]mka.CKN
	issued   []CAK
	gone     map[mka.CKN]time.Duration // since when no ring was seen to have it
	absent   *Member                   // stays away for a calm
	attacker *simlink.Station
	forged   map[string]bool // frames of the attacker's that nobody else ever sent
	heard    [][]byte        // frames that the attacker kept
	tapped   uint64
	until    time.Duration // when the last fault under way ends
	moved    time.Duration // when packet numbers last jumped
	twins    bool          // the first two members draw the same MI first, and start at once
	worst    time.Duration // the longest that it took to be secured in calm
}

// NewHour makes a run of that length from a seed. With members 0 the seed says how
// many there are.
func NewHour(seed uint64, members int, length time.Duration) *Hour {
	h := &Hour{Sim: New(seed), length: length, ckns: map[mka.KI]mka.CKN{}, forged: map[string]bool{}, gone: map[mka.CKN]time.Duration{}}
	r := h.Net.Rand()
	if members == 0 {
		// Most links have two ends.
		members = []int{2, 2, 2, 2, 2, 3, 3, 3, 4, 4, 5, 6, 7, 8}[r.IntN(14)]
	}
	h.Segment.Delay = 20*time.Microsecond + h.upTo(3*time.Millisecond)
	suite := mka.GCMAESXPN256
	if r.IntN(4) == 0 {
		suite = mka.GCMAES256
	}
	protect := r.IntN(10) == 0
	priorities := r.IntN(3)
	rekey := []time.Duration{0, 0, 0, time.Hour, 10 * time.Minute, 30 * time.Second}[r.IntN(6)]
	h.twins = r.IntN(8) == 0
	for n := range members {
		m := h.Add(string(rune('a'+n)), byte(n+1), func(c *mka.Config) {
			c.Suite, c.DelayProtect, c.ICVIndicator = suite, protect, r.IntN(4) == 0
			switch priorities {
			case 0: // all the same
			case 1:
				c.Priority += uint8(r.IntN(2))
			case 2:
				c.Priority = uint8(r.IntN(256))
				if n > 0 && r.IntN(4) == 0 {
					c.Priority = mka.NeverKeyServer
				}
			}
			if n == 0 { // somebody can be key server
				c.Priority = min(c.Priority, mka.NeverKeyServer-1)
			}
			if r.IntN(2) == 0 {
				c.SAKRekey = rekey
			}
			if n < 2 && h.twins { // both draw the same MI first
				c.Rand = io.MultiReader(bytes.NewReader(make([]byte, len(mka.MI{}))), c.Rand)
			}
		})
		m.Keep = false
		h.rings = append(h.rings, &ring{})
		m.Notice = func(x mka.Notice) { h.noticed(m, x) }
		m.OpFault = func(op mka.Op) error { return h.refuse(m, op) }
	}
	h.attacker = h.Segment.Attach(func([]byte) {})
	h.Segment.Tap = h.tap
	h.Stepped = h.stepped
	h.Operated = h.operated
	h.Forged = func(frame []byte) bool { return h.forged[string(frame)] }
	return h
}

// noticed takes in a notice of m. It is called from within a Step.
func (h *Hour) noticed(m *Member, n mka.Notice) {
	switch n.Kind {
	case mka.NoticeSAK:
		if _, known := h.ckns[n.KI]; !known {
			h.SAKs++
		}
		h.ckns[n.KI] = n.CKN
	case mka.NoticeInUse:
		life := m.life
		h.Net.After(0, func() {
			if m.life == life {
				h.confirm(m, n.CKN)
			}
		})
	default:
	}
	h.excused(m, n)
}

func (h *Hour) stepped(_ *Member, out *mka.Output) {
	if len(out.Notices) > 0 {
		h.opened()
	}
}

func (h *Hour) operated(m *Member, op mka.Op, err error) {
	if err == nil {
		h.broken(m)
		h.catchUp(m, op)
	}
	h.closed(m)
	if n := &h.doomed[m.Number]; *n > 0 {
		if *n--; *n == 0 {
			h.crash(m)
		}
	}
}

// refuse lets a SecY operation fail.
func (h *Hour) refuse(m *Member, op mka.Op) error {
	switch op.Kind {
	case mka.OpAddReceiveSC, mka.OpAddReceiveSA, mka.OpAddTransmitSA, mka.OpEnableTransmitSA:
		if p := h.fails[m.Number]; p > 0 && h.Net.Rand().Float64() < p {
			h.excuse(m)
			return fmt.Errorf("%v: no memory", op.Kind)
		}
		if (op.Kind == mka.OpAddReceiveSA || op.Kind == mka.OpAddTransmitSA) && op.SAK.IsZero() {
			return fmt.Errorf("%v: the SAK was erased", op.Kind)
		}
	default: // a kernel does not refuse to delete what is inactive
	}
	return nil
}

// Run is the hour. It ends early when something is not as it must be.
func (h *Hour) Run() {
	r := h.Net.Rand()
	h.Traffic(dataEvery, h.mustArrive)
	h.everySecond()
	h.issue(0)
	for _, m := range h.Members {
		m.SetClock(h.offset(time.Minute), int64(r.IntN(401)-200))
		over := h.trouble(m)
		wait := h.upTo(4 * time.Second)
		if h.twins && m.Number < 2 {
			wait = 0
		}
		h.later(wait, func() { m.StartFrom(nil, h.rings[m.Number].caks...); h.Net.After(mka.DefaultLife, over) })
	}
	for !h.Failed() && h.Since() < h.length-4*time.Minute {
		for range 8 + r.IntN(20) {
			h.Net.Run(h.upTo(6 * time.Second))
			h.misfortune()
			if h.bounded(); h.Failed() {
				return
			}
		}
		h.calm()
	}
	if !h.Failed() {
		h.Net.Run(max(h.length-h.Since(), 0))
		h.settled("the hour")
	}
	h.CheckNonces()
}

// mustArrive says whether what from sends now must reach to: on a medium that loses
// nothing all between the ends of an open pair.
func (h *Hour) mustArrive(from, to *Member) bool {
	return h.open[from.Number][to.Number] && h.Segment.Faults == (simlink.Faults{}) && to.Station.Hears(from.Station) &&
		h.Since() > h.moved+2*h.Segment.Delay
}

// everySecond looks for pairs that are open because a peer said something.
func (h *Hour) everySecond() {
	h.opened()
	h.Net.After(time.Second, h.everySecond)
}

// calm ends every fault and then wants everything as it should be.
func (h *Hour) calm() {
	clear(h.doomed[:])
	for h.until > h.Since() { // one fault may lead to another
		h.Net.Run(h.until - h.Since())
	}
	h.Note("calm")
	h.Segment.Faults = simlink.Faults{}
	back := h.leave()
	for _, m := range h.Members {
		h.fails[m.Number], m.OpDelay = 0, 0
		m.Station.Heal()
		if m.Port == nil && m != h.absent {
			h.restart(m)
		}
	}
	best := h.bestCommon()
	if best.Rank == 0 {
		best = h.issue(0)
	}
	took, ok := h.Net.RunUntil(CalmBound, func() bool { return h.Failed() || h.securedOn(best.CKN) })
	if h.Failed() {
		return
	}
	if !ok {
		h.fail("not secured on %q %v after the last fault%s", string(best.CKN), CalmBound, h.describe())
		return
	}
	h.worst = max(h.worst, took)
	h.Net.Run(settleBound)
	h.settled(settleBound.String() + " of calm")
	if h.Failed() {
		return
	}
	some := h.present()
	was := some[0].Status().KI
	some[h.Net.Rand().IntN(len(some))].Rekey()
	h.Net.Run(rekeyBound)
	h.settled("a rekey in calm")
	if some[0].Status().KI == was {
		h.fail("no rekey on request%s", h.describe())
	}
	h.Calms++
	back()
}

// leave has one member of a group stay away for a calm, now and then, and returns
// what brings it back: the others must come right without it.
func (h *Hour) leave() (back func()) {
	r := h.Net.Rand()
	if len(h.Members) == 2 || r.IntN(3) != 0 {
		return func() {}
	}
	m := h.someone()
	if !slices.ContainsFunc(h.Members, func(o *Member) bool { return o != m && o.Config.Priority != mka.NeverKeyServer }) {
		return func() {} // nobody else can be key server
	}
	h.Note("%s stays away", m.Name)
	h.absent = m
	m.Kill()
	h.rings[m.Number].closing = nil
	over := h.trouble(m)
	return func() {
		h.absent = nil
		h.restart(m)
		h.Net.After(mka.DefaultLife, over)
	}
}

// present are the members that are not to stay away.
func (h *Hour) present() []*Member {
	if h.absent == nil {
		return h.Members
	}
	return slices.DeleteFunc(slices.Clone(h.Members), func(m *Member) bool { return m == h.absent })
}

// securedOn is Secured under one CAK, looked at cheaply first.
func (h *Hour) securedOn(ckn mka.CKN) bool {
	some := h.present()
	ki, _ := some[0].SAs.Encoding()
	for _, m := range some {
		if o, ok := m.SAs.Encoding(); !ok || o != ki || m.Port == nil {
			return false
		}
	}
	return h.ckns[ki] == ckn && h.Secured(some...)
}

// settled wants all secured, every pair open, and one SA each way for each peer with
// no rest of anything in the kernels.
func (h *Hour) settled(when string) {
	if h.Failed() {
		return
	}
	// A rekey on the timer may be under way: that is over soon.
	if _, ok := h.Net.RunUntil(rekeyBound, h.quiet); !ok {
		h.fail("not secured after %s%s", when, h.describe())
		return
	}
	h.opened()
	some := h.present()
	h.distinct(some)
	ki, _ := some[0].SAs.Encoding()
	for _, m := range some {
		y := m.look()
		if sa := y.TxSC.SA(y.EncodingAN); sa == nil || sa.NextPN >= lastNumbersXPN || !y.CipherSuite.XPN() && sa.NextPN >= lastNumbers {
			h.fail("%s: packet numbers run out, and nobody makes a SAK after %s: %v", m.Name, when, &m.SAs)
		}
		if m.Config.Suite.XPN() && h.SSCI(ki, m.Config.SCI) != h.rank(m) {
			h.fail("%s: SSCI %d under %s, and by the order of SCIs it is %d", m.Name, h.SSCI(ki, m.Config.SCI), short(ki), h.rank(m))
		}
		left := m.SAs.TransmitSAs() != 1 || m.SAs.ReceiveSCs() != len(some)-1
		for _, o := range some {
			if o != m {
				left = left || m.SAs.ReceiveSAs(o.Config.SCI) != 1
				if !h.open[m.Number][o.Number] && !h.abandoned(m) && !h.abandoned(o) {
					h.fail("%s and %s are no open pair after %s%s", m.Name, o.Name, when, h.describe())
					return
				}
			}
		}
		if left {
			h.fail("%s: something is left after %s: %v", m.Name, when, &m.SAs)
		}
	}
}

// quiet says that all are secured, nobody rekeys, and no SecY is at work.
func (h *Hour) quiet() bool {
	some := h.present()
	for _, m := range some {
		if m.Port == nil || len(m.pending) > 0 || m.Port.Status().Rekeying {
			return false
		}
	}
	return h.Secured(some...)
}

// distinct wants a member identifier for each member under each CAK.
func (h *Hour) distinct(some []*Member) {
	owners := map[mka.MI]*Member{}
	for _, m := range some {
		for _, pa := range m.Status().Participants {
			if o := owners[pa.MI]; o != nil && o != m {
				h.fail("%s and %s have one member identifier under %q: %v", o.Name, m.Name, string(pa.CKN), pa.MI)
			}
			owners[pa.MI] = m
		}
	}
}

// rank is m's SSCI: 1 is that of the numerically greatest SCI (802.1AEbw).
func (h *Hour) rank(m *Member) uint32 {
	n := uint32(1)
	for _, o := range h.present() {
		if m.Config.SCI.Less(o.Config.SCI) {
			n++
		}
	}
	return n
}

// Bounds that hold whatever anybody sends (see mka's limits).
const (
	peersBound, spentBound, conditionsBound, participantsBound = 64, 64, 16, 8
)

// bounded checks that nothing grows, and that nobody stays somebody else's double.
func (h *Hour) bounded() {
	if h.twins && h.Since() > time.Minute { // they have heard of each other
		h.distinct(h.Members)
	}
	for _, m := range h.Members {
		if r := m.Record; r != nil {
			if len(r.Spent) > spentBound || len(r.Participants) > participantsBound || len(r.Olds) > 3 {
				h.fail("%s: a record of %d key servers, %d participants and %d old SAKs", m.Name, len(r.Spent), len(r.Participants), len(r.Olds))
			}
		}
		if m.Port == nil {
			continue
		}
		st := m.Port.Status()
		if len(st.Conditions) > conditionsBound || len(st.Participants) > participantsBound {
			h.fail("%s: %d conditions and %d participants", m.Name, len(st.Conditions), len(st.Participants))
		}
		for _, pa := range st.Participants {
			if len(pa.Peers) > peersBound {
				h.fail("%s: %d peers under %q", m.Name, len(pa.Peers), string(pa.CKN))
			}
			if slices.ContainsFunc(pa.Peers, func(pe mka.PeerStatus) bool { return pe.SCI == m.Config.SCI }) {
				h.fail("%s: counts itself among its peers under %q", m.Name, string(pa.CKN))
			}
		}
		if n := m.SAs.ReceiveSCs(); n > len(h.Members)-1 {
			h.fail("%s: %d receive SCs for %d members: %v", m.Name, n, len(h.Members), &m.SAs)
		}
	}
}

// describe is every member in a line or two.
func (h *Hour) describe() string {
	var b []byte
	for _, m := range h.Members {
		st := m.Status()
		b = fmt.Appendf(b, "\n  %s secured %v on %q %s server %s rekeying %v, %v", m.Name, st.Secured, string(st.CKN), short(st.KI), h.who(st.KeyServer), st.Rekeying, &m.SAs)
		for _, pa := range st.Participants {
			b = fmt.Appendf(b, "\n    %q %x:", string(pa.CKN), pa.MI[:3])
			for _, pe := range pa.Peers {
				b = fmt.Appendf(b, " %s %x live %v;", h.who(pe.SCI), pe.MI[:3], pe.Live)
			}
		}
		for _, c := range st.Conditions {
			b = fmt.Appendf(b, "\n    %v %q ×%d %v", c.Kind, string(c.CKN), c.Count, c.Err)
		}
	}
	return string(b)
}

func (h *Hour) someone() *Member { return h.Members[h.Net.Rand().IntN(len(h.Members))] }

func (h *Hour) upTo(d time.Duration) time.Duration {
	return time.Duration(h.Net.Rand().Int64N(int64(d)))
}

// offset is one either way.
func (h *Hour) offset(d time.Duration) time.Duration { return h.upTo(2*d) - d }

// later is something of a burst that happens in a while: the burst is not over
// before.
func (h *Hour) later(d time.Duration, do func()) {
	h.until = max(h.until, h.Since()+d)
	h.Net.After(d, do)
}

// tap keeps a part of the frames for whoever wants to replay them.
func (h *Hour) tap(_ time.Time, from *simlink.Station, frame []byte) {
	if from == h.attacker {
		return
	}
	if h.tapped++; h.tapped%8 == 0 && len(h.heard) < 4096 {
		h.heard = append(h.heard, slices.Clone(frame))
	}
}

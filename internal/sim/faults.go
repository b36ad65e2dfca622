package sim

import (
	"slices"
	"time"

	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// faultKind is a kind of misfortune.
type faultKind int

const (
	lossyMedium faultKind = iota
	jitteryMedium
	cleanMedium
	deafOneWay
	cutOff
	partition
	killed
	killedInRekey
	suspended
	clockJump
	stalled
	slowSecY
	failingSecY
	rollover
	revocation
	rekey
	numbersEnd
	linkFlap
	replayedFrames
	forgedFrames
	damagedFrames
	unknownCKNs
	formerMember
	faultKinds
)

var faultNames = [faultKinds]string{
	lossyMedium:    "lossy medium",
	jitteryMedium:  "jitter",
	cleanMedium:    "medium mended",
	deafOneWay:     "one-way cut",
	cutOff:         "member cut off",
	partition:      "partition",
	killed:         "kill",
	killedInRekey:  "kill in a rekey",
	suspended:      "suspension",
	clockJump:      "clock jump",
	stalled:        "stall",
	slowSecY:       "slow SecY",
	failingSecY:    "failing SecY",
	rollover:       "CAK rollover",
	revocation:     "CAK revocation",
	rekey:          "rekey",
	numbersEnd:     "PN exhaustion",
	linkFlap:       "link flap",
	replayedFrames: "replay",
	forgedFrames:   "forgery",
	damagedFrames:  "truncated or oversized",
	unknownCKNs:    "unknown CKN flood",
	formerMember:   "former member",
}

// likely is how often each happens, among the others.
var likely = [faultKinds]int{
	lossyMedium: 8, jitteryMedium: 4, cleanMedium: 8, deafOneWay: 5, cutOff: 4, partition: 2,
	killed: 8, killedInRekey: 4, suspended: 3, clockJump: 0, stalled: 4, slowSecY: 4, failingSecY: 3,
	rollover: 7, revocation: 4, rekey: 8, numbersEnd: 5, linkFlap: 3,
	replayedFrames: 4, forgedFrames: 2, damagedFrames: 2, unknownCKNs: 2, formerMember: 3,
}

// misfortune is one thing that goes wrong, or at least happens.
func (h *Hour) misfortune() {
	r := h.Net.Rand()
	total := 0
	for _, n := range likely {
		total += n
	}
	at, kind := r.IntN(total), faultKind(0)
	for at >= likely[kind] {
		at -= likely[kind]
		kind++
	}
	if h.inflict(kind) {
		h.Faults[kind]++
	}
}

// inflict does one; false if it makes no sense now.
func (h *Hour) inflict(kind faultKind) bool {
	r := h.Net.Rand()
	m := h.someone()
	switch kind {
	case lossyMedium:
		f := simlink.Faults{
			Loss: r.Float64() * 0.2, Duplicate: r.Float64() * 0.2, Corrupt: r.Float64() * 0.1,
			Reorder: r.Float64() * 0.5, ReorderBy: 1 + h.upTo(300*time.Millisecond),
		}
		if len(h.Members) > 2 {
			f.Loss *= 2
		}
		h.Segment.Faults = f
		h.Note("the medium: %+v", f)
	case jitteryMedium:
		h.Segment.Faults.Jitter = 1 + h.upTo(100*time.Millisecond)
		h.Note("jitter of %v", h.Segment.Faults.Jitter)
	case cleanMedium:
		if h.Segment.Faults == (simlink.Faults{}) {
			return false
		}
		h.Segment.Faults = simlink.Faults{}
		h.Note("the medium is clean")
	case deafOneWay:
		o := h.someone()
		if o == m {
			return false
		}
		h.cut([]*Member{m}, []*Member{o}, h.upTo(15*time.Second))
	case cutOff:
		d := h.upTo(20 * time.Second)
		others := slices.DeleteFunc(slices.Clone(h.Members), func(o *Member) bool { return o == m })
		h.cut([]*Member{m}, others, d)
		h.cut(others, []*Member{m}, d)
	case partition:
		if len(h.Members) < 4 {
			return false
		}
		d := h.upTo(20 * time.Second)
		all := slices.Clone(h.Members)
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		n := 1 + r.IntN(len(all)-1)
		h.cut(all[:n], all[n:], d)
		h.cut(all[n:], all[:n], d)
	case killed:
		return h.crash(m)
	case killedInRekey:
		if m.Port == nil {
			return false
		}
		if r.IntN(2) == 0 {
			h.doomed[m.Number] = 1 + r.IntN(3*len(h.Members))
		} else {
			h.later(h.upTo(4*h.Segment.Delay+3*m.OpDelay+1), func() { h.crash(m) })
		}
		h.someoneAlive().Rekey()
	case suspended:
		return h.suspend(m)
	case clockJump: // at a restart
	case stalled:
		if m.Port == nil || m.stalled {
			return false
		}
		d := h.upTo(4 * time.Second)
		if r.IntN(4) == 0 {
			d = h.upTo(15 * time.Second)
		}
		h.Note("%s stalls for %v", m.Name, d)
		over := h.trouble(m)
		m.Stall(d)
		h.later(d, func() { h.Net.After(mka.DefaultLife, over) })
	case slowSecY:
		m.OpDelay = h.upTo(300 * time.Millisecond)
		h.Note("%s: the SecY takes %v", m.Name, m.OpDelay)
	case failingSecY:
		h.fails[m.Number] = 0.3
		h.Note("%s: the SecY fails", m.Name)
		h.later(5*time.Second, func() { h.fails[m.Number] = 0; h.Note("%s: the SecY works", m.Name) })
	case rollover:
		for _, o := range h.rings {
			if len(o.caks) > 2 {
				return false
			}
		}
		h.issue(12 * time.Second)
	case revocation:
		caks := h.rings[m.Number].caks
		if len(caks) == 0 || len(caks) == 1 && r.IntN(4) != 0 {
			return false
		}
		h.revoke(caks[r.IntN(len(caks))], 12*time.Second)
	case rekey:
		if m.Port == nil {
			return false
		}
		m.Rekey()
	case numbersEnd:
		return h.exhaust(m)
	case linkFlap:
		if m.Port == nil {
			return false
		}
		m.Step(mka.Event{Kind: mka.EventLinkUp})
	case replayedFrames:
		return h.replay()
	case forgedFrames:
		return h.forge()
	case damagedFrames:
		return h.damage()
	case unknownCKNs:
		h.strange()
	case formerMember:
		return h.haunt()
	case faultKinds:
	}
	return true
}

func (h *Hour) someoneAlive() *Member {
	for range 20 {
		if m := h.someone(); m.Port != nil {
			return m
		}
	}
	i := slices.IndexFunc(h.Members, func(m *Member) bool { return m.Port != nil })
	return h.Members[max(i, 0)]
}

// cut keeps some from hearing others, for a while.
func (h *Hour) cut(deaf, to []*Member, d time.Duration) {
	var over []func()
	for _, m := range deaf {
		for _, o := range to {
			h.Note("%s does not hear %s for %v", m.Name, o.Name, d)
			m.Station.Cut(o.Station)
		}
		over = append(over, h.trouble(m))
	}
	h.later(d, func() {
		for i, m := range deaf {
			h.Note("%s hears all", m.Name)
			m.Station.Heal()
			h.Net.After(mka.DefaultLife, over[i])
		}
	})
}

// crash kills m and starts it again later, from one record or another.
func (h *Hour) crash(m *Member) bool {
	if m.Port == nil {
		return false
	}
	spread := 3 * time.Second
	if h.Net.Rand().IntN(4) == 0 {
		spread = 20 * time.Second
	}
	m.Kill()
	h.rings[m.Number].closing = nil
	over := h.trouble(m)
	h.later(h.upTo(spread), func() { h.restart(m); h.Net.After(mka.DefaultLife, over) })
	return true
}

// suspend is a planned restart: m announces it, goes, and comes back in time with
// its record.
func (h *Hour) suspend(m *Member) bool {
	if m.Port == nil || m.stalled {
		return false
	}
	d := 5*time.Second + h.upTo(40*time.Second)
	m.Step(mka.Event{Kind: mka.EventSuspend, Suspend: d})
	h.later(d+time.Second, func() {}) // it is waited for so long, whatever becomes of it
	h.later(h.upTo(time.Second), func() {
		if m.Port == nil {
			return
		}
		m.Kill()
		h.rings[m.Number].closing = nil
		over := h.trouble(m)
		h.later(h.upTo(d-time.Second), func() {
			if m.Port == nil {
				m.Earlier = nil
				m.StartFrom(m.Record, h.rings[m.Number].caks...)
			}
			h.Net.After(mka.DefaultLife, over)
		})
	})
	return true
}

func (h *Hour) restart(m *Member) {
	if m.Port != nil || m == h.absent {
		return
	}
	r := h.Net.Rand()
	record := m.Record
	switch r.IntN(4) {
	case 0:
		record = nil
	case 1:
		if m.Earlier != nil {
			record = m.Earlier
			h.Note("%s has the record before the last", m.Name)
		}
	}
	if r.IntN(3) == 0 {
		h.Faults[clockJump]++
		by := h.offset(2 * time.Minute)
		if r.IntN(3) == 0 {
			by = h.offset(48 * time.Hour)
		}
		m.SetClock(by, int64(r.IntN(401)-200))
		h.Note("%s: the clock is off by %v", m.Name, by)
	}
	unknown := map[mka.KI]bool{}
	for ki := range m.SAs.KIs {
		unknown[ki] = record == nil || h.rings[m.Number].unknown[ki]
	}
	h.rings[m.Number].unknown = unknown
	m.Earlier = nil // a record is lost at most once in a life
	m.StartFrom(record, h.rings[m.Number].caks...)
}

// Where a SAK's packet numbers are as good as used up (802.1X-2020 9.8).
const (
	lastNumbers    = 0xC0000000
	lastNumbersXPN = 0xC000000000000000
)

// exhaust lets m have sent so many frames that a new SAK is due, and everybody who
// can have received them.
func (h *Hour) exhaust(m *Member) bool {
	ki, ok := m.SAs.Encoding()
	if !ok {
		return false
	}
	an := macsec.AN(m.SAs.EncodingAN)
	next := m.look().TxSC.SA(an).NextPN
	n := uint64(lastNumbersXPN) // leaves the low half as it is
	if m.Config.Suite != mka.GCMAESXPN256 {
		n = lastNumbers - min(next, lastNumbers)
	}
	if n == 0 || next >= lastNumbersXPN {
		return false
	}
	h.Note("%s: the packet numbers of %s run out", m.Name, short(ki))
	h.moved = h.Since()
	if err := m.Kernel.MoveTx(m.Index, an, n); err != nil {
		h.fail("%s: %v", m.Name, err)
	}
	for _, o := range h.Members {
		if o != m && o.SAs.Receive(m.Config.SCI, m.SAs.EncodingAN) == ki {
			if err := o.Kernel.MoveRx(o.Index, macsec.SCI(m.Config.SCI), an, n); err != nil {
				h.fail("%s: %v", o.Name, err)
			}
		}
	}
	return true
}

// catchUp lets a receive SA that is made late know the high half of the packet
// numbers under way: it cannot follow from frames, and MKA's LPN, which says it, is
// known to the Port alone.
func (h *Hour) catchUp(m *Member, op mka.Op) {
	if op.Kind != mka.OpAddReceiveSA || !op.Suite.XPN() {
		return
	}
	from := h.Member(op.SCI)
	if from == nil || from.SAs.Transmit[op.AN] != op.KI {
		return
	}
	if high := from.look().TxSC.SA(macsec.AN(op.AN)).NextPN &^ 0xffffffff; high != 0 {
		if err := m.Kernel.MoveRx(m.Index, macsec.SCI(op.SCI), macsec.AN(op.AN), high); err != nil {
			h.fail("%s: %v", m.Name, err)
		}
	}
}

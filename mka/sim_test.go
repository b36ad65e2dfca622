package mka_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/mka"
)

// sim is a segment with members of one CA, in virtual time. After each event
// it checks what must hold at all times.
type sim struct {
	t       *testing.T
	net     *simlink.Net
	segment *simlink.Segment
	members []*member

	// gaps counts moments at which somebody sent where a receiver that was
	// secured before could not have received it.
	gaps     int
	firstGap string
	used     map[string]string // KI and SCI -> the SAK it was installed with
	spoken   map[mka.MI]uint32 // MI -> the last MN that its owner sent
	lenient  bool              // message numbers may repeat
	watch    func()            // in place of check
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{t: t, net: simlink.New(seed), used: map[string]string{}, spoken: map[mka.MI]uint32{}}
	s.segment = s.net.Segment(50 * time.Microsecond)
	return s
}

// member is one station: a Port, its driver, and a SecY that does what the
// operations say.
type member struct {
	sim      *sim
	name     string
	cfg      mka.Config
	port     *mka.Port // nil while the agent is dead
	station  *simlink.Station
	secy     secy
	record   *mka.Record
	earlier  *mka.Record // what record replaced in this life; nil at its start
	persists int         // in this life
	steps    int
	timer    *simlink.Timer
	opDelay  time.Duration
	opFail   func(mka.Op) error
	pending  []mka.Op
	notices  []mka.Notice
	notice   func(mka.Notice) // called with each, if set
	nextPN   map[mka.KI]uint64
	up       bool // was secured once: from then on there must be no gap
	life     int  // counts restarts, so that late calls of a dead agent do nothing
}

// secy is the data path: what is installed, by KI.
type secy struct {
	tx       map[mka.AN]mka.KI
	active   map[mka.AN]bool
	encoding mka.AN
	rx       map[mka.SCI]map[mka.AN]mka.KI
}

func (s *sim) add(name string, n byte, change func(*mka.Config)) *member {
	m := &member{sim: s, name: name, nextPN: map[mka.KI]uint64{}}
	mac := mka.MAC{2, 0, 0, 0, 0, n}
	m.cfg = mka.Config{
		SCI: mka.NewSCI(mac, 1), Address: mac, Priority: mka.DefaultPriority,
		Suite: mka.GCMAESXPN256, Rand: chacha(uint64(n)),
	}
	if change != nil {
		change(&m.cfg)
	}
	m.secy = secy{tx: map[mka.AN]mka.KI{}, active: map[mka.AN]bool{}, rx: map[mka.SCI]map[mka.AN]mka.KI{}}
	m.station = s.segment.Attach(func(frame []byte) {
		if m.port != nil {
			m.step(mka.Event{Kind: mka.EventFrame, Frame: frame})
		}
	})
	s.members = append(s.members, m)
	return m
}

func chacha(seed uint64) *rand.ChaCha8 {
	var b [32]byte
	copy(b[:], fmt.Sprintf("%d", seed))
	return rand.NewChaCha8(b)
}

// start makes the Port, as an agent does: with what it finds in the SecY and,
// unless forget, in the record.
func (m *member) start(forget bool, caks ...cak) {
	m.sim.t.Helper()
	var record *mka.Record
	if !forget {
		record = m.record
	}
	m.startFrom(record, caks...)
}

// startFrom is start with a record that need not be the last one.
func (m *member) startFrom(record *mka.Record, caks ...cak) {
	m.sim.t.Helper()
	m.life++
	m.persists = 0
	cfg := m.cfg
	cfg.Resume = record
	byKI := map[mka.KI]*mka.AdoptedKey{}
	var order []mka.KI
	at := func(ki mka.KI, an mka.AN) *mka.AdoptedKey {
		if byKI[ki] == nil {
			byKI[ki] = &mka.AdoptedKey{KI: ki, AN: an, Suite: cfg.Suite}
			order = append(order, ki)
		}
		return byKI[ki]
	}
	for an := range mka.AN(4) {
		if ki, ok := m.secy.tx[an]; ok {
			k := at(ki, an)
			k.Transmit, k.NextPN = true, max(m.nextPN[ki], 1)
			k.Encoding = m.secy.encoding == an && m.secy.active[an]
		}
		for _, sci := range slices.SortedFunc(maps.Keys(m.secy.rx), func(a, b mka.SCI) int { return bytes.Compare(a[:], b[:]) }) {
			if ki, ok := m.secy.rx[sci][an]; ok {
				k := at(ki, an)
				k.Receive = append(k.Receive, sci)
			}
		}
	}
	for _, ki := range order {
		cfg.Adopted = append(cfg.Adopted, *byKI[ki])
	}
	port, err := mka.NewPort(cfg)
	if err != nil {
		m.sim.t.Fatal(err)
	}
	m.port = port
	for _, c := range caks {
		m.addCAK(c)
	}
}

// kill ends the agent and leaves the SecY as it is.
func (m *member) kill() {
	m.port, m.pending = nil, nil
	m.life++
	m.sim.net.Stop(m.timer)
}

type cak struct {
	ckn  mka.CKN
	key  byte
	rank uint64
}

func (m *member) addCAK(c cak) {
	m.step(mka.Event{Kind: mka.EventAddCAK, CKN: c.ckn, Rank: c.rank, CAK: secret.New(bytes.Repeat([]byte{c.key}, 32))})
}

func (m *member) step(ev mka.Event) {
	m.steps++
	if limit := 2000 * (10 + int(m.sim.net.Now().Sub(simlink.Epoch)/time.Second)); m.steps > limit {
		m.sim.t.Fatalf("%s: %d steps in %v: it turns in circles", m.name, m.steps, m.sim.net.Now().Sub(simlink.Epoch))
	}
	m.obey(m.port.Step(m.sim.net.Now(), ev))
	m.sim.check()
}

// obey is a driver: persist, send, operate, wait.
func (m *member) obey(out mka.Output) {
	if !out.Deadline.IsZero() && !out.Deadline.After(m.sim.net.Now()) {
		m.sim.t.Errorf("%s: asks to be stepped at %v, which is %v", m.name, out.Deadline, m.sim.net.Now())
	}
	if out.Persist != nil {
		if m.persists > 0 {
			m.earlier = m.record
		}
		m.persists++
		m.record = out.Persist
	}
	for _, f := range out.Frames {
		m.sim.numbered(m, f)
		m.station.Send(f)
	}
	m.notices = append(m.notices, out.Notices...)
	if m.notice != nil {
		for _, n := range out.Notices {
			m.notice(n)
		}
	}
	idle := len(m.pending) == 0
	m.pending = append(m.pending, out.Ops...)
	if idle && len(m.pending) > 0 {
		m.operate()
	}
	m.sim.net.Stop(m.timer)
	if !out.Deadline.IsZero() {
		life := m.life
		m.timer = m.sim.net.At(out.Deadline, func() {
			if m.life == life {
				m.step(mka.Event{Kind: mka.EventTick})
			}
		})
	}
}

func (m *member) operate() {
	life := m.life
	m.sim.net.After(m.opDelay, func() {
		if m.life != life || len(m.pending) == 0 {
			return
		}
		op := m.pending[0]
		m.pending = m.pending[1:]
		var err error
		if m.opFail != nil {
			err = m.opFail(op)
		}
		if op.Kind == mka.OpAddReceiveSA && m.secy.rx[op.SCI] == nil && err == nil {
			err = fmt.Errorf("receive SC %v is not there", op.SCI)
			if m.opFail == nil {
				m.sim.t.Errorf("%s: %v", m.name, err)
			}
		}
		if err == nil {
			m.apply(op)
		}
		if len(m.pending) > 0 {
			m.operate()
		}
		m.step(mka.Event{Kind: mka.EventOpDone, OpID: op.ID, Err: err})
	})
}

func (m *member) apply(op mka.Op) {
	y := &m.secy
	switch op.Kind {
	case mka.OpAddReceiveSC:
		if y.rx[op.SCI] == nil {
			y.rx[op.SCI] = map[mka.AN]mka.KI{}
		}
	case mka.OpDeleteReceiveSC:
		delete(y.rx, op.SCI)
	case mka.OpAddReceiveSA:
		if _, taken := y.rx[op.SCI][op.AN]; taken {
			m.sim.t.Errorf("%s: receive SA %d of %v is taken: the kernel would say EBUSY", m.name, op.AN, op.SCI)
		}
		m.sim.sameSAK(m, op)
		y.rx[op.SCI][op.AN] = op.KI
	case mka.OpDeleteReceiveSA:
		if ki, ok := y.rx[op.SCI][op.AN]; ok && ki != op.KI {
			m.sim.t.Errorf("%s: means %v and would delete %v: the kernel goes by AN", m.name, op.KI, ki)
		}
		delete(y.rx[op.SCI], op.AN)
	case mka.OpAddTransmitSA:
		if _, taken := y.tx[op.AN]; taken {
			m.sim.t.Errorf("%s: transmit SA %d is taken: the kernel would say EBUSY", m.name, op.AN)
		}
		if m.sim.used[fmt.Sprint("tx", m.name, op.KI)] != "" {
			m.sim.t.Errorf("%s: a second transmit SA for %v: packet numbers start again under one SAK", m.name, op.KI)
		}
		m.sim.sameSAK(m, op)
		y.tx[op.AN] = op.KI
	case mka.OpEnableTransmitSA:
		if y.tx[op.AN] != op.KI {
			m.sim.t.Errorf("%s: enables transmit SA %d of %v, which is not there", m.name, op.AN, op.KI)
		}
		m.sim.used[fmt.Sprint("tx", m.name, op.KI)] = "yes"
		y.active[op.AN], y.encoding = true, op.AN
	case mka.OpDeleteTransmitSA:
		if ki, ok := y.tx[op.AN]; ok && ki != op.KI {
			m.sim.t.Errorf("%s: means %v and would delete %v: the kernel goes by AN", m.name, op.KI, ki)
		}
		delete(y.tx, op.AN)
		delete(y.active, op.AN)
	}
}

// numbered checks that m never sends a message number twice under one MI, and
// that it distributes one SAK under one KI.
func (s *sim) numbered(m *member, frame []byte) {
	const mi, sets = 18 + 12, 18
	id, mn := mka.MI(frame[mi:mi+12]), binary.BigEndian.Uint32(frame[mi+12:])
	if mn <= s.spoken[id] && !s.lenient {
		s.t.Errorf("%s: sends MN %d after %d under MI %v", m.name, mn, s.spoken[id], id)
	}
	s.spoken[id] = mn
	for at := sets; at+4 <= len(frame)-16; {
		n := int(binary.BigEndian.Uint16(frame[at+2:]) & 0xfff)
		if at > sets && frame[at] == byte(mka.SetDistributedSAK) {
			ki := mka.KI{MI: id, KN: binary.BigEndian.Uint32(frame[at+4:])}
			key, wrapped := fmt.Sprint("wrapped", ki), string(frame[at+4:at+4+n])
			if was := s.used[key]; was != "" && was != wrapped {
				s.t.Errorf("%s: distributes two SAKs as %v", m.name, ki)
			}
			s.used[key] = wrapped
		}
		at += 4 + (n+3)&^3
	}
}

// sameSAK checks that a KI names one SAK at all members, and that SSCIs agree.
func (s *sim) sameSAK(m *member, op mka.Op) {
	if op.SAK.IsZero() {
		s.t.Errorf("%s: %v of an erased SAK", m.name, op.Kind)
	}
	for key, val := range map[string]string{
		fmt.Sprint("sak", op.KI):          fmt.Sprintf("%x %v %x", op.SAK.Bytes(), op.Suite, op.Salt),
		fmt.Sprint("ssci", op.KI, op.SCI): fmt.Sprint(op.SSCI),
	} {
		if was := s.used[key]; was != "" && was != val {
			s.t.Errorf("%s: %s differs between members: %s and %s", m.name, key, was, val)
		}
		s.used[key] = val
	}
}

// carries says whether a frame that from sends now can be received by to.
func (s *sim) carries(from, to *member) bool {
	y := &from.secy
	ki, ok := y.tx[y.encoding]
	return ok && y.active[y.encoding] && to.secy.rx[from.cfg.SCI][y.encoding] == ki
}

// check runs after every event.
func (s *sim) check() {
	if s.watch != nil {
		s.watch()
		return
	}
	for _, from := range s.members {
		if from.port != nil && from.port.Status().Secured {
			from.up = true
		}
	}
	for _, from := range s.members {
		for _, to := range s.members {
			if from != to && from.up && to.up && !s.carries(from, to) {
				s.gaps++
				if s.firstGap == "" {
					s.firstGap = fmt.Sprintf("%v: from %s to %s", s.net.Now().Sub(simlink.Epoch), from.name, to.name)
				}
			}
		}
	}
}

// secured says whether all members are secured on one SAK and can talk.
func (s *sim) secured(members ...*member) bool {
	if len(members) == 0 {
		members = s.members
	}
	ki := members[0].status().KI
	for _, m := range members {
		st := m.status()
		if m.port == nil || !st.Secured || st.KI != ki {
			return false
		}
		for _, o := range members {
			if o != m && !s.carries(m, o) {
				return false
			}
		}
	}
	return true
}

func (m *member) status() mka.Status {
	if m.port == nil {
		return mka.Status{}
	}
	return m.port.Status()
}

func (m *member) saw(k mka.NoticeKind) int {
	n := 0
	for _, x := range m.notices {
		if x.Kind == k {
			n++
		}
	}
	return n
}

func (m *member) condition(k mka.ConditionKind) *mka.Condition {
	for _, c := range m.status().Conditions {
		if c.Kind == k {
			return &c
		}
	}
	return nil
}

// mustSecure runs until all are secured and fails when that takes longer.
func (s *sim) mustSecure(limit time.Duration, members ...*member) time.Duration {
	s.t.Helper()
	d, ok := s.net.RunUntil(limit, func() bool { return s.secured(members...) })
	if !ok {
		for _, m := range s.members {
			s.t.Logf("%s: %+v", m.name, m.status())
		}
		s.t.Fatalf("not secured within %v", limit)
	}
	return d
}

func (s *sim) noGaps() {
	s.t.Helper()
	if s.gaps > 0 {
		s.t.Errorf("%d moments without a way for a frame, the first at %s", s.gaps, s.firstGap)
	}
}

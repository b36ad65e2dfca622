package sim

import (
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/secy"
	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
	"github.com/lever-link/lever/mka"
)

// Member is one station: a Port, its driver, and a kernel with its device. The
// kernel stays when the driver dies.
type Member struct {
	Name   string
	Number int // its place in Sim.Members
	Config mka.Config
	Port   *mka.Port // nil while the driver is dead

	Station *simlink.Station
	Kernel  *macsectest.Kernel
	Index   int // of the device, in the kernel
	SAs     SAs

	// Record is what a restart resumes from, and Earlier what it replaced in this
	// life; nil at its start.
	Record, Earlier *mka.Record
	// OpDelay is how long each SecY operation takes, and OpFault, if set, may refuse
	// one before the kernel is asked.
	OpDelay time.Duration
	OpFault func(mka.Op) error
	// Frame, if set, is given the MKPDUs that arrive in place of the Port, and Data
	// the data frames that the device delivers.
	Frame func(frame []byte)
	Data  func(frame []byte)
	// Notice, if set, is called with each. It must not step the Port.
	Notice  func(mka.Notice)
	Notices []mka.Notice // all of the run, if Keep
	Keep    bool

	sim      *Sim
	secy     secy.SecY
	clock    clock
	life     int // counts starts and ends, so that late calls of a dead driver do nothing
	persists int // in this life
	steps    int
	timer    *simlink.Timer
	due      time.Time // when timer fires, by the member's clock
	pending  []mka.Op
	stalled  bool
	queue    []func() // what waits for the end of a stall
	frames   int      // of them, frames
	up       bool     // the device was set up
	refused  bool     // an operation was: what it was to make may be missing
}

// socketQueue is how many frames wait for a driver that does not read: what
// internal/agent's channel has room for.
const socketQueue = 64

// Add makes a member with a device as internal/agent makes it, not started. The
// n-th gets the address 02:00:00:00:00:n.
func (s *Sim) Add(name string, n byte, change func(*mka.Config)) *Member {
	mac := mka.MAC{2, 0, 0, 0, 0, n}
	m := &Member{
		Name: name, Number: len(s.Members), sim: s, Kernel: macsectest.New(), Keep: true,
		Config: mka.Config{
			SCI: mka.NewSCI(mac, 1), Address: mac, Priority: mka.DefaultPriority,
			Suite: mka.GCMAESXPN256, Rand: Random(s.seed<<8 + uint64(n)),
		},
		clock: clock{base: simlink.Epoch},
	}
	if change != nil {
		change(&m.Config)
	}
	m.Kernel.ShareNonces(s.Nonces)
	parent := m.Kernel.AddInterface("eth0", net.HardwareAddr(m.Config.Address[:]), 1500)
	dev, err := m.Kernel.CreateDevice(parent, "eth0-sec", secy.DeviceConfig(macsec.SCI(m.Config.SCI), secy.Suite(m.Config.Suite)))
	if err != nil {
		panic(fmt.Sprintf("sim: make the device of member %s: %v", name, err))
	}
	m.Index, m.secy = dev.Index, secy.SecY{Kernel: m.Kernel, Index: dev.Index}
	m.Station = s.Segment.Attach(m.arrive)
	s.Members = append(s.Members, m)
	return m
}

// Start makes the Port, as an agent does: with what it finds in the SecY and in the
// last record.
func (m *Member) Start(caks ...CAK) { m.StartFrom(m.Record, caks...) }

// StartFrom is Start with a record that need not be the last one; nil for none.
func (m *Member) StartFrom(record *mka.Record, caks ...CAK) {
	m.life++
	m.persists = 0
	y := m.look()
	if _, err := m.secy.Sweep(y); err != nil {
		m.sim.fail("%s: %v", m.Name, err)
	}
	m.SAs.sweep()
	cfg := m.Config
	cfg.Resume, cfg.Adopted = record, secy.Adopt(y)
	port, err := mka.NewPort(cfg)
	if err != nil {
		m.sim.fail("%s: %v", m.Name, err)
		return
	}
	m.Port = port
	m.sim.trace(Entry{Kind: TraceStart, Member: m, Resumed: record != nil, Adopted: cfg.Adopted})
	m.sampleSoon()
	for _, c := range caks {
		m.AddCAK(c)
	}
}

// Kill ends the driver and leaves the SecY as it is.
func (m *Member) Kill() {
	if m.Port != nil {
		m.sim.trace(Entry{Kind: TraceKill, Member: m})
	}
	m.Port, m.pending, m.queue, m.frames, m.stalled = nil, nil, nil, 0, false
	m.life++
	m.sim.Net.Stop(m.timer)
	m.due = time.Time{}
}

// SetClock has the member's clock say something else from now on, and run fast by
// ppm millionths. A Port's time must not run backwards: only a dead member's may.
func (m *Member) SetClock(offset time.Duration, ppm int64) {
	m.clock = clock{started: m.sim.Since(), base: m.sim.Net.Now().Add(offset), ppm: ppm}
}

// Now is what the member's clock says.
func (m *Member) Now() time.Time { return m.clock.at(m.sim.Since()) }

// AddCAK offers a CAK to the Port.
func (m *Member) AddCAK(c CAK) {
	m.sim.learn(c)
	m.Step(mka.Event{Kind: mka.EventAddCAK, CKN: c.CKN, Rank: c.Rank, CAK: c.Key()})
}

// RemoveCAK withdraws one that a better one has replaced.
func (m *Member) RemoveCAK(ckn mka.CKN) { m.Step(mka.Event{Kind: mka.EventRemoveCAK, CKN: ckn}) }

// RevokeCAK withdraws one that must not be used any more.
func (m *Member) RevokeCAK(ckn mka.CKN) { m.Step(mka.Event{Kind: mka.EventRevokeCAK, CKN: ckn}) }

// Rekey asks for a fresh SAK.
func (m *Member) Rekey() { m.Step(mka.Event{Kind: mka.EventRekey}) }

// Status is the Port's; the zero value while the driver is dead.
func (m *Member) Status() mka.Status {
	if m.Port == nil {
		return mka.Status{}
	}
	return m.Port.Status()
}

// Saw counts the notices of a kind, of all the run.
func (m *Member) Saw(k mka.NoticeKind) int {
	n := 0
	for _, x := range m.Notices {
		if x.Kind == k {
			n++
		}
	}
	return n
}

// Condition is that of a kind, nil if it is not so.
func (m *Member) Condition(k mka.ConditionKind) *mka.Condition {
	for _, c := range m.Status().Conditions {
		if c.Kind == k {
			return &c
		}
	}
	return nil
}

// Stall keeps the driver from running for a while: a machine that swaps, or whose
// virtual processor got no time. What happens meanwhile waits, as many frames as the
// socket has room for.
func (m *Member) Stall(d time.Duration) {
	if m.stalled || m.Port == nil {
		return
	}
	m.stalled = true
	life := m.life
	m.sim.Net.After(d, func() {
		if m.life != life {
			return
		}
		m.stalled, m.frames = false, 0
		queue := m.queue
		m.queue = nil
		for _, do := range queue {
			if m.life == life {
				do()
			}
		}
	})
}

// run calls do now, or after a stall.
func (m *Member) run(do func()) {
	if m.stalled {
		m.queue = append(m.queue, do)
		return
	}
	do()
}

// arrive takes a frame off the wire, to the kernel or to the driver.
func (m *Member) arrive(frame []byte) {
	if len(frame) >= 14 && frame[12] == macsectest.EtherType>>8 && frame[13] == macsectest.EtherType&0xff {
		m.deliver(frame)
		return
	}
	switch {
	case m.Frame != nil:
		m.Frame(frame)
	case m.Port == nil || m.stalled && m.frames == socketQueue:
	default:
		if m.stalled {
			m.frames++
		}
		if m.sim.Trace != nil {
			m.sim.traceFrame(TraceReceived, m, frame)
		}
		if m.sim.Forged == nil || m.stalled || !m.sim.Forged(frame) {
			m.Step(mka.Event{Kind: mka.EventFrame, Frame: frame})
			return
		}
		before := m.Port.Status().Counters.Received
		m.Step(mka.Event{Kind: mka.EventFrame, Frame: frame})
		if m.Port != nil && m.Port.Status().Counters.Received != before {
			m.sim.fail("%s: takes in a forged MKPDU: % x", m.Name, frame)
		}
	}
}

// Step gives the Port an event and obeys it, when a stall is over if there is one.
// It must not be called from within one.
func (m *Member) Step(ev mka.Event) {
	if m.stalled {
		m.queue = append(m.queue, func() { m.Step(ev) })
		return
	}
	m.steps++
	if limit := 20_000 * (10 + int(m.sim.Since()/time.Second)); m.steps > limit {
		m.sim.fail("%s: %d steps: it turns in circles", m.Name, m.steps)
		m.Kill()
		return
	}
	if m.sim.Trace != nil {
		m.sim.traceEvent(m, ev)
	}
	out := m.Port.Step(m.Now(), ev)
	m.obey(&out)
	if m.sim.Stepped != nil {
		m.sim.Stepped(m, &out)
	}
}

// obey is a driver: persist, send, operate, wait.
func (m *Member) obey(out *mka.Output) {
	if out.Persist != nil {
		if m.persists > 0 {
			m.Earlier = m.Record
		}
		m.persists++
		m.Record = out.Persist
	}
	for _, f := range out.Frames {
		m.sim.check.numbered(m, f)
		if m.sim.Trace != nil {
			m.sim.traceFrame(TraceSent, m, f)
		}
		m.Station.Send(f)
	}
	if m.Keep {
		m.Notices = append(m.Notices, out.Notices...)
	}
	for _, n := range out.Notices {
		m.sim.trace(Entry{Kind: TraceNotice, Member: m, Notice: n})
		if n.Kind == mka.NoticeSecured {
			m.carry()
		}
		if m.Notice != nil {
			m.Notice(n)
		}
	}
	idle := len(m.pending) == 0
	m.pending = append(m.pending, out.Ops...)
	if idle && len(m.pending) > 0 {
		m.operate()
	}
	m.wait(out.Deadline)
}

// wait arms the timer.
func (m *Member) wait(deadline time.Time) {
	if deadline.Equal(m.due) {
		return
	}
	if now := m.Now(); !deadline.IsZero() && !deadline.After(now) {
		m.sim.fail("%s: asks to be stepped at %v, which is %v", m.Name, deadline, now)
		deadline = now.Add(time.Second)
	}
	m.sim.Net.Stop(m.timer)
	m.due = deadline
	if deadline.IsZero() {
		return
	}
	life := m.life
	m.timer = m.sim.Net.After(m.clock.when(deadline)-m.sim.Since(), func() {
		m.due = time.Time{}
		m.run(func() {
			if m.life == life {
				m.Step(mka.Event{Kind: mka.EventTick})
			}
		})
	})
}

// carry sets the device up, for traffic comes last.
func (m *Member) carry() {
	if m.up {
		return
	}
	m.up = true
	if err := m.Kernel.UpdateDevice(m.Index, macsec.DeviceUpdate{Up: new(true)}); err != nil {
		m.sim.fail("%s: set the device up: %v", m.Name, err)
	}
}

// operate carries the next operation out, in its time, and reports it.
func (m *Member) operate() {
	life := m.life
	m.sim.Net.After(m.OpDelay, func() {
		m.run(func() {
			if m.life != life || len(m.pending) == 0 {
				return
			}
			op := m.pending[0]
			m.pending = slices.Delete(m.pending, 0, 1)
			err := m.do(op)
			m.sim.trace(Entry{Kind: TraceOp, Member: m, Op: op, Err: err})
			if m.sim.Operated != nil {
				m.sim.Operated(m, op, err)
			}
			if m.life != life {
				return // it died before it knew
			}
			if len(m.pending) > 0 {
				m.operate()
			}
			m.Step(mka.Event{Kind: mka.EventOpDone, OpID: op.ID, Err: err})
		})
	})
}

func (m *Member) do(op mka.Op) error {
	if m.OpFault != nil {
		if err := m.OpFault(op); err != nil {
			m.refused = true
			return err
		}
	}
	m.sim.check.before(m, op)
	err := m.secy.Do(op)
	m.sim.check.after(m, op, err)
	if err == nil {
		m.SAs.apply(op)
	}
	return err
}

// sampleSoon reports packet numbers, as the agent's sampling does.
func (m *Member) sampleSoon() {
	life := m.life
	m.sim.Net.After(m.Port.SampleInterval(), func() {
		m.run(func() {
			if m.life != life {
				return
			}
			m.sample()
			m.sampleSoon()
		})
	})
}

func (m *Member) sample() {
	y := m.look()
	for i := range y.TxSC.SAs {
		sa := &y.TxSC.SAs[i]
		m.Step(mka.Event{Kind: mka.EventPN, KI: mka.KIFromBytes(sa.KeyID), NextPN: sa.NextPN})
	}
}

// look reads the device, and compares it with what the operations should have made
// of it.
func (m *Member) look() *macsec.SecY {
	y, err := m.Kernel.SecY(m.Index)
	if err != nil {
		m.sim.fail("%s: read the device: %v", m.Name, err)
		return &macsec.SecY{}
	}
	if err := m.SAs.differs(y); err != nil {
		m.sim.fail("%s: %v", m.Name, err)
	}
	if m.Port == nil || m.refused {
		return y
	}
	if want, scs, known := m.Port.Associations(); known {
		for _, d := range m.secy.Compare(y, want, scs, secy.PNs{}) {
			m.sim.fail("%s: the Port has it otherwise: %v", m.Name, d)
		}
	}
	return y
}

package mka

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/secret"
)

// fuzzRun is two Ports and an attacker between them who may do anything to what
// they send, also with the keys of a former member, and whose moves are the
// fuzzer's octets.
type fuzzRun struct {
	t     *testing.T
	moves []byte
	now   time.Time
	ends  [2]fuzzEnd
	icks  map[CKN]*ICK
	spent map[string]bool // what may happen once only
}

type fuzzEnd struct {
	port     *Port
	sci      SCI
	deadline time.Time
	inbox    [][]byte
	ops      []Op
	lastOp   uint64
	lastMN   map[MI]uint32
	tx       map[AN]KI
	rx       map[SCI]map[AN]KI
}

// Bounds on what one Step may ask for: fuzzMoves moves cannot make more peers
// than a Port keeps.
const (
	fuzzMoves     = 400
	fuzzInbox     = 8
	maxStepFrames = 2 * maxParticipants
	maxStepOps    = 8 * (maxPeers + 1)
	maxStepNotes  = maxParticipants * (maxPeers + 8)
)

var fuzzCKNs = []CKN{"1", "ckn", "a CKN of thirty-two octets, long"}

func newFuzzRun(t *testing.T, moves []byte) *fuzzRun {
	r := &fuzzRun{
		t: t, moves: moves[:min(len(moves), 4*fuzzMoves)], now: time.Unix(1<<30, 0),
		icks: map[CKN]*ICK{}, spent: map[string]bool{},
	}
	suites := []CipherSuite{GCMAESXPN256, GCMAES256, GCMAES128, GCMAESXPN128}
	options := r.next()
	for i := range r.ends {
		mac := MAC{2, 0, 0, 0, 0, byte(i + 1)}
		cfg := Config{
			SCI: NewSCI(mac, 1), Address: mac, Priority: DefaultPriority, Suite: suites[options>>6],
			Rand: rand.NewChaCha8([32]byte{byte(i)}), External: options&1 != 0, SAKRekey: time.Minute,
		}
		if options&(2<<i) != 0 {
			cfg.Priority = NeverKeyServer
		}
		p, err := NewPort(cfg)
		if err != nil {
			t.Fatal(err)
		}
		r.ends[i] = fuzzEnd{port: p, sci: cfg.SCI, lastMN: map[MI]uint32{}, tx: map[AN]KI{}, rx: map[SCI]map[AN]KI{}}
	}
	for _, ckn := range fuzzCKNs {
		key, err := DeriveICK(fuzzCAK(ckn), ckn)
		if err != nil {
			t.Fatal(err)
		}
		if r.icks[ckn], err = NewICK(key); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func fuzzCAK(ckn CKN) Key { return secret.New(bytes.Repeat([]byte{byte(len(ckn))}, 32)) }

// next is the fuzzer's next octet.
func (r *fuzzRun) next() int {
	if len(r.moves) == 0 {
		return 0
	}
	b := r.moves[0]
	r.moves = r.moves[1:]
	return int(b)
}

// move does one thing.
func (r *fuzzRun) move() {
	what := r.next()
	end := &r.ends[what>>7]
	switch what & 0x0f {
	case 0: // time passes, and who is due is stepped
		r.pass(time.Duration(r.next()) * 20 * time.Millisecond)
	case 1, 2: // all that is under way arrives, and what comes of it, for a while
		r.settle(1 + r.next()%4)
	case 3:
		r.deliver(end, r.take(end))
	case 4:
		r.take(end) // lost
	case 5: // twice, and late
		if f := r.take(end); f != nil {
			r.deliver(end, f)
			end.inbox = append(end.inbox, f)
		}
	case 6, 7: // damaged, and signed again by somebody who has the CAK
		f := r.take(end)
		if len(f) < cknOffset+icvLen {
			return
		}
		for range 1 + r.next()%3 {
			f[12+r.next()%(len(f)-12)] = byte(r.next())
		}
		if what&0x0f == 7 {
			f = r.sign(f)
		}
		r.deliver(end, f)
	case 8: // of the fuzzer's own making, under a CKN in use
		ckn := fuzzCKNs[r.next()%len(fuzzCKNs)]
		m := MKPDU{Source: MAC{2, 9}, Basic: Basic{
			Version: uint8(r.next()), Priority: uint8(r.next()), KeyServer: true, MACsecDesired: true, Capability: CapabilityConfidentiality,
			SCI: SCI{2, byte(r.next())}, MI: MI{byte(r.next()), 1}, MN: uint32(r.next()), CKN: ckn,
		}}
		if what&0x40 != 0 { // who has heard the other
			m.Live = PeerList{Present: true}
			for mi, mn := range end.lastMN {
				m.Live.Entries = append(m.Live.Entries, PeerEntry{mi, mn})
			}
			slices.SortFunc(m.Live.Entries, func(a, b PeerEntry) int { return bytes.Compare(a.MI[:], b.MI[:]) })
		}
		f, err := m.Append(nil, r.icks[ckn])
		if err != nil {
			r.t.Fatal(err)
		}
		n := min(r.next(), len(r.moves)) &^ 3
		f = append(f[:len(f)-icvLen], r.moves[:n]...)
		r.moves = r.moves[n:]
		r.deliver(end, r.sign(append(f, make([]byte, icvLen)...)))
	case 9:
		ckn := fuzzCKNs[r.next()%len(fuzzCKNs)]
		r.step(end, Event{Kind: EventAddCAK, CKN: ckn, CAK: fuzzCAK(ckn), Rank: uint64(len(ckn))})
	case 10:
		kind := EventRemoveCAK
		if what&0x40 != 0 {
			kind = EventRevokeCAK
		}
		r.step(end, Event{Kind: kind, CKN: fuzzCKNs[r.next()%len(fuzzCKNs)]})
	case 11:
		r.operate(end, r.next()&1 != 0)
	case 12:
		r.step(end, Event{Kind: EventPN, KI: end.tx[AN(r.next()&3)], NextPN: uint64(r.next()) << (r.next() % 64)})
	case 13:
		r.step(end, Event{Kind: EventRekey})
	case 14:
		r.step(end, Event{Kind: EventLinkUp})
	case 15:
		r.step(end, Event{Kind: EventSuspend, Suspend: time.Duration(r.next()-8) * time.Second})
	}
}

// settle delivers and operates in turn.
func (r *fuzzRun) settle(rounds int) {
	for range rounds {
		for i := range r.ends {
			e := &r.ends[i]
			for range fuzzInbox {
				r.deliver(e, r.take(e))
				r.operate(e, true)
			}
		}
	}
}

func (r *fuzzRun) pass(d time.Duration) {
	for until := r.now.Add(d); ; {
		next := until
		for i := range r.ends {
			if at := r.ends[i].deadline; !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		r.now = next
		for i := range r.ends {
			if e := &r.ends[i]; !e.deadline.IsZero() && !e.deadline.After(r.now) {
				r.step(e, Event{Kind: EventTick})
			}
		}
		if next == until {
			return
		}
	}
}

// take is the oldest frame that is under way to e.
func (r *fuzzRun) take(e *fuzzEnd) []byte {
	if len(e.inbox) == 0 {
		return nil
	}
	f := e.inbox[0]
	e.inbox = e.inbox[1:]
	return f
}

func (r *fuzzRun) deliver(e *fuzzEnd, frame []byte) {
	if frame != nil {
		r.step(e, Event{Kind: EventFrame, Frame: slices.Clone(frame)})
	}
}

// sign puts right the lengths and the ICV of a frame, if its CKN is one of ours.
func (r *fuzzRun) sign(f []byte) []byte {
	binary.BigEndian.PutUint16(f[16:], uint16(len(f)-bodyOffset))
	env, err := Open(f, OpenParams{})
	if err != nil || r.icks[CKN(env.CKN)] == nil {
		return f
	}
	signed, err := r.icks[CKN(env.CKN)].appendICV(f[:len(f)-icvLen], 0)
	if err != nil {
		r.t.Fatal(err)
	}
	return signed
}

// operate does the next operation.
func (r *fuzzRun) operate(e *fuzzEnd, well bool) {
	if len(e.ops) == 0 {
		return
	}
	op := e.ops[0]
	e.ops = e.ops[1:]
	err := errors.New("the kernel says no")
	if well {
		err = r.apply(e, op)
	}
	r.step(e, Event{Kind: EventOpDone, OpID: op.ID, Err: err})
}

// apply is a SecY that is as exact about SAs as the kernel.
func (r *fuzzRun) apply(e *fuzzEnd, op Op) error {
	sas := e.rx[op.SCI]
	switch op.Kind {
	case OpAddTransmitSA, OpEnableTransmitSA, OpDeleteTransmitSA:
		sas = e.tx
	case OpAddReceiveSC, OpDeleteReceiveSC, OpAddReceiveSA, OpDeleteReceiveSA, OpRaiseReceivePN:
	}
	ki, taken := sas[op.AN]
	switch op.Kind {
	case OpAddReceiveSC:
		if sas == nil {
			e.rx[op.SCI] = map[AN]KI{}
		}
	case OpDeleteReceiveSC:
		delete(e.rx, op.SCI)
	case OpAddReceiveSA, OpAddTransmitSA:
		if sas == nil || taken || op.SAK.IsZero() { // no SC, EBUSY, and a driver that looks
			return errors.New("not possible")
		}
		if op.SAK.Len() != op.Suite.KeyLen() {
			r.t.Errorf("%v with a SAK of %d octets for %v", op.Kind, op.SAK.Len(), op.Suite)
		}
		sas[op.AN] = op.KI
	case OpEnableTransmitSA:
		if ki != op.KI {
			return errors.New("no such SA")
		}
		r.once(e, op.KI)
	case OpDeleteReceiveSA, OpDeleteTransmitSA:
		// What a deletion that failed left behind is fair game, the SAK in use
		// is not: the kernel goes by AN.
		if st := e.port.Status(); taken && ki != op.KI && st.Carrying && ki == st.KI {
			r.t.Errorf("%s: %v means %v and would delete %v", e.sci, op.Kind, op.KI, ki)
		}
		delete(sas, op.AN)
	case OpRaiseReceivePN:
	}
	return nil
}

// once holds promise 2: no SA transmits from packet number 1 twice under a KI.
func (r *fuzzRun) once(e *fuzzEnd, ki KI) {
	key := string(e.sci[:]) + ki.String()
	if r.spent[key] {
		r.t.Errorf("%s: transmits with %v a second time", e.sci, ki)
	}
	r.spent[key] = true
}

// step gives a Port an event, and looks at what it does about it.
func (r *fuzzRun) step(e *fuzzEnd, ev Event) {
	out := e.port.Step(r.now, ev)
	e.deadline = out.Deadline
	if !out.Deadline.IsZero() && !out.Deadline.After(r.now) {
		r.t.Errorf("asks at %v to be stepped at %v", r.now, out.Deadline)
	}
	if len(out.Frames) > maxStepFrames || len(out.Ops) > maxStepOps || len(out.Notices) > maxStepNotes {
		r.t.Errorf("%d frames, %d operations, %d notices for one event", len(out.Frames), len(out.Ops), len(out.Notices))
	}
	for _, f := range out.Frames {
		r.sent(e, f)
	}
	for _, op := range out.Ops {
		if op.ID <= e.lastOp {
			r.t.Errorf("operation %d after %d", op.ID, e.lastOp)
		}
		e.lastOp = op.ID
	}
	e.ops = append(e.ops, out.Ops...)
	st := e.port.Status()
	if len(st.Conditions) > maxConditions || len(st.Participants) > maxParticipants {
		r.t.Errorf("%d conditions, %d participants", len(st.Conditions), len(st.Participants))
	}
	for _, pa := range st.Participants {
		if len(pa.Peers) > maxPeers {
			r.t.Errorf("%d peers", len(pa.Peers))
		}
	}
	if out.Persist != nil {
		const most = 64 << 10
		if b, err := json.Marshal(out.Persist); err != nil || len(b) > most {
			r.t.Errorf("a record of %d octets: %v", len(b), err)
		}
	}
}

// sent checks a frame as a peer would, and puts it under way to the other end.
func (r *fuzzRun) sent(e *fuzzEnd, f []byte) {
	const largest = 1514
	if len(f) > largest {
		r.t.Errorf("a frame of %d octets", len(f))
	}
	env, err := Open(f, OpenParams{})
	if err != nil {
		r.t.Fatalf("sends what nobody can read: %v", err)
	}
	var m MKPDU
	if !env.Verify(r.icks[CKN(env.CKN)]) {
		r.t.Fatal("sends an ICV that does not hold")
	}
	if err := m.Decode(&env); err != nil {
		r.t.Fatalf("sends what nobody can read: %v", err)
	}
	if m.Basic.MN <= e.lastMN[m.Basic.MI] {
		r.t.Errorf("sends MN %d after %d", m.Basic.MN, e.lastMN[m.Basic.MI])
	}
	e.lastMN[m.Basic.MI] = m.Basic.MN
	for i := range r.ends {
		if o := &r.ends[i]; o != e && len(o.inbox) < fuzzInbox {
			o.inbox = append(o.inbox, slices.Clone(f))
		}
	}
}

// agree secures both ends, if they can.
var agree = []byte{0x09, 2, 0x89, 2, 1, 3, 0, 10, 1, 3}

// TestFuzzPortReachesSecured says that the fuzzer starts where it is of use.
func TestFuzzPortReachesSecured(t *testing.T) {
	r := newFuzzRun(t, append([]byte{0}, agree...))
	for len(r.moves) > 0 {
		r.move()
	}
	for i := range r.ends {
		if st := r.ends[i].port.Status(); !st.Secured {
			t.Errorf("end %d: %+v", i, st)
		}
	}
}

// FuzzPort plays any sequence of events.
func FuzzPort(f *testing.F) {
	f.Add(append([]byte{0}, agree...))
	f.Add(append([]byte{0x40}, append(agree, 0x0d, 1, 3, 0, 250, 1, 3, 0x0c, 0, 0xff, 24, 1, 3, 0, 250, 1, 3)...)) // rekeys
	f.Add(append([]byte{0x80}, append(agree, 0x09, 1, 0x89, 1, 1, 3, 0, 200, 1, 3, 0x0a, 2, 0xca, 2, 1, 3)...))    // a better CAK
	f.Add(append([]byte{0}, append(agree, 0x07, 1, 30, 77, 0x87, 0, 60, 1, 0x86, 0, 50, 0, 1, 3)...))              // damage
	f.Add(append([]byte{1}, append(agree, 0x48, 2, 3, 1, 7, 3, 1, 8, 6, 0, 0, 4, 1, 2, 3, 4, 1, 3, 0, 255)...))    // a third member
	f.Add(append([]byte{0}, append(agree, 0x0f, 38, 1, 3, 0, 255, 0, 255, 0x0e, 1, 3)...))                         // suspension
	f.Add(append([]byte{6}, agree...))                                                                             // nobody serves
	f.Fuzz(func(t *testing.T, moves []byte) {
		r := newFuzzRun(t, moves)
		for range fuzzMoves {
			if len(r.moves) == 0 {
				break
			}
			r.move()
		}
	})
}

package mka

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Timers of IEEE 802.1X-2020 Table 9-3 and of the CP state machine (12.4).
const (
	DefaultHello = 2 * time.Second
	DefaultLife  = 6 * time.Second
	// BoundedHello replaces the hello while delay protection is in force.
	BoundedHello = 500 * time.Millisecond
	sakRetire    = 3 * time.Second
	// receiveLimit bounds how long the key server waits for every peer to
	// receive before it transmits (MKA transmit delay, 12.4).
	receiveLimit = 6 * time.Second
	// patience replaces it while an old SAK serves, and bounds how long that
	// one waits for a live peer that does not come over: on a link that loses
	// MKPDUs nobody is cut off for being late.
	patience = time.Minute
	// firstRamp is the first repetition while something is unfinished: a lost
	// frame costs this much and not a whole hello.
	firstRamp = 100 * time.Millisecond
)

// Limits that hold whatever a member of the CA, or somebody who replays its
// frames, sends.
const (
	maxParticipants = 8
	maxPeers        = 64
	maxSuites       = 16 // announced by a peer
)

// DefaultPriority is a key server priority in the middle of nowhere: lower
// wins, 255 never serves (802.1X-2020 9.5, Table 9-2).
const DefaultPriority = 16

// NeverKeyServer is the priority of a member that must not be key server.
const NeverKeyServer = 255

// Config is what a Port is made of; it never changes afterwards.
type Config struct {
	SCI         SCI // our transmit SC
	Address     MAC // source of our MKPDUs
	Destination MAC // zero: 01-80-C2-00-00-03
	EtherType   uint16
	Priority    uint8
	Suite       CipherSuite

	Hello    time.Duration // zero: DefaultHello
	Life     time.Duration // zero: DefaultLife
	SAKRekey time.Duration // zero: by packet number only

	// DelayProtect bounds how late a frame may arrive: MKPDUs go out at the
	// bounded hello, and what their LPNs rule out is not accepted (802.1X-2020
	// 9.10.1). A key server that asks for it gets it in any case.
	DelayProtect bool
	// ICVIndicator has each MKPDU carry the set that announces its ICV; the
	// standard needs none for one of 16 octets.
	ICVIndicator bool

	// External says that the far end is somebody else's equipment, so that
	// nothing is expected of it that the standard does not demand.
	External bool

	// Rand yields member identifiers and the nonces of SAKs.
	Rand io.Reader

	// Resume is what an earlier Port of this link last asked to Persist, and
	// Adopted the SAs that were found in the SecY. Both may be missing.
	Resume  *Record
	Adopted []AdoptedKey
}

// Port is the MKA of one port: the participants of its CAKs, key server
// election, and the CP state machine that they share (802.1X-2020 clauses 9
// and 12). It does no I/O and reads no clock: the same configuration and the
// same events give the same outputs. It is not safe for concurrent use: one
// driver owns it.
type Port struct {
	cfg Config
	now time.Time

	participants []*participant // greatest rank first
	cp           cp
	spent        spentKIs
	retired      []KI // the last ones, see Record
	rekeyWanted  bool
	suspended    time.Time // until then we have announced to be away
	conditions   conditions
	counters     Counters
	secured      *dataKey // carries our frames, and every live peer receives it
	securedKI    KI       // what NoticeSecured last said
	persistDirty bool

	nextOp    uint64 // the last one asked for
	doneOp    uint64 // the last one reported done
	announced TLV    // what we say of our cipher suite

	rx      MKPDU // decoding scratch
	tx      MKPDU // encoding scratch
	out     Output
	buffers [][]byte // backing of out.Frames, reused
}

// Counters count what arrived and was not acted on, by cause.
type Counters struct {
	Received    uint64 // MKPDUs that passed every check
	Malformed   uint64 // not an MKPDU, or its parameter sets are broken
	UnknownCKN  uint64
	ICVMismatch uint64
	OwnSCI      uint64 // our own frames come back
	Replayed    uint64 // message number not greater than the last
	TooMany     uint64 // more peers than a Port keeps
	Sent        uint64
}

// NewPort checks cfg and makes a Port without participants.
func NewPort(cfg Config) (*Port, error) {
	var errs []error
	if cfg.SCI == (SCI{}) {
		errs = append(errs, errors.New("the SCI is missing"))
	}
	if cfg.Address == (MAC{}) {
		errs = append(errs, errors.New("the source address is missing"))
	}
	if cfg.Rand == nil {
		errs = append(errs, errors.New("the source of randomness is missing"))
	}
	if !cfg.Suite.Known() {
		errs = append(errs, fmt.Errorf("cipher suite %v is not one of the four of 802.1AE", cfg.Suite))
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("mka: make port: %w", errors.Join(errs...))
	}
	if cfg.Destination == (MAC{}) {
		cfg.Destination = GroupAddress
	}
	if cfg.EtherType == 0 {
		cfg.EtherType = EtherType
	}
	if cfg.Hello == 0 {
		cfg.Hello = DefaultHello
	}
	if cfg.Life == 0 {
		cfg.Life = DefaultLife
	}
	p := &Port{cfg: cfg}
	p.adopt()
	return p, nil
}

// Step takes one event at a time that must not run backwards, and says what
// to do. See Output for the order.
func (p *Port) Step(now time.Time, ev Event) Output {
	if p.now.IsZero() && len(p.cfg.Adopted) > 0 {
		p.cp.adoptedUntil = now.Add(p.cfg.Life)
	}
	p.now = now
	due := p.out.Deadline
	p.out = Output{Frames: p.out.Frames[:0], Ops: p.out.Ops[:0], Notices: p.out.Notices[:0]}
	switch ev.Kind {
	case EventTick:
	case EventFrame:
		if !p.receive(ev.Frame) && !due.IsZero() && now.Before(due) {
			p.out.Deadline = due // nothing was learned, and nothing is due
			return p.out
		}
	case EventAddCAK:
		p.addCAK(ev)
	case EventRemoveCAK, EventRevokeCAK:
		p.removeCAK(ev.CKN, ev.Kind == EventRevokeCAK)
	case EventOpDone:
		p.opDone(ev.OpID, ev.Err)
	case EventPN:
		p.observePN(ev.KI, ev.NextPN)
	case EventRekey:
		p.requestRekey()
	case EventSuspend:
		p.suspend(ev.Suspend)
	case EventLeave:
		p.persistDirty = true // with the peers' last message numbers
		for _, pa := range p.participants {
			if pa.livePeers() > 0 {
				pa.tokens, pa.sendNow = max(pa.tokens, 1), true
			}
		}
	case EventSALost:
		p.lostSA(ev.KI, ev.SCI)
	case EventLinkUp:
		for _, pa := range p.participants {
			pa.ramp, pa.sendNow = firstRamp, true
		}
	}
	p.settle()
	return p.out
}

// settle applies the rules until nothing changes, then sends what is due.
func (p *Port) settle() {
	for _, pa := range p.participants {
		p.expirePeers(pa)
		p.elect(pa)
	}
	// Each pass moves the CP machine at least one state or stops; the bound
	// is a guard against a rule that undoes another.
	for range 8 {
		if !p.advanceCP() && !p.serveKeys() {
			break
		}
	}
	p.noteSecured()
	for _, pa := range p.participants {
		p.transmit(pa)
	}
	if p.persistDirty {
		p.persistDirty = false
		p.out.Persist = p.record()
	}
	p.out.Deadline = p.deadline()
}

func (p *Port) notice(n Notice) { p.out.Notices = append(p.out.Notices, n) }

func (p *Port) op(o Op) uint64 {
	p.nextOp++
	o.ID = p.nextOp
	p.out.Ops = append(p.out.Ops, o)
	return o.ID
}

func (p *Port) participant(ckn []byte) *participant {
	for _, pa := range p.participants {
		if string(pa.ckn) == string(ckn) {
			return pa
		}
	}
	return nil
}

func (p *Port) addCAK(ev Event) {
	if old := p.participant([]byte(ev.CKN)); old != nil {
		if !old.cak.Equal(ev.CAK) {
			p.conditions.raise(p.now, Condition{
				Kind: ConditionBadCAK, CKN: ev.CKN,
				Err: errors.New("another CAK under a CKN that is in use"),
			})
		}
		ev.CAK.Erase()
		return
	}
	if len(p.participants) >= maxParticipants {
		p.conditions.raise(p.now, Condition{
			Kind: ConditionBadCAK, CKN: ev.CKN,
			Err: fmt.Errorf("%d CAKs are in use already", maxParticipants),
		})
		ev.CAK.Erase()
		return
	}
	pa, err := p.newParticipant(ev.CKN, ev.CAK, ev.Rank)
	if err != nil {
		p.conditions.raise(p.now, Condition{Kind: ConditionBadCAK, CKN: ev.CKN, Err: err})
		ev.CAK.Erase()
		return
	}
	p.conditions.clear(ConditionUnknownCKN, ev.CKN)
	p.participants = append(p.participants, pa)
	slices.SortStableFunc(p.participants, func(a, b *participant) int {
		switch {
		case a.rank > b.rank:
			return -1
		case a.rank < b.rank:
			return 1
		}
		return 0
	})
	p.persistDirty = true
}

func (p *Port) removeCAK(ckn CKN, revoked bool) {
	if revoked {
		p.closeKeysOf(ckn)
	}
	pa := p.participant([]byte(ckn))
	if pa == nil {
		return
	}
	if !revoked {
		p.disownKeysOf(pa)
	}
	p.participants = slices.DeleteFunc(p.participants, func(x *participant) bool { return x == pa })
	pa.erase()
	p.cfg.Resume = p.cfg.Resume.without(ckn)
	p.conditions.forget(ckn)
	p.persistDirty = true
}

// requestRekey asks for a fresh SAK. MKA gives a client no way to ask its key
// server for one, but the server must make one whenever the live set changes
// (802.1X-2020 9.8), and a fresh MI changes it.
func (p *Port) requestRekey() {
	pa := p.principal()
	switch {
	case pa == nil:
	case pa.serving:
		p.rekeyWanted = true
	case !p.cfg.External:
		p.renewMI(pa)
	}
}

// CanRekey says whether EventRekey will have an effect, and if not, why.
func (p *Port) CanRekey() error {
	pa := p.principal()
	switch {
	case pa == nil || pa.livePeers() == 0:
		return errors.New("no live peer: there is nobody to agree a SAK with")
	case !pa.serving && p.cfg.External:
		return fmt.Errorf("the far end (SCI %s) is key server, and MKA has no way to ask other equipment for a SAK: rekey there", pa.serverSCI(p))
	}
	return nil
}

// principal is the participant that the CP state machine follows: the one
// whose SAK is the latest, else the best one with a live peer, else the best.
func (p *Port) principal() *participant {
	if l := p.cp.latest; l != nil && l.owner != nil {
		return l.owner
	}
	for _, pa := range p.participants {
		if pa.livePeers() > 0 {
			return pa
		}
	}
	if len(p.participants) > 0 {
		return p.participants[0]
	}
	return nil
}

// deadline is the earliest moment at which a rule can fire by time alone.
func (p *Port) deadline() time.Time {
	var d time.Time
	at := func(t time.Time) { // what is due by now has had its effect
		if t.After(p.now) && (d.IsZero() || t.Before(d)) {
			d = t
		}
	}
	for _, pa := range p.participants {
		at(pa.nextSend(p.now))
		for _, pe := range pa.peers {
			at(pe.expires)
		}
		at(pa.potentialUntil)
	}
	p.cp.deadlines(p.cfg.Life, at)
	if l := p.cp.latest; l != nil && l.owner != nil && l.owner.serving && p.cfg.SAKRekey > 0 {
		at(l.created.Add(p.cfg.SAKRekey))
	}
	if p.cfg.External && p.cp.latest != nil {
		at(p.cp.latest.created.Add(p.cfg.Hello)) // see mayStartSAK
	}
	return d
}

// Erase erases every key that the Port holds. The Port must not be used
// afterwards; the SAs in the SecY stay.
func (p *Port) Erase() {
	for _, pa := range p.participants {
		pa.erase()
	}
	p.participants = nil
	for k := range p.cp.keys {
		k.sak.Erase()
	}
}

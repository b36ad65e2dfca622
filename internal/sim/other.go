package sim

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/lever-link/lever/mka"
)

// Other is a station of another make: a device and a place on the segment like any
// Member's, and no Port. What it says is its maker's business: WPA and MKAdaemon
// are two, and scripts make more by hand.
type Other struct {
	*Member
	CAK CAK
	MI  mka.MI
	MN  uint32
	// Heard are those whose MKPDUs were verified, in the order of their coming.
	Heard []*Heard
	// Hear, if set, takes each verified MKPDU. The message is valid during the call.
	Hear func(m *mka.MKPDU)

	keys    *material
	enabled map[mka.KI]bool // it transmitted with them
}

// Heard is somebody whom an Other has heard.
type Heard struct {
	MI       mka.MI
	MN       uint32
	SCI      mka.SCI
	Priority uint8
	Live     bool
	Use      mka.SAKUse

	expires time.Time
	usedSAK bool // SAK Use was there once
	strange bool // it sent a set that this make complains of
}

// Key is a SAK that an Other has.
type Key struct {
	KI     mka.KI
	AN     mka.AN
	Suite  mka.CipherSuite
	SAK    mka.Key
	Rx, Tx bool
}

// AddOther makes one that is silent until somebody makes it speak.
func (s *Sim) AddOther(name string, n byte, change func(*mka.Config)) *Other {
	o := &Other{Member: s.Add(name, n, change), enabled: map[mka.KI]bool{}}
	o.Frame = o.take
	return o
}

// Join gives it a CAK, and a fresh MI.
func (o *Other) Join(c CAK) error {
	o.life++
	o.sim.learn(c)
	m := &material{}
	var err error
	if m.kek, err = mka.DeriveKEK(c.Key(), c.CKN); err != nil {
		return err
	}
	key, err := mka.DeriveICK(c.Key(), c.CKN)
	if err != nil {
		return err
	}
	if m.ick, err = mka.NewICK(key); err != nil {
		return err
	}
	o.CAK, o.keys, o.Heard = c, m, nil
	o.Say("starts")
	return o.FreshMI()
}

// FreshMI makes it another member.
func (o *Other) FreshMI() error {
	o.MN = 0
	_, err := o.Config.Rand.Read(o.MI[:])
	return err
}

// Joined says whether it was started and not killed since.
func (o *Other) Joined() bool { return o.keys != nil }

// Kill silences it and leaves its device as it is.
func (o *Other) Kill() {
	o.Say("is killed")
	o.keys = nil
	o.life++
}

// Say writes what it would log.
func (o *Other) Say(format string, args ...any) {
	o.sim.trace(Entry{Kind: TraceNote, Member: o.Member, Text: fmt.Sprintf(format, args...)})
}

// Every calls do now and at each interval, until it is killed or joins again.
func (o *Other) Every(d time.Duration, do func()) {
	life := o.life
	var next func()
	next = func() {
		if o.life == life {
			do()
			o.sim.Net.After(d, next)
		}
	}
	o.sim.Net.After(0, next)
}

// after calls do later, unless it is killed or joins again.
func (o *Other) after(d time.Duration, do func()) {
	life := o.life
	o.sim.Net.After(d, func() {
		if o.life == life {
			do()
		}
	})
}

// take verifies what arrives.
func (o *Other) take(frame []byte) {
	if o.keys == nil {
		return
	}
	e, err := mka.Open(frame, mka.OpenParams{EtherType: o.Config.EtherType, Destination: o.Config.Destination})
	if err != nil || mka.CKN(e.CKN) != o.CAK.CKN {
		return
	}
	if !e.Verify(o.keys.ick) {
		o.Say("says that the ICV is not equal")
		return
	}
	m := &mka.MKPDU{}
	if err := m.Decode(&e); err != nil {
		o.Say("cannot read a frame: %v", err)
		return
	}
	m.Basic.Version = e.Version
	if o.Hear != nil {
		o.Hear(m)
	}
}

// Note remembers who spoke: what an Other needs who answers with a list of peers.
// It is nil for a message that is not newer than the last.
func (o *Other) Note(m *mka.MKPDU) *Heard {
	h := o.heard(m.Basic.MI)
	switch {
	case h == nil:
		h = &Heard{MI: m.Basic.MI, SCI: m.Basic.SCI}
		o.Heard = append(o.Heard, h)
	case m.Basic.MN <= h.MN:
		return nil
	}
	h.MN, h.Priority = m.Basic.MN, m.Basic.Priority
	return h
}

func (o *Other) heard(mi mka.MI) *Heard {
	for _, h := range o.Heard {
		if h.MI == mi {
			return h
		}
	}
	return nil
}

// live are those of whom it is sure.
func (o *Other) live() []*Heard {
	return slices.DeleteFunc(slices.Clone(o.Heard), func(h *Heard) bool { return !h.Live })
}

// lists fills the peer lists of m.
func (o *Other) lists(m *mka.MKPDU) {
	for _, h := range o.Heard {
		l := &m.Potential
		if h.Live {
			l = &m.Live
		}
		l.Present = true
		l.Entries = append(l.Entries, mka.PeerEntry{MI: h.MI, MN: h.MN})
	}
}

// listed finds us in the lists of somebody.
func (o *Other) listed(m *mka.MKPDU) (mn uint32, ok bool) {
	if mn, ok := m.Live.Contains(o.MI); ok {
		return mn, true
	}
	return m.Potential.Contains(o.MI)
}

// server is the elected key server among it and its live peers; nil is itself.
func (o *Other) server() *Heard {
	var best *Heard
	for _, h := range o.live() {
		if h.Priority != mka.NeverKeyServer && (best == nil || h.Priority < best.Priority || h.Priority == best.Priority && h.SCI.Less(best.SCI)) {
			best = h
		}
	}
	own := o.Config.Priority
	if best != nil && own != mka.NeverKeyServer && (own < best.Priority || own == best.Priority && o.Config.SCI.Less(best.SCI)) {
		return nil
	}
	return best
}

// basic is the first set of its next MKPDU.
func (o *Other) basic(version uint8) mka.Basic {
	o.MN++
	return mka.Basic{
		Version: version, Priority: o.Config.Priority, KeyServer: o.server() == nil && o.Config.Priority != mka.NeverKeyServer,
		MACsecDesired: true, Capability: mka.CapabilityConfidentiality, SCI: o.Config.SCI, MI: o.MI, MN: o.MN, CKN: o.CAK.CKN,
	}
}

// Sign makes a frame of m under its CAK.
func (o *Other) Sign(m *mka.MKPDU) ([]byte, error) {
	if o.keys == nil {
		return nil, fmt.Errorf("%s has no CAK", o.Name)
	}
	m.Source, m.Destination, m.EtherType = o.Config.Address, o.Config.Destination, o.Config.EtherType
	return m.Append(nil, o.keys.ick)
}

// transmit signs and sends.
func (o *Other) transmit(m *mka.MKPDU) {
	frame, err := o.Sign(m)
	if err != nil {
		o.sim.fail("%s: %v", o.Name, err)
		return
	}
	o.Station.Send(frame)
}

// NewSAK makes and wraps one. Its octets follow from its number and nonce.
func (o *Other) NewSAK(kn uint32, nonce byte, suite mka.CipherSuite) (sak mka.Key, wrapped []byte, err error) {
	if sak, err = mka.DeriveSAK(o.CAK.Key(), bytes.Repeat([]byte{nonce}, suite.KeyLen()), []mka.MI{o.MI}, kn, suite.KeyLen()); err != nil {
		return sak, nil, err
	}
	wrapped, err = mka.WrapSAK(o.keys.kek, sak)
	return sak, wrapped, err
}

// receiveFrom makes the receive SA of somebody. SSCIs count from 1, the greatest SCI
// first, among it and those whom it has heard.
func (o *Other) receiveFrom(k *Key, sci mka.SCI) {
	if o.SAs.channel(sci) == nil {
		o.operate(mka.Op{Kind: mka.OpAddReceiveSC, SCI: sci})
	}
	if o.SAs.Receive(sci, k.AN) != k.KI {
		o.operate(o.sa(mka.OpAddReceiveSA, k, sci))
	}
}

// transmitWith makes its transmit SA and takes it into use.
func (o *Other) transmitWith(k *Key) {
	k.Tx = true // also in its words when its kernel refuses
	if o.operate(o.sa(mka.OpAddTransmitSA, k, o.Config.SCI)) != nil {
		return
	}
	o.operate(mka.Op{Kind: mka.OpEnableTransmitSA, SCI: o.Config.SCI, AN: k.AN, KI: k.KI})
	o.carry()
}

func (o *Other) sa(kind mka.OpKind, k *Key, sci mka.SCI) mka.Op {
	op := mka.Op{Kind: kind, SCI: sci, AN: k.AN, KI: k.KI, SAK: k.SAK, Suite: k.Suite, Salt: mka.Salt(k.KI.MI, k.KI.KN)}
	if k.Suite.XPN() {
		op.SSCI = o.ssci(sci)
	}
	return op
}

// ssci is somebody's place among all SCIs, the greatest first.
func (o *Other) ssci(sci mka.SCI) uint32 {
	n := uint32(1)
	if sci.Less(o.Config.SCI) {
		n++
	}
	for _, h := range o.live() {
		if sci.Less(h.SCI) {
			n++
		}
	}
	return n
}

// forget deletes the SAs of a SAK.
func (o *Other) forget(k *Key) {
	if k == nil {
		return
	}
	if k.Tx {
		o.operate(mka.Op{Kind: mka.OpDeleteTransmitSA, SCI: o.Config.SCI, AN: k.AN, KI: k.KI})
	}
	for _, c := range slices.Clone(o.SAs.channels) {
		if c.sas[k.AN] == k.KI {
			o.operate(mka.Op{Kind: mka.OpDeleteReceiveSA, SCI: c.sci, AN: k.AN, KI: k.KI})
		}
	}
}

// operate asks its kernel, and goes on whatever that says. What it does wrong is told
// and is no failure: it is what other makes were seen to do.
func (o *Other) operate(op mka.Op) error {
	err := o.secy.Do(op)
	if err == nil {
		o.SAs.apply(op)
	}
	if op.Kind == mka.OpEnableTransmitSA && o.enabled[op.KI] {
		o.Say("starts its packet numbers again under one SAK")
	}
	o.sim.trace(Entry{Kind: TraceOp, Member: o.Member, Op: op, Err: err})
	switch {
	case err != nil:
	case op.Kind == mka.OpEnableTransmitSA:
		o.enabled[op.KI] = true
	case op.Kind == mka.OpAddReceiveSA, op.Kind == mka.OpAddTransmitSA:
		o.sim.check.sameSAK(o.Member, op) // what others distribute is not its mistake
	}
	return err
}

// lpn is what both makes that we know report: their next packet number.
func (o *Other) lpn(k *Key) uint32 {
	y := o.look()
	for i := range y.TxSC.SAs {
		if sa := &y.TxSC.SAs[i]; mka.KIFromBytes(sa.KeyID) == k.KI {
			return uint32(sa.NextPN)
		}
	}
	return 1
}

// use is its SAK Use.
func (o *Other) use(latest, old *Key) mka.SAKUse {
	u := mka.SAKUse{Present: latest != nil || old != nil}
	if latest != nil {
		u.Latest, u.LatestAN, u.LatestRx, u.LatestTx, u.LatestLPN = latest.KI, latest.AN, latest.Rx, latest.Tx, o.lpn(latest)
	}
	if old != nil {
		u.Old, u.OldAN, u.OldRx, u.OldTx, u.OldLPN = old.KI, old.AN, old.Rx, old.Tx, o.lpn(old)
	}
	return u
}

// receives and transmits say what somebody says of a SAK.
func (h *Heard) receives(ki mka.KI) bool {
	return h.Use.Present && (h.Use.Latest == ki && h.Use.LatestRx || h.Use.Old == ki && h.Use.OldRx)
}

func (h *Heard) transmits(ki mka.KI) bool {
	return h.Use.Present && (h.Use.Latest == ki && h.Use.LatestTx || h.Use.Old == ki && h.Use.OldTx)
}

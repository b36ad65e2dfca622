package mka

import (
	"math"
	"slices"
	"time"
)

// Record is what a Port wants to find again after a restart. Nothing in it is
// secret: member identifiers and numbers travel in the clear. The numbers are
// ceilings, reserved ahead in strides, so that none is ever used twice.
type Record struct {
	Participants []ParticipantRecord `json:"participants,omitempty"`
	Latest       *KeyRecord          `json:"latest,omitempty"`
	Olds         []*KeyRecord        `json:"olds,omitempty"`
	Spent        []SpentRecord       `json:"spent,omitempty"`
	// Retired are the last SAKs whose SAs were to be deleted: what is left of them
	// was left by an agent that died.
	Retired []SpentRecord `json:"retired,omitempty"`
}

// SpentRecord is the last key number that was accepted from a key server.
type SpentRecord struct {
	MI MI     `json:"mi"`
	KN uint32 `json:"kn"`
}

// ParticipantRecord is one participant's identity and numbers.
type ParticipantRecord struct {
	CKN   CKN          `json:"ckn"`
	MI    MI           `json:"mi"`
	MN    uint32       `json:"mn"` // no greater one was sent
	KN    uint32       `json:"kn"` // no greater one was distributed
	Peers []PeerRecord `json:"peers,omitempty"`
}

// PeerRecord is a live peer.
type PeerRecord struct {
	MI       MI     `json:"mi"`
	SCI      SCI    `json:"sci"`
	MN       uint32 `json:"mn"`
	Priority uint8  `json:"priority"`
}

// KeyRecord is a SAK without its octets.
type KeyRecord struct {
	CKN     CKN            `json:"ckn"` // empty when nobody knows
	MI      MI             `json:"mi"`  // with KN: the KI
	KN      uint32         `json:"kn"`
	AN      AN             `json:"an"`
	Tx      bool           `json:"tx,omitempty"` // it protects our frames
	Created int64          `json:"created"`      // Unix time in milliseconds
	Members []MemberRecord `json:"members,omitempty"`
}

// MemberRecord is one other holder of a SAK.
type MemberRecord struct {
	MI  MI  `json:"mi"`
	SCI SCI `json:"sci"`
}

// AdoptedKey is a set of SAs with one KI, as found in a SecY at the start.
type AdoptedKey struct {
	KI       KI
	AN       AN
	Suite    CipherSuite
	Transmit bool // its transmit SA is there
	Encoding bool // ... and is the encoding SA, active
	NextPN   uint64
	Receive  []SCI // its receive SAs
	Heard    []SCI // ... of which some have received frames
}

func (p *Port) record() *Record {
	r := &Record{Latest: keyRecord(p.cp.latest)}
	for _, k := range p.cp.olds {
		if kr := keyRecord(k); kr != nil {
			r.Olds = append(r.Olds, kr)
		}
	}
	for _, pa := range p.participants {
		pr := ParticipantRecord{CKN: pa.ckn, MI: pa.mi, MN: pa.mnCeiling, KN: pa.knCeiling}
		for _, pe := range pa.peers {
			if pe.live {
				pr.Peers = append(pr.Peers, PeerRecord{MI: pe.mi, SCI: pe.sci, MN: pe.mn, Priority: pe.priority})
			}
		}
		r.Participants = append(r.Participants, pr)
	}
	for _, ki := range p.spent {
		r.Spent = append(r.Spent, SpentRecord(ki))
	}
	for _, ki := range p.retired {
		r.Retired = append(r.Retired, SpentRecord(ki))
	}
	return r
}

func keyRecord(k *dataKey) *KeyRecord {
	if k == nil {
		return nil
	}
	r := &KeyRecord{CKN: k.ckn, MI: k.ki.MI, KN: k.ki.KN, AN: k.an, Tx: k.tx, Created: k.created.UnixMilli()}
	for _, m := range k.members {
		r.Members = append(r.Members, MemberRecord{MI: m.mi, SCI: m.sci})
	}
	return r
}

// CKNs are those under which the record has a SAK, each once.
func (r *Record) CKNs() []CKN {
	var ckns []CKN
	for k := range r.keys {
		if k.CKN != "" && !slices.Contains(ckns, k.CKN) {
			ckns = append(ckns, k.CKN)
		}
	}
	return ckns
}

// Members is how many others the record has for ki, and whether it knows ki.
func (r *Record) Members(ki KI) (n int, known bool) {
	for k := range r.keys {
		if k.ki() == ki {
			return len(k.Members), true
		}
	}
	return 0, false
}

// Knows says whether this Port has had the SAK, or may have had it.
func (r *Record) Knows(ki KI) bool {
	if _, known := r.Members(ki); known || slices.Contains(r.Retired, SpentRecord(ki)) {
		return true
	}
	return slices.ContainsFunc(r.Participants, func(pa ParticipantRecord) bool { return pa.MI == ki.MI }) ||
		slices.ContainsFunc(r.Spent, func(s SpentRecord) bool { return s.MI == ki.MI })
}

// Transmits says whether one of its SAKs protects our frames.
func (r *Record) Transmits() bool {
	for k := range r.keys {
		if k.Tx {
			return true
		}
	}
	return false
}

// cknOf is the CKN under which the record has ki; empty if it does not.
func (r *Record) cknOf(ki KI) CKN {
	for k := range r.keys {
		if k.ki() == ki {
			return k.CKN
		}
	}
	return ""
}

func (r *Record) keys(yield func(*KeyRecord) bool) {
	if r == nil {
		return
	}
	for _, k := range append([]*KeyRecord{r.Latest}, r.Olds...) {
		if k != nil && !yield(k) {
			return
		}
	}
}

func (r *KeyRecord) ki() KI { return KI{MI: r.MI, KN: r.KN} }

// adopt takes over the SAs that an earlier agent left in the SecY, so that
// traffic goes on: the encoding SA's key, and next to it one that was being
// taken into use or given up.
func (p *Port) adopt() {
	c := &p.cp
	var encoding *dataKey
	keys := make([]*dataKey, 0, len(p.cfg.Adopted))
	for _, a := range p.cfg.Adopted {
		k := &dataKey{ki: a.KI, an: a.AN, ckn: p.cfg.Resume.cknOf(a.KI), found: true, suite: a.Suite, tx: a.Encoding, rx: len(a.Receive) > 0, saidRx: len(a.Receive) > 0, pn: a.NextPN, lpn: a.NextPN}
		for _, sci := range a.Receive {
			k.members = append(k.members, member{sci: sci, keyed: true, heard: slices.Contains(a.Heard, sci)})
			if !slices.Contains(c.receiveSCs, sci) {
				c.receiveSCs = append(c.receiveSCs, sci)
			}
		}
		keys = append(keys, k)
		if a.Encoding {
			encoding = k
		}
	}
	if r := p.cfg.Resume; r != nil {
		for _, x := range r.Spent {
			p.spent.add(KI(x))
		}
	}
	for _, k := range keys {
		if k.rx && len(p.spent) < maxSpent && !p.spent.has(k.ki) {
			p.spent.add(k.ki)
		}
	}
	defer func() {
		if r := p.cfg.Resume; r != nil && r.Latest != nil && !r.Latest.Tx && !p.holds(r.Latest.ki()) {
			p.spent.giveBack(r.Latest.ki()) // accepted and never completed
		}
	}()
	if len(keys) == 0 {
		return
	}
	if encoding != nil {
		c.nextAN = (encoding.an + 1) % 4
	}
	c.state = cpRetired
	c.latest = encoding
	for i, k := range keys {
		if k == encoding {
			continue
		}
		a := &p.cfg.Adopted[i]
		r := p.cfg.Resume
		begun := r != nil && r.Latest != nil && r.Latest.ki() == k.ki
		switch {
		case begun && a.Transmit && k.rx && len(c.olds) < maxOlds:
			// It was about to be taken into use: LRX may have been said, so
			// somebody may transmit with it already.
			c.latest, c.state = k, cpReceiving
			if encoding != nil {
				c.olds = slices.Insert(c.olds, 0, encoding)
			}
		case !begun && a.Transmit && k.rx && len(c.olds) < maxOlds:
			c.olds = append(c.olds, k)
		default:
			// Half made, the transmit SA comes last: it protected no frame, so
			// the key server may distribute it again.
			c.stray = append(c.stray, k)
		}
	}
	if c.latest == nil && len(c.olds) > 0 {
		c.latest, c.olds = c.olds[0], c.olds[1:]
	}
	if c.latest == nil {
		c.state = cpInit
	}
}

// attribute gives the SAs that were found, and of which nobody knows the CAK, to
// the one under which a peer speaks of them.
func (p *Port) attribute(pa *participant, pe *peer) {
	for k := range p.cp.keys {
		if k.found && k.owner == nil && pe.mentions(k.ki) {
			p.claim(k, pa)
		}
	}
}

// claim makes k a SAK of pa. If it was found and not in use, its SAs may not be all
// there, and we do not say of it that we receive.
func (p *Port) claim(k *dataKey, pa *participant) {
	if k.found {
		k.found, k.created = false, p.now
		k.partial = !k.tx
		k.saidRx = k.saidRx && k.tx
	}
	k.owner, k.ckn, p.persistDirty = pa, pa.ckn, true
}

// resumeParticipant makes pa the member that an earlier agent was, if the
// record knows it: its peers notice nothing but a late hello.
func (p *Port) resumeParticipant(pa *participant) bool {
	r := p.cfg.Resume
	if r == nil {
		return false
	}
	i := slices.IndexFunc(r.Participants, func(x ParticipantRecord) bool { return x.CKN == pa.ckn })
	if i < 0 || r.Participants[i].MI == (MI{}) {
		return false
	}
	pr := r.Participants[i]
	if r.Latest == nil && len(r.Olds) == 0 && len(p.cfg.Adopted) > 0 {
		return false // it was stored before there was a SAK: there were others since
	}
	if r.Latest != nil && r.Latest.CKN == pa.ckn && r.Latest.Tx && !p.holds(r.Latest.ki()) &&
		!slices.ContainsFunc(r.Olds, func(kr *KeyRecord) bool { return kr.CKN == pa.ckn && p.holds(kr.ki()) }) {
		return false // the SecY contradicts the record: be a new member
	}
	if !p.cfg.External && r.outdated(p.cfg.Adopted) {
		return false
	}
	for k := range p.cp.keys {
		if kr := r.Latest; kr != nil && kr.CKN == pa.ckn && kr.ki() == k.ki && len(k.members) < len(kr.Members) {
			return false // a receive SA is missing, and the SAK is not known any more
		}
	}
	pa.mi = pr.MI
	pa.mn, pa.kn = skip(pr.MN, mnStride), skip(pr.KN, knStride)
	pa.mnCeiling, pa.knCeiling = pa.mn, pa.kn
	pa.mark, pa.markBefore, pa.markAt = pa.mn+1, pa.mn+1, p.now
	for _, x := range pr.Peers {
		pe := p.addPeer(pa, x.MI, x.SCI, false)
		if pe == nil {
			break
		}
		pe.live, pe.mn, pe.priority = true, x.MN, x.Priority
	}
	if len(pa.peers) > 0 && p.cfg.External {
		// Some equipment takes a list without its very last MNs for proof
		// that we do not hear it: hear it first.
		pa.quiet = p.now.Add(p.cfg.Hello + p.cfg.Hello/8)
	}
	c := &p.cp
	for k := range c.keys {
		for kr := range r.keys {
			if kr.CKN == pa.ckn && kr.ki() == k.ki {
				k.own(pa, kr, p.now)
			}
		}
	}
	switch {
	case c.state == cpReceiving && c.receiveBy.IsZero():
		c.receiveBy = p.now.Add(receiveLimit)
	case c.state == cpRetired && len(c.olds) > 0:
		c.state, c.retireBy = cpTransmitting, p.now.Add(patience)
	}
	return true
}

// outdated says whether the SecY has SAs of a SAK that the record does not
// know and that is no predecessor: what was said of it is lost.
func (r *Record) outdated(adopted []AdoptedKey) bool {
	return slices.ContainsFunc(adopted, func(a AdoptedKey) bool {
		if len(a.Receive) == 0 || r.Latest == nil || r.Latest.ki() == a.KI ||
			r.Latest.MI == a.KI.MI && a.KI.KN < r.Latest.KN {
			return false
		}
		return !slices.ContainsFunc(r.Olds, func(o *KeyRecord) bool { return o.ki() == a.KI })
	})
}

// skip leaves out all that can have been reserved at once above a ceiling: the
// record may be the one before the last, if a crash lost that one.
func skip(ceiling, stride uint32) uint32 {
	return ceiling + min(stride+1, math.MaxUint32-ceiling)
}

// without is r without the participant of ckn, whose numbers have gone on since: its CAK,
// given again, makes another member.
func (r *Record) without(ckn CKN) *Record {
	if r == nil {
		return nil
	}
	c := *r
	c.Participants = slices.DeleteFunc(slices.Clone(r.Participants), func(pa ParticipantRecord) bool { return pa.CKN == ckn })
	return &c
}

func (p *Port) holds(ki KI) bool {
	for k := range p.cp.keys {
		if k.ki == ki {
			return true
		}
	}
	return false
}

// own gives an adopted key the participant and the member identifiers that its
// record has.
func (k *dataKey) own(pa *participant, r *KeyRecord, now time.Time) {
	k.owner, k.ckn, k.found = pa, pa.ckn, false
	// By the monotonic clock from here on, whatever the other is set to.
	k.created = now.Add(time.UnixMilli(r.Created).Sub(now))
	if k.created.After(now) { // the clock was set back meanwhile
		k.created = now
	}
	for _, m := range r.Members {
		i := slices.IndexFunc(k.members, func(x member) bool { return x.sci == m.SCI })
		if i >= 0 {
			k.members[i].mi = m.MI
		}
	}
}

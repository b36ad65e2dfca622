package mka

import (
	"slices"
	"time"
)

// ConditionKind is something that keeps a port from being secured, or would.
type ConditionKind uint8

// The conditions that a Port can tell apart.
const (
	// ConditionUnknownCKN: MKPDUs arrive under a CKN that no participant has.
	ConditionUnknownCKN ConditionKind = iota
	// ConditionICVMismatch: MKPDUs under a CKN of ours fail their ICV: the
	// far end has another CAK under the same name.
	ConditionICVMismatch
	// ConditionOwnSCI: verified MKPDUs carry our SCI: a loop, or a double.
	ConditionOwnSCI
	// ConditionNoKeyServer: every live member has priority 255.
	ConditionNoKeyServer
	// ConditionSuiteMismatch: the key server distributes another cipher suite.
	ConditionSuiteMismatch
	// ConditionNotConfidential: it distributes plain, integrity only, or an
	// offset that Linux does not have.
	ConditionNotConfidential
	// ConditionReplayedKI: it distributes a key number that it used before.
	ConditionReplayedKI
	// ConditionBadSAK: the distributed SAK does not unwrap.
	ConditionBadSAK
	// ConditionInstallFailed: the SecY refused an SA.
	ConditionInstallFailed
	// ConditionBadCAK: a CAK cannot be used as it was given.
	ConditionBadCAK
)

var conditionNames = [...]string{
	ConditionUnknownCKN:      "unknown CKN",
	ConditionICVMismatch:     "ICV mismatch",
	ConditionOwnSCI:          "own SCI received",
	ConditionNoKeyServer:     "no key server",
	ConditionSuiteMismatch:   "cipher suite mismatch",
	ConditionNotConfidential: "confidentiality refused",
	ConditionReplayedKI:      "key number reused",
	ConditionBadSAK:          "bad SAK",
	ConditionInstallFailed:   "SA installation failed",
	ConditionBadCAK:          "bad CAK",
}

func (k ConditionKind) String() string {
	if int(k) < len(conditionNames) {
		return conditionNames[k]
	}
	return "unknown condition"
}

// Condition is one of them, now.
type Condition struct {
	Kind         ConditionKind
	CKN          CKN
	Source       MAC // of the last frame that showed it
	SCI          SCI // of the peer
	KI           KI
	Ours, Theirs CipherSuite
	Err          error
	Since, Last  time.Time
	Count        uint64
}

// maxConditions bounds what strangers can make a Port remember.
const maxConditions = 16

// conditionLife is how long a condition that frames show outlives the last of
// them: some equipment says hello every 10 s only.
const conditionLife = 21 * time.Second

type conditions []Condition

func (c *conditions) raise(now time.Time, x Condition) {
	i := slices.IndexFunc(*c, func(o Condition) bool { return o.Kind == x.Kind && o.CKN == x.CKN })
	if i < 0 {
		c.expire(now)
		if len(*c) == maxConditions && !c.evict(x.Kind) {
			return
		}
		x.Since = now
		*c = append(*c, x)
		i = len(*c) - 1
	}
	o := &(*c)[i]
	x.Since, x.Last, x.Count = o.Since, now, o.Count+1
	*o = x
}

// raiseFrom is raise for what unverified frames show: it allocates only when
// the condition is new.
func (c *conditions) raiseFrom(now time.Time, kind ConditionKind, ckn []byte, source MAC) {
	for i := range *c {
		if o := &(*c)[i]; o.Kind == kind && string(o.CKN) == string(ckn) {
			o.Last, o.Source = now, source
			o.Count++
			return
		}
	}
	c.raise(now, Condition{Kind: kind, CKN: CKN(ckn), Source: source})
}

// evict makes room for one of kind by forgetting an unknown CKN, the oldest first: for
// another one only what was seen once, so that made-up CKNs do not hide the neighbour
// that is set up wrong.
func (c *conditions) evict(kind ConditionKind) bool {
	oldest := -1
	for i := range *c {
		if o := &(*c)[i]; o.Kind == ConditionUnknownCKN && (o.Count == 1 || kind != ConditionUnknownCKN) && (oldest < 0 || o.Last.Before((*c)[oldest].Last)) {
			oldest = i
		}
	}
	if oldest < 0 {
		return false
	}
	*c = slices.Delete(*c, oldest, oldest+1)
	return true
}

// clearFrom ends a condition that a frame of source contradicts. In a group
// somebody else may still show it.
func (c *conditions) clearFrom(kind ConditionKind, ckn CKN, source MAC) {
	if len(*c) == 0 {
		return
	}
	*c = slices.DeleteFunc(*c, func(o Condition) bool { return o.Kind == kind && o.CKN == ckn && o.Source == source })
}

func (c *conditions) clear(kind ConditionKind, ckn CKN) {
	if len(*c) == 0 {
		return
	}
	*c = slices.DeleteFunc(*c, func(o Condition) bool { return o.Kind == kind && o.CKN == ckn })
}

func (c *conditions) forget(ckn CKN) {
	*c = slices.DeleteFunc(*c, func(o Condition) bool { return o.CKN == ckn })
}

func (c *conditions) expire(now time.Time) {
	*c = slices.DeleteFunc(*c, func(o Condition) bool { return now.Sub(o.Last) > conditionLife })
}

package agent

import (
	"encoding/hex"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/mka"
)

// expiringBefore is how long before the end of the last static key of a link that
// is a fault: time for two operators to agree on the next one.
const expiringBefore = 7 * 24 * time.Hour

// rollEvery bounds how long a link's keys are not looked at: static keys whose file
// could not be read are tried again, and a clock that was set is noticed.
const rollEvery = time.Minute

// rollPatience is how long the far end may take to change over to another key
// before it is a fault that an expired one is still offered.
const rollPatience = 30 * time.Second

// chain is the static keys of a link with an external end. Those that are valid
// are offered, and MKA agrees on the best that both ends have.
//
// The end of a key's validity begins nothing and breaks nothing: an expired key is
// withdrawn once a valid one has taken its place, until then it is a fault. It is
// not offered anew, except to go on where an earlier agent was.
//
// A key's file is read when the key is first offered, and again each minute for as
// long as it cannot be; one that changes afterwards is not looked at, for a CKN
// names one CAK.
type chain struct {
	link *inventory.Link
	keys []*chainKey // the best last
}

type chainKey struct {
	inventory.PSK
	ckn     mka.CKN
	rank    uint64
	offered bool
	resumed bool // an earlier agent of this link spoke MKA with it
}

// newChain orders the keys: the later a key begins the better it is, and of those
// that begin together the last of the list is. Both ends need not have the same
// order: the key server decides.
func newChain(l *inventory.Link, old *mka.Record) *chain {
	c := &chain{link: l}
	for _, psk := range l.PSK {
		k := &chainKey{PSK: psk, ckn: mka.CKN(psk.CKN)}
		if old != nil {
			k.resumed = slices.ContainsFunc(old.Participants, func(p mka.ParticipantRecord) bool { return p.CKN == k.ckn })
		}
		c.keys = append(c.keys, k)
	}
	slices.SortStableFunc(c.keys, func(a, b *chainKey) int { return a.NotBefore.Compare(b.NotBefore) })
	for i, k := range c.keys {
		k.rank = uint64(i) + 1
	}
	return c
}

// lists says whether the inventory gives the link this key, valid or not.
func (c *chain) lists(ckn mka.CKN) bool {
	return slices.ContainsFunc(c.keys, func(k *chainKey) bool { return k.ckn == ckn })
}

// chainCodes are the faults of a chain.
var chainCodes = []health.Code{
	health.KeyFilePermissions, health.KeyFileUnreadable, health.KeyFileMalformed,
	health.PSKExpired, health.PSKExpiring, health.PSKPending,
}

// rollOver lets time pass for the link's keys, and sets the time of the next look.
// News that arrive meanwhile may have asked for it at once.
func (t *task) rollOver() {
	if t.ring != nil {
		t.limit()
		t.apply(t.ring.Tick(time.Now()))
		return
	}
	if t.chain == nil {
		return
	}
	t.rollAt = time.Time{}
	if next := t.roll(time.Now()); t.rollAt.IsZero() {
		t.rollAt = next
	}
}

// roll offers the static keys that have become valid and withdraws those that
// have been replaced, and returns when to look again.
func (t *task) roll(now time.Time) (again time.Time) {
	var found []health.Fault
	for _, k := range slices.Backward(t.chain.keys) {
		if k.offered || !k.ValidAt(now) && !(k.resumed && k.expired(now)) {
			continue
		}
		c, err := keys.LoadPSK(k.CKN, k.CAKFile)
		if err != nil {
			found = append(found, refusedPSK(k, err, now))
			t.log.Error("static CAK refused", "file", k.CAKFile, "error", err)
			continue
		}
		k.offered = true
		t.epochs[k.ckn] = keys.Epoch{}
		t.log.Info("static CAK offered", "ckn", k.ckn.String())
		t.step(mka.Event{Kind: mka.EventAddCAK, CKN: k.ckn, Rank: k.rank, CAK: c.Key})
	}
	st := t.port.Status()
	for _, k := range t.chain.keys {
		if !k.offered || !k.expired(now) {
			continue
		}
		if !t.chain.replaced(k, &st, now) {
			detail := "it stays in use, as no other key of the link is valid"
			if slices.ContainsFunc(t.chain.keys, func(o *chainKey) bool { return o.offered && o.ValidAt(now) }) {
				if now.Sub(k.NotAfter) < rollPatience || now.Sub(t.began) < rollPatience {
					continue
				}
				detail = "it stays in use, as the far end has not taken a key that is still valid into use"
			}
			found = append(found, health.Raise(health.PSKExpired, k.NotAfter, "ckn", k.ckn, "until", utc(k.NotAfter), "detail", detail))
			continue
		}
		k.offered, k.resumed = false, false
		delete(t.epochs, k.ckn)
		t.log.Info("static CAK withdrawn", "ckn", k.ckn.String(), "expired", utc(k.NotAfter))
		t.step(mka.Event{Kind: mka.EventRemoveCAK, CKN: k.ckn})
	}
	found = append(found, t.chain.outlook(now)...)
	t.faults.Replace(chainCodes, found)
	return t.chain.next(now)
}

func (k *chainKey) expired(now time.Time) bool {
	return !k.NotAfter.IsZero() && !now.Before(k.NotAfter)
}

// replaced says whether k can go: a valid key is in use at both ends, or a valid
// one that MKA would use only after k, because it began earlier, is there at both.
func (c *chain) replaced(k *chainKey, st *mka.Status, now time.Time) bool {
	for _, o := range c.keys {
		if !o.offered || !o.ValidAt(now) {
			continue
		}
		for i := range st.Participants {
			p := &st.Participants[i]
			switch {
			case p.CKN != o.ckn:
			case st.Secured && st.CKN == o.ckn && p.InUse:
				return true
			case o.rank < k.rank && slices.ContainsFunc(p.Peers, func(pe mka.PeerStatus) bool { return pe.Live }):
				return true
			}
		}
	}
	return false
}

// outlook says what the chain lacks, now or soon.
func (c *chain) outlook(now time.Time) (found []health.Fault) {
	var last, first *chainKey // the last that has ended, the first to begin
	for _, k := range c.keys {
		switch {
		case k.ValidAt(now):
			end, ends := c.link.CoveredUntil(now)
			if ends && end.NotAfter.Sub(now) <= expiringBefore {
				found = append(found, health.Raise(health.PSKExpiring, end.NotAfter.Add(-expiringBefore),
					"ckn", hex.EncodeToString(end.CKN), "until", utc(end.NotAfter)))
			}
			return found
		case k.expired(now) && (last == nil || k.NotAfter.After(last.NotAfter)):
			last = k
		case !k.expired(now) && first == nil:
			first = k
		}
	}
	if first != nil {
		found = append(found, health.Raise(health.PSKPending, now, "from", utc(first.NotBefore)))
	}
	if last != nil && !last.offered {
		found = append(found, health.Raise(health.PSKExpired, last.NotAfter, "ckn", last.ckn, "until", utc(last.NotAfter),
			"detail", "no key of the link is valid, and none is used"))
	}
	return found
}

// next is when the chain changes, or should be looked at in any case.
func (c *chain) next(now time.Time) time.Time {
	at := now.Add(rollEvery)
	for _, k := range c.keys {
		for _, t := range []time.Time{k.NotBefore, k.NotAfter} {
			if t.After(now) && t.Before(at) {
				at = now.Add(t.Sub(now)) // by the monotonic clock: the other may be set
			}
		}
	}
	return at
}

// refusedPSK is the fault of a static key whose file cannot be used.
func refusedPSK(k *chainKey, err error, now time.Time) health.Fault {
	code := health.KeyFileUnreadable
	switch {
	case isA[*keyfile.PermissionError](err):
		code = health.KeyFilePermissions
	case isA[*keyfile.FormatError](err):
		code = health.KeyFileMalformed
	}
	return health.Raise(code, now, "file", k.CAKFile, "channel", "none, it is static", "detail", err)
}

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339) }

package agent

import (
	"errors"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/signed"
	"github.com/lever-link/lever/mka"
)

func (t *task) identity() keys.Identity {
	id := keys.Identity{Link: t.link.ID}
	for _, e := range t.link.Ends {
		id.Nodes = append(id.Nodes, e.Node)
	}
	return id
}

// apply carries a change of the link's keys over to MKA. What is withdrawn
// goes first: the Ring has erased its copy already.
func (t *task) apply(c keys.Change) {
	t.applying = true
	t.carryOut(c)
	t.applying = false
	t.confirm()
}

// confirm tells the Ring which epochs are in use: never while a Change of it is carried
// out, for then it may erase what that is about to offer.
func (t *task) confirm() {
	for !t.applying && len(t.inUse) > 0 {
		e := t.inUse[0]
		t.inUse = t.inUse[1:]
		t.apply(t.ring.Confirm(e, time.Now()))
	}
}

func (t *task) carryOut(c keys.Change) {
	t.faults.Replace(keys.FindingCodes(), c.Faults())
	t.rollAt = time.Now().Add(rollEvery)
	if !c.Next.IsZero() && c.Next.Before(t.rollAt) {
		t.rollAt = c.Next
	}
	for _, w := range c.Withdrawn {
		kind := mka.EventRemoveCAK
		if w.Reason == keys.Revoked || w.Reason == keys.Expired {
			kind = mka.EventRevokeCAK
		}
		ckn := mka.CKN(w.CKN)
		t.log.Info("CAK withdrawn", "epoch", w.Epoch.String(), "ckn", ckn.String(), "reason", w.Reason.String())
		delete(t.epochs, ckn)
		t.step(mka.Event{Kind: kind, CKN: ckn})
	}
	for _, o := range c.Offers {
		ckn := mka.CKN(o.CKN)
		if _, known := t.epochs[ckn]; known {
			continue
		}
		t.epochs[ckn] = o.Epoch
		t.log.Info("CAK offered", "epoch", o.Epoch.String(), "ckn", ckn.String(), "from_a", o.From[keys.A].String(), "from_b", o.From[keys.B].String())
		t.step(mka.Event{Kind: mka.EventAddCAK, CKN: ckn, Rank: rank(o.Epoch), CAK: secret.Clone(o.Key.Bytes())})
	}
	t.closeRevoked()
}

// closeRevoked ends what an earlier agent keyed with a CAK that was revoked while no
// agent ran, or that became too old: an epoch that is gone from a channel, a static key
// that is gone from the inventory.
func (t *task) closeRevoked() {
	for _, ckn := range t.file.MKA.CKNs() {
		if _, offered := t.epochs[ckn]; offered {
			continue
		}
		why := "revoked"
		switch {
		case t.chain != nil && t.chain.lists(ckn):
			continue
		case t.ring == nil || t.ring.Revoked([]byte(ckn)):
		case t.ring.Expired([]byte(ckn)):
			why = "too old"
		default:
			continue
		}
		t.log.Warn("what a CAK keyed is closed", "ckn", ckn.String(), "cak", why)
		t.step(mka.Event{Kind: mka.EventRevokeCAK, CKN: ckn})
	}
}

// limit tells the ring how old a key may be, by the policy and by an override of it.
func (t *task) limit() {
	t.ring.Limits(t.policy.CAKEpoch, t.policy.MaxAge)
	read := t.server.opts.Override
	if read == nil {
		return
	}
	o, err := read(t.policy.AgeOverride, t.link.ID, t.server.wall())
	if err != nil {
		if said := err.Error(); said != t.refused { // it is read each minute
			t.refused = said
			t.log.Warn("override not accepted", "error", err)
		}
		// One that cannot be read takes nothing back; one that its signers no longer stand
		// behind does.
		if errors.Is(err, signed.ErrUntrusted) || errors.Is(err, signed.ErrTampered) || errors.Is(err, signed.ErrMalformed) {
			t.ring.Override(keys.Override{})
		}
		return
	}
	t.refused = ""
	t.ring.Override(o)
}

// rank orders CAKs as epochs are ordered, for numbers below 2^32, which as minutes
// last for 8000 years, and all generations.
func rank(e keys.Epoch) uint64 {
	return min(e.Number, 1<<32-1)<<32 | uint64(e.Generation)
}

// retryState reads the state again that could not be read, and writes the one that could
// not be written.
func (t *task) retryState() {
	if t.ring != nil && (t.faults.Has(health.StateUnwritable) || t.faults.Has(health.StateUnreadable)) {
		t.apply(t.ring.Retry(time.Now()))
	}
}

package keyservice

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
)

const (
	// maxPending is how many ids wait to be asked for.
	maxPending = 8
	// attempts is how often the service is asked for an id that it does not know: two
	// services need a moment to agree.
	attempts = 3
	// refusedFor is how long an id that is not known is not asked for again.
	refusedFor = 10 * time.Minute
	// pendingFor is how long an id waits that nobody offers any more.
	pendingFor = time.Minute
	// complainAfter is how long the far end has to offer a key of the epoch that has
	// begun before it is told that there is none here.
	complainAfter = 3 * time.Second
	// maxRefused bounds what is remembered of what a flood names.
	maxRefused = 256
)

// pending is an id that was offered and that the service is to be asked for.
type pending struct {
	epoch keys.Epoch
	heard time.Time // last
	askAt time.Time
	asked int // how often the service did not know it
}

// offered takes an offer.
func (x *exchange) offered(now time.Time, m Message) {
	if e, ok := x.withID(m.Epoch.Number, m.KeyID); ok {
		x.answer(now, Got, e, m.KeyID)
		return
	}
	if newest, ok := x.ledger.newest(m.Epoch.Number); ok && !newest.Less(m.Epoch) {
		// The name is taken, and what has it is never replaced.
		x.answer(now, Got, newest, x.held[newest].id)
		return
	}
	if next := x.ledger.next(m.Epoch.Number); m.Epoch.Generation > next.Generation+x.lost[m.Epoch.Number]+reach {
		// Nobody counts that fast: there would soon be no generation left.
		x.answer(now, Lost, next, "")
		return
	}
	if _, known := x.refused[m.KeyID]; known {
		x.answer(now, Lost, m.Epoch, m.KeyID)
		return
	}
	p := x.pending[m.KeyID]
	if p == nil {
		if len(x.pending) >= maxPending {
			// Any of them may be the true one. Which goes is chance, so that whoever
			// floods cannot choose.
			delete(x.pending, x.anyPending(time.Time{}))
		}
		p = &pending{askAt: now}
		x.pending[m.KeyID] = p
	}
	p.epoch, p.heard = m.Epoch, now
}

// anyPending is one of the pending ids that are due, by chance; all are at the zero
// time.
func (x *exchange) anyPending(now time.Time) string {
	var due []string
	for id, p := range x.pending {
		if now.IsZero() || !now.Before(p.askAt) {
			due = append(due, id)
		}
	}
	if len(due) == 0 {
		return ""
	}
	return due[rand.IntN(len(due))]
}

// askForOffered has the service asked for one of the pending ids.
func (x *exchange) askForOffered(now time.Time, sooner func(time.Time)) {
	for id, p := range x.pending {
		if now.Sub(p.heard) >= pendingFor || !x.scheduled(p.epoch.Number, now) {
			delete(x.pending, id)
			continue
		}
		if now.Before(p.askAt) {
			sooner(p.askAt)
		}
	}
	id := x.anyPending(now)
	switch {
	case id == "" || x.fetching:
	case !x.fetches.spend(now):
		sooner(x.fetches.ready(now))
	default:
		x.fetching, x.fetch = true, &fetch{epoch: x.pending[id].epoch, id: id}
	}
}

// gotByID takes what the service answered to a call for the key of an id.
func (x *exchange) gotByID(now time.Time, f fetch, key secret.Key, err error) {
	p := x.pending[f.id]
	if err == nil {
		delete(x.pending, f.id)
		x.trouble = keys.Finding{}
		if newest, ok := x.ledger.newest(f.epoch.Number); ok && !newest.Less(f.epoch) {
			key.Erase() // never replaced
			x.say(Got, newest, x.held[newest].id)
			return
		}
		x.hold(now, f.epoch, f.id, key)
		x.say(Got, f.epoch, f.id)
		return
	}
	refusal, isUnknown := unknown(err)
	if !isUnknown {
		x.trouble = finding(err)
		if p != nil {
			p.askAt = now.Add(lastPause)
		}
		return
	}
	x.trouble = keys.Finding{}
	if p == nil {
		return
	}
	if p.asked++; p.asked < attempts {
		p.askAt = now.Add(time.Duration(p.asked) * 2 * time.Second)
		return
	}
	delete(x.pending, f.id)
	if len(x.refused) < maxRefused {
		x.refused[f.id] = now.Add(refusedFor)
	}
	if f.epoch.Generation == x.ledger.next(f.epoch.Number).Generation+x.lost[f.epoch.Number] {
		x.lost[f.epoch.Number]++
	}
	x.behind[f.epoch.Number] = keys.Finding{
		Code: health.KeyServiceBehind, Epoch: keys.Epoch{Number: f.epoch.Number},
		Detail: fmt.Sprintf("asked %d times for %s: %s", attempts, f.id, refusal.Error()),
	}
	x.say(Lost, f.epoch, f.id)
}

// complain tells the far end that there is no key of the current epoch, as after a
// restart.
func (x *exchange) complain(now time.Time, sooner func(time.Time)) {
	current := x.current(now)
	if x.missing.number != current {
		x.missing = missing{number: current, sendAt: now.Add(complainAfter)}
	}
	if _, have := x.newest(current); have {
		x.missing.pause, x.missing.sendAt = 0, now.Add(complainAfter)
		return
	}
	if !now.Before(x.missing.sendAt) {
		x.say(Lost, x.ledger.next(current), "")
		x.missing.pause = min(max(2*x.missing.pause, firstPause), lastPause)
		x.missing.sendAt = now.Add(x.missing.pause)
	}
	sooner(x.missing.sendAt)
}

package keyservice

import (
	"errors"
	"fmt"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
)

// longestPause is between two calls for a key, each of which the far end did not get
// and which is used up by that; emptyPause between two that the service refuses.
const (
	longestPause = 5 * time.Minute
	emptyPause   = time.Minute
)

// offer is a key on its way to being agreed on, of a number of which nothing was
// agreed, or of which the far end has lost what was.
type offer struct {
	epoch  keys.Epoch
	askAt  time.Time     // of the service, while there is no id
	after  time.Duration // and then not before this
	id     string
	key    secret.Key
	since  time.Time // when it was sent first
	sendAt time.Time
	pause  time.Duration
}

// unanswered says whether the far end should have answered.
func (o *offer) unanswered(now time.Time) bool {
	return !o.since.IsZero() && !now.Before(o.since.Add(unansweredAfter))
}

// askInTime sees that there is a key of each number that is wanted, or an offer of
// one, and sends the offers.
func (x *exchange) askInTime(now time.Time, sooner func(time.Time)) {
	for _, n := range x.wanted(now) {
		o := x.offers[n]
		if _, have := x.newest(n); have && o == nil {
			continue
		}
		if o == nil {
			o = &offer{epoch: x.ledger.next(n), askAt: now}
			x.offers[n] = o
		}
		if o.id == "" {
			x.ask(now, o, sooner)
			continue
		}
		if !now.Before(o.sendAt) {
			if o.since.IsZero() {
				o.since = now
			}
			x.say(Offer, o.epoch, o.id)
			o.pause = min(max(2*o.pause, firstPause), lastPause)
			o.sendAt = now.Add(o.pause)
			x.changed = x.changed || o.unanswered(now)
		}
		sooner(o.sendAt)
	}
}

// hurry offers again at once what is on offer: the link is another.
func (x *exchange) hurry(now time.Time) {
	for _, o := range x.offers {
		o.sendAt, o.pause = now, 0
	}
}

// ask has the service asked for an offer's key.
func (x *exchange) ask(now time.Time, o *offer, sooner func(time.Time)) {
	switch {
	case x.fetching || o.epoch.Generation > keys.MaxGeneration:
		return // the next tick, or the next number
	case now.Before(o.askAt):
		sooner(o.askAt)
	case !x.fetches.spend(now):
		sooner(x.fetches.ready(now))
	default:
		x.fetching, x.fetch = true, &fetch{epoch: o.epoch}
	}
}

// given takes what the service answered to a call for a new key.
func (x *exchange) given(now time.Time, f fetch, id string, key secret.Key, err error) {
	o := x.offers[f.epoch.Number]
	if err != nil {
		x.trouble = finding(err)
		x.trouble.Epoch = keys.Epoch{}
		if o != nil {
			o.wait(now, emptyPause)
		}
		return
	}
	x.trouble = keys.Finding{}
	if o == nil || o.id != "" { // its time is over
		key.Erase()
		return
	}
	o.id, o.key, o.sendAt = id, key, now
}

// wait puts the next call off, the longer the more have failed.
func (o *offer) wait(now time.Time, longest time.Duration) {
	o.after = min(max(2*o.after, firstPause), longest)
	o.askAt = now.Add(o.after)
}

// again makes an offer one of another key.
func (o *offer) again() {
	o.key.Erase()
	o.id, o.key, o.since, o.sendAt, o.pause = "", secret.Key{}, time.Time{}, time.Time{}, 0
}

// got takes from the far end that a generation of a number is taken there. What it
// says of a generation that was not offered is only a reason to offer that one: the
// true far end then says it again.
func (x *exchange) got(now time.Time, m Message) {
	o := x.offers[m.Epoch.Number]
	unused := x.ledger.next(m.Epoch.Number)
	switch {
	case o == nil || o.id == "":
	case m.KeyID == o.id && m.Epoch == o.epoch:
		delete(x.offers, m.Epoch.Number)
		x.hold(now, o.epoch, o.id, o.key)
	case m.KeyID == o.id && m.Epoch.Less(unused):
		// Somebody has told the far end a generation for it that is used here.
		o.again()
		o.wait(now, longestPause)
	case m.KeyID == o.id:
		x.reoffer(now, o, m.Epoch)
	case !m.Epoch.Less(o.epoch):
		// Another key has the name, from before this end was restarted: the far end
		// keeps it, and this one gets another name.
		m.Epoch.Generation++
		if m.Epoch.Less(unused) {
			m.Epoch = unused
		}
		x.reoffer(now, o, m.Epoch)
	}
}

// reoffer offers the same key under another generation.
func (x *exchange) reoffer(now time.Time, o *offer, e keys.Epoch) {
	if e.Generation <= keys.MaxGeneration && x.answers.spend(now) {
		o.epoch, o.sendAt = e, now
	}
}

// lostThere takes from the far end that it does not get a key, or that it has none.
func (x *exchange) lostThere(now time.Time, m Message) {
	o := x.offers[m.Epoch.Number]
	switch {
	case o != nil && o.id != "" && m.KeyID == o.id:
		x.behind[m.Epoch.Number] = keys.Finding{
			Code: health.KeyServiceBehind, Epoch: keys.Epoch{Number: m.Epoch.Number},
			Detail: fmt.Sprintf("%s does not get the key there that was given here", x.far),
		}
		x.changed = true
		o.epoch.Generation++
		o.again()
		o.wait(now, longestPause)
	case o != nil && o.id != "" && m.KeyID == "":
		// It has not heard the offer, or the offer is beyond its reach.
		e := o.epoch
		if e.Generation > m.Epoch.Generation+reach {
			e.Generation = max(m.Epoch.Generation, x.ledger.next(e.Number).Generation)
		}
		x.reoffer(now, o, e)
	case o == nil && m.KeyID == "":
		// It had one, and was restarted.
		e, have := x.newest(m.Epoch.Number)
		if have && now.Sub(x.held[e].since) >= settled && x.renewals.spend(now) {
			x.offers[m.Epoch.Number] = &offer{epoch: x.ledger.next(m.Epoch.Number), askAt: now}
		}
	}
}

// unknown says whether the service has answered, and the answer is that it does not
// have the key.
func unknown(err error) (*Refusal, bool) {
	r, ok := errors.AsType[*Refusal](err)
	return r, ok && r.Unknown
}

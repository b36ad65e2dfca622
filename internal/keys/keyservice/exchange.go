package keyservice

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
)

const (
	// firstPause and lastPause are between one offer and the next, and between one
	// complaint of a key that is missing and the next.
	firstPause = time.Second
	lastPause  = 10 * time.Second
	// fetchesEvery and fetchesBurst are how often the service is asked for a link:
	// six times a minute in the long run.
	fetchesEvery = 10 * time.Second
	fetchesBurst = 6
	// renewalsEvery and renewalsBurst are how often another key is asked for because
	// the far end says that it has none: each uses one of the services' keys up.
	renewalsEvery = 2 * time.Minute
	renewalsBurst = 3
	// answersEvery and answersBurst are how often a message is answered.
	answersEvery = 200 * time.Millisecond
	answersBurst = 10
	// settled is how long after an agreement a message that speaks against it may be
	// of before it.
	settled = 5 * time.Second
	// unansweredAfter is when offers that nobody answers are a fault.
	unansweredAfter = 30 * time.Second
	// reach is by how many generations one end may be ahead of the other.
	reach = 64
	// keptNumbers are the newest numbers whose keys are kept, and keptGenerations those
	// of each. What a Ring has made a CAK of it needs no more; that it was not revoked
	// it learns of the ledger.
	keptNumbers, keptGenerations = 3, 4
)

// exchange is one link's talk with its service and with the far end: what was agreed
// on, what is being agreed on, and what is wrong. It has no goroutine and no clock;
// Channel drives it.
type exchange struct {
	link      [16]byte
	side      keys.Side
	far       string
	initiator bool
	length    time.Duration // of an epoch
	ledger    *ledger

	held     map[keys.Epoch]held
	offers   map[uint64]*offer   // the initiator's, by number
	pending  map[string]*pending // the other's, by key id
	refused  map[string]time.Time
	lost     map[uint64]uint32 // by number: the last of generations in a row that the service did not give
	missing  missing
	fetching bool

	fetches, renewals, answers budget

	trouble keys.Finding            // of the last call of the service; no code: none
	behind  map[uint64]keys.Finding // by number

	// What the driver does next.
	send    [][]byte
	fetch   *fetch
	changed bool
}

// held is a key that both ends have, or this end is told to have.
type held struct {
	id    string
	key   secret.Key
	since time.Time
}

// fetch is a call of the service: for a new key if there is no id, which becomes that
// of epoch.
type fetch struct {
	epoch keys.Epoch
	id    string
}

// missing is the number of which this end has no key and says so.
type missing struct {
	number uint64
	sendAt time.Time
	pause  time.Duration
}

func newExchange(link string, side keys.Side, near, far string, length time.Duration, l *ledger) *exchange {
	return &exchange{
		link: HashLink(link), side: side, far: far, initiator: near < far, length: length, ledger: l,
		held: map[keys.Epoch]held{}, offers: map[uint64]*offer{}, pending: map[string]*pending{},
		refused: map[string]time.Time{}, lost: map[uint64]uint32{}, behind: map[uint64]keys.Finding{},
		fetches:  budget{every: fetchesEvery, burst: fetchesBurst},
		renewals: budget{every: renewalsEvery, burst: renewalsBurst},
		answers:  budget{every: answersEvery, burst: answersBurst},
	}
}

// ahead is how long before an epoch starts its key is asked for: time enough to try
// several times.
func (x *exchange) ahead() time.Duration {
	return min(max(x.length/10, 20*time.Second), 10*time.Minute, x.length)
}

// current is the number of the epoch now, and next that of the one after it.
func (x *exchange) current(now time.Time) uint64 { return keys.ScheduledEpoch(now, x.length).Number }

func (x *exchange) next(now time.Time) uint64 { return x.current(now.Add(x.length)) }

// scheduled says whether a number can be meant: one that is current or next, by a
// clock that may differ from this one by some minutes.
func (x *exchange) scheduled(number uint64, now time.Time) bool {
	skew := min(x.length/2, 5*time.Minute)
	at := (keys.Epoch{Number: number}).Start()
	return x.current(at) == number && number >= x.current(now.Add(-skew)) && number <= x.next(now.Add(skew))
}

// newest is the newest epoch of a number that is held, and whether there is one.
func (x *exchange) newest(number uint64) (e keys.Epoch, ok bool) {
	for h := range x.held {
		if h.Number == number && (!ok || e.Less(h)) {
			e, ok = h, true
		}
	}
	return e, ok
}

// withID is the epoch of a number that is held under a key id.
func (x *exchange) withID(number uint64, id string) (keys.Epoch, bool) {
	for e, h := range x.held {
		if e.Number == number && h.id == id {
			return e, true
		}
	}
	return keys.Epoch{}, false
}

// say sends a message.
func (x *exchange) say(kind Kind, e keys.Epoch, id string) {
	b, err := Message{Kind: kind, Link: x.link, Side: x.side, Epoch: e, KeyID: id}.Encode()
	if err == nil { // it was made of valid parts
		x.send = append(x.send, b)
	}
}

// answer sends a message in answer to one, unless there were too many.
func (x *exchange) answer(now time.Time, kind Kind, e keys.Epoch, id string) {
	if x.answers.spend(now) {
		x.say(kind, e, id)
	}
}

// receive takes what has come from the link.
func (x *exchange) receive(now time.Time, b []byte) {
	m, err := Decode(b)
	if err != nil || m.Link != x.link || m.Side != x.side || !x.scheduled(m.Epoch.Number, now) {
		return
	}
	switch {
	case m.Kind == Offer && !x.initiator:
		x.offered(now, m)
	case m.Kind == Got && x.initiator:
		x.got(now, m)
	case m.Kind == Lost && x.initiator:
		x.lostThere(now, m)
	}
}

// tick does what is due, and says when to call it again.
func (x *exchange) tick(now time.Time) (again time.Time) {
	again = (keys.Epoch{Number: x.next(now)}).Start()
	if prefetch := again.Add(-x.ahead()); now.Before(prefetch) {
		again = prefetch
	}
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(again) {
			again = t
		}
	}
	if x.initiator {
		x.askInTime(now, sooner)
	} else {
		x.askForOffered(now, sooner)
		x.complain(now, sooner)
	}
	x.retire(now)
	return again
}

// wanted are the numbers of which there must be a key by now.
func (x *exchange) wanted(now time.Time) []uint64 {
	n := []uint64{x.current(now)}
	if next := x.next(now); !now.Before((keys.Epoch{Number: next}).Start().Add(-x.ahead())) {
		n = append(n, next)
	}
	return n
}

// hold takes a key into use.
func (x *exchange) hold(now time.Time, e keys.Epoch, id string, key secret.Key) {
	x.ledger.add(e)
	x.held[e] = held{id: id, key: key, since: now}
	delete(x.behind, e.Number)
	x.changed = true
}

// fetched takes what came of a fetch; the key is the exchange's.
func (x *exchange) fetched(now time.Time, f fetch, id string, key secret.Key, err error) {
	x.fetching = false
	x.changed = true // what is wrong, at least
	if f.id == "" {
		x.given(now, f, id, key, err)
	} else {
		x.gotByID(now, f, key, err)
	}
}

// retire erases what is no longer needed.
func (x *exchange) retire(now time.Time) {
	current := x.current(now)
	maps.DeleteFunc(x.offers, func(n uint64, o *offer) bool {
		if n < current {
			o.key.Erase()
		}
		return n < current
	})
	maps.DeleteFunc(x.behind, func(n uint64, _ keys.Finding) bool {
		x.changed = x.changed || n < current
		return n < current
	})
	maps.DeleteFunc(x.lost, func(n uint64, _ uint32) bool { return n < current })
	maps.DeleteFunc(x.refused, func(_ string, until time.Time) bool { return !now.Before(until) })

	newestFirst := slices.SortedFunc(maps.Keys(x.held), func(a, b keys.Epoch) int { return b.Compare(a) })
	numbers, generations, last := 0, 0, uint64(0)
	for _, e := range newestFirst {
		if e.Number != last {
			last, generations = e.Number, 0
			numbers++
		}
		generations++
		if numbers > keptNumbers || generations > keptGenerations {
			x.held[e].key.Erase()
			delete(x.held, e)
			x.changed = true
		}
	}
}

// snapshot is what the link's Ring is to know. The material is a copy.
func (x *exchange) snapshot(where string, now time.Time, more []keys.Finding) keys.Snapshot {
	s := keys.Snapshot{Where: where, Keys: map[keys.Epoch]keys.Material{}, Present: map[keys.Epoch]bool{}, Unavailable: len(x.held) == 0}
	for e, h := range x.held {
		s.Keys[e] = keys.Material{KeyID: h.id, Key: secret.Clone(h.key.Bytes())}
	}
	for _, e := range x.ledger.epochs {
		if _, ok := x.held[e]; !ok && !s.Unavailable {
			s.Present[e] = true
		}
	}
	if x.trouble.Code != "" {
		s.Findings = append(s.Findings, x.trouble)
	}
	for _, n := range slices.Sorted(maps.Keys(x.behind)) {
		s.Findings = append(s.Findings, x.behind[n])
	}
	for _, n := range slices.Sorted(maps.Keys(x.offers)) {
		if o := x.offers[n]; x.trouble.Code == "" && o.unanswered(now) {
			s.Findings = append(s.Findings, keys.Finding{
				Code: health.ChannelUnreachable, Epoch: o.epoch,
				Detail: fmt.Sprintf("%s does not answer that it has the key, too, which it was told of on the link", x.far),
			})
			break
		}
	}
	if err := x.ledger.problem; err != nil {
		s.Findings = append(s.Findings, keys.Finding{Code: health.StateUnwritable, Detail: err.Error()})
	}
	s.Findings = append(s.Findings, more...)
	_ = s.LimitPrefetch(now) // the clock is looked at each minute anyway
	return s
}

// erase ends the exchange.
func (x *exchange) erase() {
	for _, h := range x.held {
		h.key.Erase()
	}
	for _, o := range x.offers {
		o.key.Erase()
	}
	clear(x.held)
	clear(x.offers)
}

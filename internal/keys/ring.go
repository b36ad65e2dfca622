package keys

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/secret"
)

// MaxOffers is the most CAKs that a Ring offers at once: the two newest epochs,
// so that ends that are one delivery apart meet, the first one after the confirmed
// epoch, so that ends with other clocks do, and the confirmed one, so that the link
// works meanwhile.
const MaxOffers = 4

// Ring is the CAKs of one link. It takes what the two channels hold and which
// epoch MKA has confirmed, and yields the CAKs to offer to MKA. It is for one
// goroutine; its only I/O are the save function and the clock that it was given.
//
// A channel has epochs of its own, a number with a generation. An epoch of the link
// is one of each channel with the same number, and its generation is the Pair of
// theirs: so either channel can be issued again alone.
//
// The rules:
//   - An epoch is eligible when both channels have delivered their part of it, it has
//     started, and it is not older than the high-water mark, the newest epoch ever
//     confirmed, nor is either part of it older than the mark's.
//   - Offered are the newest and second newest eligible epoch, the oldest that is newer
//     than the high-water epoch, and that; before anything was confirmed, the three
//     newest. A lower generation of a number is simply an older epoch.
//   - Confirming an epoch raises the mark, persists it, and withdraws and erases
//     everything older.
//   - An epoch of which a readable channel no longer has its part is revoked and
//     withdrawn at once. A channel that cannot be read, and a file that is there but
//     refused, revoke nothing.
//   - Once an epoch was offered, its material is fixed by fingerprint: other
//     material under the same epoch is refused, and what is offered stays.
//   - The confirmed epoch is withdrawn when it is too old, unless that is overridden,
//     and comes back if a new limit or an override allows it. See age.go.
//   - What was offered once has started: a clock that is set back takes nothing away.
type Ring struct {
	id     Identity
	state  State
	save   func(State) error
	load   func() (State, error) // nil: state is all that there is
	sides  [2]side
	offers map[Epoch]CAK
	// sorted are the keys of offers as last reported, best first.
	sorted []Epoch
	ages   ages
	// wall tells the date; nil: the times that the Ring is given do.
	wall func() time.Time
	// saveErr and loadErr are shown as findings for as long as they hold.
	saveErr, loadErr error
	findings         []Finding
	// names are those of the candidates, made when Identify is asked and good until the
	// next step.
	names map[string]Epoch
}

// side is what one channel last delivered.
type side struct {
	heard bool
	Snapshot
}

// has reports whether the channel has the epoch, one of its own, usable or not.
func (s *side) has(e Epoch) bool {
	_, ok := s.Keys[e]
	return ok || s.Present[e] || s.ahead[e]
}

// newest is the newest epoch that the channel has.
func (s *side) newest() Epoch {
	var n Epoch
	for e := range s.ahead {
		n = later(n, e)
	}
	for _, e := range s.epochs() {
		n = later(n, e)
	}
	return n
}

func later(a, b Epoch) Epoch {
	if a.Less(b) {
		return b
	}
	return a
}

// Reason is why an offered CAK is withdrawn.
type Reason uint8

// The reasons.
const (
	// Revoked: a channel no longer has the epoch. Stop using it now, even if
	// nothing else is left.
	Revoked Reason = iota + 1
	// Superseded: a newer epoch was confirmed.
	Superseded
	// Displaced: newer epochs were delivered and this one, never confirmed, is
	// no longer among the best.
	Displaced
	// Expired: it is the confirmed epoch and older than a CAK may be. Stop using it
	// now, even if nothing else is left.
	Expired
)

// String is the reason in one word.
func (r Reason) String() string {
	switch r {
	case Revoked:
		return "revoked"
	case Superseded:
		return "superseded"
	case Displaced:
		return "displaced"
	case Expired:
		return "expired"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Withdrawal tells MKA to retire the participant of a CAK. The Ring's copy of
// the key is erased already.
type Withdrawal struct {
	Epoch  Epoch
	CKN    []byte
	Reason Reason
}

// Change is the outcome of one step of a Ring.
type Change struct {
	// Offers are all CAKs to offer now, best first, at most MaxOffers. Their keys
	// are the Ring's: valid until the epoch is withdrawn; clone what must outlive
	// that or go to another goroutine.
	Offers []CAK
	// Added are the epochs of Offers that were not offered before this step.
	Added []Epoch
	// Withdrawn are those that were and no longer are. Act on them first.
	Withdrawn []Withdrawal
	// Findings are all that is wrong now, in a stable order.
	Findings []Finding
	// FindingsChanged tells whether they differ from the step before.
	FindingsChanged bool
	// Next is when time alone will change something, so that Tick is due; zero: never.
	// The wall clock may be set meanwhile: call it once a minute, too.
	Next time.Time
}

// Empty reports whether nothing changed.
func (c Change) Empty() bool {
	return len(c.Added) == 0 && len(c.Withdrawn) == 0 && !c.FindingsChanged
}

// Faults words the findings.
func (c Change) Faults() []health.Fault {
	faults := make([]health.Fault, len(c.Findings))
	for i, f := range c.Findings {
		faults[i] = f.Fault()
	}
	return faults
}

// OpenRing makes the Ring of a link with the State that the store holds. An
// unusable state file does not cost the link: the Ring goes on without a
// high-water mark and says so in a finding until it can be read after all, or the next
// epoch is confirmed, and leaves the file as it is until then.
func OpenRing(id Identity, store States) (*Ring, error) {
	if err := ValidLink(id.Link); err != nil {
		return nil, err
	}
	state, err := store.Load(id.Link)
	r, rerr := NewRing(id, state, func(s State) error { return store.Save(id.Link, s) })
	if rerr != nil {
		return nil, rerr
	}
	r.loadErr, r.saveErr = err, store.Durable(id.Link)
	r.load = func() (State, error) { return store.Load(id.Link) }
	return r, nil
}

// NewRing makes a Ring that starts with state and calls save whenever it must be
// persisted; nil means that it need not be.
func NewRing(id Identity, state State, save func(State) error) (*Ring, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	if save == nil {
		save = func(State) error { return nil }
	}
	state = state.Clone()
	if state.Seen == nil {
		state.Seen = make(map[Epoch][2]Fingerprint)
	}
	return &Ring{
		id:     Identity{id.Link, slices.Clone(id.Nodes)},
		state:  state,
		save:   save,
		offers: make(map[Epoch]CAK),
	}, nil
}

// Wall gives the Ring a clock for dates, which may be set forward and back. The times
// that it is given otherwise only tell how much of it has passed.
func (r *Ring) Wall(clock func() time.Time) { r.wall = clock }

// date is the wall clock's time.
func (r *Ring) date(now time.Time) time.Time {
	if r.wall != nil {
		return r.wall()
	}
	return now
}

// begun is the date by which epochs start: the wall clock's, unless a channel knows
// that it is later. A channel that says so falsely has epochs offered early at this
// end, which is no use to anybody, for both channels and both ends must have them.
func (r *Ring) begun(date time.Time) time.Time {
	return laterTime(date, laterTime(r.sides[A].AsOf, r.sides[B].AsOf))
}

// HighWater is the newest epoch that was ever confirmed; zero if none.
func (r *Ring) HighWater() Epoch { return r.state.HighWater }

// Update takes a channel's new Snapshot, which becomes the Ring's.
func (r *Ring) Update(from Side, s Snapshot, now time.Time) Change {
	sd := &r.sides[from&1]
	if s.Unavailable {
		// Nothing was seen, so nothing is gone: keep the keys, show the trouble.
		s.Erase()
		s.Keys, s.Present, s.ahead, s.AsOf = sd.Keys, sd.Present, sd.ahead, sd.AsOf
	} else {
		sd.Erase()
	}
	sd.heard, sd.Snapshot = true, s
	return r.step(now)
}

// Confirm takes from MKA that both ends use the epoch. An epoch that is not
// offered, or not newer than the mark, changes nothing.
func (r *Ring) Confirm(e Epoch, now time.Time) Change {
	r.reload()
	if _, ok := r.offers[e]; ok && r.state.HighWater.Less(e) {
		r.state.HighWater = e
		r.state.Sources = [2]string{r.sides[A].Where, r.sides[B].Where}
		r.confirmed(now, r.date(now))
		maps.DeleteFunc(r.state.Seen, func(s Epoch, _ [2]Fingerprint) bool { return s.Less(e) })
		if r.persist(); r.saveErr == nil {
			r.loadErr = nil
		}
	}
	return r.step(now)
}

// Tick lets time pass: an epoch may have started, or become too old. See Change.Next.
func (r *Ring) Tick(now time.Time) Change { return r.step(now) }

// Retry reads the State again that could not be read, and persists the one that could
// not be saved; call it now and then while StateUnreadable or StateUnwritable is among
// the findings.
func (r *Ring) Retry(now time.Time) Change {
	r.reload()
	if r.saveErr != nil {
		r.persist()
	}
	return r.step(now)
}

// Close erases everything that the Ring holds.
func (r *Ring) Close() {
	for i := range r.sides {
		r.sides[i].Erase()
		r.sides[i] = side{}
	}
	for e, cak := range r.offers {
		cak.Key.Erase()
		delete(r.offers, e)
	}
	r.sorted = nil
}

// reload has the Ring know what it could not read at first: a mark that is later than
// what was confirmed meanwhile is in force at once.
func (r *Ring) reload() {
	if r.loadErr == nil || r.load == nil {
		return
	}
	state, err := r.load()
	if err == nil {
		r.state = r.state.Merge(state)
	}
	r.loadErr = err
}

func (r *Ring) persist() {
	r.saveErr = r.save(r.state.Clone())
}

// step recomputes everything from the inputs.
func (r *Ring) step(now time.Time) Change {
	date := r.date(now)
	r.names = nil
	r.mature(now, date)
	r.settleSources()
	for s := range r.sides {
		r.forgetOld(Side(s))
	}
	var findings []Finding
	eligible := r.eligible(&findings, date)
	best := r.best(eligible)

	var c Change
	for _, e := range r.sorted {
		if slices.Contains(best, e) {
			continue
		}
		cak := r.offers[e]
		cak.Key.Erase()
		delete(r.offers, e)
		c.Withdrawn = append(c.Withdrawn, Withdrawal{e, cak.CKN, r.reason(e)})
	}
	if slices.ContainsFunc(best, r.unseen) {
		// Written ahead of use, so that a crash cannot let other material take the
		// name. While the old file could not be read it is left for the operator.
		for _, e := range best {
			if r.unseen(e) {
				a, b := r.material(e)
				r.state.Seen[e] = [2]Fingerprint{a.Fingerprint(), b.Fingerprint()}
			}
		}
		r.trimSeen()
		if r.loadErr == nil {
			r.persist()
		}
	}
	r.sorted = nil
	for _, e := range best {
		if _, ok := r.offers[e]; !ok {
			a, b := r.material(e)
			cak, err := Combine(r.id, e, a, b)
			if err != nil {
				// Identity and material were checked; what is left is a broken hash.
				findings = append(findings, Finding{Code: health.KeyFileMalformed, Epoch: e.Side(A), File: a.File, Detail: err.Error()})
				continue
			}
			cak.From[A], cak.From[B] = e.Sides()
			r.offers[e] = cak
			c.Added = append(c.Added, e)
		}
		c.Offers = append(c.Offers, r.offers[e])
		r.sorted = append(r.sorted, e)
	}
	r.diagnose(&findings, eligible, date)
	r.diagnoseAge(now, func(f Finding) { findings = append(findings, f) })
	c.Findings, c.FindingsChanged = r.settle(findings, now)
	c.Next = r.nextAge(now)
	if start, _, ok := r.nextStart(date); ok {
		at := now.Add(start.Sub(date)) // by the monotonic clock: the other may be set
		if c.Next.IsZero() || at.Before(c.Next) {
			c.Next = at
		}
	}
	return c
}

// maxSeen is how many epochs a State knows that were offered. Only a channel that makes
// one generation after the other, none of which is ever confirmed, comes to as many.
const maxSeen = 1024

// trimSeen forgets the oldest of what was offered beyond maxSeen.
func (r *Ring) trimSeen() {
	r.state.trim(func(e Epoch) bool { _, offered := r.offers[e]; return offered })
}

// settleSources takes another place of a channel for the channel's as soon as that has
// the confirmed epoch, too.
func (r *Ring) settleSources() {
	if r.state.HighWater.IsZero() || r.loadErr != nil {
		return
	}
	moved := false
	for s := range r.sides {
		if sd := &r.sides[s]; r.state.Sources[s] != sd.Where && sd.has(r.state.HighWater.Side(Side(s))) {
			r.state.Sources[s], moved = sd.Where, true
		}
	}
	if moved {
		r.persist()
	}
}

// material is both channels' for an epoch.
func (r *Ring) material(e Epoch) (a, b Material) {
	ea, eb := e.Sides()
	return r.sides[A].Keys[ea], r.sides[B].Keys[eb]
}

// forgetOld erases what is below the channel's part of the high-water mark, but
// remembers that it is there.
func (r *Ring) forgetOld(which Side) {
	s, mark := &r.sides[which], r.state.HighWater.Side(which)
	for e, m := range s.Keys {
		if !e.Less(mark) {
			continue
		}
		m.Key.Erase()
		delete(s.Keys, e)
		if s.Present == nil {
			s.Present = make(map[Epoch]bool)
		}
		s.Present[e] = true
	}
}

func (r *Ring) unseen(e Epoch) bool {
	_, ok := r.state.Seen[e]
	return !ok
}

// NewSnapshot is a Snapshot with a copy of the given material: what channels and
// tests start from.
func NewSnapshot(where string, material map[Epoch][]byte) Snapshot {
	s := Snapshot{Where: where, Keys: make(map[Epoch]Material, len(material))}
	for e, m := range material {
		s.Keys[e] = Material{KeyID: e.String(), Key: secret.Clone(m), File: where + "/" + e.String() + ".key"}
	}
	return s
}

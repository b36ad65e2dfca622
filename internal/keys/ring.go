package keys

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/secret"
)

// MaxOffers is the most CAKs that a Ring offers at once: the two newest epochs,
// so that ends that are one delivery apart meet, and the confirmed one, so that
// the link works meanwhile.
const MaxOffers = 3

// Ring is the CAKs of one link. It takes what the two channels hold and which
// epoch MKA has confirmed, and yields the CAKs to offer to MKA. It is for one
// goroutine and has no clock; its only I/O is the save function.
//
// The rules:
//   - An epoch is eligible when both channels have delivered it and it is not
//     older than the high-water mark, the newest epoch ever confirmed.
//   - Offered are the newest and second newest eligible epoch and the high-water
//     epoch; before anything was confirmed, the third newest in its place. A
//     lower generation of a number is simply an older epoch.
//   - Confirming an epoch raises the mark, persists it, and withdraws and erases
//     everything older.
//   - An epoch that a readable channel no longer has is revoked and withdrawn at
//     once. A channel that cannot be read, and a file that is there but refused,
//     revoke nothing.
//   - Once an epoch was offered, its material is fixed by fingerprint: other
//     material under the same epoch is refused, and what is offered stays.
type Ring struct {
	id     Identity
	state  State
	save   func(State) error
	sides  [2]side
	offers map[Epoch]CAK
	// sorted are the keys of offers as last reported, best first.
	sorted []Epoch
	// saveErr and loadErr are shown as findings for as long as they hold.
	saveErr, loadErr error
	findings         []Finding
}

// side is what one channel last delivered.
type side struct {
	heard bool
	Snapshot
}

// has reports whether the channel has the epoch, usable or not.
func (s *side) has(e Epoch) bool {
	_, ok := s.Keys[e]
	return ok || s.Present[e]
}

// newest is the newest epoch that the channel has.
func (s *side) newest() Epoch {
	var n Epoch
	for e := range s.Keys {
		if n.Less(e) {
			n = e
		}
	}
	for e := range s.Present {
		if n.Less(e) {
			n = e
		}
	}
	return n
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
// high-water mark and says so in a finding until the next epoch is confirmed,
// and leaves the file as it is until then.
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
	seen := maps.Clone(state.Seen)
	if seen == nil {
		seen = make(map[Epoch][2]Fingerprint)
	}
	return &Ring{
		id:     Identity{id.Link, slices.Clone(id.Nodes)},
		state:  State{state.HighWater, seen},
		save:   save,
		offers: make(map[Epoch]CAK),
	}, nil
}

// HighWater is the newest epoch that was ever confirmed; zero if none.
func (r *Ring) HighWater() Epoch { return r.state.HighWater }

// Update takes a channel's new Snapshot, which becomes the Ring's.
func (r *Ring) Update(from Side, s Snapshot, now time.Time) Change {
	sd := &r.sides[from&1]
	if s.Unavailable {
		// Nothing was seen, so nothing is gone: keep the keys, show the trouble.
		s.Erase()
		s.Keys, s.Present = sd.Keys, sd.Present
	} else {
		sd.Erase()
	}
	sd.heard, sd.Snapshot = true, s
	return r.step(now)
}

// Confirm takes from MKA that both ends use the epoch. An epoch that is not
// offered, or not newer than the mark, changes nothing.
func (r *Ring) Confirm(e Epoch, now time.Time) Change {
	if _, ok := r.offers[e]; ok && r.state.HighWater.Less(e) {
		r.state.HighWater = e
		maps.DeleteFunc(r.state.Seen, func(s Epoch, _ [2]Fingerprint) bool { return s.Less(e) })
		r.loadErr = nil
		r.persist()
	}
	return r.step(now)
}

// Retry persists the State again after a save has failed; call it now and then
// while StateUnwritable is among the findings.
func (r *Ring) Retry(now time.Time) Change {
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

func (r *Ring) persist() {
	r.saveErr = r.save(State{r.state.HighWater, maps.Clone(r.state.Seen)})
}

// step recomputes everything from the inputs.
func (r *Ring) step(now time.Time) Change {
	for i := range r.sides {
		r.forgetOld(&r.sides[i])
	}
	var findings []Finding
	eligible := r.eligible(&findings)
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
				r.state.Seen[e] = [2]Fingerprint{r.sides[A].Keys[e].Fingerprint(), r.sides[B].Keys[e].Fingerprint()}
			}
		}
		if r.loadErr == nil {
			r.persist()
		}
	}
	r.sorted = nil
	for _, e := range best {
		if _, ok := r.offers[e]; !ok {
			cak, err := Combine(r.id, e, r.sides[A].Keys[e], r.sides[B].Keys[e])
			if err != nil {
				// Identity and material were checked; what is left is a broken hash.
				findings = append(findings, Finding{Code: health.KeyFileMalformed, Epoch: e, File: r.sides[A].Keys[e].File, Detail: err.Error()})
				continue
			}
			r.offers[e] = cak
			c.Added = append(c.Added, e)
		}
		c.Offers = append(c.Offers, r.offers[e])
		r.sorted = append(r.sorted, e)
	}
	r.diagnose(&findings, eligible)
	c.Findings, c.FindingsChanged = r.settle(findings, now)
	return c
}

// forgetOld erases what is below the high-water mark, but remembers that it is
// there.
func (r *Ring) forgetOld(s *side) {
	for e, m := range s.Keys {
		if !e.Less(r.state.HighWater) {
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

// eligible finds every epoch that both channels have and that is not too old.
func (r *Ring) eligible(findings *[]Finding) []Epoch {
	var out []Epoch
	for e := range r.offers {
		// What is offered stays as long as both channels have something there.
		if r.sides[A].has(e) && r.sides[B].has(e) && !e.Less(r.state.HighWater) {
			out = append(out, e)
		}
	}
	for e, a := range r.sides[A].Keys {
		b, ok := r.sides[B].Keys[e]
		if !ok {
			r.changed(findings, e, A)
			continue
		}
		if !r.changed(findings, e, A, B) || slices.Contains(out, e) {
			continue
		}
		switch err := checkMaterial(a, b); {
		case err == nil:
			out = append(out, e)
		case errors.Is(err, ErrMaterialEqual):
			*findings = append(*findings, Finding{Code: health.KeyMaterialEqual, Epoch: e})
		default:
			r.unfit(findings, e)
		}
	}
	for e := range r.sides[B].Keys {
		if _, ok := r.sides[A].Keys[e]; !ok {
			r.changed(findings, e, B)
		}
	}
	slices.SortFunc(out, func(x, y Epoch) int { return y.Compare(x) })
	return out
}

// unfit says which channel's material has not the size it must have.
func (r *Ring) unfit(findings *[]Finding, e Epoch) {
	for s := range r.sides {
		f := Finding{Side: Side(s), Epoch: e, File: r.sides[s].Keys[e].File}
		switch n := r.sides[s].Keys[e].Key.Len(); {
		case n < MinMaterial:
			f.Code = health.KeyMaterialShort
		case n > maxField || len(r.sides[s].Keys[e].KeyID) > maxField:
			f.Code, f.Detail = health.KeyFileMalformed, ErrMaterialLong.Error()
		default:
			continue
		}
		*findings = append(*findings, f)
	}
}

// changed compares the material with what the epoch was first used with and
// reports whether it is still the same.
func (r *Ring) changed(findings *[]Finding, e Epoch, sides ...Side) (same bool) {
	seen, ok := r.state.Seen[e]
	if !ok {
		return true
	}
	same = true
	for _, s := range sides {
		m := r.sides[s].Keys[e]
		if m.Fingerprint() != seen[s] {
			*findings = append(*findings, Finding{Code: health.KeyChanged, Side: s, Epoch: e, File: m.File})
			same = false
		}
	}
	return same
}

// best chooses what to offer of the eligible epochs, newest first.
func (r *Ring) best(eligible []Epoch) []Epoch {
	h := r.state.HighWater
	if h.IsZero() {
		return slices.Clone(eligible[:min(len(eligible), MaxOffers)])
	}
	best := slices.Clone(eligible[:min(len(eligible), MaxOffers-1)])
	if slices.Contains(eligible, h) && !slices.Contains(best, h) {
		best = append(best, h)
	}
	return best
}

func (r *Ring) reason(e Epoch) Reason {
	switch {
	case !r.sides[A].has(e) || !r.sides[B].has(e):
		return Revoked
	case e.Less(r.state.HighWater):
		return Superseded
	}
	return Displaced
}

// Identify tells which epoch of this link a CKN names that this end does not
// offer, and which sides have not delivered it here. It knows the epochs that
// any channel has, and the ones shortly before and after them.
func (r *Ring) Identify(ckn []byte) (e Epoch, missing []Side, ok bool) {
	const reach, generations = 64, 4
	candidates := make(map[Epoch]bool)
	around := map[uint64]bool{r.state.HighWater.Number: true}
	for i := range r.sides {
		around[r.sides[i].newest().Number] = true
		for e := range r.sides[i].Keys {
			candidates[e] = true
		}
		for e := range r.sides[i].Present {
			candidates[e] = true
		}
	}
	for n := range around {
		first := uint64(1)
		if n > reach {
			first = n - reach
		}
		for number := first; number <= n+reach && number >= first; number++ {
			for g := range uint32(generations) {
				candidates[Epoch{number, g}] = true
			}
		}
	}
	for e := range candidates {
		name, err := CKN(r.id, e)
		if err != nil || string(name) != string(ckn) {
			continue
		}
		for s := range r.sides {
			if _, have := r.sides[s].Keys[e]; !have {
				missing = append(missing, Side(s))
			}
		}
		return e, missing, true
	}
	return Epoch{}, nil, false
}

// Revoked says whether a channel that was heard does not have the epoch that a CKN
// names, and no newer one was confirmed: what an earlier agent may have keyed with
// it must not be used any more.
func (r *Ring) Revoked(ckn []byte) bool {
	e, _, ok := r.Identify(ckn)
	return ok && !e.Less(r.state.HighWater) && slices.ContainsFunc(r.sides[:], func(s side) bool {
		return s.heard && !s.Unavailable && !s.has(e)
	})
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

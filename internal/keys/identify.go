package keys

import (
	"maps"
	"slices"
	"time"
)

// Identify tells which epoch of this link a CKN names that this end does not
// offer, and which sides have not delivered their part of it here. It knows the
// epochs that any channel has, and the ones shortly before and after them.
func (r *Ring) Identify(ckn []byte) (e Epoch, missing []Side, ok bool) {
	if r.names == nil {
		r.names = make(map[string]Epoch)
		for e := range r.candidates() {
			if name, err := CKN(r.id, e); err == nil {
				r.names[string(name)] = e
			}
		}
	}
	if e, ok = r.names[string(ckn)]; !ok {
		return Epoch{}, nil, false
	}
	for s := range r.sides {
		if _, have := r.sides[s].Keys[e.Side(Side(s))]; !have {
			missing = append(missing, Side(s))
		}
	}
	return e, missing, true
}

// candidates are the epochs that a far end may speak of.
func (r *Ring) candidates() map[Epoch]bool {
	const generations = 2
	out := make(map[Epoch]bool)
	var around []uint64
	note := func(e Epoch) {
		out[e] = true
		around = append(around, e.Number)
	}
	note(r.state.HighWater)
	for e := range r.state.Seen {
		note(e)
	}
	held := make(map[uint64][2][]Epoch)
	for s := range r.sides {
		for _, e := range r.sides[s].epochs() {
			both := held[e.Number]
			both[s] = append(both[s], e)
			held[e.Number] = both
		}
		around = append(around, r.sides[s].newest().Number)
	}
	for n, both := range held {
		// What either side has, with what the other has or could have.
		for s := range both {
			slices.Reverse(both[s])
			both[s] = both[s][:min(len(both[s]), maxGenerations)]
			for g := range uint32(maxGenerations) {
				both[s] = append(both[s], Epoch{n, g})
			}
		}
		for _, x := range both[A] {
			for _, y := range both[B] {
				if e, ok := Pair(x, y); ok {
					out[e] = true
				}
			}
		}
	}
	slices.Sort(around)
	for _, n := range slices.Compact(around) {
		// The ones beside it: 64 that are counted, or 8 on the schedule.
		reach, step := uint64(64), uint64(1)
		if n >= firstScheduled && r.ages.cakEpoch >= time.Minute {
			reach, step = 8, uint64(r.ages.cakEpoch/time.Minute)
		}
		for k := range 2*reach + 1 {
			number := n + (k-reach)*step // modulo 2^64, which is as good as any
			for g := range uint32(generations * generations) {
				out[Epoch{number, g}] = true
			}
		}
	}
	maps.DeleteFunc(out, func(e Epoch, _ bool) bool { return e.Number == 0 })
	return out
}

// Revoked says whether a channel that was heard does not have its part of the epoch
// that a CKN names, and no newer one was confirmed: what an earlier agent may have
// keyed with it must not be used any more. A channel that was not heard yet, and one
// that cannot be read, revoke nothing; neither does one that the inventory has moved to
// a place that never had the confirmed epoch.
func (r *Ring) Revoked(ckn []byte) bool {
	e, _, ok := r.Identify(ckn)
	if !ok || e.Less(r.state.HighWater) {
		return false
	}
	for s := range r.sides {
		sd, was := &r.sides[s], r.state.Sources[s]
		if moved := was != "" && was != sd.Where; sd.heard && !sd.Unavailable && !moved && !sd.has(e.Side(Side(s))) {
			return true
		}
	}
	return false
}

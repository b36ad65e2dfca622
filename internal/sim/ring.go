package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/lever-link/lever/mka"
)

// ring is what one end offers to MKA, by the rules of internal/keys: the two newest
// CAKs and the confirmed one, and none older than that.
type ring struct {
	caks    []CAK
	revoked []CAK // and those given up although they were better than the mark
	closing []mka.CKN
	unknown map[mka.KI]bool // found in the SecY by a driver without a record
	mark    uint64          // the rank of the best CAK that was in use
}

func (r *ring) has(ckn mka.CKN) bool {
	return slices.ContainsFunc(r.caks, func(c CAK) bool { return c.CKN == ckn })
}

// issue delivers a new CAK to every end, each in its own time.
func (h *Hour) issue(spread time.Duration) CAK {
	n := uint64(len(h.issued)) + 1
	c := CAK{CKN: mka.CKN(fmt.Sprint("epoch-", n)), Octet: byte(n), Rank: n}
	h.issued = append(h.issued, c)
	for _, m := range h.Members {
		if spread == 0 {
			h.offer(m, c)
		} else {
			h.later(h.upTo(spread), func() { h.offer(m, c) })
		}
	}
	return c
}

// offer is what happens when an end's channels deliver a CAK.
func (h *Hour) offer(m *Member, c CAK) {
	r := h.rings[m.Number]
	if c.Rank < r.mark || slices.Contains(r.caks, c) || slices.Contains(r.revoked, c) {
		return
	}
	h.Note("%s has %q", m.Name, string(c.CKN))
	r.caks = append(r.caks, c)
	slices.SortFunc(r.caks, func(a, b CAK) int { return int(b.Rank) - int(a.Rank) })
	keep := 2
	if r.mark == 0 {
		keep = 3
	}
	for i := len(r.caks) - 1; i >= keep; i-- {
		if r.caks[i].Rank != r.mark {
			h.withdraw(m, r.caks[i], mka.EventRemoveCAK)
		}
	}
	if m.Port != nil && r.has(c.CKN) { // unless it is not among the best
		m.AddCAK(c)
	}
}

// revoke has every end learn, each in its own time, that a CAK must not be used.
func (h *Hour) revoke(c CAK, spread time.Duration) {
	h.Note("%q is revoked", string(c.CKN))
	for _, m := range h.Members {
		h.later(h.upTo(spread), func() {
			if r := h.rings[m.Number]; !r.has(c.CKN) {
				r.revoked = append(r.revoked, c)
				return
			}
			h.withdraw(m, c, mka.EventRevokeCAK)
		})
	}
}

// withdraw takes a CAK from an end.
func (h *Hour) withdraw(m *Member, c CAK, kind mka.EventKind) {
	r := h.rings[m.Number]
	r.caks = slices.DeleteFunc(r.caks, func(o CAK) bool { return o == c })
	if kind == mka.EventRevokeCAK || c.Rank > r.mark { // not because a better one is in use
		r.revoked = append(r.revoked, c)
		if h.abandoned(m) {
			h.excuse(m)
		}
		if h.holds(m, c.CKN) || r.mayHold(m) {
			h.excuseAll()
		}
	}
	if m.Port == nil {
		h.Note("%s: %q goes while it is dead", m.Name, string(c.CKN))
		return
	}
	if kind == mka.EventRevokeCAK {
		m.run(func() { r.closing = append(r.closing, c.CKN) }) // in a stall it hears of it later
	}
	m.Step(mka.Event{Kind: kind, CKN: c.CKN})
	h.closed(m)
}

// holds says whether m has SAs of a SAK of that CAK.
func (h *Hour) holds(m *Member, ckn mka.CKN) bool {
	for ki := range m.SAs.KIs {
		if h.ckns[ki] == ckn {
			return true
		}
	}
	return false
}

// mayHold says whether m has SAs of which it cannot know the CAK.
func (r *ring) mayHold(m *Member) bool {
	for ki := range m.SAs.KIs {
		if r.unknown[ki] {
			return true
		}
	}
	return false
}

// closed sees, when m's SecY is done with what it was asked, that nothing of a
// revoked CAK is left.
func (h *Hour) closed(m *Member) {
	r := h.rings[m.Number]
	if len(r.closing) == 0 || len(m.pending) > 0 || m.stalled {
		return
	}
	for ki := range m.SAs.KIs {
		if slices.Contains(r.closing, h.ckns[ki]) {
			h.fail("%s: SAs of %q are left after it was revoked: %v", m.Name, string(h.ckns[ki]), &m.SAs)
		}
	}
	r.closing = nil
}

// confirm is what a notice that a CAK is in use does: the older ones go.
func (h *Hour) confirm(m *Member, ckn mka.CKN) {
	r := h.rings[m.Number]
	i := slices.IndexFunc(r.caks, func(c CAK) bool { return c.CKN == ckn })
	if i < 0 || r.caks[i].Rank <= r.mark {
		return
	}
	r.mark = r.caks[i].Rank
	for _, c := range slices.Clone(r.caks) {
		if c.Rank < r.mark {
			h.withdraw(m, c, mka.EventRemoveCAK)
		}
	}
}

// bestCommon is the best CAK that all ends have who are there; the zero value if there is none.
func (h *Hour) bestCommon() (best CAK) {
	some := h.present()
	for _, c := range h.rings[some[0].Number].caks {
		all := true
		for _, m := range some {
			all = all && slices.Contains(h.rings[m.Number].caks, c)
		}
		if all && c.Rank > best.Rank {
			best = c
		}
	}
	return best
}

// forgotten is how long nobody's ring must have had a CAK until nobody's Port has it:
// longer than an issue takes to reach all, and than any driver stalls.
const forgotten = 20 * time.Second

// former is a CAK that somebody once had and nobody has any more.
func (h *Hour) former() (CAK, bool) {
	var gone []CAK
	for _, c := range h.issued {
		if slices.ContainsFunc(h.rings, func(r *ring) bool { return r.has(c.CKN) }) {
			delete(h.gone, c.CKN)
			continue
		}
		since, known := h.gone[c.CKN]
		if !known {
			h.gone[c.CKN] = h.Since()
		} else if h.Since()-since > forgotten {
			gone = append(gone, c)
		}
	}
	if len(gone) == 0 {
		return CAK{}, false
	}
	return gone[h.Net.Rand().IntN(len(gone))], true
}

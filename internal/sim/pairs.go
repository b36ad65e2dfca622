package sim

import (
	"slices"

	"github.com/lever-link/lever/mka"
)

// A pair of members is open from when both say that they are secured and mean the
// same SAK; from then on each must receive what the other sends, whatever goes wrong,
// unless one of these excuses the pair until it is open again:
//
//   - A revocation of a CAK that an end has SAs of closes its SecY, as it must, and
//     in a group has others follow it to another CAK. An end whose driver started
//     without its record closes what may be of it.
//   - A refused SecY operation closes the pairs of that member: what it was to install
//     is not there.
//   - In a group, a member that somebody's MKA life time lost is left behind: the
//     others agree a SAK without it (802.1X-2020 9.8). If it lives, it may be the
//     key server, and then whoever lost it is left behind. Of two members there are
//     no others, so that silence alone excuses nothing.
//   - In a group, of several members that are dead or cut off at once each may miss
//     that another came back and made a SAK without it.
//   - In a group, a key server that never had the CAK in use cannot know which ANs
//     that occupies: members speak of a SAK under its own CAK alone.
//   - A member that knows of a revocation before the others do: they may agree on
//     what it must not use.
//
// What a medium without faults loses between the ends of an open pair, Traffic finds.

// maxMembers is how many an Hour can have.
const maxMembers = 8

func (h *Hour) excuse(m *Member) {
	for i := range h.Members {
		h.open[m.Number][i], h.open[i][m.Number] = false, false
	}
}

func (h *Hour) excuseAll() { clear(h.open[:]) }

// carries is Carries for a pair of numbers.
func (h *Hour) carries(from, to int) bool { return h.Sim.Carries(h.Members[from], h.Members[to]) }

// broken looks at the open pairs of a member whose SecY has changed.
func (h *Hour) broken(m *Member) {
	a := m.Number
	for b := range h.Members {
		if b != a {
			h.mustCarry(a, b)
			h.mustCarry(b, a)
		}
	}
}

func (h *Hour) mustCarry(a, b int) {
	if !h.open[a][b] || h.carries(a, b) {
		return
	}
	h.open[a][b] = false
	from, to := h.Members[a], h.Members[b]
	h.fail("%s does not reach %s any more\n  %s %v\n  %s %v", from.Name, to.Name, from.Name, &from.SAs, to.Name, &to.SAs)
}

// opened looks which pairs are open from now on.
func (h *Hour) opened() {
	var known [maxMembers]bool
	var stati [maxMembers]mka.Status
	status := func(i int) *mka.Status {
		if !known[i] {
			known[i], stati[i] = true, h.Members[i].Status()
		}
		return &stati[i]
	}
	group := len(h.Members) > 2
	for a := range h.Members {
		for b := range a {
			if h.open[a][b] && h.open[b][a] || h.Members[a].Port == nil || h.Members[b].Port == nil ||
				!h.carries(a, b) || !h.carries(b, a) {
				continue
			}
			x, y := status(a), status(b)
			if !x.Secured || !y.Secured || x.KI != y.KI || group && (x.Rekeying || y.Rekeying) ||
				!hears(x, h.Members[b]) || !hears(y, h.Members[a]) || h.abandoned(h.Members[a]) || h.abandoned(h.Members[b]) {
				continue
			}
			both := true
			for _, s := range [2]*mka.Status{x, y} {
				server := h.Member(s.KeyServer)
				if server == nil {
					both = false
					break
				}
				st := status(server.Number)
				both = both && st.KI == s.KI && (server.Number == a || hears(st, h.Members[a])) && (server.Number == b || hears(st, h.Members[b]))
			}
			if both {
				h.open[a][b], h.open[b][a] = true, true
			}
		}
	}
}

// hears says whether the status has o as a live peer under the CAK in use.
func hears(s *mka.Status, o *Member) bool {
	for i := range s.Participants {
		pa := &s.Participants[i]
		if pa.CKN != s.CKN {
			continue
		}
		for j := range pa.Peers {
			if pa.Peers[j].Live && pa.Peers[j].SCI == o.Config.SCI {
				return true
			}
		}
	}
	return false
}

// trouble counts a fault that keeps m from hearing or being heard, and returns what
// ends it.
func (h *Hour) trouble(m *Member) (over func()) {
	h.troubled[m.Number]++
	for _, o := range h.Members {
		if h.abandoned(o) {
			h.excuse(o)
		}
	}
	return func() { h.troubled[m.Number]-- }
}

// abandoned says whether the others may agree without m: it has revoked a CAK that
// they still have, or is one of several of a group that are in trouble.
func (h *Hour) abandoned(m *Member) bool {
	for i, r := range h.rings {
		if i != m.Number && slices.ContainsFunc(r.caks, func(c CAK) bool { return slices.Contains(h.rings[m.Number].revoked, c) }) {
			return true
		}
	}
	if len(h.Members) == 2 || h.troubled[m.Number] == 0 {
		return false
	}
	n := 0
	for _, x := range h.troubled {
		if x > 0 {
			n++
		}
	}
	return n > 1
}

// excused acts on a notice that excuses pairs in a group.
func (h *Hour) excused(m *Member, n mka.Notice) {
	if len(h.Members) == 2 {
		return
	}
	switch n.Kind {
	case mka.NoticeSAK:
		using, ok := m.SAs.Encoding()
		if server := h.Member(n.SCI); ok && server != nil && !h.rings[server.Number].has(h.ckns[using]) {
			h.excuse(m)
		}
	case mka.NoticePeerLost:
		o := h.Member(n.SCI)
		if o == nil {
			return
		}
		h.excuse(o)
		if o.Port != nil {
			h.excuse(m)
		}
	default:
	}
}

package sim

import (
	"fmt"

	"github.com/lever-link/lever/mka"
)

// Gaps counts moments at which somebody who was secured before sent where another
// who was could not have received it, with nothing excused: for scenarios in which
// there must be none.
type Gaps struct {
	Count int
	First string // when, and between whom
	sim   *Sim
	was   map[*Member]bool // secured once: from then on there must be no gap
}

// WatchGaps looks after every step from now on.
func (s *Sim) WatchGaps() *Gaps {
	g := &Gaps{sim: s, was: map[*Member]bool{}}
	before := s.Stepped
	s.Stepped = func(m *Member, out *mka.Output) {
		if before != nil {
			before(m, out)
		}
		g.look()
	}
	return g
}

func (g *Gaps) look() {
	for _, m := range g.sim.Members {
		if !g.was[m] && m.Port != nil && m.Port.Status().Secured {
			g.was[m] = true
		}
	}
	for _, from := range g.sim.Members {
		for _, to := range g.sim.Members {
			if from != to && g.was[from] && g.was[to] && !g.sim.Carries(from, to) {
				g.Count++
				if g.First == "" {
					g.First = fmt.Sprintf("%v: from %s to %s", g.sim.Since(), from.Name, to.Name)
				}
			}
		}
	}
}

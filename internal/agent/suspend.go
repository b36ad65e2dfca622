package agent

import (
	"context"
	"sync"
	"time"

	"github.com/lever-link/lever/mka"
)

// MaxSuspension is the longest absence that MKA can announce.
const MaxSuspension = mka.MaxSuspension

// leavePatience is how long the far ends may take to confirm that they have heard
// of it: an answer comes at once, and a lost one is repeated within a hello.
const leavePatience = 5 * time.Second

// Suspended is what came of `lever suspend` on one link.
type Suspended struct {
	Link  string    `json:"link"`
	Until time.Time `json:"until"`           // until then the far end waits; zero: it does not
	Error string    `json:"error,omitempty"` // why not, or why that is not sure
}

// suspendAll has every encrypted link announce that this agent will be away.
func (s *server) suspendAll(ctx context.Context, d time.Duration) []Suspended {
	var all []Suspended
	s.mu.Lock()
	for _, id := range s.order {
		if s.tasks[id] != nil {
			all = append(all, Suspended{Link: id})
		}
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			if err := s.ask(ctx, command{Verb: "suspend", Link: all[i].Link, For: d}); err != nil {
				all[i].Error = err.Error()
			}
		})
	}
	wg.Wait()
	st, _ := s.snapshot()
	for i := range all {
		for _, l := range st.Links {
			if l.ID == all[i].Link && l.SuspendedUntil != nil {
				all[i].Until = *l.SuspendedUntil
			}
		}
	}
	return all
}

// suspend announces an absence, or takes the announcement back.
func (t *task) suspend(r request) {
	if r.suspend > 0 {
		if err := t.port.CanSuspend(); err != nil {
			r.done <- err
			return
		}
	}
	t.log.Info("suspended", "for", r.suspend.String())
	if r.suspend > 0 {
		t.leaving = append(t.leaving, r.done)
	} else {
		t.served = append(t.served, r.done)
	}
	t.step(mka.Event{Kind: mka.EventSuspend, Suspend: r.suspend})
}

// farewell answers those who wait for the peers to have heard that we leave.
func (t *task) farewell() {
	if len(t.leaving) == 0 || !t.port.Status().Suspension.Heard {
		return
	}
	t.served = append(t.served, t.leaving...)
	t.leaving, t.news = nil, true
}

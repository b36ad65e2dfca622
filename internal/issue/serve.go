package issue

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/inventory"
)

// Server issues on the schedule of an inventory's policy.
type Server struct {
	// Load reads the inventory as it is now. One that cannot be read leaves the one
	// before in force.
	Load func() (*inventory.Inventory, error)
	// Open opens the channel by an inventory.
	Open func(*inventory.Inventory) (Channel, error)
	Log  *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	inForce *inventory.Inventory
	// refused is what was said last of an inventory that could not be read, warned what
	// was said last of what was issued.
	refused string
	warned  []string
	// leapt is when, by the monotonic clock, nothing of what is due now had been there: the
	// clock has leapt ahead, or nothing was issued for long.
	leapt time.Time
	// sure is when, by the wall clock, there was last no doubt about it, and sureAt the
	// same by the monotonic one.
	sure, sureAt time.Time
}

// The times of a Server.
const (
	// lookEvery bounds how long it does not look at inventory and clock, both of
	// which may be changed.
	lookEvery = time.Minute
	// tryAgain is the pause after something has failed.
	tryAgain = 5 * time.Second
)

// Run issues at once and whenever something is due, until ctx ends. What fails is
// tried again.
func (s *Server) Run(ctx context.Context) error {
	if s.Now == nil {
		s.Now = time.Now
	}
	said := ""
	for {
		wait, err := s.once(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			said = ""
		default:
			wait = tryAgain
			if err.Error() != said {
				said = err.Error()
				s.Log.Error("not all could be done; it is tried again", "error", err)
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// once issues what is missing and returns when to look again.
func (s *Server) once(ctx context.Context) (wait time.Duration, err error) {
	now := s.Now()
	inv, err := s.inventory(now)
	if err != nil {
		return 0, err
	}
	channel, err := s.Open(inv)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, channel.Close()) }()
	epoch := inv.Policy.CAKEpoch
	numbers := Numbers(now, epoch, 1+keys.MaxPrefetch)
	res, err := channel.Issue(ctx, Request{Epochs: numbers})
	for _, w := range res.Warnings {
		if !slices.Contains(s.warned, w) {
			s.Log.Warn(w)
		}
	}
	s.warned = res.Warnings
	if res.Written > 0 || res.Notes != nil {
		s.Log.Info("issued", "written", res.Written, "kept", res.Kept, "epochs", numbers, "notes", res.Notes)
	}
	if res.Written > 0 && res.Kept == 0 {
		s.leapt = time.Now()
	}
	// What is over goes all the same: it must not pile up for one node that cannot be
	// issued for. But a clock that has leapt ahead says of everything in use that it is
	// over: so what is new must have been out for an epoch.
	believed := s.believes(now, epoch, res)
	if !believed || !s.leapt.IsZero() && time.Since(s.leapt) < epoch {
		if err != nil {
			return 0, err
		}
		return s.untilNext(now, epoch), nil
	}
	over := Over(now, inv.Policy)
	erased, retireErr := channel.Retire(ctx, over)
	if erased > 0 {
		s.Log.Info("erased what is over", "keys", erased, "before", over)
	}
	if err != nil && retireErr != nil && retireErr.Error() == err.Error() {
		retireErr = nil
	}
	if err := errors.Join(err, retireErr); err != nil {
		return 0, err
	}
	return s.untilNext(now, epoch), nil
}

// believes tells whether the clock has not leapt ahead, by what has come of issuing: a
// server that was started again remembers nothing of it, but what is due now must have
// been issued an epoch ago. Where that cannot be seen, since nothing can be issued, the
// clock must have gone as the other one has since it could.
func (s *Server) believes(now time.Time, epoch time.Duration, res Result) bool {
	now = now.Round(0)
	switch {
	case !res.Since.IsZero() && now.Sub(res.Since) < epoch:
		return false
	case res.Since.IsZero() && res.Kept == 0:
		return !s.sure.IsZero() && now.Sub(s.sure)-time.Since(s.sureAt) < epoch
	}
	s.sure, s.sureAt = now, time.Now()
	return true
}

// untilNext is how long there is nothing to do.
func (s *Server) untilNext(now time.Time, epoch time.Duration) time.Duration {
	next := keys.Epoch{Number: keys.ScheduledEpoch(now.Add(epoch), epoch).Number}.Start()
	return min(max(next.Sub(s.Now()), time.Second), lookEvery)
}

// inventory is the one in force now.
func (s *Server) inventory(now time.Time) (*inventory.Inventory, error) {
	inv, err := s.Load()
	switch {
	case err == nil:
		s.inForce, s.refused = inv, ""
	case s.inForce == nil:
		return nil, err
	case err.Error() != s.refused:
		s.refused = err.Error()
		s.Log.Error("the inventory cannot be used; the one before stays in force", "error", err)
	}
	return s.inForce.At(now), nil
}

// Over is the epoch before which all are over: what some end may still have to use
// stays, for an end whose other channel is late uses an epoch until it is too old.
func Over(now time.Time, p inventory.Policy) uint64 {
	return keys.ScheduledEpoch(now.Add(-p.MaxAge-p.CAKEpoch), p.CAKEpoch).Number
}

// Numbers are those of the epoch that is current and of the ones that follow, n in
// all.
func Numbers(now time.Time, length time.Duration, n int) []uint64 {
	var numbers []uint64
	for i := range n {
		numbers = append(numbers, keys.ScheduledEpoch(now.Add(time.Duration(i)*length), length).Number)
	}
	return numbers
}

package issue

import (
	"context"
	"errors"
	"log/slog"
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
	// refused is what was said last of an inventory that could not be read.
	refused string
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
				s.Log.Error("nothing was issued; it is tried again", "error", err)
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
		s.Log.Warn(w)
	}
	if res.Written > 0 || res.Notes != nil {
		s.Log.Info("issued", "written", res.Written, "kept", res.Kept, "epochs", numbers, "notes", res.Notes)
	}
	if err != nil {
		return 0, err
	}
	// What some end may still have to use stays: an end whose other channel is late
	// uses an epoch until it is too old.
	over := keys.ScheduledEpoch(now.Add(-inv.Policy.MaxAge-epoch), epoch).Number
	erased, err := channel.Retire(ctx, over)
	if erased > 0 {
		s.Log.Info("erased what is over", "keys", erased, "before", over)
	}
	if err != nil {
		return 0, err
	}
	next := keys.Epoch{Number: keys.ScheduledEpoch(now.Add(epoch), epoch).Number}.Start()
	return min(max(next.Sub(s.Now()), time.Second), lookEvery), nil
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

// Numbers are those of the epoch that is current and of the ones that follow, n in
// all.
func Numbers(now time.Time, length time.Duration, n int) []uint64 {
	var numbers []uint64
	for i := range n {
		numbers = append(numbers, keys.ScheduledEpoch(now.Add(time.Duration(i)*length), length).Number)
	}
	return numbers
}

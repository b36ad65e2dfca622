package issue

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/lever-link/lever/internal/keys"
)

// Schedule is how often there is another epoch, and how long one may be used.
type Schedule struct{ Epoch, MaxAge time.Duration }

// Server issues on a schedule.
type Server struct {
	// Open opens the channel by the inventory as it is now.
	Open func() (Channel, *Schedule, error)
	Log  *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
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
	channel, schedule, err := s.Open()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, channel.Close()) }()
	now := s.Now()
	numbers := Numbers(now, schedule.Epoch, 1+keys.MaxPrefetch)
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
	over := keys.ScheduledEpoch(now.Add(-schedule.MaxAge-schedule.Epoch), schedule.Epoch).Number
	erased, err := channel.Retire(ctx, over)
	if erased > 0 {
		s.Log.Info("erased what is over", "keys", erased, "before", over)
	}
	if err != nil {
		return 0, err
	}
	next := keys.Epoch{Number: keys.ScheduledEpoch(now.Add(schedule.Epoch), schedule.Epoch).Number}.Start()
	return min(max(next.Sub(s.Now()), time.Second), lookEvery), nil
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

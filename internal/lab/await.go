package lab

import (
	"context"
	"fmt"
	"time"
)

// pollEvery is how often await looks. The kernel announces nothing about SAs
// (there is no multicast group), so some things can only be looked at; more
// often would take the agents' time where there is one processor for all.
const pollEvery = 25 * time.Millisecond

// Await looks until what holds. Where it does not in time, the error tells what
// was seen last.
func Await(ctx context.Context, limit time.Duration, what string, look func() (held bool, seen string)) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if held, _ := look(); held {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-deadline.C:
			// Once more: on a busy machine much may have happened since.
			held, seen := look()
			if held {
				return nil
			}
			if seen == "" {
				seen = "nothing"
			}
			return fmt.Errorf("waited %v for %s; seen last: %s", limit, what, seen)
		case <-tick.C:
		}
	}
}

// AwaitAlive is await for as long as the agents that were started live.
func AwaitAlive(ctx context.Context, routers []*Router, limit time.Duration, what string, look func() (bool, string)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	return Await(ctx, limit, what, func() (bool, string) {
		for _, r := range routers {
			if err := r.Alive(); err != nil {
				cancel(err)
				return false, err.Error()
			}
		}
		return look()
	})
}

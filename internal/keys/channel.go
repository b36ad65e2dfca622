package keys

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Side is which of the two channels.
type Side uint8

// The sides. Which channel is a and which is b enters the derivation.
const (
	A Side = iota
	B
)

// String is "a" or "b".
func (s Side) String() string {
	if s == B {
		return "b"
	}
	return "a"
}

// Other is the other side.
func (s Side) Other() Side { return 1 - s&1 }

// ParseSide reads "a" or "b".
func ParseSide(s string) (Side, error) {
	switch s {
	case "a":
		return A, nil
	case "b":
		return B, nil
	}
	return A, fmt.Errorf("channel %q: there are two, a and b", s)
}

// Channel is one way by which pre-key material reaches this node. It knows
// nothing of the other channel, and never of a CAK.
type Channel interface {
	// Kind is the type in the inventory, e.g. "dir".
	Kind() string
	// Where is the place of a link's material in words an operator can act on,
	// e.g. a path.
	Where(link string) string
	// Watch delivers what the channel holds for the link: once at the start, and
	// again after every change. It returns nil once ctx is done, and an error
	// only when it cannot watch at all; trouble that may pass is part of a
	// Snapshot. It calls deliver from one goroutine at a time; the Snapshot and
	// its material belong to the receiver.
	Watch(ctx context.Context, link string, deliver func(Snapshot)) error
}

// Snapshot is everything that a channel holds for one link at one moment.
type Snapshot struct {
	// Where is Channel.Where of the link.
	Where string
	// Keys is the usable material by epoch.
	Keys map[Epoch]Material
	// Present are the epochs that are there but not usable: a refused or
	// unreadable file. They are not revoked: what is already in use stays.
	Present map[Epoch]bool
	// Findings say what is wrong, one each. Their Side is filled in by the Ring.
	Findings []Finding
	// Unavailable is set when the channel as a whole could not be read. Then
	// Keys is empty but means nothing: absence that was not seen revokes nothing.
	Unavailable bool
	// AsOf is a time that is past by the channel's word: something of it was issued
	// then. A machine whose clock is behind, after years without power perhaps, begins
	// with what has begun all the same. Zero if the channel has no such word.
	AsOf time.Time
	// ahead are the epochs that LimitPrefetch has taken out: they are there, which
	// matters when the clock was set back to before one that is in use.
	ahead map[Epoch]bool
}

// Erase overwrites the material.
func (s Snapshot) Erase() {
	for _, m := range s.Keys {
		m.Key.Erase()
	}
}

// Digest tells whether two Snapshots say the same, so that a channel delivers what is
// new. It is for memory alone.
func (s Snapshot) Digest() string {
	h := sha256.New()
	for _, e := range slices.SortedFunc(maps.Keys(s.Keys), Epoch.Compare) {
		fmt.Fprintln(h, e, s.Keys[e].Fingerprint())
	}
	for what, set := range []map[Epoch]bool{s.Present, s.ahead} {
		for _, e := range slices.SortedFunc(maps.Keys(set), Epoch.Compare) {
			fmt.Fprintln(h, what, e)
		}
	}
	for _, f := range s.Findings {
		fmt.Fprintf(h, "%q %v %q %q %v\n", f.Code, f.Epoch, f.File, f.Detail, f.Until.Unix())
	}
	fmt.Fprintln(h, s.Unavailable, s.AsOf.Unix())
	return string(h.Sum(nil))
}

// Delivery is a Snapshot with the side it came over.
type Delivery struct {
	Side     Side
	Snapshot Snapshot
}

// Watch follows both channels of a link and sends what they deliver to out until
// ctx is done. It returns when both watchers have ended; the error is nil unless
// one of them could not go on. Snapshots that nobody took are erased.
func Watch(ctx context.Context, link string, a, b Channel, out chan<- Delivery) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var errs [2]error
	for side, channel := range []Channel{a, b} {
		wg.Go(func() {
			// One channel that cannot go on ends both: half a watch would look
			// like a channel that is merely late.
			defer cancel()
			// A channel that panics must not take the other links along.
			defer func() {
				if p := recover(); p != nil {
					errs[side] = fmt.Errorf("watching channel %s of link %q: panic: %v", Side(side), link, p)
				}
			}()
			err := channel.Watch(ctx, link, func(s Snapshot) {
				select {
				case out <- Delivery{Side(side), s}:
				case <-ctx.Done():
					s.Erase()
				}
			})
			if err != nil {
				errs[side] = fmt.Errorf("watching channel %s (%s, %s) of link %q: %w", Side(side), channel.Kind(), channel.Where(link), link, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/lever-link/lever/internal/keys/keyservice"
	"github.com/lever-link/lever/internal/pae"
	"github.com/lever-link/lever/mka"
)

// talker is a channel whose two ends have to tell each other which key they mean.
type talker interface {
	Attach(link string, c keyservice.Courier)
	Detach(link string, c keyservice.Courier)
}

// announcer is a pae.Announcements.
type announcer interface {
	Read(b *pae.Batch) error
	Send(message []byte) error
	Close() error
}

// openAnnouncements is the one of linux.
func openAnnouncements(index int, source mka.MAC) (announcer, error) {
	a, err := pae.OpenAnnouncements(index, source)
	if err != nil {
		return nil, err
	}
	return a, nil
}

const (
	// announceEvery and announceBurst bound what a link's channels send: it is in the
	// clear, and sent again until it is answered.
	announceEvery = 100 * time.Millisecond
	announceBurst = 20
	// announceRoom is how many announcements wait for a channel.
	announceRoom = 16
)

// announcePace is that of strangers: anybody may write announcements.
var announcePace = paces[pae.Strangers]

// courier carries one channel's messages over a link in announcements, which have
// nothing in common with MKPDUs but the wire.
type courier struct {
	on     announcer
	in     chan []byte
	mu     *sync.Mutex // of all couriers of the link
	budget *time.Time  // when what was sent would be done with at the pace
}

var _ keyservice.Courier = (*courier)(nil)

// Receive implements keyservice.Courier.
func (c *courier) Receive() <-chan []byte { return c.in }

var errTooMany = errors.New("too many messages on this link: it is not sent")

// Send implements keyservice.Courier.
func (c *courier) Send(message []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.budget.Before(now) {
		*c.budget = now
	}
	if c.budget.Sub(now) >= announceBurst*announceEvery {
		return errTooMany
	}
	*c.budget = c.budget.Add(announceEvery)
	return c.on.Send(message)
}

// carryMessages gives those of the link's channels a courier that want one, and takes
// them away again when what it returns is called. Without a socket there is no
// courier; the channels say what comes of it.
func (t *task) carryMessages(ctx context.Context) (end func()) {
	var to []talker
	for _, c := range t.channels {
		if c, ok := c.(talker); ok {
			to = append(to, c)
		}
	}
	if len(to) == 0 || t.link.External {
		return func() {}
	}
	on, err := t.server.platform.openAnnouncements(t.parent.index, t.parent.address)
	if err != nil {
		t.log.Warn("key ids cannot be exchanged over the link", "interface", t.parent.name, "error", err)
		return func() {}
	}
	// A task that was left behind does not call end, and still lets go of the socket.
	stop := context.AfterFunc(ctx, func() { _ = on.Close() })
	id, mu, budget := t.link.ID, &sync.Mutex{}, &time.Time{}
	couriers := make([]*courier, len(to))
	for i, c := range to {
		couriers[i] = &courier{on: on, in: make(chan []byte, announceRoom), mu: mu, budget: budget}
		c.Attach(id, couriers[i])
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := t.guard(func() error { return readAnnouncements(ctx, on, couriers) }); err != nil {
			t.log.Warn("key ids are not exchanged over the link any more", "error", err)
		}
	}()
	return func() {
		for i, c := range to {
			c.Detach(id, couriers[i])
		}
		if stop() {
			_ = on.Close()
		}
		<-done
	}
}

// readAnnouncements brings what comes in to every courier: a channel knows its own
// messages. What a channel does not keep up with is lost, as on the wire. It returns
// nil when ctx or the socket ends.
func readAnnouncements(ctx context.Context, on announcer, couriers []*courier) error {
	b := pae.NewBatch(4)
	var due time.Time // when what was read so far would be done with at the pace
	for ctx.Err() == nil {
		switch err := on.Read(b); {
		case errors.Is(err, pae.ErrDown):
			continue // the next one waits until it is up again, or gone
		case err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, pae.ErrGone):
			return fmt.Errorf("receive announcements: %w", err)
		case err != nil:
			return nil
		}
		for i := range b.Len() {
			message, ok := pae.Announced(b.Frame(i))
			if !ok {
				continue
			}
			for _, c := range couriers {
				select {
				case c.in <- slices.Clone(message):
				default:
				}
			}
		}
		now := time.Now()
		if earliest := now.Add(-time.Duration(announcePace.burst) * announcePace.every); due.Before(earliest) {
			due = earliest
		}
		due = due.Add(time.Duration(b.Len()) * announcePace.every)
		if wait := due.Sub(now); wait > 0 && !sleep(ctx, wait) {
			return nil
		}
	}
	return nil
}

// leasedAnnouncer is a socket for announcements behind a lease. Reading and closing
// change nothing.
type leasedAnnouncer struct {
	announcer
	lease *lease
}

// Send implements announcer. It does not hold the lease's end up as a task's own calls
// do, which come one at a time: it is called by channels.
func (a *leasedAnnouncer) Send(message []byte) error {
	a.lease.mu.Lock()
	over := a.lease.over
	a.lease.mu.Unlock()
	if over {
		return errLeft
	}
	return a.announcer.Send(message)
}

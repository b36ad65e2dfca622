// Package quiet keeps a log readable and bounded: of lines that say the same, a
// few are written in a span of time, and then one that counts the others.
//
// What belongs here: a slog.Handler in front of another, what makes two lines the
// same, and a writer that waits for no reader. What does not: levels, formats, and
// what is worth a line at all.
package quiet

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// The bounds that hold unless Options has others: a link that flaps once a minute
// shows in full, one that flaps every second does not fill a disk.
const (
	DefaultBurst  = 10
	DefaultSpan   = time.Minute
	defaultMaxKey = 4096
)

// Options are the bounds of a Handler. A zero one is its default.
type Options struct {
	Burst int           // lines of one kind that pass in a Span
	Span  time.Duration // counted from the first of them
}

// Handler passes records on, bounded. Two are of a kind when they have the same
// level and message and come from loggers that were given the same attributes by
// With, such as the link's: the flood of one link silences no other. Attributes
// of the record itself do not count, since a flood varies them.
type Handler struct {
	next   slog.Handler
	origin string // what WithAttrs and WithGroup made of it
	*limiter
}

// limiter is what all Handlers of one New share.
type limiter struct {
	opts Options

	mu     sync.Mutex
	kinds  map[kind]*tally
	looked time.Time // when the kinds were last gone through
}

type kind struct {
	origin, message string
	level           slog.Level
}

// tally counts the records of a kind in the span that began with the first.
type tally struct {
	seen  int
	timer *time.Timer // ends the span, once something was held back
	ends  time.Time
	next  slog.Handler
}

// New puts a Handler in front of next.
func New(next slog.Handler, opts Options) *Handler {
	if opts.Burst <= 0 {
		opts.Burst = DefaultBurst
	}
	if opts.Span <= 0 {
		opts.Span = DefaultSpan
	}
	return &Handler{next: next, limiter: &limiter{opts: opts, kinds: map[kind]*tally{}}}
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var origin strings.Builder
	origin.WriteString(h.origin)
	for _, a := range attrs {
		origin.WriteString(a.String() + "\x00")
	}
	return &Handler{h.next.WithAttrs(attrs), origin.String(), h.limiter}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{h.next.WithGroup(name), h.origin + name + "\x00\x00", h.limiter}
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	if !h.admit(kind{h.origin, r.Message, r.Level}, h.next) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

// admit counts a record and says whether it is to be written.
func (l *limiter) admit(k kind, next slog.Handler) bool {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.kinds[k]
	switch {
	case t == nil && len(l.kinds) >= defaultMaxKey:
		l.forget(now)
		if len(l.kinds) >= defaultMaxKey {
			k = kind{message: "lines of many kinds"}
			t = l.kinds[k]
		}
	case t != nil && t.timer == nil && !now.Before(t.ends):
		t = nil // that span is over, and held nothing back
	}
	if t == nil {
		t = &tally{ends: now.Add(l.opts.Span), next: next}
		l.kinds[k] = t
	}
	t.seen++
	if t.seen <= l.opts.Burst {
		return true
	}
	if t.timer == nil {
		t.timer = time.AfterFunc(t.ends.Sub(now), func() { _ = l.settle(k) })
	}
	return false
}

// forget drops the kinds whose span is over. It looks once a second at most, for
// a flood comes through here too.
func (l *limiter) forget(now time.Time) {
	if now.Sub(l.looked) < time.Second {
		return
	}
	l.looked = now
	for k, t := range l.kinds {
		if t.timer == nil && !now.Before(t.ends) {
			delete(l.kinds, k)
		}
	}
}

// settle ends the span of a kind and writes how many of it were held back.
func (l *limiter) settle(k kind) error {
	l.mu.Lock()
	t := l.kinds[k]
	if t == nil || t.timer == nil {
		l.mu.Unlock()
		return nil
	}
	t.timer.Stop()
	delete(l.kinds, k)
	l.mu.Unlock()
	r := slog.NewRecord(time.Now(), k.level, "more of the same was not logged", 0)
	r.AddAttrs(slog.String("message", k.message), slog.Int("lines", t.seen-l.opts.Burst), slog.Duration("within", l.opts.Span))
	ctx := context.Background()
	if !t.next.Enabled(ctx, k.level) {
		return nil
	}
	return t.next.Handle(ctx, r)
}

// Flush writes at once what was held back, for the end of a program.
func (h *Handler) Flush() error {
	h.mu.Lock()
	var due []kind
	for k, t := range h.kinds {
		if t.timer != nil {
			due = append(due, k)
		}
	}
	h.mu.Unlock()
	var errs []error
	for _, k := range due {
		errs = append(errs, h.settle(k))
	}
	return errors.Join(errs...)
}

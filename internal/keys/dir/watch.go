package dir

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/keys"
)

// defaultRescan is how often a link's directory is looked at although nothing
// was notified: inotify does not see changes made by another kernel, as on NFS,
// on a shared folder, or on the files of a user-mode Linux guest's host.
const defaultRescan = 2 * time.Second

// Options are for New. The zero Options are right for an agent.
type Options struct {
	// Rescan is the interval of the safety net; 0 means two seconds.
	Rescan time.Duration
	// Ticks replaces the timer of the rescan, for tests with their own time.
	Ticks <-chan time.Time
	// Now tells the date, by which epochs have started; nil is time.Now.
	Now func() time.Time
	// Log gets one line a fault of the watch itself; nil discards.
	Log *slog.Logger
}

// Channel is a directory as a distribution channel. It may watch any number of
// links at once with one inotify instance between them.
type Channel struct {
	root string
	opts Options
	hub  hub
}

var _ keys.Channel = (*Channel)(nil)

// New makes the channel of a root directory, which need not exist yet.
func New(root string, o Options) *Channel {
	if abs, err := filepath.Abs(root); err == nil {
		root = abs
	}
	if o.Rescan <= 0 {
		o.Rescan = defaultRescan
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Channel{root: root, opts: o}
}

// Kind implements keys.Channel.
func (c *Channel) Kind() string { return "dir" }

// Where implements keys.Channel: the directory of the link.
func (c *Channel) Where(link string) string { return filepath.Join(c.root, link) }

// Watch implements keys.Channel. A file renamed in is delivered within
// milliseconds; what inotify cannot see, at the next rescan.
func (c *Channel) Watch(ctx context.Context, link string, deliver func(keys.Snapshot)) error {
	if err := keys.ValidLink(link); err != nil {
		return err
	}
	ticks := c.opts.Ticks
	if ticks == nil {
		t := time.NewTicker(c.opts.Rescan)
		defer t.Stop()
		ticks = t.C
	}
	said := ""
	say := func(err error) {
		// Slower, but not lost: the limits of inotify are easily reached. Once is
		// enough: it is tried again with every change.
		if err != nil && err.Error() != said {
			said = err.Error()
			c.opts.Log.Warn("cannot watch keys, rescanning instead", "link", link, "path", c.Where(link), "interval", c.opts.Rescan, "error", err)
		}
	}
	s, err := c.hub.join()
	if err != nil {
		say(err)
		s = &subscriber{} // Never kicked.
	}
	defer c.hub.leave(s)

	delivered := ""
	for {
		// Watch first, look second: what changes in between is notified. The
		// signature is older than the listing, so that it errs towards looking again.
		say(c.arm(s, link))
		looked := signature(c.root, link)
		snapshot := Scan(c.root, link).Snapshot()
		d := snapshot.Digest() // of what there is, for what is revoked may be far ahead
		again := snapshot.LimitPrefetch(c.opts.Now())
		d += again.String()
		if d != delivered {
			delivered = d
			deliver(snapshot)
		} else {
			snapshot.Erase()
		}
		if !c.wait(ctx, s, ticks, link, looked, again) {
			return nil
		}
	}
}

// wait returns true when the directory must be read again, since it has changed or
// since more of it may be delivered, false when ctx is done.
func (c *Channel) wait(ctx context.Context, s *subscriber, ticks <-chan time.Time, link, looked string, again time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-s.kick:
			return true
		case <-ticks:
			if signature(c.root, link) != looked || !again.IsZero() && !c.opts.Now().Before(again) {
				return true
			}
		}
	}
}

// arm makes s follow the directories whose changes matter: the link's, the root,
// and while there is no root the nearest directory above it that exists. A
// directory may appear between looking and watching, so it looks again.
func (c *Channel) arm(s *subscriber, link string) error {
	var err error
	for range 8 {
		want := c.existing(link)
		err = c.hub.follow(s, want)
		if slices.Equal(want, c.existing(link)) {
			break
		}
	}
	return err
}

func (c *Channel) existing(link string) []string {
	isDir := func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && info.IsDir()
	}
	var dirs []string
	if d := c.Where(link); isDir(d) {
		dirs = append(dirs, d)
	}
	for d := c.root; ; d = filepath.Dir(d) {
		if isDir(d) {
			return append(dirs, d)
		}
		if d == filepath.Dir(d) {
			return dirs
		}
	}
}

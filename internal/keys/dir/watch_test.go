package dir_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/dir"
)

// watched runs Watch and hands out what it delivers.
type watched struct {
	t         *testing.T
	snapshots chan keys.Snapshot
	ticks     chan<- time.Time // nil: no rescans
	stop      context.CancelFunc
	ended     chan error
}

func watch(t *testing.T, c *dir.Channel, link string) *watched {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watched{t: t, snapshots: make(chan keys.Snapshot), stop: cancel, ended: make(chan error, 1)}
	go func() {
		w.ended <- c.Watch(ctx, link, func(s keys.Snapshot) {
			select {
			case w.snapshots <- s:
			case <-ctx.Done():
				s.Erase()
			}
		})
	}()
	t.Cleanup(w.end)
	return w
}

func (w *watched) end() {
	if w.ended == nil {
		return
	}
	w.stop()
	if err := <-w.ended; err != nil {
		w.t.Errorf("Watch: %v", err)
	}
	w.ended = nil
}

// until takes snapshots until one satisfies ok; intermediate ones are legitimate.
// Meanwhile it offers rescans, if the test has any. There is no time limit but
// the test binary's own.
func (w *watched) until(ok func(keys.Snapshot) bool) keys.Snapshot {
	for {
		select {
		case s := <-w.snapshots:
			if ok(s) {
				return s
			}
			s.Erase()
		case w.ticks <- time.Time{}:
		}
	}
}

func (w *watched) has(want ...string) {
	w.t.Helper()
	w.until(func(s keys.Snapshot) bool {
		var got []keys.Epoch
		for e := range s.Keys {
			got = append(got, e)
		}
		slices.SortFunc(got, keys.Epoch.Compare)
		return !s.Unavailable && slices.Equal(spell(got), want)
	}).Erase()
}

// never is a rescan that does not come: what these tests see, inotify told.
var never = make(chan time.Time)

func TestWatchFollowsChanges(t *testing.T) {
	root := filepath.Join(t.TempDir(), "not", "yet")
	d := filepath.Join(root, link)
	w := watch(t, dir.New(root, dir.Options{Ticks: never}), link)
	if s := <-w.snapshots; !s.Unavailable || s.Findings[0].Code != health.ChannelUnreadable {
		t.Fatalf("before the root exists: %+v", s)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	w.has()
	if err := os.Mkdir(d, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(d, "1.0.key"), digits+"\n", 0o600)
	w.has("1.0")
	put(t, filepath.Join(d, "2.0.key"), digits+"\n", 0o600)
	w.has("1.0", "2.0")

	// Other permissions are noticed, and are no revocation.
	if err := os.Chmod(filepath.Join(d, "1.0.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.until(func(s keys.Snapshot) bool { return s.Present[epoch(t, "1.0")] && len(s.Keys) == 1 })
	if err := os.Remove(filepath.Join(d, "1.0.key")); err != nil {
		t.Fatal(err)
	}
	w.has("2.0")

	// The link's directory is replaced as a whole, and the root after it.
	if err := os.Rename(d, filepath.Join(filepath.Dir(root), "old")); err != nil {
		t.Fatal(err)
	}
	w.has()
	if err := os.Mkdir(d, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(d, "3.0.key"), digits+"\n", 0o600)
	w.has("3.0")
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	w.until(func(s keys.Snapshot) bool { return s.Unavailable })
	if err := os.MkdirAll(d, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(d, "4.0.key"), digits+"\n", 0o600)
	w.has("4.0")
}

func TestWatchSeesContentRewrittenInPlace(t *testing.T) {
	root, d := newRoot(t)
	path := filepath.Join(d, "1.0.key")
	put(t, path, digits+"\n", 0o600)
	w := watch(t, dir.New(root, dir.Options{Ticks: never}), link)
	before := (<-w.snapshots).Keys[epoch(t, "1.0")].Fingerprint()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("ff"), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	w.until(func(s keys.Snapshot) bool {
		m, ok := s.Keys[epoch(t, "1.0")]
		return ok && m.Fingerprint() != before
	})
}

// Without inotify, as on files that another kernel changes, the rescan sees
// everything, and says nothing when nothing changed.
func TestRescanIsTheSafetyNet(t *testing.T) {
	root, d := newRoot(t)
	ticks := make(chan time.Time)
	c := dir.New(root, dir.Options{Ticks: ticks})
	dir.SetDial(c, func() (*fsnotify.Watcher, error) { return nil, errors.New("no inotify here") })
	w := watch(t, c, link)
	w.has()
	for range 3 { // The next tick is taken only after the one before was looked at.
		select {
		case ticks <- time.Time{}:
		case s := <-w.snapshots:
			t.Fatalf("a rescan of nothing new delivered %+v", s)
		}
	}
	w.ticks = ticks
	put(t, filepath.Join(d, "7.0.key"), digits+"\n", 0o600)
	w.has("7.0")
	if err := os.Chmod(filepath.Join(d, "7.0.key"), 0o640); err != nil {
		t.Fatal(err)
	}
	w.until(func(s keys.Snapshot) bool { return s.Present[epoch(t, "7.0")] })
	if err := os.Remove(filepath.Join(d, "7.0.key")); err != nil {
		t.Fatal(err)
	}
	w.has()
}

// Of what has not started, two epochs are delivered, and the next when one has.
func TestNoMoreThanTwoEpochsAhead(t *testing.T) {
	root := t.TempDir()
	d := filepath.Join(root, link)
	if err := os.Mkdir(d, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"30000000.0", "30000010.0", "30000020.0", "30000030.0"} {
		put(t, filepath.Join(d, name+".key"), digits+"\n", 0o600)
	}
	var minute atomic.Int64
	minute.Store(30000000)
	ticks := make(chan time.Time)
	w := watch(t, dir.New(root, dir.Options{Ticks: ticks, Now: func() time.Time { return time.Unix(minute.Load()*60, 0) }}), link)
	w.ticks = ticks
	w.has("30000000.0", "30000010.0", "30000020.0")
	minute.Store(30000010)
	w.has("30000000.0", "30000010.0", "30000020.0", "30000030.0")
}

func TestLinksShareAChannel(t *testing.T) {
	root, _ := newRoot(t)
	dials := 0
	c := dir.New(root, dir.Options{Ticks: never})
	dir.SetDial(c, func() (*fsnotify.Watcher, error) { dials++; return fsnotify.NewWatcher() })
	links := []string{link, "l2", "l3"}
	var ws []*watched
	for _, l := range links {
		w := watch(t, c, l)
		w.has()
		ws = append(ws, w)
	}
	for i, l := range links {
		if _, err := dir.Issue(root, l, i+1); err != nil {
			t.Fatal(err)
		}
	}
	ws[0].has("1.0")
	ws[1].has("1.0", "2.0")
	// One that leaves takes nothing from the others.
	ws[0].end()
	ws[2].has("1.0", "2.0", "3.0")
	if _, err := dir.Revoke(root, "l3", epoch(t, "2.0")); err != nil {
		t.Fatal(err)
	}
	ws[2].has("1.0", "3.0")
	if dials != 1 {
		t.Errorf("%d inotify instances for %d links", dials, len(links))
	}
	ws[1].end()
	ws[2].end()
	again := watch(t, c, link)
	again.has("1.0")
	if dials != 2 {
		t.Errorf("%d inotify instances after everybody had left", dials)
	}
}

// Both channels of a link, through the ring's own Watch.
func TestBothChannels(t *testing.T) {
	rootA, _ := newRoot(t)
	rootB, _ := newRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	out := make(chan keys.Delivery)
	ended := make(chan error, 1)
	go func() {
		ended <- keys.Watch(ctx, link, dir.New(rootA, dir.Options{Ticks: never}), dir.New(rootB, dir.Options{Ticks: never}), out)
	}()
	ring, err := keys.NewRing(keys.Identity{Link: link, Nodes: []string{"r1", "r2"}}, keys.State{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{rootA, rootB} {
		if _, err := dir.Issue(root, link, 1); err != nil {
			t.Fatal(err)
		}
	}
	for d := range out {
		if c := ring.Update(d.Side, d.Snapshot, time.Unix(1, 0)); len(c.Offers) == 1 {
			if len(c.Findings) != 0 {
				t.Errorf("findings %+v", c.Findings)
			}
			break
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	ring.Close()
}

// Package watch tells when files may have changed and have settled since.
//
// What belongs here: what the file system says of a file or a directory of files,
// wherever symbolic links lead to, and when it says something else. What does not:
// what is in them, and what follows from that. Channels watch for themselves, for
// a key must not wait until others have settled.
package watch

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

const (
	// Rescan is how often the files are looked at although nothing was notified:
	// inotify sees nothing of what another kernel changes.
	Rescan = 2 * time.Second
	// Settles is how long they must stay the same before they are judged: an
	// editor or a deployment writes several files, one after the other.
	Settles = 300 * time.Millisecond
)

// Signature tells whether what is at a path may have changed: a file, or a
// directory and the *.yaml and *.yml files in it. It is made of what the file
// system says of each, wherever symbolic links lead to, and errs towards a change:
// the time at which an inode was changed cannot be set.
func Signature(path string) string {
	var b strings.Builder
	say := func(name string) {
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil {
			fmt.Fprintf(&b, "%q %v\n", name, err)
			return
		}
		fmt.Fprintf(&b, "%q %d:%d %d %d.%09d\n", name, st.Dev, st.Ino, st.Size, st.Ctim.Sec, st.Ctim.Nsec)
	}
	say(path)
	entries, err := os.ReadDir(path)
	if err != nil {
		return b.String() // a file, or nothing
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext == ".yaml" || ext == ".yml" {
			say(filepath.Join(path, e.Name()))
		}
	}
	return b.String()
}

// Settled sends on changed whenever what is at path may have changed and has
// settled since, until ctx ends. Seen is the Signature of what is known already. A
// kick means: look now.
func Settled(ctx context.Context, path, seen string, kicks <-chan struct{}, changed chan<- struct{}) {
	rescan := time.NewTicker(Rescan)
	defer rescan.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-kicks:
		case <-rescan.C:
		}
		now := Signature(path)
		if now == seen {
			continue
		}
		for {
			settle := time.NewTimer(Settles)
			select {
			case <-ctx.Done():
				settle.Stop()
				return
			case <-settle.C:
			}
			again := Signature(path)
			if again == now {
				break
			}
			now = again
		}
		seen = now
		select {
		case changed <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// Notify kicks when something in one of the directories of path changes, so that
// Settled sees it at once, until ctx ends. Without inotify it sees it at the next
// rescan.
func Notify(ctx context.Context, path string, log *slog.Logger, kicks chan<- struct{}) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("cannot watch files, rescanning instead", "path", path, "interval", Rescan.String(), "error", err)
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = w.Close() })
	defer stop()
	kick := func() {
		select {
		case kicks <- struct{}{}:
		default: // one is pending already
		}
	}
	watched := map[string]os.FileInfo{}
	for {
		// Watch first, look second. inotify watches the inode and we mean the path:
		// what was replaced is watched anew.
		follow(w, path, watched)
		kick()
		select {
		case _, ok := <-w.Events:
			if !ok {
				return
			}
		case _, ok := <-w.Errors: // most likely the queue overflowed
			if !ok {
				return
			}
		}
	}
}

// follow has w watch the directories in which something can change: the path's own,
// the one above, and those that symbolic links lead to. Watched is what it watches.
func follow(w *fsnotify.Watcher, path string, watched map[string]os.FileInfo) {
	want := directories(path)
	for have := range watched {
		if !slices.Contains(want, have) {
			_ = w.Remove(have)
			delete(watched, have)
		}
	}
	for _, d := range want {
		info, err := os.Stat(d)
		if old := watched[d]; err == nil && old != nil && os.SameFile(old, info) {
			continue
		}
		_ = w.Remove(d)
		delete(watched, d)
		if err == nil && w.Add(d) == nil {
			watched[d] = info // what cannot be watched is rescanned
		}
	}
}

// directories are those whose entries decide what path stands for.
func directories(path string) (dirs []string) {
	add := func(name string) {
		abs, err := filepath.Abs(name)
		if err != nil {
			return
		}
		for range 40 { // as many links as the kernel follows
			if d := filepath.Dir(abs); !slices.Contains(dirs, d) {
				dirs = append(dirs, d)
			}
			to, err := os.Readlink(abs)
			if err != nil {
				break
			}
			if !filepath.IsAbs(to) {
				to = filepath.Join(filepath.Dir(abs), to)
			}
			abs = to
		}
		if info, err := os.Stat(abs); err == nil && info.IsDir() && !slices.Contains(dirs, abs) {
			dirs = append(dirs, abs)
		}
	}
	add(path)
	entries, err := os.ReadDir(path)
	if err != nil {
		return dirs
	}
	for _, e := range entries {
		if e.Type()&os.ModeSymlink != 0 {
			add(filepath.Join(path, e.Name()))
		}
	}
	return dirs
}

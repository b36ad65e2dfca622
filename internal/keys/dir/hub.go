package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// hub shares one inotify instance between the links of a channel: a node may
// have hundreds of links, a user 128 instances. The instance lives as long as
// there is a subscriber.
type hub struct {
	// dial is fsnotify.NewWatcher unless a test says otherwise.
	dial func() (*fsnotify.Watcher, error)

	mu      sync.Mutex
	watcher *fsnotify.Watcher
	ended   chan struct{}
	members map[*subscriber]bool
	dirs    map[string]*followed
}

// followed is one watched directory.
type followed struct {
	// info is the directory as it was when the watch was added; nil when the watch
	// is known to be gone. inotify watches the inode, we mean the path.
	info fs.FileInfo
	by   map[*subscriber]bool
}

// subscriber is one link's interest. A kick means: look again.
type subscriber struct{ kick chan struct{} }

func (s *subscriber) wake() {
	select {
	case s.kick <- struct{}{}:
	default: // One is pending already.
	}
}

func (h *hub) join() (*subscriber, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watcher == nil {
		dial := h.dial
		if dial == nil {
			dial = fsnotify.NewWatcher
		}
		w, err := dial()
		if err != nil {
			return nil, fmt.Errorf("opening inotify: %w; raise fs.inotify.max_user_instances", err)
		}
		h.watcher, h.ended = w, make(chan struct{})
		h.members, h.dirs = make(map[*subscriber]bool), make(map[string]*followed)
		go h.run(w, h.ended)
	}
	s := &subscriber{kick: make(chan struct{}, 1)}
	h.members[s] = true
	return s, nil
}

// leave ends a subscription, and with the last one the inotify instance; it
// returns only when the reading goroutine has ended.
func (h *hub) leave(s *subscriber) {
	h.mu.Lock()
	if !h.members[s] {
		h.mu.Unlock()
		return
	}
	_ = h.setDirs(s, nil)
	delete(h.members, s)
	if len(h.members) > 0 {
		h.mu.Unlock()
		return
	}
	w, ended := h.watcher, h.ended
	h.watcher = nil
	h.mu.Unlock()
	_ = w.Close()
	<-ended
}

// follow makes dirs the directories that wake s.
func (h *hub) follow(s *subscriber, dirs []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.members[s] {
		return nil
	}
	return h.setDirs(s, dirs)
}

func (h *hub) setDirs(s *subscriber, dirs []string) error {
	var errs []error
	wanted := make(map[string]bool, len(dirs))
	for _, d := range dirs {
		wanted[d] = true
		f := h.dirs[d]
		if f == nil {
			f = &followed{by: make(map[*subscriber]bool)}
			h.dirs[d] = f
		}
		f.by[s] = true
		info, err := os.Stat(d)
		if err != nil {
			f.info = nil
			continue // Gone again: the caller looks again.
		}
		if f.info != nil && os.SameFile(f.info, info) {
			continue
		}
		_ = h.watcher.Remove(d)
		f.info = nil
		switch err := h.watcher.Add(d); {
		case err == nil:
			f.info = info
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("watching %s: %w", d, err))
		}
	}
	for d, f := range h.dirs {
		if wanted[d] || !f.by[s] {
			continue
		}
		delete(f.by, s)
		if len(f.by) == 0 {
			_ = h.watcher.Remove(d)
			delete(h.dirs, d)
		}
	}
	return errors.Join(errs...)
}

func (h *hub) run(w *fsnotify.Watcher, ended chan struct{}) {
	defer close(ended)
	for {
		select {
		case ev, ok := <-w.Events:
			if !ok {
				return
			}
			h.dispatch(ev)
		case _, ok := <-w.Errors:
			if !ok {
				return
			}
			// Most likely the queue overflowed: anything may have changed.
			h.mu.Lock()
			for s := range h.members {
				s.wake()
			}
			h.mu.Unlock()
		}
	}
}

func (h *hub) dispatch(ev fsnotify.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.dirs[ev.Name]; f != nil {
		if ev.Has(fsnotify.Remove) || ev.Has(fsnotify.Rename) {
			f.info = nil
		}
		for s := range f.by {
			s.wake()
		}
	}
	if f := h.dirs[filepath.Dir(ev.Name)]; f != nil {
		for s := range f.by {
			s.wake()
		}
	}
}

package agent

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/lever-link/lever/internal/keys"
)

// recordPatience is how long a link waits for the disk. A State is written before
// what it is about is used, as long as the disk takes it: this is many times what
// a disk needs that is well, and little against the life of a peer. A disk that
// needs longer is a fault and costs the link nothing else.
const recordPatience = 250 * time.Millisecond

// recorder is a keys.Store that nobody gets stuck on. Reads and writes are done beside
// the caller, one a link at a time, and waited for with a limit; a write that takes
// longer goes on, and is followed by one of the newest State. What was given to
// Save is what Load returns from then on, whatever the disk has of it, so that a
// link that starts again in this process never goes back, and what was loaded ages
// by the clock that nobody can set.
type recorder struct {
	under keys.States
	wall  func() time.Time // by which the age of a key was measured before this process

	mu    sync.Mutex
	links map[string]*remembered
}

// remembered is what is known of one link.
type remembered struct {
	state keys.State
	known bool          // state is the link's: it was loaded or given to Save
	fresh bool          // the disk has it
	err   error         // of the last write
	busy  chan struct{} // closed when what is under way has ended; nil: nothing is
	// reading is closed when the disk has answered; nil: it is not asked.
	reading chan struct{}
}

// newRecorder puts a recorder in front of a keys.Store.
func newRecorder(under keys.States) *recorder {
	return &recorder{under: under, wall: time.Now, links: map[string]*remembered{}}
}

func (r *recorder) link(link string) *remembered {
	l := r.links[link]
	if l == nil {
		l = &remembered{}
		r.links[link] = l
	}
	return l
}

// Load implements keys.States: the State that was last loaded or saved, or else the
// disk's. While that is not known, the error says so, of a State that was saved, too.
func (r *recorder) Load(link string) (keys.State, error) {
	r.mu.Lock()
	l := r.link(link)
	if l.known || l.reading != nil { // that was waited for already
		defer r.mu.Unlock()
		if l.reading != nil {
			return l.state.Clone(), unread(link)
		}
		return l.state.Clone(), nil
	}
	reading := make(chan struct{})
	l.reading = reading
	var state keys.State
	var err error
	r.mu.Unlock()
	go func() {
		state, err = keys.State{}, errWriterEnded
		defer func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			if err == nil { // what was saved meanwhile waits for this to be written
				l.fresh = !l.known
				l.state, l.known = l.state.Merge(state), true
			}
			l.reading = nil
			close(reading)
		}()
		state, err = r.under.Load(link)
		state = state.Anchor(time.Now(), r.wall())
	}()
	patience := time.NewTimer(recordPatience)
	defer patience.Stop()
	select {
	case <-reading:
		return state, err
	case <-patience.C:
		return keys.State{}, unread(link)
	}
}

// Save implements keys.States: it has a State written, and returns nil once it is on the disk. An error says
// that it is not, or not yet: the same State again asks how it stands, and writes
// it again if that has failed. Nothing lowers a mark: what the disk turns out to have, or
// another Ring of the link has saved, stays.
func (r *recorder) Save(link string, state keys.State) error {
	r.mu.Lock()
	l := r.link(link)
	if l.known && state.HighWater.Less(l.state.HighWater) {
		defer r.mu.Unlock()
		return fmt.Errorf("recording the confirmed epoch of link %q: a later one is on record, %s", link, l.state.HighWater)
	}
	state = state.Merge(l.state)
	if !l.known || !reflect.DeepEqual(l.state, state) {
		l.state, l.known, l.fresh = state, true, false
	}
	if l.fresh {
		r.mu.Unlock()
		return nil
	}
	if l.busy != nil { // it was waited for already
		r.mu.Unlock()
		return slow(link)
	}
	busy := make(chan struct{})
	l.busy = busy
	r.mu.Unlock()
	go r.write(link, l)

	patience := time.NewTimer(recordPatience)
	defer patience.Stop()
	select {
	case <-busy:
		r.mu.Lock()
		defer r.mu.Unlock()
		return l.err
	case <-patience.C:
		return slow(link)
	}
}

// Durable implements keys.States.
func (r *recorder) Durable(link string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch l := r.link(link); {
	case !l.known || l.fresh:
		return nil
	case l.busy != nil:
		return slow(link)
	default:
		return l.err
	}
}

func unread(link string) error {
	return fmt.Errorf("reading the confirmed epoch of link %q: the disk has not answered within %v", link, recordPatience)
}

func slow(link string) error {
	return fmt.Errorf("recording the confirmed epoch of link %q: the disk has not taken it within %v", link, recordPatience)
}

// errWriterEnded is what comes of a write whose goroutine was ended.
var _ keys.States = (*recorder)(nil)

var errWriterEnded = errors.New("it was broken off")

// write writes the newest State until the disk has it or fails.
func (r *recorder) write(link string, l *remembered) {
	err := errWriterEnded
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		l.err = err
		close(l.busy)
		l.busy = nil
	}()
	r.mu.Lock()
	reading := l.reading
	r.mu.Unlock()
	if reading != nil {
		<-reading
	}
	for {
		r.mu.Lock()
		state := l.state.Clone()
		r.mu.Unlock()
		if err = r.under.Save(link, state); err != nil {
			return
		}
		r.mu.Lock()
		l.fresh = reflect.DeepEqual(l.state, state)
		done := l.fresh
		r.mu.Unlock()
		if done {
			return
		}
		err = errWriterEnded
	}
}

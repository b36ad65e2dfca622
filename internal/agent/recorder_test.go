//go:build !kernel

package agent

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
)

// disk is a store that a test stops or fills.
type disk struct {
	mu    sync.Mutex
	text  map[string]keys.State
	wait  chan struct{} // if not nil: what every call waits for
	full  error
	saves int
}

func (d *disk) hold() error {
	d.mu.Lock()
	wait := d.wait
	d.mu.Unlock()
	if wait != nil {
		<-wait
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.full
}

// Load implements keys.States.
func (d *disk) Load(link string) (keys.State, error) {
	err := d.hold()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text[link], err
}

// Save implements keys.States.
func (d *disk) Save(link string, s keys.State) error {
	err := d.hold()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.saves++
	if err == nil {
		d.text[link] = s
	}
	return err
}

// Durable implements keys.States.
func (*disk) Durable(string) error { return nil }

func (d *disk) set(wait chan struct{}, full error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wait, d.full = wait, full
}

func (d *disk) holds(link string) keys.Epoch {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text[link].HighWater
}

func mark(n uint64) keys.State { return keys.State{HighWater: keys.Epoch{Number: n}} }

func TestRecorderIsDurableWhenTheDiskIsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{text: map[string]keys.State{"l1": mark(3)}}
		r := newRecorder(d)
		if s, err := r.Load("l1"); err != nil || s.HighWater.Number != 3 {
			t.Errorf("%v, %v", s, err)
		}
		for n := uint64(4); n < 8; n++ {
			if err := r.Save("l1", mark(n)); err != nil || d.holds("l1").Number != n {
				t.Errorf("after Save %d, %v, the disk holds %v", n, err, d.holds("l1"))
			}
		}
		if err := r.Save("l1", mark(7)); err != nil || d.saves != 4 {
			t.Errorf("what is on the disk was written again: %d, %v", d.saves, err)
		}
	})
}

func TestRecorderIsNotStuckOnTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{text: map[string]keys.State{}}
		r := newRecorder(d)
		stuck := make(chan struct{})
		d.set(stuck, nil)
		began := time.Now()
		for n := uint64(1); n < 9; n++ {
			if err := r.Save("l1", mark(n)); err == nil || !strings.Contains(err.Error(), `"l1": the disk has not taken it`) {
				t.Errorf("Save %d: %v", n, err)
			}
		}
		if took := time.Since(began); took > 300*time.Millisecond {
			t.Errorf("the link was held up for %v", took)
		}
		if err := r.Save("l2", mark(1)); err == nil {
			t.Error("a stuck disk has taken another link's")
		}
		// Who asks meanwhile hears what was said last, not what the disk has.
		if s, err := r.Load("l1"); err != nil || s.HighWater.Number != 8 {
			t.Errorf("Load: %v, %v", s, err)
		}
		close(stuck)
		synctest.Wait()
		if n := d.holds("l1").Number; n != 8 {
			t.Errorf("the disk holds %d in the end", n)
		}
		if err := r.Save("l1", mark(8)); err != nil {
			t.Errorf("asked again: %v", err)
		}
		if d.saves > 3 {
			t.Errorf("%d writes of what nobody wants any more", d.saves)
		}
	})
}

func TestRecorderTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{text: map[string]keys.State{}}
		r := newRecorder(d)
		full := errors.New("no space left on device")
		d.set(nil, full)
		for range 3 {
			if err := r.Save("l1", mark(1)); !errors.Is(err, full) {
				t.Errorf("Save: %v", err)
			}
		}
		d.set(nil, nil)
		if err := r.Save("l1", mark(1)); err != nil || d.holds("l1").Number != 1 {
			t.Errorf("Save: %v", err)
		}
	})
}

func TestRecorderReadsWithALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{text: map[string]keys.State{"l1": mark(5)}}
		r := newRecorder(d)
		stuck := make(chan struct{})
		d.set(stuck, nil)
		if _, err := r.Load("l1"); err == nil || !strings.Contains(err.Error(), "the disk has not answered") {
			t.Errorf("Load: %v", err)
		}
		close(stuck)
		synctest.Wait()
		if s, err := r.Load("l1"); err != nil || s.HighWater.Number != 5 {
			t.Errorf("Load: %v, %v", s, err)
		}
	})
}

// TestRingOnAStuckDisk has a whole Ring go on while nothing can be written, say so,
// and say when that is over.
func TestRingOnAStuckDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{text: map[string]keys.State{}}
		r := newRecorder(d)
		ring, err := keys.OpenRing(keys.Identity{Link: "l1", Nodes: []string{"r1", "r2"}}, r)
		if err != nil {
			t.Fatal(err)
		}
		stuck := make(chan struct{})
		d.set(stuck, nil)
		e := keys.Epoch{Number: 1}
		material := func(fill byte) keys.Snapshot {
			return keys.NewSnapshot("here", map[keys.Epoch][]byte{e: []byte(strings.Repeat(string(fill), 40))})
		}
		ring.Update(keys.A, material('a'), time.Now())
		c := ring.Update(keys.B, material('b'), time.Now())
		if len(c.Offers) != 1 || len(c.Findings) != 1 || c.Findings[0].Code != health.StateUnwritable {
			t.Errorf("%+v", c)
		}
		began := time.Now()
		for range 100 {
			c = ring.Retry(time.Now())
		}
		c = ring.Confirm(e, time.Now())
		if took := time.Since(began); took != 0 || len(c.Offers) != 1 {
			t.Errorf("it was held up for %v: %+v", took, c)
		}
		// Opened again in this process, it remembers what the disk does not have yet.
		again, err := keys.OpenRing(keys.Identity{Link: "l1", Nodes: []string{"r1", "r2"}}, r)
		if err != nil || again.HighWater() != e {
			t.Errorf("opened again: %v, %v", again.HighWater(), err)
		}
		if c := again.Retry(time.Now()); !slices.ContainsFunc(c.Findings, func(f keys.Finding) bool { return f.Code == health.StateUnwritable }) {
			t.Errorf("opened again, it says %+v", c.Findings)
		}
		close(stuck)
		synctest.Wait()
		if c = ring.Retry(time.Now()); len(c.Findings) != 0 || d.holds("l1") != e {
			t.Errorf("afterwards: %+v, and the disk holds %v", c.Findings, d.holds("l1"))
		}
		ring.Close()
	})
}

// A disk that answers late once does not have the mark go back: neither what the Ring
// confirms meanwhile nor what it goes on with lowers what is on record.
func TestRecorderIsReadLate(t *testing.T) {
	nine, five := keys.Epoch{Number: 9}, keys.Epoch{Number: 5}
	for _, confirmedMeanwhile := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			answers := make(chan struct{})
			d := &disk{text: map[string]keys.State{"l1": mark(9)}, wait: answers}
			r := newRecorder(d)
			ring, err := keys.OpenRing(keys.Identity{Link: "l1", Nodes: []string{"r1", "r2"}}, r)
			if err != nil {
				t.Fatal(err)
			}
			old := func(side keys.Side) keys.Snapshot {
				return keys.NewSnapshot("x", map[keys.Epoch][]byte{five: octets(five, side), nine: octets(nine, side)})
			}
			codes := func(c keys.Change) (all []health.Code) {
				for _, f := range c.Findings {
					all = append(all, f.Code)
				}
				return all
			}
			ring.Update(keys.A, old(keys.A), time.Now())
			c := ring.Update(keys.B, old(keys.B), time.Now())
			if len(c.Offers) != 2 || !slices.Equal(codes(c), []health.Code{health.StateUnreadable}) {
				t.Fatalf("before the disk answers: %d offers, %v", len(c.Offers), codes(c))
			}
			if confirmedMeanwhile {
				c = ring.Confirm(five, time.Now())
				if !slices.Equal(codes(c), []health.Code{health.StateUnreadable, health.StateUnwritable}) {
					t.Errorf("confirmed before the disk answers: %v", codes(c))
				}
			}
			d.set(nil, nil)
			close(answers)
			synctest.Wait()
			if !confirmedMeanwhile {
				c = ring.Confirm(five, time.Now())
			} else {
				c = ring.Retry(time.Now())
			}
			if len(c.Offers) != 1 || c.Offers[0].Epoch != nine || ring.HighWater() != nine || len(codes(c)) != 0 {
				t.Errorf("when the disk has answered: mark %v, %d offers, %v", ring.HighWater(), len(c.Offers), codes(c))
			}
			synctest.Wait()
			if on := d.holds("l1"); on != nine {
				t.Errorf("the disk holds %v", on)
			}
		})
	}
}

// Another Ring of the link, such as that of a task that was left behind, lowers nothing.
func TestRecorderLowersNoMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{text: map[string]keys.State{}}
		r := newRecorder(d)
		if err := r.Save("l1", mark(9)); err != nil {
			t.Fatal(err)
		}
		if err := r.Save("l1", mark(5)); err == nil || d.holds("l1").Number != 9 {
			t.Errorf("a lower mark: %v; the disk holds %v", err, d.holds("l1"))
		}
	})
}

// What a Ring has forgotten, since a channel makes one generation after the other, the
// recorder does not keep for it.
func TestRecorderIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{text: map[string]keys.State{}}
		r := newRecorder(d)
		const most = 1024
		for first := uint32(1); first < 4*most; first += most / 2 {
			s := keys.State{Seen: map[keys.Epoch][2]keys.Fingerprint{}}
			for g := range uint32(most) {
				s.Seen[keys.Epoch{Number: 1, Generation: first + g}] = [2]keys.Fingerprint{}
			}
			if err := r.Save("l1", s); err != nil {
				t.Fatal(err)
			}
			loaded, err := r.Load("l1")
			if err != nil || !maps.Equal(loaded.Seen, s.Seen) || !maps.Equal(d.text["l1"].Seen, s.Seen) {
				t.Fatalf("%d epochs are remembered, and %d on the disk, of %d from %d on: %v", len(loaded.Seen), len(d.text["l1"].Seen), most, first, err)
			}
		}
	})
}

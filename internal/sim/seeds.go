package sim

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lever-link/lever/internal/simlink"
)

// Result is what became of one seed.
type Result struct {
	Seed     uint64
	Members  int
	Failures []string
	Tally    Tally
}

// Tally adds up what happened in runs.
type Tally struct {
	Runs        int
	Simulated   time.Duration // of segments
	Memberships time.Duration // of members
	Calms, SAKs int
	Frames      simlink.Counts
	Data        DataCounts
	Faults      [faultKinds]uint64
	Worst       time.Duration // from the last fault to secured
	WorstSeed   uint64
}

func (t *Tally) add(o *Tally) {
	t.Runs += o.Runs
	t.Simulated += o.Simulated
	t.Memberships += o.Memberships
	t.Calms += o.Calms
	t.SAKs += o.SAKs
	t.Data.Sent += o.Data.Sent
	t.Data.Delivered += o.Data.Delivered
	t.Data.Expected += o.Data.Expected
	t.Frames.Sent += o.Frames.Sent
	t.Frames.Lost += o.Frames.Lost
	t.Frames.Duplicated += o.Frames.Duplicated
	t.Frames.Reordered += o.Frames.Reordered
	t.Frames.Corrupted += o.Frames.Corrupted
	t.Frames.Delayed += o.Frames.Delayed
	t.Frames.CutAway += o.Frames.CutAway
	for i := range t.Faults {
		t.Faults[i] += o.Faults[i]
	}
	if o.Worst > t.Worst {
		t.Worst, t.WorstSeed = o.Worst, o.WorstSeed
	}
}

// String is the figures of many runs in a few lines.
func (t *Tally) String() string {
	var b strings.Builder
	var n uint64
	for _, x := range t.Faults {
		n += x
	}
	fmt.Fprintf(&b, "%.0f link-hours (%.0f member-hours), %d faults, %d calms survived, at worst secured after %.1f s (seed %d), %d SAKs\n",
		t.Simulated.Hours(), t.Memberships.Hours(), n, t.Calms, t.Worst.Seconds(), t.WorstSeed, t.SAKs)
	b.WriteString("faults:")
	sep := " "
	for i, x := range t.Faults {
		if x > 0 {
			fmt.Fprintf(&b, "%s%s %d", sep, faultNames[i], x)
			sep = ", "
		}
	}
	f := &t.Frames
	fmt.Fprintf(&b, "\nframes: %d sent, %d lost, %d duplicated, %d overtaken, %d corrupted, %d delayed, %d cut away",
		f.Sent, f.Lost, f.Duplicated, f.Reordered, f.Corrupted, f.Delayed, f.CutAway)
	fmt.Fprintf(&b, "\ndata: %d frames sealed, %d delivered, %d of them between ends of which nothing excused a loss", t.Data.Sent, t.Data.Delivered, t.Data.Expected)
	return b.String()
}

// Run makes an hour of a seed and runs it. Look, if not nil, is given the Hour first.
func Run(seed uint64, members int, length time.Duration, look func(*Hour)) (r Result) {
	h := NewHour(seed, members, length)
	if look != nil {
		look(h)
	}
	defer func() {
		if p := recover(); p != nil {
			buf := make([]byte, 4096)
			h.fail("panic: %v\n%s", p, buf[:runtime.Stack(buf, false)])
		}
		r = Result{Seed: seed, Members: len(h.Members), Failures: h.Failures, Tally: Tally{
			Runs: 1, Simulated: h.Since(), Memberships: h.Since() * time.Duration(len(h.Members)), Calms: h.Calms, SAKs: h.SAKs,
			Frames: h.Segment.Counts, Data: h.DataFrames(), Faults: h.Faults, Worst: h.worst, WorstSeed: seed,
		}}
	}()
	h.Run()
	return r
}

// Seeds runs n seeds from first on, on all processors, until stop says so after one
// of them. It returns what they come to, and the failed ones.
func Seeds(first, n uint64, members int, length time.Duration, stop func(Result) bool) (Tally, []Result) {
	var (
		next    atomic.Uint64
		stopped atomic.Bool
		mu      sync.Mutex
		workers sync.WaitGroup
		total   Tally
		failed  []Result
	)
	for range min(uint64(runtime.GOMAXPROCS(0)), n) {
		workers.Go(func() {
			for !stopped.Load() {
				i := next.Add(1) - 1
				if i >= n {
					return
				}
				r := Run(first+i, members, length, nil)
				mu.Lock()
				total.add(&r.Tally)
				if len(r.Failures) > 0 {
					failed = append(failed, r)
				}
				if stop != nil && stop(r) {
					stopped.Store(true)
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return total, failed
}

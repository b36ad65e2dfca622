//go:build !kernel

package agent

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var crashAll = flag.Bool("crash.all", false, "crash at every step, not at a sample of them")

// flow sends frames of data both ways, every millisecond when it looks closely and
// every ten otherwise, and counts what is lost from when the link first carried both.
type flow struct {
	done chan struct{}
	once sync.Once
	wg   sync.WaitGroup

	every chan time.Duration

	mu      sync.Mutex
	carried bool
	sent    int
	lost    []string
}

func (p *pair) flow() *flow {
	return newFlow(p.r1.t, func() error { return p.r1.send(p.r2) }, func() error { return p.r2.send(p.r1) })
}

func newFlow(t testing.TB, forth, home func() error) *flow {
	f := &flow{done: make(chan struct{}), every: make(chan time.Duration)}
	began := time.Now()
	f.wg.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-f.done:
				return
			case d := <-f.every:
				tick.Reset(d)
				continue
			case <-tick.C:
			}
			there, back := forth(), home()
			f.mu.Lock()
			f.carried = f.carried || there == nil && back == nil
			if f.carried {
				f.sent += 2
				for way, err := range []error{there, back} {
					if err != nil {
						f.lost = append(f.lost, fmt.Sprintf("%v from r%d: %v", time.Since(began), way+1, err))
					}
				}
			}
			f.mu.Unlock()
		}
	})
	t.Cleanup(f.end)
	return f
}

func (f *flow) closely(look bool) {
	every := 10 * time.Millisecond
	if look {
		every = time.Millisecond
	}
	f.every <- every
}

func (f *flow) end() {
	f.once.Do(func() { close(f.done) })
	f.wg.Wait()
}

// crashCase is one way in which an agent dies and comes back.
type crashCase struct {
	name string
	// spoil does to the run directory what happened meanwhile; records are those
	// that were there, the last one last.
	spoil func(path string, records []string, k int) error
	both  bool // the other end dies, too
	// within is how long it may take until the link is secured again.
	within time.Duration
}

func put(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }

// resecured bounds how long a link may need until it is secured again. It takes that
// long when a key server dies that has stored its first SAK and has not told it: the
// next one takes the turn of one that somebody missed, after 6 s. Usually it is a
// hello, 2 s at most.
const resecured = 8 * time.Second

var crashCases = []crashCase{
	{name: "kept", spoil: func(string, []string, int) error { return nil }, within: resecured},
	{name: "lost", spoil: func(path string, _ []string, _ int) error {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		return os.RemoveAll(path + ".new")
	}, within: resecured},
	{name: "torn", spoil: func(path string, records []string, k int) error {
		if len(records) == 0 {
			return put(path, "{")
		}
		last := records[len(records)-1]
		return put(path, []string{
			"", last[:1], last[:len(last)/3], last[:len(last)/2], last[:len(last)-3],
			strings.Repeat("\x00", len(last)), last[:len(last)/2] + strings.Repeat("\x00", len(last)/2), "\xff\xfe garbage {}[]", "null", "{}",
		}[k%10])
	}, within: resecured},
	{name: "rolled back by one", spoil: func(path string, records []string, _ int) error {
		if len(records) < 2 {
			return os.RemoveAll(path)
		}
		return put(path, records[len(records)-2])
	}, within: resecured},
	{name: "rolled back to some", spoil: func(path string, records []string, k int) error {
		if len(records) < 1 {
			return nil
		}
		return put(path, records[k%len(records)])
	}, within: resecured},
	{name: "both", spoil: func(string, []string, int) error { return nil }, both: true, within: resecured},
	{name: "both, and lost", spoil: func(path string, _ []string, _ int) error { return os.RemoveAll(path) }, both: true, within: resecured},
}

// play is the scenario: a link is secured, rekeyed from each end, rolled over to
// the next epoch, and what is old is retired. It ends early when ctx does.
func (p *pair) play(ctx context.Context) {
	rest := func(d time.Duration) bool { return sleep(ctx, d) }
	p.deliver(epoch(p.r1.t, "1.0"))
	p.start()
	if !rest(5 * time.Second) {
		return
	}
	for _, n := range p.nodes() {
		_ = n.server.ask(ctx, command{Verb: "rekey", Link: n.link.ID})
		if !rest(5 * time.Second) {
			return
		}
	}
	p.deliver(epoch(p.r1.t, "2.0"))
	rest(10 * time.Second)
}

// crashRun plays the scenario with victim dying at a step, brings it back, and
// returns how many steps there were before and what it cost.
func crashRun(t *testing.T, victim int, at int, done bool, c *crashCase) (steps []string) {
	p := newPair(t)
	b := newBook(t)
	for _, n := range p.nodes() {
		b.begin(n, 0, false)
	}
	n, other := p.nodes()[victim], p.nodes()[1-victim]
	first := b.begin(n, at, done)
	f := p.flow()

	ctx, cancel := context.WithCancel(t.Context())
	var script sync.WaitGroup
	script.Go(func() { p.play(ctx); cancel() })
	select {
	case <-first.died:
	case <-ctx.Done():
		synctest.Wait()
		first.over(true)
	}
	cancel()
	script.Wait()
	where := fmt.Sprintf("%s dies %s step %d", n.name, map[bool]string{false: "before", true: "after"}[done], at)
	if k := first.taken(); k > 0 {
		where += " (" + first.steps[k-1] + ")"
	}
	if t.Failed() {
		t.Fatal(where)
	}
	f.closely(true)
	time.Sleep(10 * time.Millisecond)
	n.crash()
	again := []*node{n}
	if c.both {
		other.crash()
		again = append(again, other)
	}
	time.Sleep([]time.Duration{0, 100 * time.Millisecond, time.Second}[at%3])
	for _, n := range again {
		if err := c.spoil(linkPath(n.runDir, "l1"), b.records(n), at/2); err != nil {
			t.Fatal(err)
		}
		b.begin(n, 0, false)
		n.start()
	}
	if n.life == other.life || other.stop == nil { // it had not been started
		other.start()
	}
	back := time.Now()
	for _, n := range p.nodes() {
		n.await(time.Minute, where+" secured", func(s LinkStatus) bool { return s.State == StateSecured && len(s.Faults) == 0 })
	}
	if took := time.Since(back); took > c.within {
		t.Errorf("%s: secured only after %v", where, took)
	}
	time.Sleep(2 * time.Second)
	f.closely(false)
	time.Sleep(10 * time.Second)
	if wrong := p.settled(); len(wrong) > 0 {
		t.Errorf("%s: left over:\n%s", where, strings.Join(wrong, "\n"))
	}
	if err := n.ask("rekey"); err != nil {
		t.Errorf("%s: rekey: %v", where, err)
	}
	time.Sleep(5 * time.Second)
	p.secured(time.Second)
	if wrong := p.settled(); len(wrong) > 0 {
		t.Errorf("%s: left over after a rekey:\n%s", where, strings.Join(wrong, "\n"))
	}
	f.end()
	if len(f.lost) > 0 || f.sent < 4000 {
		t.Errorf("%s: %d of %d frames lost, the first after %s", where, len(f.lost), f.sent, append(f.lost, "?")[0])
	}
	p.halt()
	return first.steps
}

func TestCrashAtEveryStep(t *testing.T) {
	stride := 131 // no factor in common with the number of cases
	if *crashAll {
		stride = 1
	}
	runs := 0
	for victim := range 2 {
		var steps []string
		synctest.Test(t, func(t *testing.T) { steps = crashRun(t, victim, 0, false, &crashCases[0]) })
		t.Logf("r%d takes %d steps: %v", victim+1, len(steps), strings.Join(steps, ", "))
		for k := victim; k < 2*len(steps)*len(crashCases) && !t.Failed(); k += stride {
			c, step := &crashCases[k%len(crashCases)], k/len(crashCases)
			t.Run(fmt.Sprintf("r%d/%s/%d", victim+1, c.name, step), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { crashRun(t, victim, step/2+1, step%2 == 1, c) })
			})
			runs++
		}
	}
	t.Logf("%d crashes", runs)
}

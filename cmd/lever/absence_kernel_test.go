//go:build kernel

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/lab"
)

// pastLife is more than the life time, after which MKA gives a silent peer up.
const pastLife = 8 * time.Second

// An agent that nobody knew would leave is away for longer than MKA waits. Its
// far end keeps what is encrypted and lets nothing else pass, and says so. When
// the agent comes back, to what it left or to a machine that knows nothing any
// more, the link is as before.
func TestReturn(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.remember()
	s.deliver(1, "ab")
	s.start()
	s.secured()
	server := s.keyServer()
	returns := map[string][]returned{}
	for _, end := range []int{server, 1 - server} {
		for _, what := range []string{"to what it left", "to a machine that was started anew"} {
			returns[what] = append(returns[what], s.absence(end, what))
		}
	}
	s.onlyEncrypted()
	c := s.spentOnce()
	var b strings.Builder
	fmt.Fprintf(&b, "away for %v without a word, the key server and the other end:", pastLife)
	for _, what := range []string{"to what it left", "to a machine that was started anew"} {
		for _, r := range returns[what] {
			fmt.Fprintf(&b, "\n  back %s: %v", what, r)
		}
	}
	figureOf(t, "absence", "%s\n  %v", &b, c)
}

// returned is how long it took until traffic passed both ways again.
type returned struct {
	kept                  bool // it never stopped
	lost                  int
	fromStart, fromSpoken time.Duration
}

func (r returned) String() string {
	if r.kept {
		return fmt.Sprintf("traffic never stopped; secured %v after its process was started, %v after its first MKPDU", r.fromStart, r.fromSpoken)
	}
	return fmt.Sprintf("traffic both ways %v after its process was started, %v after its first MKPDU", r.fromStart, r.fromSpoken)
}

// absence kills an agent under a stream and starts it again; a machine started
// anew has neither device nor run directory.
func (s *site) absence(end int, what string) returned {
	s.Helper()
	kept, far := what == "to what it left", 1-end
	stream, err := lab.StartStream(s.ctx(), s.endpoint(0), s.endpoint(1), besides)
	s.must(err)
	s.must(stream.Flowing(s.ctx()))
	s.kill(end)
	if !kept {
		l, err := s.routers[end].Space.Links.LinkByName(theDevice)
		s.must(err)
		s.must(s.routers[end].Space.Links.LinkDel(l))
		s.must(os.RemoveAll(s.routers[end].Path(lab.RunDir)))
		s.must(os.Mkdir(s.routers[end].Path(lab.RunDir), 0o700))
	}
	gone := time.Now()
	s.fault(far, health.PeerLost)
	s.must(lab.Await(s.ctx(), patience, "the absence to be over", func() (bool, string) { return time.Since(gone) > pastLife, "" }))
	if l := s.status(far); l.State == lab.StateSecured {
		s.Errorf("%v after r%d was killed, r%d says that it is %v", time.Since(gone), end+1, far+1, l.State)
	}
	if n := s.plainPings(far, end); n != 0 {
		s.Errorf("%d plain pings were answered", n)
	}
	if f := s.fenceAt(far); !f.Closed {
		s.Errorf("r%d's fence is open: %v", far+1, f.Findings)
	}
	mac, err := s.routers[end].Space.MAC(theParent)
	s.must(err)
	s.drained()
	s.onlyEncrypted()
	s.capture(nil) // whose first MKPDU of this end is the returned agent's
	for _, e := range stream.Ends {
		e.Mark()
	}
	began := time.Now()
	s.start(end)
	back := []time.Time{s.isSecuredAt(end), s.isSecuredAt(far)}
	if !kept {
		back = nil
	}
	for _, e := range stream.Ends {
		s.must(lab.Await(s.ctx(), patience, "packets at "+e.Name, func() (bool, string) {
			at, arrived := e.SinceMark()
			if arrived && !kept {
				back = append(back, at)
			}
			return arrived, "none"
		}))
	}
	var spoke time.Time
	s.wire.Look(func(c *lab.WireCount) { spoke, _ = c.First(mac, lab.EtherTypeEAPOL) })
	s.secured()
	s.noFault(far, health.PeerLost)
	reports, err := stream.Stop(s.ctx())
	s.must(err)
	if kept && !(reports[0].Clean() && reports[1].Clean()) {
		s.Errorf("r%d was away for %v and back %s: %v; %v", end+1, pastLife, what, reports[0], reports[1])
	}
	last := slices.MaxFunc(back, time.Time.Compare)
	r := returned{kept, reports[0].Lost() + reports[1].Lost(), last.Sub(began).Round(100 * time.Microsecond), last.Sub(spoke).Round(100 * time.Microsecond)}
	s.Logf("r%d is back %s: %v; %d packets lost", end+1, what, r, r.lost)
	s.pings(0, 1)
	return r
}

// isSecuredAt waits until an agent says that its link is secured, and returns
// when that was seen.
func (s *site) isSecuredAt(i int) time.Time {
	s.Helper()
	s.await(fmt.Sprintf("r%d to be secured", i+1), isSecured, i)
	return time.Now()
}

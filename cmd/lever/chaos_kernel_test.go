//go:build kernel

package main

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/lab"
)

var (
	chaosFor  = flag.Duration("chaos.for", 20*time.Second, "for how long everything goes wrong")
	chaosSeed = flag.Uint64("chaos.seed", 1, "of what goes wrong, when and where")
)

// Of chaos.
const (
	chaosRate   = 200              // packets a second, each way
	chaosPlain  = 50               // plain frames a second that somebody tries to send at each end
	chaosBound  = 15 * time.Second // after which a calm link is secured
	chaosShown  = 40               // actions that are told of when something is wrong
	chaosTidied = 4                // calms after which nothing at all may be left over
)

// A storm is some actions, and what may come of them. Which they are is a
// function of the seed alone; what time they take is not.
type storm struct {
	agentsOnly bool // then no packet may be lost
	actions    []chaosAction
}

// A chaosAction is one thing that goes wrong, a while after the one before.
type chaosAction struct {
	pause time.Duration
	kind  *chaosKind
	end   int
	n     uint64 // whatever else it needs to know
}

// A chaosKind is a kind of action. What it has begun is over when it returns, but
// for what calm undoes.
type chaosKind struct {
	name   string
	weight int
	lossy  bool
	do     func(c *chaos, end int, r *rand.Rand) error
}

var chaosKinds = []chaosKind{
	{name: "kill", weight: 8, do: func(c *chaos, end int, r *rand.Rand) error {
		return c.away(upTo(r, time.Second), func() { c.kill(end) }, end)
	}},
	{name: "kill both", weight: 2, do: func(c *chaos, _ int, r *rand.Rand) error {
		return c.away(upTo(r, time.Second), func() { c.kill() }, 0, 1)
	}},
	{name: "restart", weight: 4, do: func(c *chaos, end int, r *rand.Rand) error {
		return c.away(upTo(r, time.Second), func() { c.stop(end) }, end)
	}},
	{name: "upgrade", weight: 3, do: func(c *chaos, end int, _ *rand.Rand) error {
		return c.away(0, func() { c.upgrader.upgrade(end) }, end)
	}},
	{name: "run directory lost", weight: 2, do: func(c *chaos, end int, r *rand.Rand) error {
		return c.away(upTo(r, time.Second), func() { c.kill(end); c.must(empty(c.routers[end].Path(lab.RunDir))) }, end)
	}},
	{name: "absent beyond the life time", weight: 1, do: func(c *chaos, end int, r *rand.Rand) error {
		return c.away(7*time.Second+upTo(r, 2*time.Second), func() { c.kill(end) }, end)
	}},
	{name: "suspended restart", weight: 2, do: func(c *chaos, end int, r *rand.Rand) error {
		_, err := c.routers[end].Lever(c.ctx(), "suspend", "60")
		return errors.Join(err, c.away(upTo(r, 9*time.Second), func() { c.stop(end) }, end))
	}},
	{name: "rekey", weight: 8, do: func(c *chaos, end int, _ *rand.Rand) error { c.rekey(end); return nil }},
	{name: "epoch", weight: 4, do: func(c *chaos, _ int, _ *rand.Rand) error {
		c.epoch++
		c.deliver(c.epoch, "ab")
		return nil
	}},
	{name: "epoch, one channel late", weight: 2, do: func(c *chaos, end int, r *rand.Rand) error {
		c.epoch++
		c.deliver(c.epoch, string("ab"[end]))
		<-time.After(upTo(r, 2*time.Second))
		c.deliver(c.epoch, string("ba"[end]))
		return nil
	}},
	{name: "epoch, one end late", weight: 2, do: func(c *chaos, end int, r *rand.Rand) error {
		c.epoch++
		a, b := c.material(), c.material()
		for _, i := range []int{end, 1 - end} {
			c.put(i, "a", c.epoch, a, 0o600)
			c.put(i, "b", c.epoch, b, 0o600)
			<-time.After(upTo(r, time.Second))
		}
		return nil
	}},
	{name: "old epochs revoked", weight: 2, do: (*chaos).revoke},
	{name: "disk full", weight: 3, do: (*chaos).fill},
	{name: "clock set", weight: 2, do: (*chaos).setClock},
	{name: "inventory changed", weight: 3, do: (*chaos).changeInventory},
	{name: "inventory broken for a while", weight: 2, do: (*chaos).breakInventory},

	{name: "netem", weight: 8, lossy: true, do: (*chaos).netem},
	{name: "link flap", weight: 4, lossy: true, do: func(c *chaos, end int, r *rand.Rand) error {
		links := c.routers[end].Space.Links
		err := links.LinkSetDown(c.parent(end))
		<-time.After(upTo(r, 2*time.Second))
		return errors.Join(err, links.LinkSetUp(c.parent(end)))
	}},
	{name: "drift", weight: 12, lossy: true, do: func(c *chaos, end int, r *rand.Rand) error {
		row := drifts[r.IntN(len(drifts))]
		for row.spends {
			row = drifts[r.IntN(len(drifts))]
		}
		c.say("  %s", row.name)
		if !c.try(row, end) {
			return errRefused
		}
		c.counts["drift: "+row.name]++
		if row.opens {
			c.opened, c.plainAllowed = true, true // on a capture that is replaced by then
		}
		return nil
	}},
}

// errRefused is of an action that what went wrong before has left nothing to.
var errRefused = errors.New("refused")

// nextStorm draws one.
func nextStorm(r *rand.Rand) storm {
	s := storm{agentsOnly: r.IntN(2) == 0}
	var kinds []*chaosKind
	for i := range chaosKinds {
		if k := &chaosKinds[i]; !k.lossy || !s.agentsOnly {
			kinds = append(kinds, slices.Repeat([]*chaosKind{k}, k.weight)...)
		}
	}
	for range 2 + r.IntN(8) {
		s.actions = append(s.actions, chaosAction{pause: upTo(r, 900*time.Millisecond), kind: kinds[r.IntN(len(kinds))], end: r.IntN(2), n: r.Uint64()})
	}
	return s
}

// chaos is a link to which everything happens.
type chaos struct {
	*driftTrial
	upgrader *upgrader
	epoch    int
	revoked  int
	counts   map[string]int
	log      []string
	began    time.Time
	opened   bool // in this storm somebody opened the fence
	holes    int  // plain frames that left by then
	slowest  time.Duration
	lostTo   map[bool]int // packets, in storms of agents only and in others
}

// Everything at once, from a seed: agents die, links lose, somebody meddles. Never
// a plain frame, never a number twice, and soon after each storm all is well.
func TestChaos(t *testing.T) {
	c := &chaos{counts: map[string]int{}, lostTo: map[bool]int{}, began: time.Now(), epoch: 1}
	c.driftTrial = newDriftTrialOn(newPair(t), chaosRate, chaosPlain, func(s *site) {
		for i, r := range s.routers {
			for _, dir := range []string{lab.RunDir, lab.StateDir} {
				unmount, err := lab.SmallDisk(r.Path(dir), chaosDisk)
				s.must(err)
				t.Cleanup(func() { s.kill(i); s.mustNot(unmount()) })
			}
		}
		c.upgrader = newUpgrader(s)
	})
	r := rand.New(rand.NewPCG(*chaosSeed, 0))
	storms, actions := 0, 0
	for time.Since(c.began) < *chaosFor && !t.Failed() {
		s := nextStorm(r)
		storms++
		actions += len(s.actions)
		c.ride(s)
		c.calm(storms%chaosTidied == 0)
		if t.Failed() {
			t.Logf("seed %[1]d, storm %[2]d; replay: make chaos SEED=%[1]d FOR=%[3]v; the last actions:\n%[4]s", *chaosSeed, storms, *chaosFor,
				strings.Join(c.log[max(0, len(c.log)-chaosShown):], "\n"))
		}
	}
	c.plainAllowed = false
	ran := time.Since(c.began)
	tried, reports := c.end()
	var counts []string
	for _, name := range slices.Sorted(maps.Keys(c.counts)) {
		counts = append(counts, fmt.Sprintf("%d %s", c.counts[name], name))
	}
	figureOf(t, "chaos", "chaos, seed %d, %v: %d storms, %d actions; secured and flowing again %v after a storm at the latest\n  %s\n  %d plain frames tried, %d left while somebody had opened the fence, else none; %v\n  packets: %v; %v; lost in storms of agents alone: %d",
		*chaosSeed, ran.Round(time.Second), storms, actions, c.slowest.Round(time.Millisecond), strings.Join(counts, ", "), tried, c.holes, c.ledger.Counts(), reports[0].Brief(), reports[1].Brief(), c.lostTo[true])
}

// ride does the actions of a storm, and counts what is lost in it.
func (c *chaos) ride(s storm) {
	c.Helper()
	from := c.sent()
	c.opened, c.plainAllowed = false, false
	for _, a := range s.actions {
		<-time.After(a.pause)
		c.say("%s at r%d", a.kind.name, a.end+1)
		switch err := a.kind.do(c, a.end, rand.New(rand.NewPCG(a.n, 0))); {
		case err == nil:
			c.counts[a.kind.name]++
		default:
			c.say("  %v", err)
			c.counts[a.kind.name+", refused"]++
		}
		if c.Failed() {
			return
		}
	}
	lost := c.lostBetween(from, c.sent())
	c.lostTo[s.agentsOnly] += lost
	if s.agentsOnly && lost != 0 {
		c.Errorf("%d packets are lost in a storm of which only the agents know", lost)
	}
}

// calm undoes what a storm has left, and expects that all is well again.
func (c *chaos) calm(tidy bool) {
	c.Helper()
	c.say("calm")
	c.mustNot(c.undo())
	c.supervise()
	since := time.Now()
	took, err := c.repaired(since)
	if err != nil || took > chaosBound {
		c.Errorf("%v after the storm: %v", took, err)
		return
	}
	c.slowest = max(c.slowest, took)
	c.say("well after %v", took.Round(time.Millisecond))
	plain, _, kinds := c.leaked()
	if c.opened {
		c.holes += plain
	} else if plain > 0 {
		c.Errorf("%d plain frames (%s)", plain, kinds)
	}
	for _, r := range c.ledger.Repeats() {
		c.Errorf("spent twice: %s", r)
	}
	c.secured()
	from := c.sent()
	c.flow(chaosRate)
	if lost := c.lostBetween(from, c.sent()); lost != 0 {
		c.Errorf("%d packets are lost in the calm", lost)
	}
	if tidy {
		c.onEpoch(fmt.Sprintf("%d.0", c.epoch))
		c.settled()
	}
}

func (c *chaos) say(format string, args ...any) {
	c.log = append(c.log, fmt.Sprintf("%9.3f ", time.Since(c.began).Seconds())+fmt.Sprintf(format, args...))
}

// sent is how many packets each end has sent.
func (d *driftTrial) sent() [2]int {
	return [2]int{int(d.stream.Ends[0].Sent.Load()), int(d.stream.Ends[1].Sent.Load())}
}

// lostBetween is how many packets of those sent between two moments are missing,
// once none is under way any more.
func (d *driftTrial) lostBetween(from, to [2]int) int {
	missing := func() (n int) {
		for i, e := range d.stream.Ends {
			n += e.Missing(to[1-i]) - e.Missing(from[1-i])
		}
		return n
	}
	_ = lab.Await(d.ctx(), time.Second, "the packets", func() (bool, string) { return missing() == 0, "" })
	return missing()
}

// flow waits until as many packets have been sent each way.
func (d *driftTrial) flow(packets int) {
	d.Helper()
	from := d.sent()
	d.must(lab.Await(d.ctx(), patience, "packets to be sent", func() (bool, string) {
		now := d.sent()
		return now[0] >= from[0]+packets && now[1] >= from[1]+packets, fmt.Sprintf("%d, from %d on", now, from)
	}))
}

// empty removes what is in a directory, and not the directory.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(dir+"/"+e.Name()))
	}
	return err
}

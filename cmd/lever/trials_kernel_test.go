//go:build kernel

package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/agent"
	"github.com/lever-link/lever/internal/lab"
)

// How long the trials are. What stands here is for every make test; make trials
// and make chaos ask for as much as the promises say.
var (
	trialRounds = flag.Int("trials.rounds", 2, "how often each trial of restarts is made")
	trialWPA    = flag.Int("trials.wpa", 1, "how often each trial of restarts is made with wpa_supplicant at the far end, in each role; more than 1 are made at the full rate")
	trialSeed   = flag.Uint64("trials.seed", 1, "of the moments and the drifts of trials")
	trialAway   = flag.Duration("trials.away", 22*time.Second, "how long a suspended key server is away")
)

// trialRate is more than the thousand packets a second, each way, that are
// promised, for a machine that comes a little late.
const trialRate = 1100

// nextBinary names another build of lever, to upgrade to. Without it that is this
// very program in a file of other content.
const nextBinary = "LEVER_NEXT"

// remember starts the ledger of the wire: from here on no number may be spent
// twice.
func (s *site) remember() {
	s.Helper()
	s.ledger = lab.NewLedger()
	s.capture(nil)
}

// spentOnce expects that no number was spent twice, and that all was encrypted.
func (s *site) spentOnce() lab.LedgerCounts {
	s.Helper()
	s.drained()
	for _, r := range s.ledger.Repeats() {
		s.Errorf("spent twice: %s", r)
	}
	c := s.ledger.Counts()
	if c.Unencrypted != 0 || c.Packets == 0 || c.Messages == 0 {
		s.Errorf("on the wire: %v", c)
	}
	return c
}

// figureOf keeps what a trial has measured, in a file next to the one that is
// named for figures, to be seen when all is well.
func figureOf(t *testing.T, name, format string, args ...any) {
	t.Helper()
	text := fmt.Sprintf(format, args...)
	t.Logf("%s", text)
	if file := os.Getenv(figuresFile); file != "" {
		if err := os.WriteFile(file+"."+name, []byte(text+"\n"), 0o644); err != nil {
			t.Errorf("write the figures: %v", err)
		}
	}
}

// An upgrader gives each router a binary of its own, and puts another build in
// its place as a package manager does: by a rename, while the old one runs.
type upgrader struct {
	s      *site
	builds [2]string
	now    []int // which build each router has
}

func newUpgrader(s *site) *upgrader {
	s.Helper()
	u := &upgrader{s: s, now: make([]int, len(s.routers))}
	this, err := leverFile()
	s.must(err)
	u.builds = [2]string{this, os.Getenv(nextBinary)}
	if u.builds[1] == "" {
		u.builds[1] = filepath.Join(s.dir, "other")
		s.must(lab.CopyExecutable(u.builds[1], this))
		f, err := os.OpenFile(u.builds[1], os.O_APPEND|os.O_WRONLY, 0)
		s.must(err)
		_, err = f.WriteString("another build")
		s.mustNot(err)
		s.must(f.Close())
	}
	for i, r := range s.routers {
		r.Binary = r.Path("lever")
		u.put(i)
	}
	return u
}

func (u *upgrader) put(i int) {
	u.s.Helper()
	tmp := u.s.routers[i].Path("lever.new")
	u.s.must(lab.CopyExecutable(tmp, u.builds[u.now[i]]))
	u.s.must(os.Rename(tmp, u.s.routers[i].Binary))
}

// upgrade ends an agent whose binary is another one by then.
func (u *upgrader) upgrade(which ...int) {
	for _, i := range which {
		u.now[i] = 1 - u.now[i]
		u.put(i)
	}
	u.s.stop(which...)
}

// Agents crash, are stopped, and are upgraded at random moments, in rekeys and in
// changes of the epoch too, and the stream notices nothing. It has the processor
// to itself, for the stream to be of its full rate.
func TestRestartTrials(t *testing.T) {
	s := newPair(t)
	s.remember()
	u := newUpgrader(s)
	s.deliver(1, "ab")
	s.start()
	s.secured()
	tr := &restartTrial{site: s, rand: rand.New(rand.NewPCG(*trialSeed, 0)), epoch: 1}
	began := time.Now()
	for _, how := range []struct {
		name string
		end  func(...int)
	}{{"SIGKILL", s.kill}, {"SIGTERM", s.stop}, {"upgrade", u.upgrade}} {
		s.underStreamOf(s.endpoint(0), s.endpoint(1), trialRate, func(stream *lab.Stream) {
			for n := range *trialRounds {
				if !tr.round(stream, n, how.name, how.end) {
					break
				}
			}
		})
	}
	s.onlyEncrypted()
	c := s.spentOnce()
	figureOf(t, "restarts", "restarts under %d packets a second each way, seed %d: %d each of SIGKILL, SIGTERM and upgrade in %v, of which %d in a rekey and %d in a change of the epoch; %d new SAKs\n  %v",
		trialRate, *trialSeed, *trialRounds, time.Since(began).Round(time.Second), tr.rekeys, tr.epochs, c.Keys, c)
}

// upTo is a random while.
func upTo(r *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(most)))
}

// endpoint is where a router's streams start and end.
func (s *site) endpoint(i int) lab.Endpoint {
	return lab.Endpoint{Name: s.routers[i].Name, Space: s.routers[i].Space, Addr: inner(i)}
}

// A restartTrial goes on from round to round.
type restartTrial struct {
	*site
	rand           *rand.Rand
	epoch          int
	rekeys, epochs int
}

// round ends an agent and starts it again. It returns false when packets are
// missing, for then those of later rounds would hide which round it was.
func (tr *restartTrial) round(stream *lab.Stream, n int, name string, end func(...int)) bool {
	tr.Helper()
	victim, asked, what := n%2, tr.rand.IntN(2), ""
	before := [2]int64{stream.Ends[0].Sent.Load(), stream.Ends[1].Sent.Load()}
	at := time.Duration(0)
	var rekeyed chan error
	switch {
	case n == *trialRounds/2:
		tr.epoch++
		tr.epochs++
		what = fmt.Sprintf(" into the delivery of epoch %d", tr.epoch)
		tr.deliver(tr.epoch, "ab")
		at = upTo(tr.rand, 400*time.Millisecond) // the channel's files are seen, the CAK rekeys, the SAK follows
	case n == 0 || tr.rand.IntN(3) > 0:
		tr.rekeys++
		what = fmt.Sprintf(" into a rekey asked for at r%d", asked+1)
		rekeyed = make(chan error, 1)
		go func() {
			_, err := agent.NewClient(tr.routers[asked].Path(lab.RunDir)).Rekey(tr.ctx(), theLink)
			rekeyed <- err
		}()
		at = upTo(tr.rand, 25*time.Millisecond)
	default:
		at = upTo(tr.rand, 500*time.Millisecond)
	}
	<-time.After(at) // the moment is what the trial varies
	died := time.Now()
	end(victim)
	gone := upTo(tr.rand, 300*time.Millisecond)
	<-time.After(gone)
	tr.start(victim)
	tr.secured()
	if rekeyed != nil {
		<-rekeyed // whether it was carried out or died with the agent is not promised
	}
	tr.onEpoch(fmt.Sprintf("%d.0", tr.epoch))
	tr.Logf("round %d: %s of r%d, %v%s; secured again after %v; packets %d to %d", n+1, name, victim+1, at.Round(time.Microsecond), what,
		time.Since(died).Round(time.Millisecond), before, [2]int64{stream.Ends[0].Sent.Load(), stream.Ends[1].Sent.Load()})
	return tr.arrived(stream)
}

// arrived waits until all that was sent by now has arrived, and says whether it
// has.
func (s *site) arrived(stream *lab.Stream) bool {
	s.Helper()
	sent := [2]int{int(stream.Ends[0].Sent.Load()), int(stream.Ends[1].Sent.Load())}
	missing := func() [2]int {
		return [2]int{stream.Ends[1].Missing(sent[0]), stream.Ends[0].Missing(sent[1])}
	}
	err := lab.Await(s.ctx(), 2*time.Second, "the packets that were sent", func() (bool, string) {
		m := missing()
		return m == [2]int{}, fmt.Sprintf("%d are missing", m)
	})
	return err == nil
}

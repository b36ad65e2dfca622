//go:build kernel

package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/macsec"
)

var (
	driftFor    = flag.Duration("drift.for", 15*time.Second, "for how long random drifts follow each other")
	driftWithin = flag.Duration("drift.within", 2*time.Second, "how long a drift may last")
)

// Of a site in which things drift.
const (
	driftsTogether = 6                      // rows on one site, side by side with others
	driftStream    = 50                     // packets a second
	plainRate      = 100                    // plain frames a second that somebody tries to send at each end
	driftOver      = 15 * time.Second       // after which nothing of it may be left
	driftLook      = 10 * time.Millisecond  // how often is looked
	driftMarks     = 200 * time.Millisecond // for packets that were under way
)

// A driftTrial is a secured link on which, at both ends, somebody tries to send
// plain frames all the time.
type driftTrial struct {
	*site
	stream  *lab.Stream
	senders []*lab.PlainSender
	before  []string
	slow    string // what was not as before last of all
	bare    int    // MACsec frames that were not encrypted, and are accounted for
}

func newDriftTrial(t *testing.T, rate int) *driftTrial {
	t.Helper()
	return newDriftTrialOn(newPair(t), rate, plainRate, func(*site) {})
}

// newDriftTrialOn is newDriftTrial on a site that is furnished first.
func newDriftTrialOn(s *site, rate, plainRate int, furnish func(*site)) *driftTrial {
	s.Helper()
	d := &driftTrial{site: s}
	furnish(s)
	d.remember()
	d.deliver(1, "ab")
	d.start()
	d.secured()
	var err error
	d.stream, err = lab.StartStream(d.ctx(), d.endpoint(0), d.endpoint(1), rate)
	d.must(err)
	d.must(d.stream.Flowing(d.ctx()))
	for _, r := range d.routers {
		p, err := lab.StartPlainSender(r.Space, theParent, plainRate)
		d.must(err)
		d.senders = append(d.senders, p)
	}
	d.settled()
	for i := range d.routers {
		v, err := d.view(i, true)
		d.must(err)
		d.before = append(d.before, v)
	}
	return d
}

// end stops what runs, and returns how many plain frames were tried.
func (d *driftTrial) end() (tried int, reports [2]lab.StreamReport) {
	d.Helper()
	for i, p := range d.senders {
		n, err := p.Stop()
		d.mustNot(err)
		if f := d.fenceAt(i); f.DroppedEgress.Frames == 0 {
			d.Errorf("of %d plain frames the fence of r%d has stopped none: nothing was tried", n, i+1)
		}
		tried += n
	}
	reports, err := d.stream.Stop(d.ctx())
	d.mustNot(err)
	return tried, reports
}

// view is what must be as before at a router: the interfaces, the fence, and that
// nobody else's keys are in the device. Strict, nothing of a rekey may be left.
func (s *site) view(i int, strict bool) (string, error) {
	r := s.routers[i]
	up, err := r.Space.Links.LinkByName(theParent)
	if err != nil {
		return "", err
	}
	v, err := r.SecY(theDevice)
	if err != nil {
		return "", err
	}
	a := up.Attrs()
	var b strings.Builder
	fmt.Fprintf(&b, "%s: up %v, MTU %d, master %d\n", a.Name, a.Flags&net.FlagUp != 0, a.MTU, a.MasterIndex)
	fmt.Fprintf(&b, "%s: on it %v, up %v, MTU %d, %v with ICV %d, encrypt %v, protect %v, SCI %v, ES %v, SCB %v, validate %v, replay %v with window %d\n",
		v.Name, v.Parent == a.Index, v.Up, v.MTU, v.CipherSuite, v.ICVLen, v.Encrypt, v.Protect, v.IncludeSCI, v.EndStation, v.SCB, v.Validate, v.ReplayProtect, v.ReplayWindow)
	dev, err := r.Space.Links.LinkByIndex(v.Index)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "alias of the agent's %v\n", strings.HasPrefix(dev.Attrs().Alias, "lever: record "))
	addrs, err := r.Space.Links.AddrList(dev, netlink.FAMILY_V4)
	if err != nil {
		return "", err
	}
	for _, addr := range addrs {
		fmt.Fprintf(&b, "address %v\n", addr.IPNet)
	}
	most := macsec.NumAN - 1 // one in use, one before it and one to come
	if strict {
		most = 1
	}
	if n := len(v.TxSC.SAs); n > most {
		fmt.Fprintf(&b, "%d transmit SAs\n", n)
	}
	if n := len(v.RxSCs); n > most {
		fmt.Fprintf(&b, "%d receive SCs\n", n)
	}
	foreign := func(sas []macsec.SA) {
		for _, sa := range sas {
			if fmt.Sprintf("%x", sa.KeyID[:]) == foreignKey {
				fmt.Fprintf(&b, "a foreign SA, AN %d\n", sa.AN)
			}
		}
	}
	foreign(v.TxSC.SAs)
	for _, sc := range v.RxSCs {
		foreign(sc.SAs)
		if n := len(sc.SAs); n > most {
			fmt.Fprintf(&b, "%d receive SAs of %v\n", n, sc.SCI)
		}
	}
	var state fence.State
	err = r.Space.Do(func() (err error) {
		state, err = fence.Inspect(a.Index, fence.Options{})
		return err
	})
	fmt.Fprintf(&b, "fence closed %v: %v\n", state.Closed, state.Findings)
	return b.String(), err
}

// asBefore says whether both ends are as they were and use one key, or what is
// different.
func (d *driftTrial) asBefore(strict bool) (bool, string) {
	var keys [2]macsec.KeyID
	for i, r := range d.routers {
		now, err := d.view(i, strict)
		if err != nil {
			return false, fmt.Sprintf("r%d: %v", i+1, err)
		}
		if now != d.before[i] {
			return false, fmt.Sprintf("r%d: %s", i+1, difference(d.before[i], now))
		}
		v, err := r.SecY(theDevice)
		if err != nil {
			return false, fmt.Sprintf("r%d: %v", i+1, err)
		}
		var both bool
		if keys[i], _, both = lab.KeyInUse(v); !both {
			return false, fmt.Sprintf("r%d transmits with %x and does not receive with it", i+1, keys[i])
		}
	}
	return keys[0] == keys[1], fmt.Sprintf("r1 transmits with %x, r2 with %x", keys[0], keys[1])
}

// difference is the lines that are not in both.
func difference(before, now string) string {
	was, is := strings.Split(before, "\n"), strings.Split(now, "\n")
	var lines []string
	for _, l := range was {
		if !slices.Contains(is, l) {
			lines = append(lines, "- "+l)
		}
	}
	for _, l := range is {
		if !slices.Contains(was, l) {
			lines = append(lines, "+ "+l)
		}
	}
	return strings.Join(lines, "\n")
}

// repaired waits until both ends are as before and packets pass both ways, and
// returns how long that took.
func (d *driftTrial) repaired(since time.Time) (time.Duration, error) {
	d.slow = ""
	for ; ; <-time.After(driftLook) {
		as, seen := d.asBefore(false)
		if as {
			break
		}
		d.slow = fmt.Sprintf("after %v %s", time.Since(since).Round(time.Millisecond), seen)
		if time.Since(since) > patience {
			return 0, errors.New(seen)
		}
	}
	for _, e := range d.stream.Ends {
		e.Mark()
	}
	for {
		flowing := true
		for _, e := range d.stream.Ends {
			_, arrived := e.SinceMark()
			flowing = flowing && arrived
		}
		if flowing {
			return time.Since(since), nil
		}
		if time.Since(since) > patience {
			return 0, fmt.Errorf("all is as before, but of packets after it %s and %s have received %d and %d",
				d.stream.Ends[0].Name, d.stream.Ends[1].Name, d.stream.Ends[0].Got(), d.stream.Ends[1].Got())
		}
		<-time.After(driftLook)
	}
}

// leaked is how many plain frames, and MACsec frames that were not encrypted, are
// new on the wire. They are for the caller to judge, and excused from then on.
func (d *driftTrial) leaked() (plain, bare int, kinds string) {
	d.drained()
	d.wire.Look(func(c *lab.WireCount) {
		plain, kinds = c.Plain()-d.excused.plain, c.PlainKinds()
		d.excused = excused{c.Plain(), c.Readable}
	})
	n := d.ledger.Counts().Unencrypted
	bare, d.bare = n-d.bare, n
	return plain, bare, kinds
}

// A driftFigure is what came of one.
type driftFigure struct {
	name, end string
	took      time.Duration
	fault     string
	lost      int // packets of the stream
	plain     int // frames that somebody's opening of the fence has let out
}

func (f driftFigure) String() string {
	s := fmt.Sprintf("%v\t%d packets lost\t%s", f.took.Round(time.Millisecond), f.lost, f.fault)
	if f.plain > 0 {
		s += fmt.Sprintf("; %d plain frames of %d a second left until the fence was closed again", f.plain, plainRate)
	}
	return s
}

// one has one thing drift at router i, and expects it to be put right.
func (d *driftTrial) one(row drift, i int) (f driftFigure) {
	d.Helper()
	f = driftFigure{name: row.name, end: d.routers[i].Name}
	// What the last one has left to be done, such as an old SA's end, is not this one's.
	d.must(lab.Await(d.ctx(), patience, "the calm before "+row.name, func() (bool, string) { return d.asBefore(true) }))
	lost := d.lost()
	e := d.driftEnd(i)
	type shown struct {
		code string
		err  error
	}
	fault := make(chan shown, 1)
	if len(row.codes) > 0 {
		go func() {
			code, err := d.awaitFault(i, row)
			fault <- shown{code, err}
		}()
	} else {
		fault <- shown{}
	}
	if err := row.inject(e); err != nil {
		d.Errorf("%s at %s: %v", row.name, f.end, err)
		<-fault
		return f
	}
	var err error
	if f.took, err = d.repaired(time.Now()); err != nil {
		d.Errorf("%s at %s is not put right: %v", row.name, f.end, err)
		<-fault
		d.startAnew(i) // for the others' sake
		return f
	}
	if f.took > *driftWithin {
		d.Errorf("%s at %s was put right after %v, which is more than %v: %s", row.name, f.end, f.took, *driftWithin, d.slow)
	}
	plain, bare, kinds := d.leaked()
	f.plain = plain + bare
	if f.plain > 0 && !row.opens {
		d.Errorf("%s at %s: %d plain frames (in all: %s) and %d not encrypted", row.name, f.end, plain, kinds, bare)
	}
	seen := <-fault
	if seen.err != nil {
		d.Errorf("%s at %s: %v", row.name, f.end, seen.err)
	}
	f.fault, f.lost = seen.code, max(0, d.lost()-lost)
	return f
}

// startAnew helps a link that a drift has left dead.
func (d *driftTrial) startAnew(i int) {
	d.Helper()
	d.stop(i)
	d.start(i)
	key := d.secured()
	d.lever(i, "rekey", theLink)
	d.securedAnew(key)
	_, err := d.repaired(time.Now())
	d.must(err)
	d.leaked()
}

// awaitFault waits until the status of a router names the drift, and returns the
// code.
func (d *driftTrial) awaitFault(i int, row drift) (code string, err error) {
	_, err = lab.AwaitStatus(d.ctx(), d.pick([]int{i}), theLink, 5*time.Second, fmt.Sprintf("a fault of %v with %q", row.codes, row.words), func(all []lab.LinkStatus) bool {
		for _, c := range row.codes {
			if f, raised := all[0].Fault(string(c)); raised && strings.Contains(f.Text, row.words) {
				code = string(c)
				return true
			}
		}
		return false
	})
	return code, err
}

// lost is how many packets are missing of those that were sent a while ago.
func (d *driftTrial) lost() int {
	sent := [2]int{int(d.stream.Ends[0].Sent.Load()), int(d.stream.Ends[1].Sent.Load())}
	<-time.After(driftMarks)
	return d.stream.Ends[0].Missing(sent[1]) + d.stream.Ends[1].Missing(sent[0])
}

// settled waits until nothing is left: no second SA, no fault.
func (d *driftTrial) settled() {
	d.Helper()
	d.must(lab.Await(d.ctx(), patience, "nothing to be left over", func() (bool, string) {
		for i := range d.routers {
			if len(d.before) == 0 {
				break
			}
			if now, err := d.view(i, true); err != nil || now != d.before[i] {
				return false, fmt.Sprintf("r%d: %v%s", i+1, err, difference(d.before[i], now))
			}
		}
		return true, ""
	}))
	_, err := lab.AwaitStatus(d.ctx(), d.routers, theLink, driftOver, "no fault to be left", func(all []lab.LinkStatus) bool {
		return !slices.ContainsFunc(all, func(l lab.LinkStatus) bool { return !isSecured(l) || len(l.Faults) > 0 })
	})
	d.mustNot(err)
}

// driftFigures are of all sites of TestDrift.
type driftFigures struct {
	mu    sync.Mutex
	rows  []driftFigure
	tried int
}

// Each drift by itself, at either end in turn.
func TestDrift(t *testing.T) {
	t.Parallel()
	var all driftFigures
	t.Run("each", func(t *testing.T) {
		for first := 0; first < len(drifts); first += driftsTogether {
			rows := drifts[first:min(first+driftsTogether, len(drifts))]
			t.Run(strings.ReplaceAll(rows[0].name, " ", "-"), func(t *testing.T) {
				t.Parallel()
				d := newDriftTrial(t, driftStream)
				spends := false
				for k, row := range rows {
					f := d.one(row, (first+k)%2)
					spends = spends || row.spends
					t.Logf("%s at %s: put right after %v", f.name, f.end, f)
					all.mu.Lock()
					all.rows = append(all.rows, f)
					all.mu.Unlock()
				}
				d.settled()
				for i, r := range d.routers {
					if !strings.Contains(strings.Join(r.LastLines(1000), "\n"), "the link has stayed as it must be") {
						t.Errorf("r%d's log does not say that a drift is over", i+1)
					}
				}
				tried, _ := d.end()
				if !spends {
					for _, r := range d.ledger.Repeats() {
						t.Errorf("spent twice: %s", r)
					}
				}
				all.mu.Lock()
				all.tried += tried
				all.mu.Unlock()
			})
		}
	})
	figureOf(t, "drift", "%s", all.table())
}

// table has all of them, the slowest first.
func (a *driftFigures) table() string {
	slices.SortStableFunc(a.rows, func(x, y driftFigure) int { return int(y.took - x.took) })
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%d drifts, until both ends are as before and traffic passes both ways; %d plain frames tried meanwhile\n", len(a.rows), a.tried)
	for _, r := range a.rows {
		fmt.Fprintf(w, "  %s\t%v\n", r.name, r)
	}
	_ = w.Flush() // to memory
	return strings.TrimSpace(b.String())
}

// Drifts at random moments at random ends, one on top of the other, as a seed
// says; then calm, in which all is put right and nothing left over.
func TestDriftSequences(t *testing.T) {
	d := newDriftTrial(t, besides)
	r := rand.New(rand.NewPCG(*trialSeed, 1))
	began, n, refused, calms, holes := time.Now(), 0, 0, 0, 0
	var slowest time.Duration
	// Where two want a fresh SAK, one has to be in use before the other is made.
	within := 2 * *driftWithin
	for time.Since(began) < *driftFor && !t.Failed() {
		var said []string
		spends, opens := false, false
		for range 1 + r.IntN(8) {
			row, i := drifts[r.IntN(len(drifts))], r.IntN(2)
			pause := upTo(r, 700*time.Millisecond)
			said = append(said, fmt.Sprintf("%v %s at r%d", pause.Round(time.Millisecond), row.name, i+1))
			<-time.After(pause)
			// One that was to drift may have drifted away before.
			if !d.try(row, i) {
				refused++
				said[len(said)-1] += " (refused)"
			}
			spends, opens = spends || row.spends, opens || row.opens
			d.plainAllowed = opens // on a capture that is replaced by then
			n++
		}
		calms++
		took, err := d.repaired(time.Now())
		plain, bare, kinds := d.leaked()
		d.plainAllowed = false
		if err != nil || took > within || plain > 0 && !opens || bare > 0 {
			t.Errorf("seed %d, calm %d after %v: put right after %v, %v (%s); %d plain frames (%s), %d not encrypted\n%s", *trialSeed, calms, time.Since(began).Round(time.Millisecond),
				took, err, d.slow, plain, kinds, bare, strings.Join(said, "\n"))
		}
		slowest, holes = max(slowest, took), holes+plain
		if spends {
			d.ledger = lab.NewLedger()
			d.capture(nil)
			d.bare = 0
		}
		for _, r := range d.ledger.Repeats() {
			t.Errorf("spent twice: %s\n%s", r, strings.Join(said, "\n"))
		}
	}
	if !t.Failed() {
		d.settled()
	}
	tried, reports := d.end()
	figureOf(t, "drifts", "seed %d: %d drifts in random order in %v, %d refused by the kernel, put right %v after the last one at the latest (%d times calm); %d plain frames tried, %d left while somebody had opened the fence, else none; %d and %d packets lost",
		*trialSeed, n, time.Since(began).Round(time.Second), refused, slowest.Round(time.Millisecond), calms, tried, holes, reports[0].Lost(), reports[1].Lost())
}

// try injects a drift into whatever is there.
func (d *driftTrial) try(row drift, i int) bool {
	v, err := d.routers[i].SecY(theDevice)
	if err != nil || len(v.RxSCs) == 0 || v.TxSC.SA(v.EncodingAN) == nil || len(v.TxSC.SAs) == macsec.NumAN {
		return false
	}
	return row.inject(&driftEnd{d.site, i, v}) == nil
}

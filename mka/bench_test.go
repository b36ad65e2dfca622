package mka_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/sim"
	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/mka"
)

// duo is two Ports whose frames and operations are done at once, without a
// simulated network, so that what is measured is the Ports.
type duo struct {
	tb    testing.TB
	now   time.Time
	ports [2]*mka.Port
	last  [2][]byte // the last frame of each
	saks  int

	// Of the frames of each: how many, and the longest time between two.
	sent     [2]int
	lastSent [2]time.Time
	longest  [2]time.Duration
}

type duoEvent struct {
	to int
	ev mka.Event
}

func newDuo(tb testing.TB) *duo {
	d := &duo{tb: tb, now: simlink.Epoch}
	for i := range d.ports {
		mac := mka.MAC{2, 0, 0, 0, 0, byte(i + 1)}
		p, err := mka.NewPort(mka.Config{
			SCI: mka.NewSCI(mac, 1), Address: mac, Priority: mka.DefaultPriority,
			Suite: mka.GCMAESXPN256, Rand: sim.Random(uint64(i)),
		})
		if err != nil {
			tb.Fatal(err)
		}
		d.ports[i] = p
	}
	for i := range d.ports {
		d.step(i, mka.Event{
			Kind: mka.EventAddCAK, CKN: epoch1.CKN, Rank: 1,
			CAK: secret.New(bytes.Repeat([]byte{1}, 32)),
		})
	}
	d.pass(30 * time.Second)
	for i, p := range d.ports {
		if !p.Status().Secured {
			tb.Fatalf("port %d: %+v", i, p.Status())
		}
	}
	return d
}

// step gives an event to a Port, and then what comes of it to both.
func (d *duo) step(to int, ev mka.Event) {
	queue := []duoEvent{{to, ev}}
	for len(queue) > 0 {
		x := queue[0]
		queue = queue[1:]
		out := d.ports[x.to].Step(d.now, x.ev)
		for _, f := range out.Frames {
			d.last[x.to] = slices.Clone(f)
			d.sent[x.to]++
			if was := d.lastSent[x.to]; !was.IsZero() {
				d.longest[x.to] = max(d.longest[x.to], d.now.Sub(was))
			}
			d.lastSent[x.to] = d.now
			queue = append(queue, duoEvent{1 - x.to, mka.Event{Kind: mka.EventFrame, Frame: d.last[x.to]}})
		}
		for _, op := range out.Ops {
			queue = append(queue, duoEvent{x.to, mka.Event{Kind: mka.EventOpDone, OpID: op.ID}})
		}
		for _, n := range out.Notices {
			if n.Kind == mka.NoticeSAK && x.to == 0 {
				d.saks++
			}
		}
	}
}

// pass lets time go by in steps of a tenth of a second.
func (d *duo) pass(t time.Duration) {
	for end := d.now.Add(t); d.now.Before(end); d.now = d.now.Add(100 * time.Millisecond) {
		for i := range d.ports {
			d.step(i, mka.Event{Kind: mka.EventTick})
		}
	}
}

// hellos are n frames that the second Port sends in the steady state, all at
// once, as time would make the message numbers in them too old.
func (d *duo) hellos(n int) [][]byte {
	d.pass(100 * time.Millisecond) // what is due now is not what follows
	frames := make([][]byte, 0, n)
	for range n {
		for _, f := range d.ports[1].Step(d.now, mka.Event{Kind: mka.EventLinkUp}).Frames {
			frames = append(frames, slices.Clone(f))
		}
	}
	return frames
}

func TestStepWithAHelloAllocatesNothing(t *testing.T) {
	d := newDuo(t)
	frames := d.hellos(10)
	if len(frames) != 10 {
		t.Fatalf("%d hellos, want 10", len(frames))
	}
	before := d.ports[0].Status().Counters.Received
	i := 0
	// AllocsPerRun calls once more than it counts, to warm up.
	if n := testing.AllocsPerRun(len(frames)-1, func() {
		out := d.ports[0].Step(d.now, mka.Event{Kind: mka.EventFrame, Frame: frames[i]})
		if len(out.Frames)+len(out.Ops)+len(out.Notices) > 0 {
			t.Errorf("a hello in the steady state is answered: %+v", out)
		}
		i++
	}); n != 0 {
		t.Errorf("%v allocations for a hello of a live peer, want none", n)
	}
	if got := d.ports[0].Status().Counters.Received - before; got != uint64(len(frames)) {
		t.Errorf("%d of %d hellos were taken in", got, len(frames))
	}
}

// BenchmarkStepHello is the receipt of a hello of a live peer, every two
// seconds a link.
func BenchmarkStepHello(b *testing.B) {
	d := newDuo(b)
	b.ReportAllocs()
	var frames [][]byte
	for b.Loop() {
		if len(frames) == 0 {
			b.StopTimer()
			d.pass(4 * time.Second) // refills what may be sent out of turn
			frames = d.hellos(10)
			b.StartTimer()
		}
		d.ports[0].Step(d.now, mka.Event{Kind: mka.EventFrame, Frame: frames[0]})
		frames = frames[1:]
	}
}

// BenchmarkStepSendHello is the sending of one.
func BenchmarkStepSendHello(b *testing.B) {
	d := newDuo(b)
	b.ReportAllocs()
	left := 0
	for b.Loop() {
		if left == 0 {
			b.StopTimer()
			d.pass(4 * time.Second)
			left = 10
			b.StartTimer()
		}
		if out := d.ports[0].Step(d.now, mka.Event{Kind: mka.EventLinkUp}); len(out.Frames) != 1 {
			b.Fatalf("%d frames, want one", len(out.Frames))
		}
		left--
	}
}

// BenchmarkKeyExchange is a whole rekey, both ends' part of it, from the request
// to the retirement of the old SAK, with the hellos of ten seconds.
func BenchmarkKeyExchange(b *testing.B) {
	d := newDuo(b)
	b.ReportAllocs()
	for b.Loop() {
		before := d.saks
		d.step(0, mka.Event{Kind: mka.EventRekey})
		d.pass(10 * time.Second)
		if d.saks != before+1 {
			b.Fatalf("%d SAKs for one request", d.saks-before)
		}
	}
}

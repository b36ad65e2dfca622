package mka_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/mka"
)

// receipt is one kind of frame and what it costs to take it in or turn it away.
type receipt struct {
	name   string
	frames func(d *duo) [][]byte // fresh ones
}

// receipts are a hello of a live peer, and what an attacker can send.
var receipts = []receipt{
	{"good hello", func(d *duo) [][]byte {
		d.pass(4 * time.Second) // refills what may be sent out of turn
		return d.hellos(10)
	}},
	{"bad ICV", same(func(f []byte) []byte { f[len(f)-1] ^= 1; return f })},
	{"unknown CKN", same(func(f []byte) []byte { f[50] ^= 1; return f })},
	{"garbage", same(func(f []byte) []byte { return append(f[:18], bytes.Repeat([]byte{0xa5}, 92)...) })},
	{"truncated", same(func(f []byte) []byte { return f[:40] })},
	{"replayed", same(func(f []byte) []byte { return f })},
	{"bad ICV of 1514", same(func(f []byte) []byte {
		f = append(f, make([]byte, 1514-len(f))...)
		f[16], f[17] = (1514-18)>>8, (1514-18)&0xff
		return f
	})},
}

// same damages the last hello, which is there again and again.
func same(damage func([]byte) []byte) func(*duo) [][]byte {
	return func(d *duo) [][]byte {
		if d.last[1] == nil {
			d.pass(4 * time.Second)
		}
		return slices.Repeat([][]byte{damage(slices.Clone(d.last[1]))}, 1000)
	}
}

// BenchmarkReceive is what a frame costs by its kind, and how that compares with
// verifying a hello's ICV once, which is what a forged one cannot be spared.
func BenchmarkReceive(b *testing.B) {
	d := newDuo(b)
	hello := d.hellos(1)[0]
	key, err := mka.DeriveICK(secret.New(bytes.Repeat([]byte{1}, 32)), epoch1.CKN)
	if err != nil {
		b.Fatal(err)
	}
	ick, err := mka.NewICK(key)
	if err != nil {
		b.Fatal(err)
	}
	// The best of some rounds, just before each kind: what else the machine does
	// is not to show in the ratio.
	cmac := func() float64 {
		const rounds, times = 20, 1000
		best := time.Hour
		for range rounds {
			began := time.Now()
			for range times {
				env, err := mka.Open(hello, mka.OpenParams{})
				if err != nil || !env.Verify(ick) {
					b.Fatal("the ICV does not hold")
				}
			}
			best = min(best, time.Since(began))
		}
		return float64(best.Nanoseconds()) / times
	}
	for _, r := range receipts {
		b.Run(r.name, func(b *testing.B) {
			one := cmac()
			b.ReportAllocs()
			var frames [][]byte
			for b.Loop() {
				if len(frames) == 0 {
					b.StopTimer()
					frames = r.frames(d)
					b.StartTimer()
				}
				d.ports[0].Step(d.now, mka.Event{Kind: mka.EventFrame, Frame: frames[0]})
				frames = frames[1:]
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/one, "CMACs")
		})
	}
}

// load is many links of two Ports each on one virtual clock.
type load struct {
	net   *simlink.Net
	ports []*mka.Port
	links int
	up    int // links of which both ends are secured
}

// end is a Port of a load with its driver, whose SecY does everything at once.
type end struct {
	load    *load
	port    *mka.Port
	station *simlink.Station
	timer   *simlink.Timer
	other   *end
	secured bool
}

func newLoad(tb testing.TB, links int) *load {
	l := &load{net: simlink.New(1), links: links}
	for i := range links {
		segment := l.net.Segment(50 * time.Microsecond)
		ckn := mka.CKN(fmt.Sprintf("a CKN of the link number %7d", i))
		cak := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 16)
		var ends [2]*end
		for j := range ends {
			mac := mka.MAC{2, byte(j), 0, byte(i >> 16), byte(i >> 8), byte(i)}
			p, err := mka.NewPort(mka.Config{
				SCI: mka.NewSCI(mac, 1), Address: mac, Priority: mka.DefaultPriority,
				Suite: mka.GCMAESXPN256, Rand: rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(j)}), SAKRekey: time.Hour,
			})
			if err != nil {
				tb.Fatal(err)
			}
			e := &end{load: l, port: p}
			e.station = segment.Attach(func(frame []byte) { e.step(mka.Event{Kind: mka.EventFrame, Frame: frame}) })
			ends[j] = e
			l.ports = append(l.ports, p)
		}
		ends[0].other, ends[1].other = ends[1], ends[0]
		// Agents do not start as one.
		l.net.After(time.Duration(i)*time.Second/time.Duration(links), func() {
			for _, e := range ends {
				e.step(mka.Event{Kind: mka.EventAddCAK, CKN: ckn, Rank: 1, CAK: secret.Clone(cak)})
			}
		})
	}
	return l
}

func (e *end) step(ev mka.Event) {
	out := e.port.Step(e.load.net.Now(), ev)
	for _, f := range out.Frames {
		e.station.Send(f)
	}
	for _, n := range out.Notices {
		if n.Kind == mka.NoticeSecured && !e.secured {
			e.secured = true
			if e.other.secured {
				e.load.up++
			}
		}
	}
	e.load.net.Stop(e.timer)
	if d := out.Deadline; !d.IsZero() {
		e.timer = e.load.net.At(d, func() { e.step(mka.Event{Kind: mka.EventTick}) })
	}
	var last uint64
	for _, op := range out.Ops { // out is of this Step, and those below overwrite it
		last = op.ID
	}
	if n := len(out.Ops); n > 0 {
		for id := last - uint64(n) + 1; id <= last; id++ {
			e.step(mka.Event{Kind: mka.EventOpDone, OpID: id})
		}
	}
}

// BenchmarkTenThousandPorts secures 5000 links in one process and lets them go
// on for a minute, in virtual time. It says what that minute takes of a
// processor, and what a Port takes of memory.
func BenchmarkTenThousandPorts(b *testing.B) {
	const links = 5000
	for b.Loop() {
		before := heap()
		began := cpu(b)
		l := newLoad(b, links)
		all, ok := l.net.RunUntil(10*time.Second, func() bool { return l.up == links })
		if !ok {
			b.Fatalf("%d of %d links are secured", l.up, links)
		}
		start := cpu(b)
		l.net.Run(time.Minute)
		minute := cpu(b) - start
		for i, p := range l.ports {
			if !p.Status().Secured {
				b.Fatalf("port %d is not secured any more", i)
			}
		}
		b.ReportMetric(minute.Seconds(), "CPU-s/simulated-min")
		b.ReportMetric((start - began).Seconds(), "CPU-s-to-secure-all")
		b.ReportMetric((all-time.Second).Seconds()*1000, "simulated-ms-from-last-start")
		b.ReportMetric(float64(heap()-before)/float64(len(l.ports)), "B/port")
		runtime.KeepAlive(l)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// cpu is the process's own time, whatever else runs on the machine.
func cpu(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

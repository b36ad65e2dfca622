package mka_test

import (
	"crypto/rand"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/secret/secrettest"
	"github.com/lever-link/lever/internal/sim"
	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/mka"
)

func init() { secrettest.Undisturbed() }

// eraser is two Ports whose keys are looked for in the memory of the test.
type eraser struct {
	*testing.T
	search *secrettest.Search
	name   string
	names  []string
	ckn    mka.CKN
	now    time.Time
	ports  [2]*mka.Port
	saks   map[mka.KI]bool
	stays  bool // the CAK is in use to the end
}

func newEraser(t *testing.T, search *secrettest.Search, name string, suite mka.CipherSuite) *eraser {
	e := &eraser{T: t, search: search, name: name, ckn: mka.CKN(name), now: simlink.Epoch, saks: map[mka.KI]bool{}}
	for i := range e.ports {
		mac := mka.MAC{2, 0, 0, 0, 0, byte(i + 1)}
		var err error
		e.ports[i], err = mka.NewPort(mka.Config{
			SCI: mka.NewSCI(mac, 1), Address: mac, Priority: mka.DefaultPriority,
			Suite: suite, Rand: sim.Random(uint64(i)),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return e
}

func (e *eraser) look(what string, k secret.Key) {
	name := e.name + ": " + what
	e.search.Add(name, k.Bytes())
	e.names = append(e.names, name)
}

// cak is a new one, which is looked for with what is derived from it.
func (e *eraser) cak(what string, ckn mka.CKN, octets int) secret.Key {
	e.Helper()
	cak := secret.New(make([]byte, octets))
	_, _ = rand.Read(cak.Bytes())
	e.look(what+" CAK", cak)
	for label, derive := range map[string]func(mka.Key, mka.CKN) (mka.Key, error){"KEK": mka.DeriveKEK, "ICK": mka.DeriveICK} {
		if len(ckn) > 32 {
			continue // it will be refused
		}
		k, err := derive(cak, ckn)
		if err != nil {
			e.Fatal(err)
		}
		e.look(what+" "+label, k)
		k.Erase()
	}
	return cak
}

// step gives an event to a Port, and what comes of it to both. SAs are made at
// once; their SAKs are looked for.
func (e *eraser) step(to int, ev mka.Event) {
	type event struct {
		to int
		ev mka.Event
	}
	for queue := []event{{to, ev}}; len(queue) > 0; queue = queue[1:] {
		x := queue[0]
		out := e.ports[x.to].Step(e.now, x.ev)
		for _, f := range out.Frames {
			queue = append(queue, event{1 - x.to, mka.Event{Kind: mka.EventFrame, Frame: append([]byte(nil), f...)}})
		}
		for _, op := range out.Ops {
			if op.Kind == mka.OpAddTransmitSA && !e.saks[op.KI] {
				e.saks[op.KI] = true
				e.look("SAK "+op.KI.String(), op.SAK)
			}
			queue = append(queue, event{x.to, mka.Event{Kind: mka.EventOpDone, OpID: op.ID}})
		}
	}
}

func (e *eraser) pass(d time.Duration) {
	for end := e.now.Add(d); e.now.Before(end); e.now = e.now.Add(100 * time.Millisecond) {
		for i := range e.ports {
			e.step(i, mka.Event{Kind: mka.EventTick})
		}
	}
}

// join adds a CAK to both Ports, has them use it and make another SAK.
func (e *eraser) join(octets int) {
	e.Helper()
	cak := e.cak("agreed", e.ckn, octets)
	for i := range e.ports {
		e.step(i, mka.Event{Kind: mka.EventAddCAK, CKN: e.ckn, Rank: 1, CAK: secret.Clone(cak.Bytes())})
	}
	cak.Erase()
	e.pass(10 * time.Second)
	e.step(0, mka.Event{Kind: mka.EventRekey})
	e.pass(10 * time.Second)
	for i, p := range e.ports {
		if !p.Status().Secured || len(e.saks) < 2 {
			e.Fatalf("port %d with %d SAKs: %+v", i, len(e.saks), p.Status())
		}
	}
}

// refused gives the first Port a CAK that it has no use for.
func (e *eraser) refused(what string, ckn mka.CKN) {
	e.Helper()
	e.step(0, mka.Event{Kind: mka.EventAddCAK, CKN: ckn, Rank: 1, CAK: e.cak(what, ckn, 32)})
	for _, pa := range e.ports[0].Status().Participants {
		if pa.CKN == ckn && ckn != e.ckn {
			e.Fatalf("%s was taken", what)
		}
	}
}

// However a CAK ends, nothing that was derived from it stays in memory, and no
// SAK, not even the one in use, which the SecY alone needs. The Ports live on.
func TestKeysAreErased(t *testing.T) {
	both := func(kind mka.EventKind) func(*eraser) {
		return func(e *eraser) {
			for i := range e.ports {
				e.step(i, mka.Event{Kind: kind, CKN: e.ckn})
			}
		}
	}
	left := func(e *eraser) {
		for _, p := range e.ports {
			p.Erase()
		}
	}
	var search secrettest.Search
	var all []*eraser
	for _, c := range []struct {
		name   string
		suite  mka.CipherSuite
		octets int
		end    func(*eraser)
		stays  bool
	}{
		{"in use", mka.GCMAESXPN256, 32, func(*eraser) {}, true},
		{"in use, of 128 bit", mka.GCMAES128, 16, func(*eraser) {}, true},
		{"removed", mka.GCMAESXPN256, 32, both(mka.EventRemoveCAK), false},
		{"removed, of 128 bit", mka.GCMAES128, 16, both(mka.EventRemoveCAK), false},
		{"revoked", mka.GCMAESXPN256, 32, both(mka.EventRevokeCAK), false},
		{"left", mka.GCMAES256, 32, left, false},
		{"refused", mka.GCMAESXPN256, 32, func(e *eraser) {
			e.refused("second", e.ckn)
			e.refused("misnamed", mka.CKN(strings.Repeat("n", 33)))
			for i := range 7 { // there is room for eight
				e.step(0, mka.Event{Kind: mka.EventAddCAK, CKN: mka.CKN(fmt.Sprint(i)), Rank: 2, CAK: e.cak("further", mka.CKN(fmt.Sprint(i)), 32)})
			}
			e.refused("ninth", "ninth")
			left(e)
		}, false},
	} {
		e := newEraser(t, &search, c.name, c.suite)
		e.join(c.octets)
		c.end(e)
		e.stays = c.stays
		all = append(all, e)
	}
	image, err := search.Self()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		for _, name := range e.names {
			if want := e.stays && !strings.Contains(name, "SAK"); image.Has(name) != want {
				t.Errorf("%s is %s; want it there: %v", name, image.Where(name), want)
			}
		}
	}
	runtime.KeepAlive(all)
}

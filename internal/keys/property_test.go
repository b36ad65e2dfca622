package keys_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
)

// scheduled is the minute in which a random run begins.
const scheduled = 30000000

// world is what a random run knows of the truth, kept apart from the Ring.
type world struct {
	now   time.Time
	ring  *keys.Ring
	saved keys.State
	// has is what each channel holds: the version of the material by the channel's own
	// epoch, 0 for a file that is there but refused.
	has [2]map[keys.Epoch]int
	// mark is the highest confirmed epoch, ever.
	mark keys.Epoch
	// named is the one CAK that each CKN has ever stood for.
	named map[string][]byte
	// out are the keys that the agent holds from offers.
	out map[keys.Epoch]secret.Key
	// retired are the keys that were ever offered and then withdrawn.
	retired []secret.Key
	// skew is by how much the wall clock is ahead; latest is the greatest number that
	// was ever offered, which stays whatever the clock says.
	skew   time.Duration
	latest uint64
	// heard are the channels that the Ring has heard of since it was opened.
	heard [2]bool
}

func (w *world) material(side keys.Side, e keys.Epoch, version int) []byte {
	return octets(fmt.Sprint(side, e, version))
}

func (w *world) deliver(t *rapid.T, side keys.Side) {
	s := keys.NewSnapshot("/keys/"+side.String(), nil)
	s.Present = make(map[keys.Epoch]bool)
	for e, version := range w.has[side] {
		if version == 0 {
			s.Present[e] = true
			s.Findings = append(s.Findings, keys.Finding{Code: health.KeyFileMalformed, Epoch: e, File: e.String()})
			continue
		}
		s.Keys[e] = keys.Material{KeyID: e.String(), Key: secret.New(w.material(side, e, version))}
	}
	w.heard[side] = true
	w.check(t, w.ring.Update(side, s, w.now), true)
}

// check holds a Change to the rules, with what the world knows.
func (w *world) check(t *rapid.T, c keys.Change, readable bool) {
	if len(c.Offers) > keys.MaxOffers {
		t.Fatalf("%d offers", len(c.Offers))
	}
	for _, gone := range c.Withdrawn {
		key, ok := w.out[gone.Epoch]
		if !ok {
			t.Fatalf("withdrew %s, which was not offered", gone.Epoch)
		}
		w.retired = append(w.retired, key)
		delete(w.out, gone.Epoch)
	}
	for i, o := range c.Offers {
		if i > 0 && !o.Epoch.Less(c.Offers[i-1].Epoch) {
			t.Fatalf("offers out of order: %s after %s", o.Epoch, c.Offers[i-1].Epoch)
		}
		for side := range w.has {
			side := keys.Side(side)
			if o.Epoch.Less(w.mark) || o.Epoch.Side(side).Less(w.mark.Side(side)) || o.From[side] != o.Epoch.Side(side) {
				t.Fatalf("offers %s of %s, below the mark %s", o.Epoch, o.From, w.mark)
			}
		}
		if o.Epoch.Start().After(w.now.Add(w.skew)) && o.Epoch.Number > w.latest {
			t.Fatalf("offers %s, which has not started", o.Epoch)
		}
		w.latest = max(w.latest, o.Epoch.Number)
		if o.Key.IsZero() || o.Key.Len() != 32 {
			t.Fatalf("offer %s has no key", o.Epoch)
		}
		if readable {
			for side := range w.has {
				if _, ok := w.has[side][o.Epoch.Side(keys.Side(side))]; !ok {
					t.Fatalf("offers %s, which channel %s does not have", o.Epoch, keys.Side(side))
				}
			}
		}
		if was, ok := w.named[string(o.CKN)]; ok && !slices.Equal(was, o.Key.Bytes()) {
			t.Fatalf("CKN of %s names a second CAK", o.Epoch)
		}
		w.named[string(o.CKN)] = slices.Clone(o.Key.Bytes())
		if slices.Contains(c.Added, o.Epoch) {
			w.out[o.Epoch] = o.Key
		}
		if !w.out[o.Epoch].Equal(o.Key) {
			t.Fatalf("offer %s changed without a word", o.Epoch)
		}
	}
	if len(w.out) != len(c.Offers) {
		t.Fatalf("added and withdrawn leave %d, offers are %d", len(w.out), len(c.Offers))
	}
	for _, key := range w.retired {
		if !key.IsZero() {
			t.Fatal("a withdrawn key is not erased")
		}
	}
	if len(c.Offers) == 0 && len(c.Findings) == 0 && w.heard[keys.A] && w.heard[keys.B] && readable {
		t.Fatal("nothing is offered and nobody says why")
	}
	if w.mark.Compare(w.ring.HighWater()) != 0 || w.saved.HighWater.Compare(w.mark) != 0 {
		t.Fatalf("mark %s, ring %s, saved %s", w.mark, w.ring.HighWater(), w.saved.HighWater)
	}
}

func (w *world) open(t *rapid.T) {
	ring, err := keys.NewRing(linkID, w.saved, func(s keys.State) error { w.saved = s; return nil })
	if err != nil {
		t.Fatal(err)
	}
	ring.Wall(func() time.Time { return w.now.Add(w.skew) })
	w.ring, w.heard = ring, [2]bool{}
	clear(w.out)
}

func TestRingProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{
			now: time.Unix(scheduled*60, 0), named: make(map[string][]byte), out: make(map[keys.Epoch]secret.Key),
			has: [2]map[keys.Epoch]int{{}, {}},
		}
		w.open(t)
		w.deliver(t, keys.A)
		w.deliver(t, keys.B)
		anEpoch := rapid.Custom(func(t *rapid.T) keys.Epoch {
			return keys.Epoch{Number: rapid.SampledFrom([]uint64{1, 2, 3, scheduled, scheduled + 1, scheduled + 2}).Draw(t, "number"), Generation: rapid.Uint32Range(0, 2).Draw(t, "generation")}
		})
		aPair := rapid.Custom(func(t *rapid.T) keys.Epoch {
			a := anEpoch.Draw(t, "a")
			e, _ := keys.Pair(a, keys.Epoch{Number: a.Number, Generation: rapid.Uint32Range(0, 2).Draw(t, "b")})
			return e
		})
		aSide := rapid.SampledFrom([]keys.Side{keys.A, keys.B})
		t.Repeat(map[string]func(*rapid.T){
			"deliver": func(t *rapid.T) {
				side, e := aSide.Draw(t, "side"), anEpoch.Draw(t, "epoch")
				w.has[side][e] = rapid.SampledFrom([]int{1, 1, 1, 1, 2, 0}).Draw(t, "version")
				w.deliver(t, side)
			},
			"revoke": func(t *rapid.T) {
				side := aSide.Draw(t, "side")
				delete(w.has[side], anEpoch.Draw(t, "epoch"))
				w.deliver(t, side)
			},
			"confirm": func(t *rapid.T) {
				e := aPair.Draw(t, "epoch")
				if _, offered := w.out[e]; offered && w.mark.Less(e) {
					w.mark = e
				}
				w.check(t, w.ring.Confirm(e, w.now), true)
			},
			"unreadable": func(t *rapid.T) {
				side := aSide.Draw(t, "side")
				w.check(t, w.ring.Tick(w.now), true)
				before := len(w.out)
				c := w.ring.Update(side, keys.Snapshot{Unavailable: true, Findings: []keys.Finding{{Code: health.ChannelUnreadable}}}, w.now)
				w.check(t, c, false)
				if len(w.out) != before {
					t.Fatal("an unreadable channel changed the offers")
				}
				w.deliver(t, side)
			},
			"restart": func(t *rapid.T) {
				w.ring.Close()
				for e, key := range w.out {
					if !key.IsZero() {
						t.Fatalf("%s is not erased by Close", e)
					}
				}
				w.open(t)
				w.deliver(t, keys.A)
				w.deliver(t, keys.B)
			},
			"time": func(t *rapid.T) {
				w.now = w.now.Add(rapid.SampledFrom([]time.Duration{time.Second, time.Minute}).Draw(t, "passes"))
				w.check(t, w.ring.Tick(w.now), true)
			},
			"clock": func(t *rapid.T) {
				w.skew = rapid.SampledFrom([]time.Duration{0, -time.Hour, time.Minute, -40 * 365 * 24 * time.Hour}).Draw(t, "is ahead")
				before := len(w.out)
				w.check(t, w.ring.Tick(w.now), true)
				if w.skew < 0 && len(w.out) < before {
					t.Fatal("a clock that was set back took something away")
				}
			},
			"": func(*rapid.T) { w.now = w.now.Add(time.Second) },
		})
	})
}

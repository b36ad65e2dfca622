package keys

import (
	"crypto/rand"
	"crypto/sha512"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/secret/secrettest"
)

func init() { secrettest.Undisturbed() }

// looked is what TestMaterialIsErased looks for.
type looked struct {
	search secrettest.Search
	names  map[string]bool // whether it must be there
}

func (l *looked) forKey(name string, stays bool, octets []byte) {
	l.search.Add(name, octets)
	l.names[name] = stays
}

// snapshots are both channels' of some epochs, with new material, which is looked
// for with what is made of it.
func (l *looked) snapshots(t *testing.T, id Identity, name string, stays func(uint64) bool, epochs ...uint64) (sides [2]Snapshot) {
	t.Helper()
	for i := range sides {
		sides[i] = Snapshot{Keys: map[Epoch]Material{}}
	}
	for _, n := range epochs {
		e := Epoch{Number: n}
		name := fmt.Sprintf("%s, epoch %d", name, n)
		for i := range sides {
			k := secret.New(make([]byte, 32))
			_, _ = rand.Read(k.Bytes())
			sides[i].Keys[e] = Material{KeyID: e.String(), Key: k}
			l.forKey(fmt.Sprintf("%s: material %v", name, Side(i)), stays(n), k.Bytes())
		}
		a, b := sides[0].Keys[e], sides[1].Keys[e]
		cak, err := Combine(id, e, a, b)
		if err != nil {
			t.Fatal(err)
		}
		l.forKey(name+": CAK", stays(n), cak.Key.Bytes())
		cak.Key.Erase()
		secret.Do(func() { l.prk(name+": PRK", a.Key, b.Key) })
	}
	return sides
}

// prk looks for what is between material and CAK.
func (l *looked) prk(name string, a, b secret.Key) {
	ikm := make([]byte, 0, 80)
	for side, k := range []secret.Key{a, b} {
		ikm = appendLP(appendLP(ikm, "ab"[side:side+1]), k.Bytes())
	}
	salt := sha512.Sum384([]byte("lever-combine/1 extract"))
	prk := hmacSHA384(salt[:], ikm)
	l.search.Add(name, prk)
	l.search.AddPadded(name, prk)
	l.names[name] = false
	clear(ikm)
	clear(prk)
}

// However the time of an epoch ends, its material and its CAK are gone, and what
// was between them was never there. The Rings live on.
func TestMaterialIsErased(t *testing.T) {
	never, always := func(uint64) bool { return false }, func(uint64) bool { return true }
	now, id := time.Unix(1000, 0), Identity{Link: "l1", Nodes: []string{"r1", "r2"}}
	l := looked{names: map[string]bool{}}
	var rings []*Ring
	ring := func(s [2]Snapshot) *Ring {
		r, err := NewRing(id, State{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for side := range s {
			r.Update(Side(side), s[side], now)
		}
		rings = append(rings, r)
		return r
	}

	ring(l.snapshots(t, id, "in use", always, 1))
	r := ring(l.snapshots(t, id, "superseded", func(n uint64) bool { return n == 3 }, 1, 2, 3))
	r.Confirm(Epoch{Number: 3}, now)
	r = ring(l.snapshots(t, id, "revoked", never, 1))
	r.Update(A, Snapshot{}, now)
	r.Update(B, Snapshot{}, now)
	ring(l.snapshots(t, id, "closed", never, 1, 2)).Close()
	r = ring(l.snapshots(t, id, "delivered again", never, 1))
	for side, s := range l.snapshots(t, id, "changed", never, 1) {
		r.Update(Side(side), s, now)
	}
	r.Close()
	r = ring(l.snapshots(t, id, "of an unavailable channel", never, 1))
	s := l.snapshots(t, id, "with an error", never, 2)
	s[0].Unavailable = true
	r.Update(A, s[0], now)
	s[1].Erase()
	r.Close()

	image, err := l.search.Self()
	if err != nil {
		t.Fatal(err)
	}
	for name, stays := range l.names {
		if image.Has(name) != stays {
			t.Errorf("%s is %s; want it there: %v", name, image.Where(name), stays)
		}
	}
	runtime.KeepAlive(rings)
}

// The functions themselves leave nothing, neither on the stack of a goroutine that
// does nothing else afterwards.
func TestNothingIsLeftOnTheStack(t *testing.T) {
	id := Identity{Link: "l1", Nodes: []string{"r1", "r2"}}
	var search secrettest.Search
	done, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	calls := map[string]func(a, b Material){
		"Fingerprint": func(a, _ Material) { a.Fingerprint() },
		"Combine": func(a, b Material) {
			cak, err := Combine(id, Epoch{Number: 1}, a, b)
			if err != nil {
				t.Error(err)
			}
			cak.Key.Erase()
		},
	}
	for name, call := range calls {
		var m [2]Material
		for i := range m {
			k := secret.New(make([]byte, 32))
			_, _ = rand.Read(k.Bytes())
			search.Add(name, k.Bytes())
			m[i] = Material{KeyID: "1.0", Key: k}
		}
		go func() {
			call(m[A], m[B])
			done <- struct{}{}
			<-release
		}()
		<-done
		m[A].Key.Erase()
		m[B].Key.Erase()
	}
	image, err := search.Self()
	if err != nil {
		t.Fatal(err)
	}
	for name := range calls {
		if image.Has(name) {
			t.Errorf("after %s the material is %s", name, image.Where(name))
		}
	}
}

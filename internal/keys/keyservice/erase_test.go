package keyservice

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/secret"
)

// TestKeysAreErased follows the octets of keys through an exchange: each is overwritten
// once its time is over, and what a Ring was given is not.
func TestKeysAreErased(t *testing.T) {
	const length = 10 * time.Minute
	now := keys.Epoch{Number: 29_500_000}.Start()
	x := newExchange("l1", keys.A, "r1", "r2", length, openLedger("", "l1", keys.A))
	var all []secret.Key
	agree := func(e keys.Epoch) {
		id := "key-" + e.String()
		key := secret.Clone([]byte("thirty-two octets of " + e.String()))
		all = append(all, key)
		x.hold(now, e, id, key)
		x.retire(now)
	}
	start := x.current(now)
	first := keys.Epoch{Number: start}
	agree(first)
	s := x.snapshot("", now, nil)
	for g := range uint32(keptGenerations) {
		agree(keys.Epoch{Number: start, Generation: g + 1})
	}
	if !all[0].IsZero() || all[1].IsZero() {
		t.Errorf("of %d generations the first is erased (%t), and the second (%t)", len(all), all[0].IsZero(), all[1].IsZero())
	}
	if s.Keys[first].Key.IsZero() {
		t.Error("what was handed over is erased, too")
	}
	for i := range uint64(keptNumbers) {
		now = now.Add(length)
		agree(keys.Epoch{Number: start + 10*(i+1)})
	}
	for i, k := range all {
		if old := i < keptGenerations+1; k.IsZero() != old {
			t.Errorf("key %d is erased: %t", i, k.IsZero())
		}
	}
	if s := x.snapshot("", now, nil); len(s.Keys) != keptNumbers || !s.Present[first] {
		t.Errorf("%d keys are left, and %s is there: %t", len(s.Keys), first, s.Present[first])
	}

	offered := secret.Clone([]byte("thirty-two octets that were offered"))
	next := x.next(now)
	x.offers[next] = &offer{epoch: keys.Epoch{Number: next}, id: "x", key: offered}
	x.retire(now.Add(2 * length))
	if !offered.IsZero() || len(x.offers) > 0 {
		t.Error("an offer whose time is over is not erased")
	}
	x.erase()
	for i, k := range all {
		if !k.IsZero() {
			t.Errorf("key %d is not erased at the end", i)
		}
	}
}

// serviceFunc is a service in one function.
type serviceFunc func() (string, secret.Key, error)

func (serviceFunc) Kind() string             { return "test" }
func (serviceFunc) Where() string            { return "https://kme.example" }
func (serviceFunc) Findings() []keys.Finding { return nil }

func (f serviceFunc) New(context.Context, string) (string, secret.Key, error) { return f() }

func (f serviceFunc) Get(context.Context, string, string) (secret.Key, error) {
	_, key, err := f()
	return key, err
}

// TestBadServices have a service that breaks what it promises to its caller: it is
// refused, its key is erased, and the link's watcher goes on.
func TestBadServices(t *testing.T) {
	for _, tt := range []struct {
		name   string
		id     string
		octets int
		panics bool
		want   string
	}{
		{"an id that is none", "a/b", 32, false, "a key id that has other characters"},
		{"no id", "", 32, false, "a key id that has other characters"},
		{"a short key", "x", 31, false, "a key of 31 octets, want 32 to 512"},
		{"no key", "x", 0, false, "a key of 0 octets, want 32 to 512"},
		{"a long key", "x", 513, false, "a key of 513 octets"},
		{"a panic", "x", 32, true, "asking the key service: panic: oh"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var given []secret.Key
			c, err := New(serviceFunc(func() (string, secret.Key, error) {
				if tt.panics {
					panic("oh")
				}
				octets := make([]byte, tt.octets)
				for i := range octets {
					octets[i] = 0xa5
				}
				key := secret.New(octets)
				given = append(given, key)
				return tt.id, key, nil
			}), Options{Node: "r1", Nodes: func(string) []string { return []string{"r1", "r2"} }, Epoch: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var found []keys.Finding
			done := make(chan error)
			go func() { done <- c.Watch(ctx, "l1", func(s keys.Snapshot) { found = s.Findings }) }()
			time.Sleep(5 * time.Second)
			cancel()
			if err := <-done; err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			if len(found) != 1 || !strings.Contains(found[0].Detail, tt.want) {
				t.Errorf("%s: found %v, want %q", tt.name, found, tt.want)
			}
			for _, k := range given {
				if !k.IsZero() && tt.octets > 0 {
					t.Errorf("%s: its key is not erased", tt.name)
				}
			}
			c.Close()
		})
	}
}

// TestOptions are those without which there is no channel.
func TestOptions(t *testing.T) {
	nodes := func(string) []string { return nil }
	for _, o := range []Options{
		{}, {Node: "r1"}, {Node: "r1", Nodes: nodes}, {Node: "r1", Nodes: nodes, Epoch: 90 * time.Second},
		{Nodes: nodes, Epoch: time.Hour}, {Node: "r1", Nodes: nodes, Epoch: time.Hour, Side: 2},
	} {
		if _, err := New(serviceFunc(nil), o); err == nil {
			t.Errorf("%+v makes a channel", o)
		}
	}
	c, err := New(serviceFunc(nil), Options{Node: "r1", Nodes: nodes, Epoch: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Watch(t.Context(), "../l1", nil); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("a link that is a path: %v", err)
	}
}

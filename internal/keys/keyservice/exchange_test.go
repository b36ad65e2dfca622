package keyservice_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyservice"
	"github.com/lever-link/lever/internal/keys/keyservice/kmetest"
)

// TestSchedule goes through hours of epochs: each is there before it starts, with
// generation 0, and cost one key.
func TestSchedule(t *testing.T) {
	inTime(t, func(t *testing.T, p *pair) {
		p.start()
		first := p.same(time.Second, now())
		if first.Generation != 0 {
			t.Errorf("the first is %s", first)
		}
		const epochs = 30
		for range epochs {
			next := keys.Epoch{Number: now() + 10}
			time.Sleep(time.Until(next.Start().Add(-30 * time.Second)))
			if got := p.same(time.Second, next.Number); got != next {
				t.Errorf("half a minute before %s there is %s", next, got)
			}
			time.Sleep(time.Until(next.Start().Add(time.Second)))
		}
		if n := p.r1.kme.Requests("new"); n != epochs+1 {
			t.Errorf("%d epochs cost %d keys", epochs+1, n)
		}
		if n := p.r2.kme.Requests("get"); n != epochs+1 {
			t.Errorf("%d epochs were asked for %d times", epochs+1, n)
		}
		for _, e := range []*end{p.r1, p.r2} {
			if len(e.last.Keys) > 3 || len(e.last.Findings) > 0 {
				t.Errorf("%s keeps %d keys, and finds %v", e.name, len(e.last.Keys), e.last.Findings)
			}
			if e.last.Where != "https://kme.example" || e.channel.Where(testLink) != e.last.Where {
				t.Errorf("%s is at %q", e.name, e.last.Where)
			}
		}
	})
}

// TestBadLink loses half of all messages, repeats and reorders them.
func TestBadLink(t *testing.T) {
	inTime(t, func(_ *testing.T, p *pair) {
		p.loss, p.twice, p.late = 0.5, 0.3, 4*time.Second
		p.start()
		p.same(5*time.Minute, now())
		for range 20 {
			next := now() + 10
			time.Sleep(time.Until((keys.Epoch{Number: next}).Start()))
			p.same(5*time.Minute, next)
		}
	})
}

// TestOffersArePatient counts what goes over a link that is cut.
func TestOffersArePatient(t *testing.T) {
	inTime(t, func(t *testing.T, p *pair) {
		var at []time.Duration
		began := time.Now()
		p.tap = func(from int, _ keyservice.Message) bool {
			if from == 0 {
				at = append(at, time.Since(began).Round(time.Second))
			}
			return false
		}
		p.start()
		time.Sleep(time.Minute)
		want := "[0s 1s 3s 7s 15s 25s 35s 45s 55s]"
		p.mu.Lock()
		if got := fmt.Sprint(at); got != want {
			t.Errorf("offered at %s, want %s", got, want)
		}
		p.mu.Unlock()
		if f, ok := p.r1.finding(health.ChannelUnreachable); !ok || !strings.Contains(f.Detail, "r2 does not answer") {
			t.Errorf("nothing says that the far end does not answer: %v", p.r1.last.Findings)
		}
		p.mu.Lock()
		p.tap = nil
		p.mu.Unlock()
		if e := p.same(15*time.Second, now()); e.Generation != 0 {
			t.Errorf("agreed on %s", e)
		}
		if f, ok := p.r1.finding(health.ChannelUnreachable); ok {
			t.Errorf("still %v", f)
		}
	})
}

// TestRestarts restarts each end and both, at every stage. Keys are lost each time,
// and each time there is another under a generation that was never used.
func TestRestarts(t *testing.T) {
	inTime(t, func(_ *testing.T, p *pair) {
		p.start()
		last := p.same(time.Second, now())
		for i, restart := range []func(){
			p.r1.restart, p.r2.restart,
			func() { p.r1.restart(); p.r2.restart() },
			func() { p.r2.halt(); p.r1.restart(); time.Sleep(20 * time.Second); p.r2.start() },
			func() { p.r1.halt(); p.r2.restart(); time.Sleep(20 * time.Second); p.r1.start() },
		} {
			time.Sleep(10 * time.Second)
			restart()
			p.await(90*time.Second, fmt.Sprintf("agreed after restart %d", i), func() bool {
				a, b := p.r1.newest(), p.r2.newest()
				return a == b && last.Less(a)
			})
			last = p.same(time.Second, p.r1.newest().Number)
			time.Sleep(2 * time.Minute) // what the services give for it is bounded
		}
	})
}

// TestRestartsWithoutALedger loses the state directory of one end as well.
func TestRestartsWithoutALedger(t *testing.T) {
	inTime(t, func(t *testing.T, p *pair) {
		p.start()
		last := p.same(time.Second, now())
		for _, e := range []*end{p.r1, p.r2, p.r1} {
			time.Sleep(time.Minute)
			e.halt()
			if err := os.RemoveAll(e.opts.StateDir); err != nil {
				t.Fatal(err)
			}
			e.restart()
			p.await(time.Minute, "agreed after "+e.name+" lost everything", func() bool {
				a, b := p.r1.newest(), p.r2.newest()
				return a == b && last.Less(a)
			})
			last = p.r1.newest()
		}
	})
}

// TestRestartRevokesNothing holds that what was used before a restart is still said to
// be there, so that what it has keyed goes on.
func TestRestartRevokesNothing(t *testing.T) {
	inTime(t, func(t *testing.T, p *pair) {
		p.start()
		before := p.same(time.Second, now())
		time.Sleep(10 * time.Second)
		p.r2.restart()
		synctest.Wait()
		if !p.r2.last.Unavailable {
			t.Errorf("without a key r2 says that there is none: %+v", p.r2.last)
		}
		p.await(time.Minute, "agreed", func() bool { return !p.r2.newest().IsZero() })
		if !p.r2.last.Present[before] {
			t.Errorf("r2 has revoked %s: %+v", before, p.r2.last)
		}
	})
}

// TestSessionKeepsItsKeys watches anew, as after an interface that came back: no key
// is lost, and none costs another. After a while without a watcher they are erased.
func TestSessionKeepsItsKeys(t *testing.T) {
	inTime(t, func(t *testing.T, p *pair) {
		p.start()
		e := p.same(time.Second, now())
		for range 3 {
			p.r1.stop()
			p.r2.stop()
			time.Sleep(30 * time.Second)
			p.r1.watch()
			p.r2.watch()
			if got := p.same(time.Second, now()); got != e {
				t.Errorf("%s is %s now", e, got)
			}
		}
		if n := p.r1.kme.Requests("new"); n != 1 {
			t.Errorf("asked for %d keys", n)
		}
		p.r1.stop()
		time.Sleep(2 * time.Minute)
		p.r1.watch()
		synctest.Wait()
		if !p.r1.last.Unavailable {
			t.Errorf("r1 has kept the key: %+v", p.r1.last)
		}
		p.await(time.Minute, "agreed again", func() bool { n := p.r1.newest(); return e.Less(n) && n == p.r2.newest() })
	})
}

// TestLaterWatchEndsTheEarlier is a task that was left behind.
func TestLaterWatchEndsTheEarlier(t *testing.T) {
	inTime(t, func(_ *testing.T, p *pair) {
		p.start()
		p.same(time.Second, now())
		first := p.r1.stop
		p.r1.watch()
		p.same(time.Second, now())
		first() // it has ended, or this would not return
	})
}

// TestUnsynchronised has services that do not agree: the far end says so, and there is
// a next generation until they do.
func TestUnsynchronised(t *testing.T) {
	inTime(t, func(t *testing.T, p *pair) {
		p.r1.kme.Set(kmetest.Faults{Unsynchronised: true})
		p.start()
		p.await(time.Minute, "found out at both ends", func() bool {
			a, atA := p.r1.finding(health.KeyServiceBehind)
			b, atB := p.r2.finding(health.KeyServiceBehind)
			return atA && atB && a.Epoch.Number == now() && strings.Contains(a.Detail, "r2 does not get") && strings.Contains(b.Detail, "asked 3 times for")
		})
		if !p.r1.newest().IsZero() || !p.r2.newest().IsZero() {
			t.Error("there is a key that the other does not have")
		}
		time.Sleep(2 * time.Minute)
		if n := p.r1.kme.Requests("new"); n > 10 {
			t.Errorf("%d keys were used up in two minutes", n)
		}
		p.r1.kme.Set(kmetest.Faults{})
		if e := p.same(6*time.Minute, now()); e.Generation == 0 {
			t.Errorf("agreed on %s, which was asked for again", e)
		}
		for _, e := range []*end{p.r1, p.r2} {
			if f, ok := e.finding(health.KeyServiceBehind); ok {
				t.Errorf("%s still finds %v", e.name, f)
			}
		}
	})
}

// TestLateKeys have services that need some seconds: nobody complains.
func TestLateKeys(t *testing.T) {
	inTime(t, func(t *testing.T, p *pair) {
		p.r1.kme.Set(kmetest.Faults{Late: 4 * time.Second})
		p.start()
		if e := p.same(10*time.Second, now()); e.Generation != 0 {
			t.Errorf("agreed on %s", e)
		}
		if n := p.r1.kme.Requests("new"); n != 1 {
			t.Errorf("asked for %d keys", n)
		}
	})
}

// TestServiceTrouble goes through what a service may do, at each end, and what is said
// of it; the link is agreed on as soon as it is over.
func TestServiceTrouble(t *testing.T) {
	for _, tt := range []struct {
		name   string
		faults kmetest.Faults
		code   health.Code
		detail string // with etsi014
	}{
		{"empty", kmetest.Faults{Empty: true}, health.KeyServiceRefused, "status 503 (Service Unavailable)"},
		{"503", kmetest.Faults{Status: 503, Body: `{"message":"out of order"}`}, health.KeyServiceRefused, "status 503 (Service Unavailable): out of order"},
		{"401", kmetest.Faults{Status: 401, Body: `{"message":"who are you?"}`}, health.KeyServiceRefused, "status 401 (Unauthorized): who are you?"},
		{"slow", kmetest.Faults{Slow: time.Minute}, health.ChannelUnreachable, "no answer within 10s"},
		{"no JSON", kmetest.Faults{Status: 200, Body: "<html>"}, health.KeyServiceRefused, "it is not the JSON that it must be"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inTime(t, func(t *testing.T, p *pair) {
				for _, e := range []*end{p.r1, p.r2} {
					if e == p.r2 && tt.faults.Empty {
						continue // of no matter to it
					}
					e.kme.Set(tt.faults)
					p.start()
					p.await(2*time.Minute, "a finding of "+e.name, func() bool {
						f, ok := e.finding(tt.code)
						return ok && (strings.Contains(f.Detail, tt.detail) || f.Code == health.KeyServiceRefused && strings.Contains(e.channel.Kind(), "skip"))
					})
					if n := p.r2.newest(); !n.IsZero() {
						t.Errorf("r2 has %s", n)
					}
					e.kme.Set(kmetest.Faults{})
					p.await(2*time.Minute, "agreed", func() bool { n := p.r1.newest(); return !n.IsZero() && n == p.r2.newest() })
					if f, ok := e.finding(tt.code); ok {
						t.Errorf("%s still finds %v", e.name, f)
					}
					p.r1.halt()
					p.r2.halt()
					time.Sleep(30 * time.Minute)
				}
			})
		})
	}
}

// TestWrongKey has a service that gives another key for an id. No end can see that;
// the keys have one name, and MKA finds an ICV that does not hold.
func TestWrongKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, protocols[0].open)
		p.r2.kme.Set(kmetest.Faults{WrongKey: true})
		p.start()
		p.await(time.Second, "keys", func() bool { n := p.r1.newest(); return !n.IsZero() && n == p.r2.newest() })
		e := p.r1.newest()
		if a, b := p.r1.material(e), p.r2.material(e); a.KeyID != b.KeyID || a.Key.Equal(b.Key) {
			t.Errorf("%q and %q, equal: %t", a.KeyID, b.KeyID, a.Key.Equal(b.Key))
		}
		clear(p.r2.fingerprint) // they do differ
	})
}

// TestInjected has somebody on the link who writes what he likes, all the time. He
// costs a few calls a minute, and when he goes the ends agree.
func TestInjected(t *testing.T) {
	inTime(t, func(t *testing.T, p *pair) {
		p.start()
		before := p.same(time.Second, now())
		stop := make(chan struct{})
		quiet := sync.OnceFunc(func() { close(stop) })
		defer quiet()
		seen := "5f3a"
		p.mu.Lock()
		p.tap = func(_ int, m keyservice.Message) bool {
			if m.KeyID != "" {
				seen = m.KeyID
			}
			return true
		}
		p.mu.Unlock()
		go func() {
			n := uint64(0)
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
				}
				n++
				p.mu.Lock()
				id := seen
				p.mu.Unlock()
				if n%3 > 0 {
					id = fmt.Sprintf("bogus-%d", n)
				}
				m := keyservice.Message{
					Kind: keyservice.Kind(1 + n%3), Side: keys.B, KeyID: id,
					Epoch: keys.Epoch{Number: now() + 10*(n%4/2), Generation: uint32(n * 7919 % 65536)},
				}
				if n%5 == 0 {
					m.Epoch.Generation %= 3
				}
				if n%11 == 0 && m.Kind != keyservice.Offer {
					m.KeyID = ""
				}
				p.inject(0, m)
				p.inject(1, m)
			}
		}()
		const minutes = 35
		gets, news := p.r2.kme.Requests("get"), p.r1.kme.Requests("new")
		for range minutes {
			time.Sleep(time.Minute)
			for _, e := range []*end{p.r1, p.r2} {
				e.mu.Lock()
				if _, held := e.last.Keys[before]; !held && !e.last.Present[before] {
					t.Errorf("%s: %s, which is in use, is gone", e.name, before)
				}
				e.mu.Unlock()
			}
		}
		quiet()
		if n := p.r2.kme.Requests("get") - gets; n > 6*(minutes+1) {
			t.Errorf("the far end's service was asked %d times in %d minutes", n, minutes)
		}
		if n := p.r1.kme.Requests("new") - news; n > 6*(minutes+1) {
			t.Errorf("%d keys were used up in %d minutes", n, minutes)
		}
		t.Logf("%d minutes of hostile messages: %d calls for ids, %d for new keys", minutes, p.r2.kme.Requests("get")-gets, p.r1.kme.Requests("new")-news)
		p.await(15*time.Minute, "agreed again", func() bool { n := p.r1.newest(); return n.Number >= now() && n == p.r2.newest() })
	})
}

// TestForged are single messages at the worst moment. Each costs a key or some seconds
// at most.
func TestForged(t *testing.T) {
	for _, tt := range []struct {
		name  string
		forge func(m keyservice.Message) keyservice.Message // of the first offer
		to    int
	}{
		{"taken, far ahead", func(m keyservice.Message) keyservice.Message {
			m.Kind, m.KeyID, m.Epoch.Generation = keyservice.Got, "other", 60000
			return m
		}, 0},
		{"taken, at the end", func(m keyservice.Message) keyservice.Message {
			m.Kind, m.KeyID, m.Epoch.Generation = keyservice.Got, "", keys.MaxGeneration
			return m
		}, 0},
		{"got, and it is not", func(m keyservice.Message) keyservice.Message { m.Kind = keyservice.Got; return m }, 0},
		{"got under another name", func(m keyservice.Message) keyservice.Message {
			m.Kind, m.Epoch.Generation = keyservice.Got, 77
			return m
		}, 0},
		{"lost, and it is not", func(m keyservice.Message) keyservice.Message { m.Kind = keyservice.Lost; return m }, 0},
		{"lost without an id", func(m keyservice.Message) keyservice.Message { m.Kind, m.KeyID = keyservice.Lost, ""; return m }, 0},
		{"offered under another name", func(m keyservice.Message) keyservice.Message { m.Epoch.Generation = 9; return m }, 1},
		{"offered under a name far ahead", func(m keyservice.Message) keyservice.Message { m.Epoch.Generation = 60000; return m }, 1},
		{"offered for the next number", func(m keyservice.Message) keyservice.Message { m.Epoch.Number += 10; return m }, 1},
		{"offered for a number that is none", func(m keyservice.Message) keyservice.Message { m.Epoch.Number += 3; return m }, 1},
		{"another id", func(m keyservice.Message) keyservice.Message { m.KeyID = "bogus"; return m }, 1},
	} {
		for _, instead := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, instead %t", tt.name, instead), func(t *testing.T) {
				inTime(t, func(t *testing.T, p *pair) {
					once := true
					p.tap = func(from int, m keyservice.Message) bool {
						if from != 0 || m.Kind != keyservice.Offer || !once {
							return true
						}
						once = false
						b, err := tt.forge(m).Encode()
						if err != nil {
							t.Error(err)
						}
						p.carry(tt.to, b)
						return !instead
					}
					p.start()
					p.await(3*time.Minute, "agreed", func() bool {
						a, b := p.r1.newest(), p.r2.newest()
						return !a.IsZero() && a.Number == now() && p.r2.material(a).KeyID == p.r1.material(a).KeyID && !b.IsZero()
					})
					if n := p.r1.kme.Requests("new"); n > 3 {
						t.Errorf("one message costs %d keys", n)
					}
				})
			})
		}
	}
}

// TestGroupsAreRefused has a link of three nodes, and one that is not this node's.
func TestGroupsAreRefused(t *testing.T) {
	for _, nodes := range [][]string{nil, {"r1"}, {"r1", "r1"}, {"r2", "r3"}, {"r1", "r2", "r3"}} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, protocols[0].open)
			p.r1.opts.Nodes = func(string) []string { return nodes }
			p.r1.start()
			if f, ok := p.r1.finding(health.KeyServiceRefused); !ok || !strings.Contains(f.Detail, "gives a key to two nodes") || !p.r1.last.Unavailable {
				t.Errorf("%v: %+v", nodes, p.r1.last)
			}
		})
	}
}

// TestLedgerTrouble has state directories that cannot be used.
func TestLedgerTrouble(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"{", "it is not such a file"},
		{`{"version":2,"link":"fra1-ams1-017","channel":"b","epochs":[]}`, "it has version 2"},
		{`{"version":1,"link":"other","channel":"b","epochs":[]}`, `it belongs to link "other"`},
		{`{"version":1,"link":"fra1-ams1-017","channel":"a","epochs":[]}`, `on channel "a"`},
		{`{"version":1,"link":"fra1-ams1-017","channel":"b","epochs":[]} x`, "it goes on after its end"},
		{`{"version":1,"link":"fra1-ams1-017","channel":"b","epochs":["x"]}`, "it is not such a file"},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, protocols[0].open)
			path := filepath.Join(p.r1.opts.StateDir, "key-service", "b", testLink+".json")
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(tt.text), 0o600)); err != nil {
				t.Fatal(err)
			}
			p.r1.start()
			if f, ok := p.r1.finding(health.StateUnwritable); !ok || !strings.Contains(f.Detail, tt.want) {
				t.Errorf("%s: found %v, want %q", tt.text, p.r1.last.Findings, tt.want)
			}
			p.r2.start()
			p.same(10*time.Second, now())
			if f, ok := p.r1.finding(health.StateUnwritable); ok {
				t.Errorf("it was written anew, and still %v", f)
			}
		})
	}
}

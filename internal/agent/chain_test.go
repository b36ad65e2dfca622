//go:build !kernel

package agent

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/mka"
)

// newChainPair is a link whose ends are external to each other, with static keys
// that begin and end so long after the start; zero is never.
func newChainPair(t *testing.T, bounds ...[2]time.Duration) *pair {
	t.Helper()
	p := newPair(t)
	dir := t.TempDir()
	var chain []inventory.PSK
	for i, b := range bounds {
		k := inventory.PSK{CKN: []byte{'a' + byte(i)}, CAKFile: filepath.Join(dir, string(rune('a'+i)))}
		for j, to := range []*time.Time{&k.NotBefore, &k.NotAfter} {
			if b[j] != 0 {
				*to = time.Now().Add(b[j])
			}
		}
		chain = append(chain, k)
		digits := strings.Repeat(hex.EncodeToString([]byte{byte(i + 1), 0x5e}), 16)
		if err := os.WriteFile(k.CAKFile, []byte(digits), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.change(func(l *inventory.Link) { l.External, l.PSK = true, chain })
	return p
}

// uses waits until a link is secured with a key of the chain.
func (n *node) uses(within time.Duration, ckn string) LinkStatus {
	n.t.Helper()
	return n.await(within, "secured with "+ckn, func(s LinkStatus) bool {
		return s.State == StateSecured && s.CKN == hex.EncodeToString([]byte(ckn))
	})
}

// wantOffers checks what keys a link speaks MKA with, the best first.
func (n *node) wantOffers(want string) {
	n.t.Helper()
	var got []string
	for _, ckn := range n.status().Offers {
		name, err := hex.DecodeString(ckn)
		if err != nil {
			n.t.Fatal(err)
		}
		got = append(got, string(name))
	}
	if strings.Join(got, " ") != want {
		n.t.Errorf("%s offers %q, want %q", n.name, got, want)
	}
}

// A key is replaced by its successor while both are valid, and then withdrawn.
func TestChainRollsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newChainPair(t, [2]time.Duration{0, 100 * time.Second}, [2]time.Duration{50 * time.Second, 0})
		p.start()
		p.secured(10 * time.Second)
		defer p.stream(t)()
		for _, n := range p.nodes() {
			n.uses(0, "a")
			n.wantOffers("a")
		}
		time.Sleep(30 * time.Second)
		for _, n := range p.nodes() {
			n.wantOffers("a")
		}
		for _, n := range p.nodes() {
			n.uses(time.Minute, "b")
			n.wantOffers("b a")
		}
		time.Sleep(time.Minute)
		for _, n := range p.nodes() {
			n.wantOffers("b")
			if st := n.uses(0, "b"); len(st.Faults) != 0 || st.Rekeys != 1 {
				t.Errorf("%s: %+v", n.name, st)
			}
		}
	})
}

// The far end has its own list, and its own clock.
func TestChainsThatDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newChainPair(t, [2]time.Duration{0, 100 * time.Second}, [2]time.Duration{20 * time.Second, 0}, [2]time.Duration{30 * time.Second, 0})
		late := *p.r2.link.Link
		late.PSK = slices.Clone(late.PSK[:2])
		late.PSK[1].NotBefore = late.PSK[1].NotBefore.Add(30 * time.Second)
		p.r2.link.Link = &late
		p.start()
		p.secured(10 * time.Second)
		defer p.stream(t)()
		time.Sleep(40 * time.Second)
		p.r1.wantOffers("c b a")
		for _, n := range p.nodes() {
			n.uses(0, "a")
		}
		time.Sleep(15 * time.Second)
		for _, n := range p.nodes() {
			n.uses(0, "b")
		}
		time.Sleep(50 * time.Second)
		p.r1.wantOffers("c b")
		p.r2.wantOffers("b")
	})
}

// The end of a key ends no traffic: it stays, with a fault, until another one
// has taken its place. A restart changes nothing about that.
func TestExpiredKeyStaysUntilItIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newChainPair(t, [2]time.Duration{0, time.Minute}, [2]time.Duration{2 * time.Minute, 0})
		p.start()
		for _, n := range p.nodes() {
			n.uses(10*time.Second, "a")
			if f := n.awaitFault(0, health.PSKExpiring); !strings.Contains(f.Text, "key 61 ") || !strings.Contains(f.Text, "2000-01-01T00:01:00Z") {
				t.Errorf("%s", f)
			}
		}
		end := p.stream(t)
		time.Sleep(time.Minute)
		for _, n := range p.nodes() {
			n.uses(0, "a")
			f := n.awaitFault(0, health.PSKExpired)
			if !strings.Contains(f.Text, "key 61 expired at 2000-01-01T00:01:00Z: it stays in use, as no other key of the link is valid") ||
				!f.Since.Equal(time.Date(2000, 1, 1, 0, 1, 0, 0, time.UTC)) {
				t.Errorf("%s since %v", f, f.Since)
			}
			if f := n.awaitFault(0, health.PSKPending); !strings.Contains(f.Text, "valid before 2000-01-01T00:02:00Z") || has(n.status(), health.PSKExpiring) {
				t.Errorf("%s", f)
			}
		}
		for _, n := range p.nodes() {
			n.halt()
			time.Sleep(2 * time.Second)
			n.start()
			n.uses(10*time.Second, "a")
			n.awaitFault(0, health.PSKExpired)
		}
		time.Sleep(time.Minute)
		p.secured(0)
		for _, n := range p.nodes() {
			n.uses(0, "b")
			n.wantOffers("b")
		}
		end()
	})
}

// A key that has expired is not taken into use anew: only an agent that goes on
// where another was may.
func TestExpiredKeyIsNotBegunWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newChainPair(t, [2]time.Duration{0, time.Minute})
		time.Sleep(2 * time.Minute)
		p.start()
		for _, n := range p.nodes() {
			n.awaitState(0, StateWaiting)
			if f := n.awaitFault(0, health.PSKExpired); !strings.Contains(f.Text, "no key of the link is valid, and none is used") {
				t.Errorf("%s", f)
			}
		}
	})
}

// The key that follows may have begun earlier, and so be the lesser one.
func TestKeyWithinAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newChainPair(t, [2]time.Duration{0, 0}, [2]time.Duration{20 * time.Second, 80 * time.Second})
		p.start()
		p.secured(10 * time.Second)
		defer p.stream(t)()
		time.Sleep(30 * time.Second)
		for _, n := range p.nodes() {
			n.uses(0, "b")
		}
		time.Sleep(time.Minute)
		p.secured(0)
		for _, n := range p.nodes() {
			n.uses(0, "a")
			n.wantOffers("a")
		}
	})
}

// The far end does not have the successor: the expired key stays and says why.
func TestFarEndDoesNotFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newChainPair(t, [2]time.Duration{0, time.Minute}, [2]time.Duration{20 * time.Second, 0})
		behind := *p.r2.link.Link
		behind.PSK = slices.Clone(behind.PSK[:1])
		behind.PSK[0].NotAfter = time.Time{}
		p.r2.link.Link = &behind
		p.start()
		for _, n := range p.nodes() {
			n.uses(10*time.Second, "a")
		}
		end := p.stream(t)
		time.Sleep(time.Minute)
		if st := p.r1.uses(0, "a"); has(st, health.PSKExpired) {
			t.Errorf("a far end that has just been asked to follow is a fault already: %+v", st)
		}
		f := p.r1.awaitFault(time.Minute+rollPatience, health.PSKExpired)
		if !strings.Contains(f.Text, "the far end has not taken a key that is still valid into use") {
			t.Errorf("%s", f)
		}
		p.r1.wantOffers("b a")
		p.r2.wantOffers("a")
		end()
	})
}

// A file that comes late is read when it is there.
func TestKeyFileThatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newChainPair(t, [2]time.Duration{time.Minute, 0})
		path := p.r1.link.PSK[0].CAKFile
		if err := os.Rename(path, path+".later"); err != nil {
			t.Fatal(err)
		}
		p.start()
		for _, n := range p.nodes() {
			n.awaitState(0, StateWaiting)
			n.awaitFault(0, health.PSKPending)
		}
		time.Sleep(90 * time.Second)
		for _, n := range p.nodes() {
			n.awaitState(0, StateWaiting)
			if f := n.awaitFault(0, health.KeyFileUnreadable); !strings.Contains(f.Text, path) || has(n.status(), health.PSKPending) {
				t.Errorf("%s", f)
			}
		}
		if err := os.Rename(path+".later", path); err != nil {
			t.Fatal(err)
		}
		p.secured(rollEvery + 10*time.Second)
	})
}

// TestOutlook looks at chains from one moment.
func TestOutlook(t *testing.T) {
	now := time.Date(2026, 6, 15, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	key := func(ckn string, before, after time.Duration) inventory.PSK {
		k := inventory.PSK{CKN: []byte(ckn)}
		if before != 0 {
			k.NotBefore = now.Add(before)
		}
		if after != 0 {
			k.NotAfter = now.Add(after)
		}
		return k
	}
	for _, c := range []struct {
		name  string
		chain []inventory.PSK
		want  []string // each is in the fault of its place
		next  time.Duration
	}{
		{"for ever", []inventory.PSK{key("a", 0, 0)}, nil, rollEvery},
		{"for eight days", []inventory.PSK{key("a", 0, 8*day)}, nil, rollEvery},
		{"for seven days", []inventory.PSK{key("a", 0, 7*day)}, []string{"psk-expiring (warning): the last static key 61 of this link expires at 2026-06-22T12:00:00Z"}, rollEvery},
		{"followed", []inventory.PSK{key("a", 0, day), key("b", day/2, 0)}, nil, rollEvery},
		{"followed for a while", []inventory.PSK{key("a", 0, day), key("b", day/2, 3*day)}, []string{"static key 62 of this link expires at 2026-06-18T12:00:00Z"}, rollEvery},
		{"before a gap", []inventory.PSK{key("a", 0, day), key("b", 2*day, 0)}, []string{"key 61 of this link expires at 2026-06-16T12:00:00Z"}, rollEvery},
		{"in a gap", []inventory.PSK{key("a", 0, -day), key("b", 10*time.Second, 0)},
			[]string{"psk-pending (critical): no static key of this link is valid before 2026-06-15T12:00:10Z", "psk-expired (critical): the static key 61 expired at 2026-06-14T12:00:00Z"}, 10 * time.Second},
		{"over", []inventory.PSK{key("a", 0, -2*day), key("b", -day, -time.Hour)}, []string{"static key 62 expired at 2026-06-15T11:00:00Z"}, rollEvery},
		{"a boundary", []inventory.PSK{key("a", 0, 30*time.Second), key("b", 20*time.Second, 0)}, nil, 20 * time.Second},
	} {
		ch := newChain(&inventory.Link{PSK: c.chain}, nil)
		found := ch.outlook(now)
		if len(found) != len(c.want) {
			t.Errorf("%s: %v", c.name, found)
			continue
		}
		for i, f := range found {
			if !strings.Contains(f.String(), c.want[i]) || strings.Contains(f.String(), "(unknown)") {
				t.Errorf("%s: %s, want %q", c.name, f, c.want[i])
			}
		}
		if got := ch.next(now).Sub(now); got != c.next {
			t.Errorf("%s: looks again after %v, want %v", c.name, got, c.next)
		}
	}
}

// The later a key begins the better it is; of two that begin together the last.
func TestChainOrder(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 6, n, 0, 0, 0, 0, time.UTC) }
	l := &inventory.Link{PSK: []inventory.PSK{
		{CKN: []byte("d"), NotBefore: day(3)}, {CKN: []byte("a")}, {CKN: []byte("c"), NotBefore: day(2)}, {CKN: []byte("b")}, {CKN: []byte("e"), NotBefore: day(3)},
	}}
	var names string
	for i, k := range newChain(l, &mka.Record{Participants: []mka.ParticipantRecord{{CKN: "c"}}}).keys {
		names += string(k.ckn)
		if k.rank != uint64(i)+1 || k.resumed != (k.ckn == "c") {
			t.Errorf("%s: rank %d, resumed %t", k.ckn, k.rank, k.resumed)
		}
	}
	if names != "abcde" {
		t.Errorf("the order is %s", names)
	}
}

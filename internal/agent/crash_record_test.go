//go:build !kernel

package agent

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
)

// newBookedPair is a secured link of which a book is kept.
func newBookedPair(t *testing.T) (*pair, *book) {
	t.Helper()
	p, b := newPair(t), newBook(t)
	for _, n := range p.nodes() {
		b.begin(n, 0, false)
	}
	p.deliver(epoch(t, "1.0"))
	p.start()
	p.secured(time.Second)
	return p, b
}

// again crashes an agent and starts another, which finds text as its record.
func (b *book) again(n *node, text string) {
	n.crash()
	if err := put(linkPath(n.runDir, "l1"), text); err != nil {
		b.t.Fatal(err)
	}
	b.begin(n, 0, false)
	n.start()
}

// steady waits until the link is secured as if nothing had been.
func (p *pair) steady(what string) {
	p.r1.t.Helper()
	p.secured(resecured)
	time.Sleep(12 * time.Second)
	p.secured(0)
	if wrong := p.settled(); len(wrong) > 0 {
		p.r1.t.Errorf("%s: left over:\n%s", what, strings.Join(wrong, "\n"))
	}
}

// A record of long ago is put back, once of each age: after more message numbers and
// key numbers than any stride. It is the device that knows better: the strides leave
// out what the last record but one did not know (mka), and the SAs contradict a record
// only if the SAK has changed since.
func TestRecordThatIsPutBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newBookedPair(t)
		for range 40 {
			for _, n := range p.nodes() {
				if err := n.ask("rekey"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(4 * time.Second)
			}
		}
		time.Sleep(2 * time.Hour) // on one SAK, about three strides of message numbers
		f := p.flow()
		for _, n := range p.nodes() {
			had := b.records(n)
			if len(had) < 100 {
				t.Fatalf("%s: only %d records", n.name, len(had))
			}
			for _, k := range []int{0, 1, 2, len(had) / 2, len(had) - 4, len(had) - 3, len(had) - 2} {
				before := strings.Count(p.r1.log.String(), "the record is of no use")
				b.again(n, had[k])
				p.steady(fmt.Sprintf("%s: record %d of %d", n.name, k, len(had)))
				if k > 0 && strings.Count(p.r1.log.String(), "the record is of no use") != before+1 { // in the first there is no Port's
					t.Errorf("%s: record %d of %d is believed", n.name, k, len(had))
				}
			}
			had = b.records(n)
			before := p.r1.log.String()
			b.again(n, had[len(had)-1])
			p.steady(n.name + ": the last record")
			if after := p.r1.log.String()[len(before):]; strings.Contains(after, "of no use") {
				t.Errorf("%s: the last record is not believed:\n%s", n.name, after)
			}
		}
		f.end()
		if len(f.lost) > 0 {
			t.Errorf("%d frames lost, the first after %s", len(f.lost), f.lost[0])
		}
	})
}

// What vouches for the record may be gone as well, or be somebody else's.
func TestRecordWithoutAMark(t *testing.T) {
	for _, alias := range []string{"", "uplink to ams1", "lever: record 99999 of link l1", "lever: record 1 of link l2", "lever: record -1 of link l1", "lever: record 1 of link l1 "} {
		t.Run(alias, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, b := newBookedPair(t)
				f := p.flow()
				time.Sleep(10 * time.Second)
				for _, n := range p.nodes() {
					had := b.records(n)
					n.crash()
					if err := n.platform().setAlias(n.device().Index, alias); err != nil {
						t.Fatal(err)
					}
					b.again(n, had[len(had)-1])
					time.Sleep(driftShown)
					p.steady(n.name)
				}
				if got := strings.Count(p.r1.log.String(), "the record is of no use"); got != 2 {
					t.Errorf("%d records were of no use, want 2", got)
				}
				f.end()
				if len(f.lost) > 0 {
					t.Errorf("%d frames lost, the first after %s", len(f.lost), f.lost[0])
				}
			})
		})
	}
}

// An agent that resumes dies at each of its first steps, and what it resumed from is
// put back: the record before the last is believed when the device has not been told
// of the last, as nothing that the last allows has been used then.
func TestRestartThatDiesAndIsRolledBack(t *testing.T) {
	for at := 1; at <= 24; at++ {
		synctest.Test(t, func(t *testing.T) {
			p, b := newBookedPair(t)
			f := p.flow()
			n := p.nodes()[at%2]
			time.Sleep(3 * time.Second)
			n.crash()
			second := b.begin(n, at, false)
			n.start()
			ctx, cancel := context.WithCancel(t.Context())
			var script sync.WaitGroup
			script.Go(func() {
				if sleep(ctx, 3*time.Second) {
					_ = n.server.ask(ctx, command{Verb: "rekey", Link: "l1"})
				}
			})
			select {
			case <-second.died:
			case <-time.After(10 * time.Second):
				t.Errorf("there are only %d steps", second.taken())
			}
			cancel()
			script.Wait()
			if t.Failed() {
				return
			}
			had := b.records(n)
			b.again(n, had[len(had)-2])
			p.steady(fmt.Sprintf("%s, step %d", n.name, at))
			f.end()
			if len(f.lost) > 0 {
				t.Errorf("%s, step %d (%s): %d frames lost, the first after %s", n.name, at, second.steps[at-1], len(f.lost), f.lost[0])
			}
			p.halt()
		})
	}
}

// Neither can the record be written nor the stale one be removed: the device's mark
// is then beyond it.
func TestStaleRecordThatCannotBeRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newBookedPair(t)
		f := p.flow()
		n := p.r1
		n.life.refuse = func(what string) error {
			if strings.HasPrefix(what, "write l1") || strings.HasPrefix(what, "remove l1") {
				return syscall.EROFS
			}
			return nil
		}
		for range 20 { // more than a stride of key numbers
			if err := n.ask("rekey"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
		}
		n.awaitFault(0, health.RunDirUnwritable)
		stale, err := os.ReadFile(linkPath(n.runDir, "l1"))
		if err != nil {
			t.Fatal(err)
		}
		b.again(n, string(stale))
		p.steady("a stale record")
		f.end()
		if len(f.lost) > 0 {
			t.Errorf("%d frames lost, the first after %s", len(f.lost), f.lost[0])
		}
	})
}

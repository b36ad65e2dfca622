//go:build kernel

package main

import (
	"fmt"
	"testing"

	"github.com/lever-link/lever/internal/lab"
)

// Twenty SAKs, asked for at either end in turn, and nothing is lost. The
// processor is this test's alone, for the stream to be of its full rate.
func TestTwentyRekeys(t *testing.T) {
	s := newPair(t)
	s.deliver(1, "ab")
	s.start()
	key := s.secured()
	s.underStream(0, 1, lab.StreamRate, func() {
		for n := range 20 {
			s.lever(n%2, "rekey", theLink)
			next, err := lab.AwaitKey(s.ctx(), s.ends, patience, fmt.Sprintf("rekey %d in both kernels", n+1), key.ID)
			s.must(err)
			if want := lab.KeyNumber(key.ID) + 1; next.ID[0] != key.ID[0] || lab.KeyNumber(next.ID) != want || next.AN != (key.AN+1)%4 {
				t.Errorf("rekey %d: %v after %v", n+1, next, key)
			}
			key = next
		}
	})
	s.await("all agents to count 20 rekeys", func(l lab.LinkStatus) bool { return isSecured(l) && l.Rekeys == 20 && len(l.Faults) == 0 })
	s.onlyEncrypted()
}

// The inventory's sak_rekey is kept to without anybody's asking. Its schedule
// is tested in virtual time in mka; here, that it gets there and that the
// stream does not notice.
func TestScheduledRekey(t *testing.T) {
	t.Parallel()
	s := newSite(t, pairInventory("sak_rekey: 30s"), pairInventory("sak_rekey: 30s"))
	s.deliver(1, "ab")
	s.start()
	key := s.secured()
	s.underStream(0, 1, besides, func() {
		_, err := lab.AwaitKey(s.ctx(), s.ends, 2*patience, "the scheduled rekey", key.ID)
		s.must(err)
	})
}

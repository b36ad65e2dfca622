//go:build kernel

package main

import (
	"os"
	"testing"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/lab"
)

// onEpoch waits until all agents are secured under an epoch.
func (s *site) onEpoch(epoch string) {
	s.Helper()
	s.await("all agents to be secured under epoch "+epoch, func(l lab.LinkStatus) bool { return isSecured(l) && l.Epoch == epoch })
}

// New epochs are taken over when both channels have brought them to both ends,
// not before, and nothing is lost.
func TestEpochs(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.deliver(1, "ab")
	s.start()
	key := s.secured()
	s.onEpoch("1.0")
	s.underStream(0, 1, besides, func() {
		t.Log("a new epoch in both channels")
		s.deliver(2, "ab")
		s.onEpoch("2.0")
		key = s.securedAnew(key)

		t.Log("one channel late at both ends")
		s.deliver(3, "a")
		for i := range s.routers {
			s.fault(i, health.ChannelLate, "epoch 3.0", "channel b", s.routers[i].Path("keys/b"))
		}
		s.onEpoch("2.0")
		s.deliver(3, "b")
		s.onEpoch("3.0")
		key = s.securedAnew(key)
		for i := range s.routers {
			s.noFault(i, health.ChannelLate)
		}

		t.Log("one channel late at one end")
		a, b := s.material(), s.material()
		s.put(0, "a", 4, a, 0o600)
		s.put(0, "b", 4, b, 0o600)
		s.put(1, "b", 4, b, 0o600)
		s.fault(1, health.ChannelLate, "epoch 4.0", "channel a")
		s.fault(1, health.UnknownCKN, "epoch 4.0", "channel a")
		s.onEpoch("3.0")
		s.put(1, "a", 4, a, 0o600)
		s.onEpoch("4.0")
		key = s.securedAnew(key)
		s.noFault(1, health.ChannelLate)
		s.noFault(1, health.UnknownCKN)

		t.Log("several epochs at once")
		for e := 5; e <= 9; e++ {
			s.deliver(e, "ab")
		}
		s.onEpoch("9.0")
		key = s.securedAnew(key)
	})
	s.onlyEncrypted()
	for i := range s.routers {
		s.noFault(i, health.ICVMismatch)
	}
}

// An epoch that one end revokes carries nothing from then on, and the other end
// says why.
func TestRevokedEpoch(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.deliver(1, "ab")
	s.start()
	s.secured()
	s.must(os.Remove(s.keyPath(0, "b", 1)))
	s.await("r1 to have no key", func(l lab.LinkStatus) bool { return l.State == "waiting-for-keys" }, 0)
	v, err := s.routers[0].SecY(theDevice)
	s.must(err)
	if len(v.TxSC.SAs) != 0 {
		t.Errorf("r1 still has %d transmit SAs", len(v.TxSC.SAs))
	}
	for _, rx := range v.RxSCs {
		if len(rx.SAs) != 0 {
			t.Errorf("r1 still has %d receive SAs of %v", len(rx.SAs), rx.SCI)
		}
	}
	n, err := lab.Ping(s.ctx(), s.routers[0].Space, inner(0), inner(1), 3, refusedPatience)
	s.must(err)
	if n != 0 {
		t.Errorf("%d pings answered under a revoked epoch", n)
	}
	if n := s.plainPings(0, 1); n != 0 {
		t.Errorf("%d plain pings answered after a revocation", n)
	}
	s.fault(0, health.ChannelLate, "channel b")
	s.fault(0, health.UnknownCKN, "epoch 1.0", "channel b")
	s.fault(1, health.PeerLost)
	s.await("r2 to say that it is no longer secured", func(l lab.LinkStatus) bool { return !isSecured(l) }, 1)
	s.deliver(2, "ab")
	s.onEpoch("2.0")
	s.secured()
	s.pings(0, 1)
}

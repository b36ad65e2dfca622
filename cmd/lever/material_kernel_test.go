//go:build kernel

package main

import (
	"testing"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/lab"
)

// neverKeyed expects that the link has got no key after several MKPDUs of each
// end, and that nothing but these was on the wire.
func (s *site) neverKeyed() {
	s.Helper()
	s.neverSecured()
	for _, l := range s.await("all agents to answer", func(lab.LinkStatus) bool { return true }) {
		if l.AN != 0 || l.KN != 0 {
			s.Errorf("%v", l)
		}
	}
	s.wire.Look(func(c *lab.WireCount) {
		if c.MACsec() != 0 {
			s.Errorf("on the wire %d frames of MACsec", c.MACsec())
		}
	})
}

// neverSecured expects that the link has not been secured after several MKPDUs
// of each end, and that nothing was on the wire in plain.
func (s *site) neverSecured() {
	s.Helper()
	s.passes(6, (*lab.WireCount).EAPOL)
	for _, l := range s.await("all agents to answer", func(lab.LinkStatus) bool { return true }) {
		if isSecured(l) {
			s.Errorf("%v", l)
		}
	}
	if n := s.plainPings(0, 1); n != 0 {
		s.Errorf("%d plain pings were answered", n)
	}
	s.drained()
	s.wire.Look(func(c *lab.WireCount) {
		if c.Plain() != 0 {
			s.Errorf("on the wire in plain: %q", c.PlainKinds())
		}
	})
}

// What is wrong with key material is named at every end that can see it, and
// nothing passes; what is then put right secures the link.
func TestMaterialThatDiffers(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	a := s.material()
	for i := range s.routers {
		s.put(i, "a", 1, a, 0o600)
		s.put(i, "b", 1, s.material(), 0o600)
	}
	s.start()
	for i := range s.routers {
		s.fault(i, health.ICVMismatch, "epoch 1.0", "material of channel a or b differs", "lever keys list --channel a", "reissue it on the channel that differs")
	}
	s.neverKeyed()
	s.deliver(2, "ab")
	s.onEpoch("2.0")
	s.secured()
	s.pings(0, 1)
	for i := range s.routers {
		s.noFault(i, health.ICVMismatch)
	}
}

func TestEqualMaterialInBothChannels(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	m := s.material()
	for i := range s.routers {
		s.put(i, "a", 1, m, 0o600)
		s.put(i, "b", 1, m, 0o600)
	}
	s.start()
	for i := range s.routers {
		s.fault(i, health.KeyMaterialEqual, "epoch 1.0", "--reissue")
		s.await("no key to be used", func(l lab.LinkStatus) bool { return l.State == "waiting-for-keys" }, i)
	}
	if n := s.plainPings(0, 1); n != 0 {
		t.Errorf("%d plain pings were answered", n)
	}
	s.drained()
	s.wire.Look(func(c *lab.WireCount) {
		if c.Total() != 0 {
			t.Errorf("%d frames on the wire without a key", c.Total())
		}
	})
}

func TestKeyFileThatOthersCanRead(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	a, b := s.material(), s.material()
	for i := range s.routers {
		s.put(i, "a", 1, a, 0o600)
		s.put(i, "b", 1, b, 0o600)
	}
	s.put(1, "b", 1, b, 0o644)
	s.start()
	s.fault(1, health.KeyFilePermissions, s.keyPath(1, "b", 1), "0644", "0600")
	s.fault(0, health.PeerSilent)
	s.await("r2 to have no key", func(l lab.LinkStatus) bool { return l.State == "waiting-for-keys" }, 1)
	s.put(1, "b", 1, b, 0o600)
	s.secured()
	s.noFault(1, health.KeyFilePermissions)
}

// Ends that have different epochs say which, and which channel is late.
func TestDifferentEpochs(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	a, b := s.material(), s.material()
	s.put(0, "a", 1, a, 0o600)
	s.put(0, "b", 1, b, 0o600)
	s.put(1, "a", 1, a, 0o600)
	s.put(1, "a", 2, s.material(), 0o600)
	s.put(1, "b", 2, s.material(), 0o600)
	s.start()
	s.fault(0, health.UnknownCKN, "epoch 2.0", "channel a and channel b")
	s.fault(1, health.UnknownCKN, "epoch 1.0", "channel b has not delivered")
	s.neverKeyed()
	s.put(1, "b", 1, b, 0o600)
	s.onEpoch("1.0")
	s.secured()
}

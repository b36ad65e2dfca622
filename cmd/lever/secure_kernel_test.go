//go:build kernel

package main

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/macsec"
)

// Both ends secure the link, five times over; how long that takes is printed.
func TestSecured(t *testing.T) {
	s := newPair(t)
	s.deliver(1, "ab")
	var fromStart, fromFirst []time.Duration
	for range 5 {
		s.capture(nil)
		s.start(0)
		// The second agent starts when the first one waits for it.
		s.must(lab.Await(s.ctx(), patience, "the first agent's MKPDU", func() (bool, string) {
			_, heard := s.spoke(0)
			return heard, "no frame"
		}))
		started := time.Now()
		s.start(1)
		_, err := lab.AwaitKey(s.ctx(), s.ends, patience, "both kernels to use one key", macsec.KeyID{})
		s.must(err)
		var since time.Time
		for _, l := range s.await("both agents to say secured", isSecured) {
			if l.SecuredSince.After(since) {
				since = l.SecuredSince
			}
		}
		spoke, heard := s.spoke(1)
		if !heard || since.Before(spoke) {
			t.Fatalf("secured at %v, first MKPDU at %v (%v)", since, spoke, heard)
		}
		fromStart, fromFirst = append(fromStart, since.Sub(started)), append(fromFirst, since.Sub(spoke))
		s.closedDevices()
		s.pings(0, 1)
		s.onlyEncrypted()
		s.stop()
		for i, r := range s.routers {
			s.lever(i, "down")
			if _, err := r.SecY(theDevice); !errors.Is(err, macsec.ErrNotExist) {
				t.Errorf("%s is still there after lever down: %v", theDevice, err)
			}
			for _, dir := range []string{lab.RunDir, lab.StateDir} {
				s.must(os.RemoveAll(r.Path(dir)))
			}
		}
	}
	t.Logf("both ends secured, medians of %d: %v after the second agent's first MKPDU on the wire %v, %v after its process was started %v",
		len(fromStart), median(fromFirst), fromFirst, median(fromStart), fromStart)
}

func median(d []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(d))[len(d)/2].Round(100 * time.Microsecond)
}

// spoke is when the first MKPDU of a router was on the wire.
func (s *site) spoke(i int) (at time.Time, heard bool) {
	s.Helper()
	mac, err := s.routers[i].Space.MAC(theParent)
	s.must(err)
	s.wire.Look(func(c *lab.WireCount) { at, heard = c.First(mac, lab.EtherTypeEAPOL) })
	return at, heard
}

// closedDevices compares both kernels with what is promised.
func (s *site) closedDevices() {
	s.Helper()
	for _, r := range s.routers {
		v, err := r.SecY(theDevice)
		s.must(err)
		if v.CipherSuite != macsec.GCMAESXPN256 || !v.Protect || !v.Encrypt || v.Validate != macsec.Strict || !v.ReplayProtect {
			s.Errorf("%s: %s, protect %v, encrypt %v, validate %v, replay %v", r.Name, v.CipherSuite, v.Protect, v.Encrypt, v.Validate, v.ReplayProtect)
		}
	}
}

// onlyEncrypted expects MACsec and EAPOL on the wire, and nothing else.
func (s *site) onlyEncrypted() {
	s.Helper()
	s.drained()
	s.wire.Look(func(c *lab.WireCount) {
		if c.MACsec() == 0 || c.EAPOL() == 0 || c.Plain() != 0 || c.Readable != 0 {
			s.Errorf("on the wire %d frames of MACsec, %d of EAPOL, plain: %q, readable %d", c.MACsec(), c.EAPOL(), c.PlainKinds(), c.Readable)
		}
	})
}

// drained waits until the capture has counted all that it was given.
func (s *site) drained() {
	s.Helper()
	s.must(lab.Await(s.ctx(), patience, "the capture to read all that it has", func() (bool, string) {
		all, dropped, err := s.wire.Drained()
		s.must(err)
		if dropped > 0 {
			s.Fatalf("the capture missed %d frames", dropped)
		}
		return all, "frames wait in its socket"
	}))
}

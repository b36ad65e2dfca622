//go:build kernel

package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/macsec"
)

// parent is a router's interface to the link.
func (s *site) parent(i int) netlink.Link {
	s.Helper()
	l, err := s.routers[i].Space.Links.LinkByName(theParent)
	s.must(err)
	return l
}

// fenceAt is what is in place at a router's parent.
func (s *site) fenceAt(i int) (state fence.State) {
	s.Helper()
	s.must(s.routers[i].Space.Do(func() (err error) {
		state, err = fence.Inspect(s.parent(i).Attrs().Index, fence.Options{})
		return err
	}))
	return state
}

// removed expects neither device nor fence at a router.
func (s *site) removed(i int) {
	s.Helper()
	if _, err := s.routers[i].SecY(theDevice); !errors.Is(err, macsec.ErrNotExist) {
		s.Errorf("r%d: %s after lever down: %v", i+1, theDevice, err)
	}
	if s.fenceAt(i).Closed {
		s.Errorf("r%d: the fence is closed after lever down", i+1)
	}
}

// Before there is an agent plain frames pass; from then on the fence counts
// them, whether an agent runs or not, until lever down says otherwise.
func TestDownAndThePlainFrame(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.plainAllowed = true
	s.deliver(1, "ab")
	if n := s.plainPings(0, 1); n != 3 {
		t.Fatalf("%d of 3 plain pings were answered before there was an agent", n)
	}
	s.start()
	s.secured()
	s.carries() // sends three plain pings, from r1
	if f := s.fenceAt(0); !f.Closed || f.DroppedEgress.Frames < 3 {
		t.Errorf("r1's fence is closed %v and has dropped %d frames on their way out; want 3", f.Closed, f.DroppedEgress.Frames)
	}

	t.Log("lever down at r1, with its agent")
	if out := s.lever(0, "down"); !strings.Contains(out, theLink) {
		t.Errorf("lever down says %q", out)
	}
	s.removed(0)
	s.fault(0, health.TakenDown, "plain frames may pass")
	before := s.fenceAt(1).DroppedIngress.Frames
	if n := s.plainPings(0, 1); n != 0 {
		t.Errorf("%d plain pings were answered through r2's fence", n)
	}
	if got := s.fenceAt(1).DroppedIngress.Frames - before; got < 3 {
		t.Errorf("r2's fence has dropped %d frames on their way in; want 3", got)
	}

	t.Log("r2's agent stops; lever down without it")
	s.stop(1)
	if f := s.fenceAt(1); !f.Closed {
		t.Error("the fence was opened when the agent stopped")
	}
	s.lever(1, "down", theLink)
	s.removed(1)
	if n := s.plainPings(0, 1); n != 3 {
		t.Errorf("%d of 3 plain pings were answered after both fences were removed", n)
	}

	t.Log("both agents again")
	s.stop(0)
	s.start()
	s.secured()
	s.carries()
}

// The parent goes down and comes back: nothing plain, and secured as before.
func TestParentDownAndUp(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.deliver(1, "ab")
	s.start()
	s.secured()
	for i, links := range []*netlink.Handle{s.routers[0].Space.Links, s.routers[1].Space.Links} {
		s.must(links.LinkSetDown(s.parent(i)))
		s.fault(i, health.ParentDown, "set down by an administrator")
		s.fault(1-i, health.ParentDown, "no carrier")
		s.must(links.LinkSetUp(s.parent(i)))
		for j := range s.routers {
			s.noFault(j, health.ParentDown)
		}
		s.secured()
		s.pings(0, 1)
	}
	for i := range s.routers {
		if f := s.fenceAt(i); !f.Closed {
			t.Errorf("r%d's fence is open", i+1)
		}
	}
	s.onlyEncrypted()
}

// The parent is unplugged and another plugged in under its name: the agents
// find it by themselves.
func TestParentReplaced(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.deliver(1, "ab")
	s.start()
	key := s.secured()
	s.must(s.wire.Stop())
	s.wire = nil
	s.must(s.routers[0].Space.Links.LinkDel(s.parent(0)))
	for i := range s.routers {
		s.fault(i, health.ParentMissing, theParent)
	}
	s.must(lab.Wire(s.routers[0].Space, theParent, s.routers[1].Space, theParent))
	s.address(0, 1)
	s.address(1, 0)
	s.capture(nil)
	s.securedAnew(key)
	s.closedDevices()
	for i := range s.routers {
		s.noFault(i, health.ParentMissing)
		if f := s.fenceAt(i); !f.Closed {
			t.Errorf("r%d's fence is open", i+1)
		}
	}
	s.plainAllowed = true // between lab.Wire and the fence anything may pass
	s.capture(nil)
	s.carries()
	s.passes(1, (*lab.WireCount).EAPOL)
	s.onlyEncrypted()
}

// A device of the link's name that is not the link's is left alone and named;
// the link is secured when it is gone.
func TestForeignDevice(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.deliver(1, "ab")
	r := s.routers[0]
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "other0"
	s.must(r.Space.Links.LinkAdd(&netlink.Dummy{LinkAttrs: attrs}))
	other, err := r.Space.Links.LinkByName("other0")
	s.must(err)
	s.must(r.Space.Do(func() error {
		k, err := macsec.New()
		if err != nil {
			return err
		}
		_, err = k.CreateDevice(other.Attrs().Index, theDevice, macsec.Closed(macsec.NewSCI(other.Attrs().HardwareAddr, 1), macsec.GCMAES128))
		return errors.Join(err, k.Close())
	}))
	s.start()
	s.fault(0, health.DeviceForeign, theDevice, "other0", "ip link del "+theDevice)
	s.await("r1 to say failed", func(l lab.LinkStatus) bool { return l.State == "failed" }, 0)
	if f := s.fenceAt(0); !f.Closed {
		t.Error("r1's fence is open while its device cannot be made")
	}
	if n := s.plainPings(0, 1); n != 0 {
		t.Errorf("%d plain pings were answered", n)
	}
	if v, err := r.SecY(theDevice); err != nil || v.Parent != other.Attrs().Index || v.CipherSuite != macsec.GCMAES128 {
		t.Errorf("the foreign device was touched: %v, %v", v, err)
	}
	l, err := r.Space.Links.LinkByName(theDevice)
	s.must(err)
	s.must(r.Space.Links.LinkDel(l))
	s.secured()
	s.noFault(0, health.DeviceForeign)
	s.pings(0, 1)
}

// A parent that is a bridge's port cannot carry MACsec: the fence closes all
// the same, the status says what to do, and doing it helps.
func TestParentEnslaved(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.deliver(1, "ab")
	links := s.routers[0].Space.Links
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	snooping := false
	s.must(links.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}))
	br, err := links.LinkByName("br0")
	s.must(err)
	s.must(links.LinkSetMaster(s.parent(0), br))
	s.start()
	s.fault(0, health.ParentEnslaved, theParent, "br0", theDevice)
	if f := s.fenceAt(0); !f.Closed {
		t.Error("r1's fence is open while its parent is a bridge's port")
	}
	s.must(links.LinkSetNoMaster(s.parent(0)))
	key := s.secured()
	s.noFault(0, health.ParentEnslaved)
	s.pings(0, 1)

	t.Log("enslaved while it is secured")
	switch err := links.LinkSetMaster(s.parent(0), br); {
	case err != nil:
		// The kernel refuses a port whose receive handler macsec has taken
		// (netdev_rx_handler_register): so the path stays.
		t.Logf("the kernel refuses: %v", err)
	default:
		s.fault(0, health.ParentEnslaved)
		s.must(links.LinkSetNoMaster(s.parent(0)))
	}
	if now := s.secured(); now.ID != key.ID {
		t.Logf("%v after %v", now, key)
	}
	s.carries()
}

// A parent in a VRF carries MACsec as any other: a VRF is about routes.
func TestParentInVRF(t *testing.T) {
	t.Parallel()
	s := newPair(t)
	s.deliver(1, "ab")
	links := s.routers[0].Space.Links
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "blue"
	s.must(links.LinkAdd(&netlink.Vrf{LinkAttrs: attrs, Table: 10}))
	blue, err := links.LinkByName("blue")
	s.must(err)
	s.start()
	s.secured()
	s.must(links.LinkSetMaster(s.parent(0), blue)) // sets it down and up (vrf_add_slave)
	s.pings(0, 1)
	s.kill(0)
	s.start(0)
	s.secured()
	s.noFault(0, health.ParentEnslaved)
	s.pings(0, 1)
	s.onlyEncrypted()
}

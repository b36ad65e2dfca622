//go:build kernel

package lab

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
	"github.com/vishvananda/netns"
)

// bareLink joins two namespaces that are gone when the test ends.
func bareLink(t *testing.T) (a, z Endpoint) {
	t.Helper()
	addrs := [2]netip.Addr{netip.MustParseAddr("192.0.2.0"), netip.MustParseAddr("192.0.2.1")}
	var ns [2]*Netspace
	for i, name := range []string{"lab-test-a", "lab-test-z"} {
		var err error
		if ns[i], err = NewNetspace(name); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := ns[i].Close(true); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(namespaceDir, name)); err == nil {
				t.Errorf("namespace %s is still there", name)
			}
		})
	}
	if err := Wire(ns[0], "w0", ns[1], "w0"); err != nil {
		t.Fatal(err)
	}
	for i := range ns {
		mac, err := ns[1-i].MAC("w0")
		if err != nil {
			t.Fatal(err)
		}
		addr := &net.IPNet{IP: addrs[i].AsSlice(), Mask: net.CIDRMask(31, 32)}
		if err := ns[i].Address("w0", addr, addrs[1-i].AsSlice(), mac); err != nil {
			t.Fatal(err)
		}
	}
	return Endpoint{"a", ns[0], addrs[0]}, Endpoint{"z", ns[1], addrs[1]}
}

// On a bare link everything arrives, the capture sees every frame of it, can
// read it, and calls it plain: the instruments measure.
func TestInstruments(t *testing.T) {
	a, z := bareLink(t)
	var file bytes.Buffer
	c, err := StartCapture(a.Space, "w0", &file)
	if err != nil {
		t.Fatal(err)
	}
	answered, err := Ping(t.Context(), a.Space, a.Addr, z.Addr, 3, 5*time.Second)
	if err != nil || answered != 3 {
		t.Fatalf("%d of 3 pings answered, %v", answered, err)
	}
	s, err := StartStream(t.Context(), a, z, StreamRate)
	if err != nil {
		t.Fatal(err)
	}
	err = Await(t.Context(), 30*time.Second, "half a second's packets", func() (bool, string) {
		return s.Ends[0].Got() > 500 && s.Ends[1].Got() > 500, ""
	})
	if err != nil {
		t.Error(err)
	}
	reports, err := s.Stop(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	frames := 6
	for _, r := range reports {
		if !r.Clean() {
			t.Errorf("%s to %s: %s", r.From, r.To, r)
		}
		frames += r.Sent
	}
	err = Await(t.Context(), 5*time.Second, "the capture to be drained", func() (bool, string) {
		drained, dropped, err := c.Drained()
		if dropped > 0 || err != nil {
			t.Fatalf("the capture dropped %d frames, %v", dropped, err)
		}
		return drained, ""
	})
	if err != nil {
		t.Error(err)
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	if c.count.Plain() != frames || c.count.Readable != frames || c.count.PlainKinds() == "" {
		t.Errorf("%d plain frames, %d readable, %s; want %d of each, all 0800", c.count.Plain(), c.count.Readable, c.count.PlainKinds(), frames)
	}
	r, err := pcapgo.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	for range frames {
		if _, _, err := r.ReadPacketData(); err != nil {
			t.Fatalf("the capture's file: %v", err)
		}
	}
	if at, ok := c.count.First(macOf(t, z), 0x0800); !ok || time.Since(at) > time.Minute {
		t.Errorf("the first frame of the far end is from %v", at)
	}
}

func macOf(t *testing.T, e Endpoint) net.HardwareAddr {
	t.Helper()
	mac, err := e.Space.MAC("w0")
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

// What the link loses is missing from the account, and no error of the run.
func TestLossIsSeen(t *testing.T) {
	a, z := bareLink(t)
	s, err := StartStream(t.Context(), a, z, StreamRate)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Flowing(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := z.Space.Links.LinkByName("w0")
	if err != nil {
		t.Fatal(err)
	}
	if err := z.Space.Links.LinkSetDown(l); err != nil {
		t.Fatal(err)
	}
	before := s.Ends[0].Sent.Load()
	err = Await(t.Context(), 10*time.Second, "packets into the void", func() (bool, string) { return s.Ends[0].Sent.Load() > before+50, "" })
	if err != nil {
		t.Error(err)
	}
	reports, err := s.Stop(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r := reports[0]; r.Lost() < 50 || r.Clean() || len(r.Missing) == 0 {
		t.Errorf("a link that was down: %s", r)
	}
	if answered, err := Ping(t.Context(), a.Space, a.Addr, z.Addr, 3, 100*time.Millisecond); err != nil || answered != 0 {
		t.Errorf("%d pings answered over a link that is down, %v", answered, err)
	}
}

func TestNamespaceThatIsThere(t *testing.T) {
	a, _ := bareLink(t)
	if n, err := NewNetspace(a.Space.Name); err == nil {
		t.Errorf("made %s a second time: %v", a.Space.Name, n.Close(true))
	}
}

// A namespace that was closed may be there for some time yet, and so is the end of a
// wire that leads into it, unless somebody unplugs it.
func TestWireIntoClosedNamespace(t *testing.T) {
	here, err := Here()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := here.Close(false); err != nil {
			t.Error(err)
		}
	})
	for range 2 {
		there, err := NewNetspace("lab-there")
		if err != nil {
			t.Fatal(err)
		}
		// Who has it open still, keeps it.
		late, err := netns.GetFromName(there.Name)
		if err == nil {
			defer func() { _ = late.Close() }()
			err = Wire(here, "plug0", there, "plug0")
		}
		if err == nil {
			err = here.Unplug("plug0")
		}
		if err := errors.Join(err, there.Close(true)); err != nil {
			t.Fatal(err)
		}
	}
}

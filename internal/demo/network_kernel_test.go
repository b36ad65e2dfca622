//go:build kernel

package demo

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
)

// bareLink joins two namespaces that are gone when the test ends.
func bareLink(t *testing.T) (a, z endpoint) {
	t.Helper()
	addrs := [2]netip.Addr{netip.MustParseAddr("192.0.2.0"), netip.MustParseAddr("192.0.2.1")}
	var ns [2]*netspace
	for i, name := range []string{"demo-test-a", "demo-test-z"} {
		var err error
		if ns[i], err = newNetspace(name); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := ns[i].close(true); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(namespaceDir, name)); err == nil {
				t.Errorf("namespace %s is still there", name)
			}
		})
	}
	if err := wire(ns[0], "w0", ns[1], "w0"); err != nil {
		t.Fatal(err)
	}
	for i := range ns {
		mac, err := ns[1-i].mac("w0")
		if err != nil {
			t.Fatal(err)
		}
		addr := &net.IPNet{IP: addrs[i].AsSlice(), Mask: net.CIDRMask(31, 32)}
		if err := ns[i].address("w0", addr, addrs[1-i].AsSlice(), mac); err != nil {
			t.Fatal(err)
		}
	}
	return endpoint{"a", ns[0], addrs[0]}, endpoint{"z", ns[1], addrs[1]}
}

// On a bare link everything arrives, the capture sees every frame of it, can
// read it, and calls it plain: the demo's instruments measure.
func TestInstruments(t *testing.T) {
	a, z := bareLink(t)
	var file bytes.Buffer
	c, err := startCapture(a.ns, "w0", &file)
	if err != nil {
		t.Fatal(err)
	}
	answered, err := ping(t.Context(), a.ns, a.addr, z.addr, 3, 5*time.Second)
	if err != nil || answered != 3 {
		t.Fatalf("%d of 3 pings answered, %v", answered, err)
	}
	s, err := startStream(t.Context(), a, z)
	if err != nil {
		t.Fatal(err)
	}
	err = await(t.Context(), 30*time.Second, "half a second's packets", func() (bool, string) {
		return s.ends[0].got() > 500 && s.ends[1].got() > 500, ""
	})
	if err != nil {
		t.Error(err)
	}
	reports, err := s.stop(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	frames := 6
	for _, r := range reports {
		if !r.clean() {
			t.Errorf("%s to %s: %s", r.From, r.To, r)
		}
		frames += r.Sent
	}
	err = await(t.Context(), 5*time.Second, "the capture to be drained", func() (bool, string) {
		drained, dropped, err := c.drained()
		if dropped > 0 || err != nil {
			t.Fatalf("the capture dropped %d frames, %v", dropped, err)
		}
		return drained, ""
	})
	if err != nil {
		t.Error(err)
	}
	if err := c.stop(); err != nil {
		t.Error(err)
	}
	if c.count.plain() != frames || c.count.readable != frames || c.count.plainKinds() == "" {
		t.Errorf("%d plain frames, %d readable, %s; want %d of each, all 0800", c.count.plain(), c.count.readable, c.count.plainKinds(), frames)
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
	if at, ok := c.count.first(macOf(t, z), 0x0800); !ok || time.Since(at) > time.Minute {
		t.Errorf("the first frame of the far end is from %v", at)
	}
}

func macOf(t *testing.T, e endpoint) net.HardwareAddr {
	t.Helper()
	mac, err := e.ns.mac("w0")
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

// What the link loses is missing from the account, and no error of the run.
func TestLossIsSeen(t *testing.T) {
	a, z := bareLink(t)
	s, err := startStream(t.Context(), a, z)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.flowing(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := z.ns.links.LinkByName("w0")
	if err != nil {
		t.Fatal(err)
	}
	if err := z.ns.links.LinkSetDown(l); err != nil {
		t.Fatal(err)
	}
	before := s.ends[0].sent.Load()
	err = await(t.Context(), 10*time.Second, "packets into the void", func() (bool, string) { return s.ends[0].sent.Load() > before+50, "" })
	if err != nil {
		t.Error(err)
	}
	reports, err := s.stop(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r := reports[0]; r.Lost() < 50 || r.clean() || len(r.Missing) == 0 {
		t.Errorf("a link that was down: %s", r)
	}
	if answered, err := ping(t.Context(), a.ns, a.addr, z.addr, 3, 100*time.Millisecond); err != nil || answered != 0 {
		t.Errorf("%d pings answered over a link that is down, %v", answered, err)
	}
}

func TestNamespaceThatIsThere(t *testing.T) {
	a, _ := bareLink(t)
	if n, err := newNetspace(a.ns.name); err == nil {
		t.Errorf("made %s a second time: %v", a.ns.name, n.close(true))
	}
}

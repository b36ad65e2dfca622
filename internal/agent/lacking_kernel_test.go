//go:build kernel

package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/uml"
)

const withoutMACsec = `apiVersion: lever/v1
channels:
  a: {type: dir, path: a}
  b: {type: dir, path: b}
sites:
  here: {custody: controlled-building}
nodes:
  r1: {site: here}
  r2: {site: here}
links:
  - id: l1
    a: r1/lack4
    z: r2/lack9
    segments:
      - {custody: leased-wave, provider: ExampleTel}
`

// removeMACsec takes the module from a guest's kernel until the test ends.
func removeMACsec(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for { // the namespaces of other tests go when the kernel comes to it
		err := unix.DeleteModule("macsec", unix.O_NONBLOCK)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Cleanup(func() {
		if err := uml.LoadModule("macsec"); err != nil {
			t.Error(err)
		}
	})
}

// A kernel that lost its MACsec in an upgrade: nothing is encrypted, and nothing passes.
// When the module is there, the link has its device without a restart. A machine that is
// no guest keeps its module, and the link has its device at once.
func TestKernelWithoutMACsec(t *testing.T) {
	if uml.Guest() {
		removeMACsec(t)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "net.yaml")
	if err := os.WriteFile(file, []byte(withoutMACsec), 0o600); err != nil {
		t.Fatal(err)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lack4"}, PeerName: "lack9"}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = netlink.LinkDel(veth) }()
	ready := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	var ended error
	opts := Options{
		Inventory: file, Node: "r1", RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"),
		Log: slog.New(slog.DiscardHandler), Ready: func(func(context.Context) error) { ready <- struct{}{} },
	}
	go func() { ended = Run(ctx, opts); close(done) }()
	defer func() {
		cancel()
		if <-done; ended != nil {
			t.Error(ended)
		}
	}()
	select {
	case <-ready:
	case <-done:
		t.Fatal("the agent ended")
	}
	st, err := fence.Inspect(veth.Index, fence.Options{})
	if err != nil || !st.Closed {
		t.Errorf("the agent is ready: %+v, %v", st, err)
	}
	c := NewClient(opts.RunDir)
	await := func(what string, ok func(LinkStatus) bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var last Status
		err := c.Watch(ctx, func(s Status) error {
			if last = s; len(s.Links) == 1 && ok(s.Links[0]) {
				return errors.New("seen")
			}
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), "seen") {
			t.Fatalf("never %s: %+v; %v", what, last, err)
		}
	}
	lacking := func(l LinkStatus) bool {
		return slices.ContainsFunc(l.Faults, func(f health.Fault) bool { return f.Code == health.KernelLacking })
	}
	if uml.Guest() {
		await("without MACsec", lacking)
		if err := uml.LoadModule("macsec"); err != nil {
			t.Fatal(err)
		}
	}
	await("set up", func(l LinkStatus) bool { return !lacking(l) && l.State == StateWaiting })
	if _, err := netlink.LinkByName("lack4-sec"); err != nil {
		t.Error(err)
	}
	if _, err := c.Down(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

//go:build kernel

package agent

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/secy"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec"
)

// fencedTask is a task on one end of a veth link in a network namespace of its
// own, as far as ensureFence looks at it.
func fencedTask(t *testing.T, mode inventory.Mode) *task {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends in there
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	// The stack's own chatter would be counted.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth4"}, PeerName: "eth9"}); err != nil {
		t.Fatal(err)
	}
	tk := &task{server: newLeased(&server{platform: linux}, &lease{}), policy: inventory.Policy{Mode: mode}, log: slog.New(slog.DiscardHandler)}
	tk.link = inventory.NodeLink{Link: &inventory.Link{MKA: inventory.DefaultMKA()}, Local: inventory.End{Interface: "eth4"}}
	if tk.parent, err = findParent("eth4"); err != nil {
		t.Fatal(err)
	}
	if err := setUp(tk.parent.index, true); err != nil {
		t.Fatal(err)
	}
	return tk
}

// passAll puts somebody else's filter, which passes everything, on the egress
// of the parent.
func (t *task) passAll(tt *testing.T, priority uint16) *netlink.MatchAll {
	tt.Helper()
	hooks := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: t.parent.index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscReplace(hooks); err != nil {
		tt.Fatal(err)
	}
	f := &netlink.MatchAll{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: t.parent.index, Parent: netlink.HANDLE_MIN_EGRESS, Priority: priority, Protocol: unix.ETH_P_ALL,
		},
		Actions: []netlink.Action{&netlink.GenericAction{ActionAttrs: netlink.ActionAttrs{Action: netlink.TC_ACT_OK}}},
	}
	if err := netlink.FilterAdd(f); err != nil {
		tt.Fatal(err)
	}
	return f
}

func (t *task) parentUp(tt *testing.T) bool {
	tt.Helper()
	p, err := findParent("eth4")
	if err != nil {
		tt.Fatal(err)
	}
	return p.up
}

func TestParentIsHeldDownWhileItsFenceCannotBeClosed(t *testing.T) {
	tk := fencedTask(t, inventory.Enforce)
	inTheWay := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: tk.parent.index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS,
	}}
	if err := netlink.QdiscAdd(inTheWay); err != nil {
		t.Fatal(err)
	}
	if err := tk.ensureFence(); !isA[*fenceError](err) {
		t.Fatalf("no place for the fence: %v", err)
	}
	if tk.parentUp(t) {
		t.Error("plain frames may leave: the parent is up without a fence")
	}
	if err := netlink.QdiscDel(inTheWay); err != nil {
		t.Fatal(err)
	}
	if err := tk.ensureFence(); err != nil {
		t.Error(err)
	}
}

func TestForeignFilterBeforeTheFenceIsRemovedAndReported(t *testing.T) {
	tk := fencedTask(t, inventory.Monitor)
	tk.passAll(t, 1)
	if err := tk.ensureFence(); err != nil {
		t.Fatal(err)
	}
	if !tk.faults.Has(health.FenceForeign) || !tk.faults.Has(health.FenceOpen) || tk.faults.Has(health.FenceDrift) {
		t.Errorf("mode monitor, faults: %v", tk.faults.List())
	}
	tk.policy.Mode = inventory.Enforce
	if err := tk.checkFence(); err != nil {
		t.Fatal(err)
	}
	if tk.faults.Has(health.FenceForeign) || tk.faults.Has(health.FenceOpen) || !tk.faults.Has(health.FenceDrift) || !tk.parentUp(t) {
		t.Errorf("mode enforce: up %v, faults %v", tk.parentUp(t), tk.faults.List())
	}
	if st, err := fence.Inspect(tk.parent.index, fence.Options{}); err != nil || !st.Closed {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestMonitorCounts(t *testing.T) {
	tk := fencedTask(t, inventory.Enforce)
	if err := tk.ensureFence(); err != nil {
		t.Fatal(err)
	}
	tk.policy.Mode = inventory.Monitor
	if err := tk.ensureFence(); err != nil {
		t.Fatal(err)
	}
	state, err := fence.Inspect(tk.parent.index, fence.Options{Monitor: true})
	if err != nil || state.Closed || !state.InPlace {
		t.Errorf("in mode monitor the fence is %+v, %v", state, err)
	}
	sayPlainly(t, tk.parent.index)
	if err := tk.checkFence(); err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, f := range tk.faults.List() {
		if f.Code == health.FenceOpen {
			text = f.Text
		}
	}
	if !strings.Contains(text, "enforce would have stopped 1 frames on their way out and 0 on their way in") {
		t.Errorf("fault %q", text)
	}
}

// TestEncryptionTurnedOffIsStopped puts a device on the fenced parent and turns
// its encryption off, as `ip link set … type macsec encrypt off` does: what it
// then sends is authenticated and readable.
func TestEncryptionTurnedOffIsStopped(t *testing.T) {
	tk := fencedTask(t, inventory.Enforce)
	if err := tk.ensureFence(); err != nil {
		t.Fatal(err)
	}
	far, err := netlink.LinkByName("eth9")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(far); err != nil {
		t.Fatal(err)
	}
	awaitUp(t, tk.parent.index)
	k, err := macsec.New()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = k.Close() }()
	dev, err := k.CreateDevice(tk.parent.index, "eth4-sec", secy.DeviceConfig(macsec.NewSCI(net.HardwareAddr(tk.parent.address[:]), 1), macsec.GCMAES256))
	if err != nil {
		t.Fatal(err)
	}
	sa := macsec.SA{AN: 0, Active: true, NextPN: 1, KeyID: macsec.KeyID{1}, Key: secret.New(make([]byte, 32))}
	if err := k.AddTxSA(dev.Index, sa); err != nil {
		t.Fatal(err)
	}
	if err := k.UpdateDevice(dev.Index, macsec.DeviceUpdate{Up: new(true)}); err != nil {
		t.Fatal(err)
	}
	awaitUp(t, dev.Index)
	stopped := uint64(0)
	for _, encrypt := range []bool{true, false, true} {
		if err := k.UpdateDevice(dev.Index, macsec.DeviceUpdate{Encrypt: &encrypt}); err != nil {
			t.Fatal(err)
		}
		before := sent(t, k, dev.Index)
		for range 5 {
			sayPlainly(t, dev.Index)
		}
		if !encrypt {
			stopped += 5
		}
		state, err := fence.Inspect(tk.parent.index, fence.Options{})
		if n := sent(t, k, dev.Index) - before; err != nil || n != 5 || state.DroppedEgress.Frames != stopped {
			t.Errorf("encrypt %v: the device sent %d frames, and the fence has stopped %d of all, want 5 and %d; %v", encrypt, n, state.DroppedEgress.Frames, stopped, err)
		}
	}
}

// awaitUp waits until an interface can send: until linkwatch comes to it, frames
// vanish without an error.
func awaitUp(t *testing.T, index int) {
	t.Helper()
	updates, done := make(chan netlink.LinkUpdate, 16), make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{ListExisting: true}); err != nil {
		t.Fatal(err)
	}
	for u := range updates {
		if u.Attrs().Index == index && u.Attrs().OperState == netlink.OperUp {
			return
		}
	}
	t.Fatal("no more link updates")
}

// sent is how many frames a device has sent, encrypted or not.
func sent(t *testing.T, k macsec.Kernel, device int) uint64 {
	t.Helper()
	s, err := k.SecY(device)
	if err != nil {
		t.Fatal(err)
	}
	return s.TxSC.Stats.OutPktsProtected + s.TxSC.Stats.OutPktsEncrypted
}

// sayPlainly sends an IPv4 frame on an interface.
func sayPlainly(t *testing.T, index int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	frame := append(make([]byte, 12), 0x08, 0x00)
	frame = append(frame, make([]byte, 46)...)
	// The fence says ENOBUFS of what it stops.
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index}); err != nil && !errors.Is(err, unix.ENOBUFS) {
		t.Fatal(err)
	}
}

//go:build kernel

package agent

import (
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/inventory"
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
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth4"}, PeerName: "eth9"}); err != nil {
		t.Fatal(err)
	}
	tk := &task{server: &server{platform: linux}, policy: inventory.Policy{Mode: mode}, log: slog.New(slog.DiscardHandler)}
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
	tk.sayPlainly(t)
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

// sayPlainly sends a frame on the parent.
func (t *task) sayPlainly(tt *testing.T) {
	tt.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tt.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	frame := append(make([]byte, 12), 0x08, 0x00)
	frame = append(frame, make([]byte, 46)...)
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: t.parent.index}); err != nil {
		tt.Fatal(err)
	}
}

//go:build kernel

package agent

import (
	"log/slog"
	"runtime"
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
	tk := &task{server: &server{policy: inventory.Policy{Mode: mode}, platform: linux}, log: slog.New(slog.DiscardHandler)}
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
	foreign := tk.passAll(t, 5) // where the drop belongs
	err := tk.ensureFence()
	if !isA[*fenceError](err) || !isA[*fence.OccupiedError](err) {
		t.Fatalf("an occupied fence: %v", err)
	}
	if tk.parentUp(t) {
		t.Error("plain frames may leave: the parent is up without a drop")
	}
	if err := netlink.FilterDel(foreign); err != nil {
		t.Fatal(err)
	}
	if err := tk.ensureFence(); err != nil {
		t.Error(err)
	}
}

func TestForeignFilterBeforeTheFenceIsAFault(t *testing.T) {
	tk := fencedTask(t, inventory.Enforce)
	foreign := tk.passAll(t, 1)
	if err := tk.ensureFence(); err != nil {
		t.Fatal(err)
	}
	if !tk.faults.Has(health.FenceForeign) {
		t.Errorf("faults: %v", tk.faults.List())
	}
	if err := netlink.FilterDel(foreign); err != nil {
		t.Fatal(err)
	}
	if err := tk.ensureFence(); err != nil {
		t.Fatal(err)
	}
	if tk.faults.Has(health.FenceForeign) || !tk.parentUp(t) {
		t.Errorf("without it: up %v, faults %v", tk.parentUp(t), tk.faults.List())
	}
}

func TestMonitorOpensTheFence(t *testing.T) {
	tk := fencedTask(t, inventory.Enforce)
	if err := tk.ensureFence(); err != nil {
		t.Fatal(err)
	}
	tk.policy.Mode = inventory.Monitor
	if err := tk.ensureFence(); err != nil {
		t.Fatal(err)
	}
	state, err := fence.Inspect(tk.parent.index, fence.Options{})
	if err != nil || state.Closed || !state.Leaks() {
		t.Errorf("in mode monitor the fence is %+v, %v", state, err)
	}
}

//go:build kernel

package fence

import (
	"context"
	"testing"

	"github.com/vishvananda/netlink"
)

// watch is Watch in the end's namespace. room is how many notices may wait for
// whoever reads them.
func (e *end) watch(room int) <-chan int {
	e.t.Helper()
	ctx, cancel := context.WithCancel(e.t.Context())
	e.t.Cleanup(cancel)
	notices := make(chan int, room)
	e.do(func() error {
		return Watch(ctx, nil, func(i int) {
			select {
			case notices <- i:
			case <-ctx.Done():
			}
		})
	})
	return notices
}

func TestWatch(t *testing.T) {
	a, b := newLink(t)
	notices := a.watch(1000)
	// Those of one change have come when those of another interface's do.
	settle := func() {
		t.Helper()
		a.do(func() error { return netlink.QdiscReplace((&tc{index: 1}).hooks()) })
		a.do(func() error { return netlink.QdiscDel((&tc{index: 1}).hooks()) })
		for seen := 0; seen < 2; {
			if <-notices == 1 {
				seen++
			}
		}
	}
	for _, tt := range []struct {
		name string
		do   func() error
		want int
	}{
		{"Close", func() error { _, err := Close(a.index, Options{}); return err }, a.index},
		{"another mode", func() error { _, err := Close(a.index, Options{Monitor: true}); return err }, a.index},
		{"tc actions change", func() error { return a.changeAction(Egress) }, 0},
		{"tc filter add", func() error { return a.matchall(Ingress, 7, netlink.TC_ACT_OK) }, a.index},
		{"tc filter del", func() error { return a.deleteAll(Egress, 0, 0) }, a.index},
		{"tc qdisc del", func() error { return netlink.QdiscDel((&tc{index: a.index}).hooks()) }, a.index},
	} {
		a.do(tt.do)
		if got := <-notices; got != tt.want {
			t.Errorf("%s: a notice of interface %d, want %d", tt.name, got, tt.want)
		}
		settle()
	}
	// Neither looking nor a change elsewhere is a change here.
	a.inspect(Options{})
	b.close(Options{})
	settle()
	for len(notices) > 0 {
		if i := <-notices; i != 1 {
			t.Errorf("a notice of interface %d", i)
		}
	}
}

// TestWatchThatWasHeldUp loses notices, and hears that it did.
func TestWatchThatWasHeldUp(t *testing.T) {
	a, _ := newLink(t)
	a.close(Options{})
	notices := a.watch(0)
	for range 400 { // each some 2 KiB of 208 KiB
		a.do(func() error { return a.matchall(Egress, 7, netlink.TC_ACT_UNSPEC) })
		a.do(func() error { return a.deleteAll(Egress, 7, 3) })
	}
	for <-notices != 0 {
	}
}

func TestWatchEnds(t *testing.T) {
	a, _ := newLink(t)
	ctx, cancel := context.WithCancel(t.Context())
	notices := make(chan int, 10)
	a.do(func() error { return Watch(ctx, nil, func(i int) { notices <- i }) })
	cancel()
	other := a.watch(10)
	a.close(Options{})
	<-other
	if len(notices) > 0 {
		t.Errorf("%d notices after the end", len(notices))
	}
}

//go:build kernel

package netdev

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

func add(t *testing.T, name string) int {
	t.Helper()
	l := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if err := netlink.LinkAdd(l); err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Index
}

// told waits for a notice about one of the interfaces.
func told(t *testing.T, notices <-chan int, of ...int) int {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		select {
		case i := <-notices:
			if slices.Contains(of, i) {
				return i
			}
		case <-late:
			t.Fatalf("no notice of %v", of)
		}
	}
}

func TestWatch(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	notices := make(chan int, 1000)
	if err := Watch(ctx, nil, func(i int) { notices <- i }); err != nil {
		t.Fatal(err)
	}
	index := add(t, "watched")
	told(t, notices, index)
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		do   func() error
	}{
		{"up", func() error { return netlink.LinkSetUp(l) }},
		{"MTU", func() error { return netlink.LinkSetMTU(l, 1300) }},
		{"address", func() error { a, _ := netlink.ParseAddr("192.0.2.7/24"); return netlink.AddrAdd(l, a) }},
		// Of some changes the kernel tells only while the interface is up
		// (netdev_state_change).
		{"alias", func() error { return netlink.LinkSetAlias(l, "x") }},
	} {
		for len(notices) > 0 {
			<-notices
		}
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		told(t, notices, index)
	}
}

// A watcher that is kept busy while more happens than its socket has room for is
// told that it missed something, and goes on.
func TestWatchSurvivesAnOverflow(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	notices, release := make(chan int, 100000), make(chan struct{})
	if err := watch(ctx, nil, 2048, func(i int) { <-release; notices <- i }); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		add(t, fmt.Sprintf("many%d", i))
	}
	close(release)
	told(t, notices, 0)
	told(t, notices, add(t, "afterwards"))
}

package fence

import (
	"context"
	"log/slog"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/internal/netdev"
)

// Watch calls changed soon after somebody changes a tc filter, chain or qdisc of
// an interface, until ctx ends: with the interface's index, or with 0 if any may
// have changed. It says neither what has changed nor who did it, so that Close,
// too, has it called. It listens before it returns, in the network namespace of
// the calling thread, and calls from one goroutine; what changed does meanwhile
// holds up notices but loses none for good.
func Watch(ctx context.Context, log *slog.Logger, changed func(ifindex int)) error {
	return netdev.Listen(ctx, log, "tc filters", 1<<(unix.RTNLGRP_TC-1), 0, func(messages []netlink.Message) {
		if messages == nil {
			changed(0)
		}
		last := -1 // several filters of one interface are often changed at once
		for _, m := range messages {
			if i := changedInterface(m); i != last {
				last = i
				changed(i)
			}
		}
	})
}

// changedInterface is the index of the interface that a notice is about, or 0.
func changedInterface(m netlink.Message) int {
	switch uint16(m.Header.Type) {
	case unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER, unix.RTM_NEWQDISC, unix.RTM_DELQDISC, unix.RTM_NEWCHAIN, unix.RTM_DELCHAIN:
		if t, _, err := decodeTC(m.Data); err == nil && t.index > 0 { // shared blocks have none
			return t.index
		}
	}
	return 0 // such as RTM_NEWACTION: any filter may have that action
}

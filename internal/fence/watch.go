package fence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watch calls changed soon after somebody changes a tc filter, chain or qdisc of
// an interface, until ctx ends: with the interface's index, or with 0 if any may
// have changed. It says neither what has changed nor who did it, so that Close,
// too, has it called. It listens before it returns, in the network namespace of
// the calling thread, and calls from one goroutine; what changed does meanwhile
// holds up notices but loses none for good.
func Watch(ctx context.Context, log *slog.Logger, changed func(ifindex int)) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: 1 << (unix.RTNLGRP_TC - 1), MessageBufferSize: messageBuffer})
	if err != nil {
		return fmt.Errorf("watch tc filters: %w", err)
	}
	end := context.AfterFunc(ctx, func() { _ = conn.Close() })
	go func() {
		defer func() {
			end()
			_ = conn.Close()
		}()
		for {
			messages, err := conn.Receive()
			switch {
			case ctx.Err() != nil:
				return
			case errors.Is(err, unix.ENOBUFS): // the kernel had no room left for notices
				log.Warn("notices of tc filters were lost: looking at all fences")
				changed(0)
			case err != nil:
				log.Error("tc filters are no longer watched: their changes are seen by and by", "error", err)
				changed(0)
				return
			}
			last := -1 // several filters of one interface are often changed at once
			for _, m := range messages {
				if i := changedInterface(m); i != last {
					last = i
					changed(i)
				}
			}
		}
	}()
	return nil
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

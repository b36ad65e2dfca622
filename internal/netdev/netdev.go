// Package netdev tells of changes of the network interfaces.
//
// What belongs here: listening to the kernel's notices, and what those of interfaces
// and of their addresses are about. What does not: what to do about them
// (internal/agent), and what those of tc filters say (internal/fence).
package netdev

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watch calls changed with the index of each interface of which the kernel tells
// that it, or one of its addresses, was added, changed or removed, and with 0 if it
// may have told of more than there was room for, until ctx ends. It listens before
// it returns, in the network namespace of the calling thread, and calls from one
// goroutine; what changed does meanwhile holds up notices but loses none for good.
func Watch(ctx context.Context, log *slog.Logger, changed func(index int)) error {
	return watch(ctx, log, 0, changed)
}

// watch has a receive buffer of that many octets; 0 is the kernel's own choice.
func watch(ctx context.Context, log *slog.Logger, buffer int, changed func(index int)) error {
	const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1)
	return Listen(ctx, log, "interfaces", groups, buffer, func(messages []netlink.Message) {
		if messages == nil {
			changed(0)
		}
		for _, m := range messages {
			// struct ifinfomsg and struct ifaddrmsg have the index at one place.
			if len(m.Data) >= 8 {
				changed(int(int32(binary.NativeEndian.Uint32(m.Data[4:]))))
			}
		}
	})
}

// Listen calls told with the notices of some groups of rtnetlink, as Watch does, and
// with nil when there may have been more. What is what they are about, for the log.
func Listen(ctx context.Context, log *slog.Logger, what string, groups uint32, buffer int, told func([]netlink.Message)) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: groups})
	if err == nil && buffer > 0 {
		err = conn.SetReadBuffer(buffer)
	}
	if err != nil {
		return fmt.Errorf("watch %s: %w", what, err)
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
				log.Warn("notices were lost: looking at all", "of", what)
				told(nil)
			case err != nil:
				log.Error("changes are no longer told of, and seen by and by", "of", what, "error", err)
				told(nil)
				return
			case len(messages) > 0:
				told(messages)
			}
		}
	}()
	return nil
}

// Package netdev tells of changes of the network interfaces.
//
// What belongs here: the kernel's notices of interfaces and of their addresses.
// What does not: what to do about them (internal/agent), and those of tc filters
// (internal/fence).
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
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1)
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: groups})
	if err == nil && buffer > 0 {
		err = conn.SetReadBuffer(buffer)
	}
	if err != nil {
		return fmt.Errorf("watch interfaces: %w", err)
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
			case errors.Is(err, unix.ENOBUFS):
				log.Warn("notices of interfaces were lost: looking at all")
				changed(0)
			case err != nil:
				log.Error("interfaces are no longer watched: their changes are seen by and by", "error", err)
				changed(0)
				return
			}
			for _, m := range messages {
				// struct ifinfomsg and struct ifaddrmsg have the index at one place.
				if len(m.Data) >= 8 {
					changed(int(int32(binary.NativeEndian.Uint32(m.Data[4:]))))
				}
			}
		}
	}()
	return nil
}

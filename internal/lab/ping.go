package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

// Ping sends n ICMP echo requests from a namespace and returns how many were
// answered before patience ran out. That the kernel refuses to send one is not
// an error: it is a ping that is not answered.
func Ping(ctx context.Context, ns *Netspace, from, to netip.Addr, n int, patience time.Duration) (int, error) {
	var conn *icmp.PacketConn
	err := ns.Do(func() (err error) {
		conn, err = icmp.ListenPacket("ip4:icmp", from.String())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ping from %s in %s: %w", from, ns.Name, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	id := os.Getpid() & 0xFFFF
	for seq := range n {
		m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: id, Seq: seq, Data: []byte(PayloadMark)}}
		b, err := m.Marshal(nil)
		if err != nil {
			return 0, fmt.Errorf("ping: %w", err)
		}
		_, _ = conn.WriteTo(b, &net.IPAddr{IP: to.AsSlice()}) // see above
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, fmt.Errorf("ping: %w", err)
	}
	answered := map[int]bool{}
	buf := make([]byte, 2048)
	for len(answered) < n {
		size, sender, err := conn.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return 0, context.Cause(ctx)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return len(answered), nil
		case err != nil:
			return 0, fmt.Errorf("ping %s from %s in %s: %w", to, from, ns.Name, err)
		}
		m, err := icmp.ParseMessage(1, buf[:size])
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply || sender.String() != to.String() {
			continue // somebody else's
		}
		if echo, ok := m.Body.(*icmp.Echo); ok && echo.ID == id && echo.Seq < n {
			answered[echo.Seq] = true
		}
	}
	return len(answered), nil
}

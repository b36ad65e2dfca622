package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	streamRate = 1000 // packets a second, each way
	streamPort = 4817
	// streamBurst bounds what is sent in one turn when the machine has kept the
	// sender from others: a queue that a larger burst overflows would look like
	// a loss of the link's. What is still to send by then is sent in the next
	// turns, for as long as it is not older than streamBehind.
	streamBurst  = 64
	streamBehind = time.Second
	settleTime   = 2 * time.Second
)

// A stream sends numbered packets both ways between two addresses until it is
// stopped, and accounts for each.
type stream struct {
	ends   [2]*streamEnd
	cancel context.CancelFunc
	done   sync.WaitGroup
	began  time.Time
	ran    time.Duration
}

type streamEnd struct {
	name    string
	conn    *net.UDPConn
	sent    atomic.Int64 // by this end
	refused atomic.Int64

	mu      sync.Mutex
	tally   tally // of what this end has received
	foreign int
	err     error
}

// endpoint is where a stream starts and ends.
type endpoint struct {
	name string
	ns   *netspace
	addr netip.Addr
}

// startStream opens both sockets and starts sending.
func startStream(ctx context.Context, a, z endpoint) (*stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &stream{cancel: cancel, began: time.Now()}
	for i, e := range []endpoint{a, z} {
		conn, err := listenUDP(e)
		if err != nil {
			cancel()
			if i > 0 {
				s.ends[0].conn.Close()
			}
			return nil, err
		}
		s.ends[i] = &streamEnd{name: e.name, conn: conn}
	}
	for i, far := range []endpoint{z, a} {
		end, to := s.ends[i], netip.AddrPortFrom(far.addr, streamPort)
		go end.receive(to)
		s.done.Go(func() { end.send(ctx, to) })
	}
	return s, nil
}

func listenUDP(e endpoint) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := e.ns.do(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(e.addr, streamPort)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open the stream's socket at %s in %s: %w", e.addr, e.ns.name, err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		// Room for all that can arrive while the receiver waits for its turn:
		// what is lost must have been lost by the link.
		err = control(raw, func(fd int) error {
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("give the stream's socket room: %w", err), conn.Close())
	}
	return conn, nil
}

// send keeps to the rate by the clock, however coarse its ticks are.
func (e *streamEnd) send(ctx context.Context, to netip.AddrPort) {
	const interval = time.Second / streamRate
	tick := time.NewTicker(interval)
	defer tick.Stop()
	packet := make([]byte, 8, 8+len(payloadMark))
	packet = append(packet, payloadMark...)
	next := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for range streamBurst {
			if time.Now().Before(next) {
				break
			}
			binary.BigEndian.PutUint64(packet, uint64(e.sent.Load()))
			e.sent.Add(1)
			if _, err := e.conn.WriteToUDPAddrPort(packet, to); err != nil {
				e.refused.Add(1)
			}
			next = next.Add(interval)
		}
		if behind := time.Since(next) - streamBehind; behind > 0 {
			next = next.Add(behind)
		}
	}
}

// receive runs until the socket is closed.
func (e *streamEnd) receive(from netip.AddrPort) {
	buf := make([]byte, 2048)
	for {
		n, sender, err := e.conn.ReadFromUDPAddrPort(buf)
		now := time.Now()
		e.mu.Lock()
		switch {
		case errors.Is(err, net.ErrClosed):
			e.mu.Unlock()
			return
		case err != nil:
			// An ICMP error for a packet that we sent is no reason to stop; the
			// packet will be missing at the other end.
			e.err = err
		case n != 8+len(payloadMark) || sender != from:
			e.foreign++
		default:
			seq := binary.BigEndian.Uint64(buf)
			if seq > 1<<30 { // would need more memory than sense
				e.foreign++
			} else {
				e.tally.note(int(seq), now)
			}
		}
		e.mu.Unlock()
	}
}

// flowing waits until packets arrive both ways.
func (s *stream) flowing(ctx context.Context) error {
	return await(ctx, 10*time.Second, "the stream to flow both ways", func() (bool, string) {
		a, z := s.ends[0].got(), s.ends[1].got()
		return a > 0 && z > 0, fmt.Sprintf("%s has received %d packets and %s %d", s.ends[0].name, a, s.ends[1].name, z)
	})
}

func (e *streamEnd) got() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tally.received
}

// stop ends the sending, waits until all that was sent has arrived or the
// settle time is over, and accounts for both directions.
func (s *stream) stop(ctx context.Context) ([2]streamReport, error) {
	s.cancel()
	s.done.Wait()
	s.ran = time.Since(s.began)
	// That not all has arrived is for the reports to say.
	settled := await(ctx, settleTime, "the last packets", func() (bool, string) {
		return s.ends[0].got() >= int(s.ends[1].sent.Load()) && s.ends[1].got() >= int(s.ends[0].sent.Load()), ""
	})
	var reports [2]streamReport
	var errs []error
	if ctx.Err() != nil {
		errs = append(errs, settled)
	}
	for i, from := range s.ends {
		to := s.ends[1-i]
		to.mu.Lock()
		sent := int(from.sent.Load())
		reports[i] = streamReport{
			From: from.name, To: to.name,
			Sent: sent, Received: to.tally.received, Refused: int(from.refused.Load()),
			Duplicates: to.tally.duplicates, Reordered: to.tally.reordered, Foreign: to.foreign,
			Longest: to.tally.longest, Missing: to.tally.missing(sent, 4),
		}
		to.mu.Unlock()
		errs = append(errs, from.conn.Close())
	}
	return reports, errors.Join(errs...)
}

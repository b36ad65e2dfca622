package lab

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

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// StreamRate is the packets a second, each way, of which none may be lost.
const StreamRate = 1000

const (
	// streamBurst bounds what is sent in one turn when the machine has kept the
	// sender from others: a queue that a larger burst overflows would look like
	// a loss of the link's. What is still to send by then is sent in the next
	// turns, for as long as it is not older than streamBehind.
	streamBurst  = 64
	streamBehind = time.Second
	settleTime   = 2 * time.Second
)

// A Stream sends numbered packets both ways between two addresses until it is
// stopped, and accounts for each.
type Stream struct {
	Ends   [2]*StreamEnd
	cancel context.CancelFunc
	done   sync.WaitGroup // sending
	closed sync.WaitGroup // receiving
	began  time.Time
	Ran    time.Duration
}

// A StreamEnd is one end of a Stream: what it has sent, and what arrived there.
type StreamEnd struct {
	Name    string
	conn    *net.UDPConn
	Sent    atomic.Int64 // by this end
	refused atomic.Int64

	mu      sync.Mutex
	tally   tally // of what this end has received
	foreign int
	err     error
	first   time.Time // arrival since Mark
}

// Endpoint is where a stream starts and ends.
type Endpoint struct {
	Name  string
	Space *Netspace
	Addr  netip.Addr
}

// StartStream opens both sockets and starts sending, rate packets a
// second each way.
func StartStream(ctx context.Context, a, z Endpoint, rate int) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &Stream{cancel: cancel, began: time.Now()}
	for i, e := range []Endpoint{a, z} {
		conn, err := listenUDP(e)
		if err != nil {
			cancel()
			if i > 0 {
				s.Ends[0].conn.Close()
			}
			return nil, err
		}
		s.Ends[i] = &StreamEnd{Name: e.Name, conn: conn}
	}
	for i, end := range s.Ends {
		to := s.Ends[1-i].conn.LocalAddr().(*net.UDPAddr).AddrPort()
		s.closed.Go(func() { end.receive(to) })
		s.done.Go(func() { end.send(ctx, to, time.Second/time.Duration(rate)) })
	}
	return s, nil
}

func listenUDP(e Endpoint) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := e.Space.Do(func() (err error) {
		// Any free port: a process that is started meanwhile holds a copy of the
		// last stream's socket until it execs, and so its port.
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(e.Addr, 0)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open the stream's socket at %s in %s: %w", e.Addr, e.Space.Name, err)
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
func (e *StreamEnd) send(ctx context.Context, to netip.AddrPort, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	batch := newBatch(8+len(PayloadMark), net.UDPAddrFromAddrPort(to))
	for _, m := range batch {
		copy(m.Buffers[0][8:], PayloadMark)
	}
	conn := ipv4.NewPacketConn(e.conn)
	next := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n := 0
		for now := time.Now(); n < streamBurst && !now.Before(next); n++ {
			binary.BigEndian.PutUint64(batch[n].Buffers[0], uint64(e.Sent.Load()))
			e.Sent.Add(1)
			next = next.Add(interval)
		}
		for rest := batch[:n]; len(rest) > 0; {
			sent, err := conn.WriteBatch(rest, 0)
			if err != nil {
				e.refused.Add(1)
				sent = 1 // the first of them is what it did not take
			}
			rest = rest[sent:]
		}
		if behind := time.Since(next) - streamBehind; behind > 0 {
			next = next.Add(behind)
		}
	}
}

// newBatch is room for as many packets as go with one call of the kernel: on a
// machine of one processor a call for each would be most of the work.
func newBatch(size int, to net.Addr) []ipv4.Message {
	batch := make([]ipv4.Message, streamBurst)
	for i := range batch {
		batch[i] = ipv4.Message{Buffers: [][]byte{make([]byte, size)}, Addr: to}
	}
	return batch
}

// receive runs until the socket is closed.
func (e *StreamEnd) receive(from netip.AddrPort) {
	batch := newBatch(2048, nil)
	conn := ipv4.NewPacketConn(e.conn)
	for {
		n, err := conn.ReadBatch(batch, 0)
		now := time.Now()
		e.mu.Lock()
		if errors.Is(err, net.ErrClosed) {
			e.mu.Unlock()
			return
		}
		if err != nil {
			// An ICMP error for a packet that we sent is no reason to stop; the
			// packet will be missing at the other end.
			e.err, n = err, 0
		}
		for _, m := range batch[:n] {
			e.note(m, from, now)
		}
		e.mu.Unlock()
	}
}

// note accounts for a packet, under the lock.
func (e *StreamEnd) note(m ipv4.Message, from netip.AddrPort, now time.Time) {
	sender, isUDP := m.Addr.(*net.UDPAddr)
	if !isUDP || m.N != 8+len(PayloadMark) || sender.Port != int(from.Port()) || !sender.IP.Equal(from.Addr().AsSlice()) {
		e.foreign++
		return
	}
	seq := binary.BigEndian.Uint64(m.Buffers[0])
	if seq > 1<<30 { // would need more memory than sense
		e.foreign++
		return
	}
	e.tally.note(int(seq), now)
	if e.first.IsZero() {
		e.first = now
	}
}

// Mark forgets when anything arrived.
func (e *StreamEnd) Mark() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.first = time.Time{}
}

// SinceMark is when something arrived for the first time since Mark.
func (e *StreamEnd) SinceMark() (at time.Time, arrived bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.first, !e.first.IsZero()
}

// Flowing waits until packets arrive both ways.
func (s *Stream) Flowing(ctx context.Context) error {
	return Await(ctx, 10*time.Second, "the stream to flow both ways", func() (bool, string) {
		a, z := s.Ends[0].Got(), s.Ends[1].Got()
		return a > 0 && z > 0, fmt.Sprintf("%s has received %d packets and %s %d", s.Ends[0].Name, a, s.Ends[1].Name, z)
	})
}

// Got is how many of the other end's packets have arrived, each counted once.
func (e *StreamEnd) Got() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tally.received
}

// Missing is how many of the first sent packets of the other end have not arrived.
func (e *StreamEnd) Missing(sent int) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tally.lacks(sent)
}

// Stop ends the sending, waits until all that was sent has arrived or the
// settle time is over, and accounts for both directions.
func (s *Stream) Stop(ctx context.Context) ([2]StreamReport, error) {
	s.cancel()
	s.done.Wait()
	s.Ran = time.Since(s.began)
	// That not all has arrived is for the reports to say.
	settled := Await(ctx, settleTime, "the last packets", func() (bool, string) {
		return s.Ends[0].Got() >= int(s.Ends[1].Sent.Load()) && s.Ends[1].Got() >= int(s.Ends[0].Sent.Load()), ""
	})
	var reports [2]StreamReport
	var errs []error
	if ctx.Err() != nil {
		errs = append(errs, settled)
	}
	for i, from := range s.Ends {
		to := s.Ends[1-i]
		to.mu.Lock()
		sent := int(from.Sent.Load())
		reports[i] = StreamReport{
			From: from.Name, To: to.Name,
			Sent: sent, Received: to.tally.received, Refused: int(from.refused.Load()),
			Duplicates: to.tally.duplicates, Reordered: to.tally.reordered, Foreign: to.foreign,
			Longest: to.tally.longest, Missing: to.tally.missing(sent, 4),
		}
		to.mu.Unlock()
		errs = append(errs, from.conn.Close())
	}
	s.closed.Wait() // a socket is free again when nobody reads from it any more
	return reports, errors.Join(errs...)
}

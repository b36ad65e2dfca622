package etcdtest_test

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// proxy carries TCP connections to a member, and can cut or hang them.
type proxy struct {
	listener net.Listener
	to       string

	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
	// away refuses connections, hung accepts them and carries nothing.
	away bool
	hung chan struct{} // nil unless hung; closed when not any more
	// up and down are what the first connection carried, to and from the member.
	up, down []byte
	first    net.Conn
}

func newProxy(t testing.TB, endpoint string) *proxy {
	t.Helper()
	p := &proxy{
		listener: do[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0")),
		to:       strings.TrimPrefix(endpoint, "https://"), conns: make(map[net.Conn]bool),
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.run(&wg) })
	t.Cleanup(func() {
		_ = p.listener.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.cut()
		p.unhang()
		wg.Wait()
	})
	return p
}

func (p *proxy) endpoint() string { return "https://" + p.listener.Addr().String() }

func (p *proxy) run(wg *sync.WaitGroup) {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		away := p.away || p.closed
		p.mu.Unlock()
		if away {
			_ = near.Close()
			continue
		}
		far, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = near.Close()
			continue
		}
		p.mu.Lock()
		p.conns[near], p.conns[far] = true, true
		if p.first == nil {
			p.first = near
		}
		record := p.first == near
		p.mu.Unlock()
		wg.Go(func() { p.carry(far, near, record, &p.up) })
		wg.Go(func() { p.carry(near, far, record, &p.down) })
	}
}

func (p *proxy) carry(to, from net.Conn, record bool, tape *[]byte) {
	defer func() {
		_, _ = to.Close(), from.Close()
		p.mu.Lock()
		delete(p.conns, to)
		delete(p.conns, from)
		p.mu.Unlock()
	}()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			p.mu.Lock()
			if record && len(*tape) < 64<<10 {
				*tape = append(*tape, b[:n]...)
			}
			hung := p.hung
			p.mu.Unlock()
			if hung != nil {
				<-hung
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// leave cuts and refuses; come takes connections again.
func (p *proxy) leave() {
	p.mu.Lock()
	p.away = true
	p.mu.Unlock()
	p.cut()
}

func (p *proxy) come() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = false
}

// hang carries nothing any more, as a partition does.
func (p *proxy) hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hung == nil {
		p.hung = make(chan struct{})
	}
}

func (p *proxy) unhang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hung != nil {
		close(p.hung)
		p.hung = nil
	}
}

func (p *proxy) tape() (up, down []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]byte(nil), p.up...), append([]byte(nil), p.down...)
}

// blackhole listens and never answers.
func blackhole(t testing.TB) string {
	t.Helper()
	l := do[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { _, _ = io.Copy(io.Discard, c); _ = c.Close() })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return "https://" + l.Addr().String()
}

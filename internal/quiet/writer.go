package quiet

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// writerRoom is how much a Writer keeps for a reader who is slow: some seconds of
// the worst that a Handler lets through.
const writerRoom = 1 << 20

// closePatience is how long Close waits for the reader.
const closePatience = time.Second

// Writer passes lines on to another writer, and never waits for it: what it has no
// room for is dropped, and counted in a line of its own. A log goes to a pipe, and
// whoever reads from that must not be able to stop the agent by not reading.
type Writer struct {
	next io.Writer

	mu      sync.Mutex
	more    sync.Cond
	queue   [][]byte
	size    int
	dropped int
	closed  bool
	ended   chan struct{}
}

// NewWriter puts a Writer in front of next. Close ends its goroutine.
func NewWriter(next io.Writer) *Writer {
	w := &Writer{next: next, ended: make(chan struct{})}
	w.more.L = &w.mu
	go w.pass()
	return w
}

// Write takes one line, or drops it. It fails for nothing.
func (w *Writer) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.size+len(line) > writerRoom {
		w.dropped++
		return len(line), nil
	}
	w.queue = append(w.queue, append([]byte(nil), line...))
	w.size += len(line)
	w.more.Signal()
	return len(line), nil
}

// pass writes what there is until Close.
func (w *Writer) pass() {
	defer close(w.ended)
	for {
		w.mu.Lock()
		for len(w.queue) == 0 && !w.closed {
			w.more.Wait()
		}
		lines, dropped := w.queue, w.dropped
		w.queue, w.dropped = nil, 0
		closed := w.closed
		w.mu.Unlock()
		for _, line := range lines {
			_, _ = w.next.Write(line) // a log that cannot be written has nobody to tell
			w.mu.Lock()
			w.size -= len(line)
			w.mu.Unlock()
		}
		if dropped > 0 {
			_, _ = fmt.Fprintf(w.next, "level=WARN msg=\"lines of this log were lost: its reader is slow\" lines=%d\n", dropped)
		}
		if closed && len(lines) == 0 {
			return
		}
	}
}

// Close passes on what there is, as far as the reader takes it within a second.
func (w *Writer) Close() error {
	w.mu.Lock()
	w.closed = true
	w.more.Signal()
	w.mu.Unlock()
	late := time.NewTimer(closePatience)
	defer late.Stop()
	select {
	case <-w.ended:
		return nil
	case <-late.C:
		return errors.New("pass on the log: its reader takes nothing")
	}
}

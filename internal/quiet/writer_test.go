package quiet_test

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/quiet"
)

// reader is who reads the log, and may stop doing so.
type reader struct {
	mu   sync.Mutex
	wait chan struct{}
	text bytes.Buffer
}

func (r *reader) Write(b []byte) (int, error) {
	if r.wait != nil {
		<-r.wait
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func TestWriterKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{}
		w := quiet.NewWriter(r)
		var want strings.Builder
		line := make([]byte, 0, 32)
		for i := range 1000 {
			line = fmt.Appendf(line[:0], "line %d\n", i) // which slog uses again
			want.Write(line)
			if n, err := w.Write(line); n != len(line) || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		}
		if err := w.Close(); err != nil || r.text.String() != want.String() {
			t.Errorf("%v, %d octets of %d", err, r.text.Len(), want.Len())
		}
	})
}

func TestWriterWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{wait: make(chan struct{})}
		w := quiet.NewWriter(r)
		began := time.Now()
		line := []byte(strings.Repeat("x", 1023) + "\n")
		for range 10_000 {
			if _, err := w.Write(line); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it was held up for %v", took)
		}
		close(r.wait)
		synctest.Wait()
		if _, err := w.Write([]byte("the last\n")); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		passed, lost := 0, 0
		for l := range strings.Lines(r.text.String()) {
			if n, found := strings.CutPrefix(l, `level=WARN msg="lines of this log were lost: its reader is slow" lines=`); found {
				k, err := strconv.Atoi(strings.TrimSpace(n))
				if err != nil {
					t.Error(err)
				}
				lost += k
			} else if l == string(line) {
				passed++
			}
		}
		if passed < 1000 || passed > 1025 || passed+lost != 10_000 || !strings.Contains(r.text.String(), "the last\n") {
			t.Errorf("%d lines passed, and %d are counted as lost", passed, lost)
		}
	})
}

func TestCloseWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{wait: make(chan struct{})}
		w := quiet.NewWriter(r)
		if _, err := w.Write([]byte("one\n")); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := w.Close(); err == nil || time.Since(began) > 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		close(r.wait)
	})
}

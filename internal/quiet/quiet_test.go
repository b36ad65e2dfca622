package quiet

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines is what was written, one line a record.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// with returns those that have every one of words, since the last call.
func (l *lines) with(words ...string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

func (l *lines) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
}

func newLog() (*slog.Logger, *Handler, *lines) {
	var l lines
	h := New(slog.NewTextHandler(&l, nil), Options{})
	return slog.New(h), h, &l
}

// A flood is ten lines and one with the count, in each minute.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, _, out := newLog()
		for minute := range 3 {
			for n := range 1200 {
				log.Warn("MKPDU not sent", "error", fmt.Sprintf("error %d", n))
				time.Sleep(50 * time.Millisecond)
			}
			synctest.Wait()
			if n := len(out.with("msg=\"MKPDU not sent\"")); n != 10 {
				t.Errorf("minute %d: %d lines, want 10", minute, n)
			}
			counts := out.with("level=WARN", "more of the same was not logged", "message=\"MKPDU not sent\"", "lines=1190", "within=1m0s")
			if len(counts) != 1 || len(out.with("not logged")) != 1 {
				t.Errorf("minute %d: %q", minute, out.with("not logged"))
			}
			out.clear()
		}
	})
}

// Up to ten a minute nothing is changed, and nothing is counted.
func TestFewLinesPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, _, out := newLog()
		for range 100 {
			log.Info("secured")
			time.Sleep(6 * time.Second)
		}
		if n := len(out.with("secured")); n != 100 || len(out.with("not logged")) != 0 {
			t.Errorf("%d of 100 lines passed, %q", n, out.with("not logged"))
		}
	})
}

// Links, levels and messages are apart; attributes of a line are not.
func TestKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, h, out := newLog()
		a, b, grouped := log.With("link", "a"), log.With("link", "b"), log.WithGroup("g").With("link", "a")
		for n := range 50 {
			a.Info("peer_lost", "sci", n)
			a.Info("peer_live", "sci", n)
		}
		for range 3 {
			b.Info("peer_lost")
			a.Warn("peer_lost")
			grouped.Info("peer_lost")
		}
		for want, words := range map[int][][]string{
			10: {{"msg=peer_lost", "level=INFO", " link=a"}, {"msg=peer_live", " link=a"}},
			3:  {{"msg=peer_lost", " link=b"}, {"msg=peer_lost", "level=WARN", " link=a"}, {"msg=peer_lost", "g.link=a"}},
		} {
			for _, w := range words {
				if got := out.with(w...); len(got) != want {
					t.Errorf("%q: %d lines, want %d", w, len(got), want)
				}
			}
		}
		if err := h.Flush(); err != nil {
			t.Fatal(err)
		}
		if got := out.with("not logged", "lines=40", "link=a"); len(got) != 2 {
			t.Errorf("the counts do not say whose they are: %q", out.with("not logged"))
		}
		out.clear()
		a.Info("peer_lost")
		if err := h.Flush(); err != nil || len(out.with("not logged")) != 0 || len(out.with("peer_lost")) != 1 {
			t.Errorf("after the flush: %v, %q", err, out.with())
		}
	})
}

// What the level hides is not counted either.
func TestDisabledLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, h, out := newLog()
		for range 100 {
			log.Debug("detail")
		}
		if err := h.Flush(); err != nil || len(out.with()) != 0 {
			t.Errorf("%v, %q", err, out.with())
		}
	})
}

// However many kinds there are, memory is bounded, and so is what is written.
func TestManyKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, h, out := newLog()
		for round := range 2 {
			for n := range 3 * defaultMaxKey {
				log.Info(fmt.Sprintf("kind %d", n))
			}
			h.mu.Lock()
			n := len(h.kinds)
			h.mu.Unlock()
			if n > defaultMaxKey+1 {
				t.Errorf("round %d: %d kinds are remembered", round, n)
			}
			if n := len(out.with("msg=\"kind")); n > defaultMaxKey+DefaultBurst {
				t.Errorf("round %d: %d lines were written", round, n)
			}
			out.clear()
			time.Sleep(2 * DefaultSpan)
			synctest.Wait()
			if got := out.with("not logged", "lines of many kinds", fmt.Sprintf("lines=%d", 2*defaultMaxKey-DefaultBurst)); len(got) != 1 {
				t.Errorf("round %d: %q", round, out.with("not logged"))
			}
			out.clear()
		}
	})
}

// Loggers are used by many goroutines.
func TestConcurrent(t *testing.T) {
	log, h, out := newLog()
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for range 1000 {
				log.With("link", n%2).Info("line")
			}
		})
	}
	wg.Wait()
	if err := h.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, held := len(out.with("msg=line")), out.with("not logged", "lines=3990"); n != 20 || len(held) != 2 {
		t.Errorf("%d lines, %q", n, held)
	}
}

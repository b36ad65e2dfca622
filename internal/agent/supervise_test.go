//go:build !kernel

package agent

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
)

// trap is a log handler that does something to the task of a link which is about to
// write a certain line: it is inside of the task and outside of every call.
type trap struct {
	slog.Handler
	*trapped
	link string
}

type trapped struct {
	mu    sync.Mutex
	line  string
	times int
	do    func()
}

func (h *trap) WithAttrs(attrs []slog.Attr) slog.Handler {
	link := h.link
	for _, a := range attrs {
		if a.Key == "link" {
			link = a.Value.String()
		}
	}
	return &trap{h.Handler.WithAttrs(attrs), h.trapped, link}
}

func (h *trap) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	sprung := h.link == "l1" && h.times > 0 && r.Message == h.line
	if sprung {
		h.times--
	}
	do := h.do
	h.mu.Unlock()
	if sprung {
		do()
	}
	return h.Handler.Handle(ctx, r)
}

// set has the task of l1 do something the next times that it writes a line.
func (h *trapped) set(line string, times int, do func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line, h.times, h.do = line, times, do
}

// trapped gives the next agent of n a log with a trap in it.
func (s *site) trapped(n *node) *trapped {
	tr := &trapped{}
	n.halt()
	s.logTo = func(h slog.Handler) slog.Handler { return &trap{Handler: h, trapped: tr} }
	s.startAt(n)
	s.logTo = nil
	time.Sleep(10 * time.Second)
	s.want(n, "l1", StateSecured)
	s.want(n, "l2", StateSecured)
	return tr
}

// TestPanicRestartsOneLink lets the task of l1 panic in the middle of a rekey. The
// link goes on as after a restart of the agent, and l2 as if nothing had happened.
func TestPanicRestartsOneLink(t *testing.T) {
	for _, line := range []string{"sak", "secured", "retired"} {
		t.Run(line, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, twoLinks)
				tr := s.trapped(s.r1)
				before := s.history(s.r1, "l2", "eth5-sec")
				task := s.r1.server.tasks["l1"]
				flow := s.stream(t)
				tr.set(line, 1, func() { panic("the slice has no such index") })
				_ = s.r2.ask("rekey")
				time.Sleep(20 * time.Second)
				st := s.want(s.r1, "l1", StateSecured, health.TaskRestarted)
				if t.Failed() {
					return
				}
				if f := st.Faults[0]; !strings.Contains(f.Text, "broke off 1 times") || !strings.Contains(f.Text, "panic: the slice has no such index") {
					t.Errorf("%s", f)
				}
				if s.r1.server.tasks["l1"] == task {
					t.Error("it is the same task")
				}
				if log := s.r1.log.String(); strings.Count(log, "stack=") != 1 || !strings.Contains(log, "supervise_test.go") {
					t.Error("the stack is not in the log once")
				}
				if err := s.r1.server.alive(); err != nil {
					t.Errorf("after a panic that was mended: %v", err)
				}
				flow()
				if now := s.history(s.r1, "l2", "eth5-sec"); now != before {
					t.Errorf("l2 was disturbed:\n%s\n%s", before, now)
				}
				time.Sleep(wellAfter)
				s.want(s.r1, "l1", StateSecured)
			})
		})
	}
}

// TestPanicsBackOff lets a task panic whenever it sets its link up.
func TestPanicsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, twoLinks)
		tr := s.trapped(s.r1)
		before := s.history(s.r1, "l2", "eth5-sec")
		defer s.stream(t)()
		var count atomic.Int32
		s.r1.noted()
		tr.set("link is set up", 1000, func() { count.Add(1); panic("again") })
		s.edit("ref: one}]", "ref: one}]\n    mka: {replay_window: 99}") // which restarts the session
		time.Sleep(30 * time.Second)
		st, _ := s.link(s.r1, "l1")
		if count.Load() < 4 || count.Load() > 7 || !has(st, health.TaskRestarted) {
			t.Errorf("%d panics within 30 seconds: %+v", count.Load(), st)
		}
		time.Sleep(10 * time.Minute)
		if n := count.Load(); n < 13 || n > 17 {
			t.Errorf("%d panics within 10 minutes", n)
		}
		tr.set("", 0, nil)
		time.Sleep(2 * time.Minute)
		s.want(s.r1, "l1", StateSecured, health.TaskRestarted)
		if now := s.history(s.r1, "l2", "eth5-sec"); now != before {
			t.Errorf("l2 was disturbed:\n%s\n%s", before, now)
		}
	})
}

// TestWedgedTaskIsLeftBehind stops the task of l1 between two operations of a
// rekey. Another takes the link over, and when the first one wakes up nothing of
// what it wants to do is done. That no nonce was used twice is checked at the end.
func TestWedgedTaskIsLeftBehind(t *testing.T) {
	for _, line := range []string{"sak", "secured", "retired"} {
		t.Run(line, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, twoLinks)
				tr := s.trapped(s.r1)
				before := s.history(s.r1, "l2", "eth5-sec")
				zombie := s.r1.server.tasks["l1"]
				wake := make(chan struct{})
				flow := s.stream(t)
				tr.set(line, 1, func() { <-wake })
				_ = s.r2.ask("rekey")
				time.Sleep(wedgedAfter + 20*time.Second)
				st := s.want(s.r1, "l1", StateSecured, health.TaskRestarted)
				if !strings.Contains(st.Faults[0].Text, "did not come round") || s.r1.server.tasks["l1"] == zombie {
					t.Errorf("%+v", st)
				}
				if err := s.r1.server.alive(); err != nil {
					t.Errorf("a task that was left behind is no reason to restart: %v", err)
				}
				if err := s.r2.ask("rekey"); err != nil {
					t.Error(err)
				}
				time.Sleep(10 * time.Second)
				had := s.history(s.r1, "l1", "eth4-sec")
				record, err := readLinkFile(s.r1.runDir, "l1")
				if err != nil {
					t.Fatal(err)
				}
				s.r1.noted()
				close(wake)
				synctest.Wait()
				for _, did := range s.r1.noted() {
					t.Errorf("the task that woke up does %s", did)
				}
				if now := s.history(s.r1, "l1", "eth4-sec"); now != had {
					t.Errorf("it disturbs its successor:\n%s\n%s", had, now)
				}
				if now, err := readLinkFile(s.r1.runDir, "l1"); err != nil || now.Generation != record.Generation {
					t.Errorf("it writes the record: %+v, %v", now, err)
				}
				time.Sleep(time.Minute)
				s.want(s.r1, "l1", StateSecured, health.TaskRestarted)
				flow()
				if now := s.history(s.r1, "l2", "eth5-sec"); now != before {
					t.Errorf("l2 was disturbed:\n%s\n%s", before, now)
				}
			})
		})
	}
}

// TestTaskInsideTheKernelIsNotReplaced has the kernel not come back from a call of
// the task of l1. Nobody takes the link over meanwhile, and the agent says that it
// wants to be restarted; when the call ends after all, another task goes on.
func TestTaskInsideTheKernelIsNotReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, twoLinks)
		time.Sleep(10 * time.Second)
		before := s.history(s.r1, "l2", "eth5-sec")
		task := s.r1.server.tasks["l1"]
		wake := make(chan struct{})
		var once sync.Once
		index := s.secy(s.r1, "eth4-sec").Index
		s.r1.kernel.After(func(o macsectest.Operation) error {
			if o.Op == macsec.OpAddTxSA && o.Index == index {
				once.Do(func() { <-wake })
			}
			return nil
		})
		flow := s.stream(t)
		_ = s.r2.ask("rekey")
		time.Sleep(wedgedAfter + 5*time.Second)
		st, _ := s.link(s.r1, "l1")
		i := slices.IndexFunc(st.Faults, func(f health.Fault) bool { return f.Code == health.TaskWedged })
		if i < 0 || !strings.Contains(st.Faults[i].Text, macsec.OpAddTxSA) {
			t.Errorf("%+v", st)
		}
		if err := s.r1.server.alive(); err == nil || !strings.Contains(err.Error(), "link l1") || !strings.Contains(err.Error(), macsec.OpAddTxSA) {
			t.Errorf("it says that it is alive: %v", err)
		}
		if s.r1.server.tasks["l1"] != task {
			t.Error("another task has taken over while nobody knows what the kernel will do")
		}
		if err := s.r1.ask("rekey"); err == nil {
			t.Error("a task that is stuck has carried out a request")
		}
		s.edit("ref: one", "ref: uno") // the other links can still be changed
		close(wake)
		time.Sleep(20 * time.Second)
		s.want(s.r1, "l1", StateSecured, health.TaskRestarted)
		if err := s.r1.server.alive(); err != nil {
			t.Error(err)
		}
		flow()
		if now := s.history(s.r1, "l2", "eth5-sec"); now != before {
			t.Errorf("l2 was disturbed:\n%s\n%s", before, now)
		}
	})
}

// TestTooManyWedged leaves no more goroutines behind than it must.
func TestTooManyWedged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, twoLinks)
		tr := s.trapped(s.r1)
		wake := make(chan struct{})
		var times atomic.Int32
		tr.set("link is set up", 1000, func() { times.Add(1); <-wake })
		s.edit("ref: one}]", "ref: one}]\n    mka: {replay_window: 99}")
		time.Sleep(10 * time.Minute)
		if n := times.Load(); n != maxAbandoned+1 {
			t.Errorf("%d tasks are stuck", n)
		}
		if err := s.r1.server.alive(); err == nil || !strings.Contains(err.Error(), "link l1") {
			t.Errorf("it says that it is alive: %v", err)
		}
		s.want(s.r1, "l2", StateSecured)
		tr.set("", 0, nil)
		close(wake)
		time.Sleep(2 * time.Minute)
		s.want(s.r1, "l1", StateSecured, health.TaskRestarted)
	})
}

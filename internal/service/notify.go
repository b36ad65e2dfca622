package service

import (
	"context"
	"log/slog"
	"runtime/pprof"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// A Notifier tells the service manager how the agent is (sd_notify(3)). Without
// a manager that listens it does nothing.
type Notifier struct {
	log      *slog.Logger
	send     func(state string) error
	watchdog time.Duration // the manager's patience, or 0

	mu       sync.Mutex
	failed   bool // the last message was not delivered; said once
	stopping bool
	status   string
}

// NewNotifier reads from the environment where the manager listens and how long
// it waits for a sign of life.
func NewNotifier(log *slog.Logger) *Notifier {
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the service manager's watchdog is not served", "error", err)
	}
	send := func(state string) error {
		_, err := daemon.SdNotify(false, state)
		return err
	}
	return &Notifier{log: log, send: send, watchdog: watchdog}
}

// Ready says that the agent serves: after its start, or after a reload.
func (n *Notifier) Ready() { n.tell(daemon.SdNotifyReady) }

// Reloading says that the agent reads its inventory anew. Ready ends it.
func (n *Notifier) Reloading() {
	// Type=notify-reload wants the moment, to tell this reload from an earlier one.
	n.tell(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

// Stopping says that the agent ends because it was asked to. Nothing is said
// after it: a late sign of life would take it back.
func (n *Notifier) Stopping() {
	n.tell(daemon.SdNotifyStopping)
	n.mu.Lock()
	n.stopping = true
	n.mu.Unlock()
}

// Status is one line for systemctl status. It is passed on when it changes.
func (n *Notifier) Status(line string) {
	n.mu.Lock()
	known := n.status == line
	n.status = line
	n.mu.Unlock()
	if !known {
		n.tell("STATUS=" + line)
	}
}

func (n *Notifier) tell(state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopping {
		return
	}
	err := n.send(state)
	if err != nil && !n.failed {
		n.log.Warn("the service manager could not be told", "state", state, "error", err)
	}
	n.failed = err != nil
}

// Watch gives the manager a sign of life as long as alive finds the agent alive,
// until ctx ends. An agent that is not is left to the manager, which ends and
// restarts it: that loses no frame, and a wedged agent may lose the link at the
// next rekey. What its goroutines were at is in the log before that.
func (n *Notifier) Watch(ctx context.Context, alive func(context.Context) error) {
	if n.watchdog <= 0 {
		return
	}
	// A third of the patience: one check may fail or be late, and the next counts.
	every := n.watchdog / 3
	tick := time.NewTicker(every)
	defer tick.Stop()
	wellBefore := true
	for {
		check, cancel := context.WithTimeout(ctx, every)
		err := alive(check)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			n.tell(daemon.SdNotifyWatchdog)
			if !wellBefore {
				n.log.Info("the agent answers again")
			}
		case wellBefore:
			n.log.Error("the agent does not answer itself; the service manager will restart it if this lasts",
				"patience", n.watchdog, "error", err, "goroutines", goroutines())
		}
		wellBefore = err == nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// goroutines is where each of them is, by function and line. Unlike the trace that
// the runtime prints on SIGABRT it has no arguments and registers, which may be
// parts of keys.
func goroutines() string {
	var b strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
		return err.Error()
	}
	return b.String()
}

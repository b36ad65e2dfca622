package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestNotifications are what arrives at a manager's socket.
func TestNotifications(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = manager.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	log, said := testLog()
	n := NewNotifier(log)
	for _, c := range []struct {
		tell func()
		want string
	}{
		{n.Ready, `^READY=1$`},
		{n.Reloading, `^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*\n$`},
		{func() { n.Status("3 links secured") }, `^STATUS=3 links secured$`},
		{n.Stopping, `^STOPPING=1$`},
	} {
		c.tell()
		buf := make([]byte, 1000)
		got, err := manager.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(c.want).Match(buf[:got]) {
			t.Errorf("the manager was told %q, want %s", buf[:got], c.want)
		}
	}
	n.Ready() // too late, and not sent: Close would leave it in the socket
	if err := manager.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if n, err := manager.Read(make([]byte, 1000)); err == nil {
		t.Errorf("%d octets after STOPPING=1", n)
	}
	if said.Len() > 0 {
		t.Error(said)
	}
}

func TestNoManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	log, said := testLog()
	n := NewNotifier(log)
	n.Ready()
	n.Watch(t.Context(), func(context.Context) error { t.Error("asked"); return nil })
	n.Stopping()
	if said.Len() > 0 {
		t.Error(said)
	}
}

func TestManagerThatIsGone(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	log, said := testLog()
	n := NewNotifier(log)
	n.Ready()
	n.Ready()
	if strings.Count(said.String(), "level=WARN") != 1 {
		t.Error(said)
	}
}

func TestWatchdogIntervals(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
		warned    bool
	}{
		{"", "", 0, false},
		{"30000000", "", 30 * time.Second, false},
		{"30000000", "1", 0, false}, // another process's
		{"soon", "", 0, true},
		{"-3", "", 0, true},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		log, said := testLog()
		if n := NewNotifier(log); n.watchdog != c.want || (said.Len() > 0) != c.warned {
			t.Errorf("%+v: found %v, %s", c, n.watchdog, said)
		}
	}
}

// The manager hears of an agent as long as it is alive, and no longer.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var told []string
		log, said := testLog()
		n := &Notifier{log: log, watchdog: 30 * time.Second, send: func(state string) error {
			told = append(told, fmt.Sprintf("%v %s", time.Since(start), state))
			return nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 75*time.Second)
		defer cancel()
		n.Watch(ctx, func(ctx context.Context) error {
			switch at := time.Since(start); {
			case at >= 50*time.Second:
				<-ctx.Done() // wedged: the check itself must end
				return context.Cause(ctx)
			case at >= 20*time.Second && at < 40*time.Second:
				return errors.New("link l1 is wedged")
			}
			return nil
		})
		want := []string{"0s WATCHDOG=1", "10s WATCHDOG=1", "40s WATCHDOG=1"}
		if !slices.Equal(told, want) {
			t.Errorf("told\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
		}
		for _, words := range []string{"link l1 is wedged", "answers again", "deadline exceeded", "service.TestWatch"} {
			if !strings.Contains(said.String(), words) {
				t.Errorf("the log does not say %q:\n%s", words, said)
			}
		}
		if n := strings.Count(said.String(), "level=ERROR"); n != 2 {
			t.Errorf("%d errors for two absences:\n%s", n, said)
		}
	})
}

package service

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hardened is what a process finds about itself.
type hardened struct {
	Threads  []map[string]string // /proc/self/task/*/status
	Dumpable int
	Core     [2]uint64
}

func childHardened(_ *bufio.Scanner, log *slog.Logger) any {
	manyThreads()
	Harden(log)
	h := hardened{}
	files, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		return err
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		status := map[string]string{}
		for line := range strings.Lines(string(data)) {
			name, value, _ := strings.Cut(line, ":")
			status[name] = strings.TrimSpace(value)
		}
		h.Threads = append(h.Threads, status)
	}
	h.Dumpable, _ = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	var core unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_CORE, &core)
	h.Core = [2]uint64{core.Cur, core.Max}
	return h
}

func TestHarden(t *testing.T) {
	own, err := ownCapabilities()
	if err != nil {
		t.Fatal(err)
	}
	type user struct {
		name string
		uid  uint32
		keep capabilities
	}
	users := []user{{name: "as who we are", keep: own.permitted & needed}}
	if os.Geteuid() == 0 {
		users = append(users, user{name: "as nobody", uid: nobody})
	}
	for _, c := range users {
		t.Run(c.name, func(t *testing.T) {
			var h hardened
			child := startChild(t, "hardened", c.uid, &h)
			if h.Dumpable != 0 {
				t.Errorf("dumpable is %d", h.Dumpable)
			}
			if h.Core != [2]uint64{} {
				t.Errorf("RLIMIT_CORE is %d", h.Core)
			}
			if len(h.Threads) < 5 {
				t.Fatalf("there are %d threads only", len(h.Threads))
			}
			for _, status := range h.Threads {
				if status["NoNewPrivs"] != "1" {
					t.Errorf("thread %s may gain privileges", status["Pid"])
				}
				for _, set := range []string{"CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"} {
					have, err := strconv.ParseUint(status[set], 16, 64)
					if err != nil {
						t.Fatal(err)
					}
					switch {
					case set == "CapInh" || set == "CapAmb":
						if have != 0 {
							t.Errorf("thread %s: %s is %v", status["Pid"], set, capabilities(have))
						}
					case set == "CapBnd" && (c.uid != 0 || !own.effective.has(unix.CAP_SETPCAP)): // it may not be shrunk
					case set == "CapBnd" && capabilities(have)&^needed != 0, set != "CapBnd" && capabilities(have) != c.keep:
						t.Errorf("thread %s: %s is %v, want %v", status["Pid"], set, capabilities(have), c.keep)
					}
				}
			}
			child.end()
			locked := h.Threads[0]["VmLck"]
			warned := strings.Contains(child.log.String(), "RLIMIT_MEMLOCK")
			// Who may not lock as much as it likes is told.
			if zero := locked == "0 kB"; zero != warned || zero == mayLock(t, c.uid) {
				t.Errorf("VmLck is %s; the log says:\n%s", locked, child.log)
			}
			if n := strings.Count(child.log.String(), "level=WARN"); n > 1 || n == 1 && !warned {
				t.Errorf("warnings:\n%s", child.log)
			}
		})
	}
}

const nobody = 65534

// mayLock tells whether a child of ours may have all its memory locked: root of a
// container often has no CAP_SYS_RESOURCE.
func mayLock(t *testing.T, uid uint32) bool {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		t.Fatal(err)
	}
	own, err := ownCapabilities()
	if err != nil {
		t.Fatal(err)
	}
	return limit.Cur == unix.RLIM_INFINITY || limit.Max == unix.RLIM_INFINITY || uid == 0 && own.effective.has(unix.CAP_SYS_RESOURCE)
}

func TestCapabilitiesByName(t *testing.T) {
	if got := needed.String(); got != "CAP_NET_ADMIN, CAP_NET_RAW" {
		t.Error(got)
	}
	if got := (capabilities(1) << unix.CAP_SYS_ADMIN).String(); got != fmt.Sprint(unix.CAP_SYS_ADMIN) {
		t.Error(got)
	}
}

func TestCheckPrivileges(t *testing.T) {
	have, err := ownCapabilities()
	if err != nil {
		t.Fatal(err)
	}
	err = CheckPrivileges()
	if enough := have.effective&needed == needed; enough != (err == nil) {
		t.Errorf("with %v: %v", have.effective, err)
	}
}

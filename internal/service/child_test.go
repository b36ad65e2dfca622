package service

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// What Harden, Confine and Hold do cannot be undone, so that tests have it done
// by a process of their own: this program again, with the name of one of these.
var children = map[string]func(in *bufio.Scanner, log *slog.Logger) any{
	"plain":    func(*bufio.Scanner, *slog.Logger) any { return nil },
	"hardened": childHardened,
	"confined": childConfined,
	"held":     childHeld,
}

const childVariable = "LEVER_SERVICE_CHILD"

func TestMain(m *testing.M) {
	name := os.Getenv(childVariable)
	if name == "" {
		os.Exit(m.Run())
	}
	if attack := attacks[name]; attack != nil {
		attack()
		return
	}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	report := children[name](in, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	in.Scan() // it lives until its input ends
}

// attacks are children that try something on another process; in kernel tests.
var attacks = map[string]func(){}

// A child is such a process, which has done its deed and waits.
type child struct {
	*exec.Cmd
	in  io.WriteCloser
	log *strings.Builder
}

// startChild runs one, as an ordinary user if uid is not 0, and decodes what it
// reports. Each of lines is a line of its input.
func startChild(t *testing.T, name string, uid uint32, report any, lines ...string) *child {
	t.Helper()
	// Not by its path, which another user may have no way to.
	c := &child{Cmd: exec.Command("/proc/self/exe"), log: &strings.Builder{}}
	c.Env = append(os.Environ(), childVariable+"="+name)
	c.Dir = "/"
	c.Stderr = c.log
	if uid != 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if c.in, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.end)
	for _, l := range lines {
		if _, err := io.WriteString(c.in, l+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	if err := json.NewDecoder(out).Decode(report); err != nil {
		c.end()
		t.Fatalf("the child %s did not report: %v\n%s", name, err, c.log)
	}
	return c
}

func (c *child) end() {
	_ = c.in.Close()
	_ = c.Process.Kill()
	_ = c.Wait()
}

// manyThreads keeps some threads besides the first, which must not be forgotten.
func manyThreads() {
	ready := make(chan struct{})
	for range 4 {
		go func() {
			runtime.LockOSThread()
			ready <- struct{}{}
			select {}
		}()
		<-ready
	}
}

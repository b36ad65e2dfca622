package service

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func childHeld(in *bufio.Scanner, log *slog.Logger) any {
	if !in.Scan() {
		return "no name"
	}
	_, err := hold(in.Text(), Holder{PID: os.Getpid(), Node: "r1", RunDir: "/run/other"}, log)
	if err != nil {
		return err.Error()
	}
	return ""
}

func testLog() (*slog.Logger, *strings.Builder) {
	var b strings.Builder
	return slog.New(slog.NewTextHandler(&b, nil)), &b
}

// testHoldName is nobody else's, in this network namespace.
func testHoldName(t *testing.T) string {
	return fmt.Sprintf("@lever-test-%d-%s", os.Getpid(), t.Name())
}

func TestHold(t *testing.T) {
	name := testHoldName(t)
	log, said := testLog()
	var refused string
	first := startChild(t, "held", 0, &refused, name)
	if refused != "" {
		t.Fatal(refused)
	}
	_, err := hold(name, Holder{PID: os.Getpid(), Node: "r2", RunDir: "/run/lever"}, log)
	held, ok := errors.AsType[*HeldError](err)
	if !ok {
		t.Fatalf("a second agent: %v", err)
	}
	if want := (Holder{PID: first.Process.Pid, Node: "r1", RunDir: "/run/other"}); held.Holder != want {
		t.Errorf("the holder is %+v, want %+v", held.Holder, want)
	}
	for _, word := range []string{fmt.Sprint(first.Process.Pid), "/run/other", "r1", "stop"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
	first.end() // by SIGKILL
	release, err := hold(name, Holder{PID: os.Getpid()}, log)
	if err != nil {
		t.Fatalf("after the first was killed: %v", err)
	}
	release()
	release, err = hold(name, Holder{PID: os.Getpid()}, log)
	if err != nil {
		t.Fatalf("after it was released: %v", err)
	}
	release()
	if said.Len() > 0 {
		t.Error(said)
	}
}

// A socket that is bound and on which nobody listens proves nothing about an
// agent: whoever has it must not keep one from starting.
func TestHoldAgainstASilentSocket(t *testing.T) {
	name := testHoldName(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		t.Fatal(err)
	}
	log, said := testLog()
	release, err := hold(name, Holder{PID: os.Getpid()}, log)
	if err != nil {
		t.Fatal(err)
	}
	release()
	if !strings.Contains(said.String(), name) {
		t.Errorf("nothing is said of it: %s", said)
	}
}

// An agent that is stopped or wedged holds all the same.
func TestHoldByAWedgedAgent(t *testing.T) {
	name := testHoldName(t)
	l, err := net.Listen("unix", name) // and never accepts
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	log, _ := testLog()
	_, err = hold(name, Holder{PID: os.Getpid()}, log)
	if held, ok := errors.AsType[*HeldError](err); !ok || held.Holder.PID != os.Getpid() {
		t.Errorf("found %v", err)
	}
}

package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// holdName is an abstract socket: the kernel keeps those per network namespace,
// as it does interfaces, and lets go of them when the process is gone, however it
// went. Nothing on a file system has either property.
const holdName = "@lever-agent"

// A Holder is the agent of a network namespace, as it describes itself.
type Holder struct {
	PID    int    `json:"pid"`
	Node   string `json:"node"`
	RunDir string `json:"run_dir"`
}

// HeldError says which agent has the network namespace already.
type HeldError struct{ Holder Holder }

// Error implements error.
func (e *HeldError) Error() string {
	return fmt.Sprintf("another agent runs in this network namespace: process %d, node %s, run directory %s: "+
		"two would undo each other's devices and fences; stop that one first (systemctl stop lever, or kill %d), which loses no frame",
		e.Holder.PID, e.Holder.Node, e.Holder.RunDir, e.Holder.PID)
}

// Hold makes this process the only agent of its network namespace until it calls
// release or ends. If there is one, the error is a *HeldError.
//
// Any local user may take the name of an abstract socket first. So an agent gives
// way only to a process of which the kernel says that it is root's or its own
// user's, and starts with a warning otherwise: then the lock of the run directory
// is all there is.
func Hold(self Holder, log *slog.Logger) (release func(), err error) {
	return hold(holdName, self, log)
}

func hold(name string, self Holder, log *slog.Logger) (func(), error) {
	var unknown error
	for range 3 {
		l, err := net.Listen("unix", name)
		if err == nil {
			go introduce(l, self)
			return func() { _ = l.Close() }, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("hold the network namespace by socket %s: %w", name, err)
		}
		h, uid, err := askHolder(name)
		switch {
		case err != nil:
			unknown = err // perhaps it ended in the meantime
		case uid == 0 || uid == os.Geteuid():
			return nil, &HeldError{h}
		default:
			unknown = fmt.Errorf("it is held by process %d of user %d, which is no agent", h.PID, uid)
		}
	}
	log.Warn("the socket by which agents exclude each other is somebody else's; this agent starts all the same",
		"socket", name, "error", unknown, "next", "ss -xap names the process that has it")
	return func() {}, nil
}

// introduce tells whoever connects who we are.
func introduce(l net.Listener, self Holder) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(100 * time.Millisecond) // out of files; the name is held all the same
			continue
		}
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_ = json.NewEncoder(c).Encode(self)
		_ = c.Close()
	}
}

// askHolder returns what the holder says of itself, with the process and user
// that the kernel says it is.
func askHolder(name string) (Holder, int, error) {
	c, err := net.DialTimeout("unix", name, time.Second)
	if err != nil {
		return Holder{}, 0, err
	}
	defer func() { _ = c.Close() }()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return Holder{}, 0, err
	}
	var peer *unix.Ucred
	var sockErr error
	if err := raw.Control(func(fd uintptr) {
		peer, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Holder{}, 0, err
	}
	if sockErr != nil {
		return Holder{}, 0, fmt.Errorf("SO_PEERCRED: %w", sockErr)
	}
	h := Holder{Node: "unknown", RunDir: "unknown"}
	_ = c.SetDeadline(time.Now().Add(time.Second))
	_ = json.NewDecoder(c).Decode(&h) // a wedged one says nothing, and holds
	if peer.Pid != 0 {                // 0: it is in another PID namespace, and knows better
		h.PID = int(peer.Pid)
	}
	return h, int(peer.Uid), nil
}

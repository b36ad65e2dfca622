package macsec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A keySocket is a generic netlink socket for requests that hold a key. The
// library's own Execute marshals a request into a buffer that nobody can erase,
// and the kernel returns a request that it refuses, unless it is told not to.
type keySocket struct {
	mu   sync.Mutex
	conn *netlink.Conn
	raw  syscall.RawConn
	seq  uint32
}

// newKeySocket owns conn from then on. Nobody else may send on it.
func newKeySocket(conn *netlink.Conn) (*keySocket, error) {
	// Known since Linux 4.3, MACsec since 4.6.
	if err := conn.SetOption(netlink.CapAcknowledge, true); err != nil {
		return nil, errors.Join(fmt.Errorf("ask for acknowledgements without the request: %w", err), conn.Close())
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reach the descriptor of a netlink socket: %w", err), conn.Close())
	}
	return &keySocket{conn: conn, raw: raw}, nil
}

// Execute is that of netlink.Conn for a request that is answered by one
// acknowledgement. It leaves nothing of m.Data behind but m.Data.
func (k *keySocket) Execute(m netlink.Message) ([]netlink.Message, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seq++
	if err := k.send(m); err != nil {
		return nil, &netlink.OpError{Op: "send", Err: err}
	}
	for {
		answers, err := k.conn.Receive()
		if err != nil {
			return nil, err
		}
		// An older one was not read in its time, for want of memory.
		if len(answers) > 0 && answers[0].Header.Sequence == k.seq {
			return answers, nil
		}
	}
}

func (k *keySocket) send(m netlink.Message) error {
	// struct nlmsghdr: length, type, flags, sequence, and a port that the kernel
	// fills in itself.
	b := make([]byte, unix.NLMSG_HDRLEN+len(m.Data))
	defer clear(b)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], uint16(m.Header.Type))
	binary.NativeEndian.PutUint16(b[6:], uint16(m.Header.Flags))
	binary.NativeEndian.PutUint32(b[8:], k.seq)
	copy(b[unix.NLMSG_HDRLEN:], m.Data)
	var sent error
	err := k.raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !errors.Is(sent, unix.EAGAIN)
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("sendto", sent)
}

// Close closes the socket.
func (k *keySocket) Close() error { return k.conn.Close() }

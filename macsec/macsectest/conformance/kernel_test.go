//go:build kernel

package conformance_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest/conformance"
)

func TestKernelConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) *conformance.Lab {
		newNetNS(t)
		a, aFar := vethPair(t, "a", net.HardwareAddr{2, 0, 0, 0, 1, 1})
		b, bFar := vethPair(t, "b", net.HardwareAddr{2, 0, 0, 0, 1, 2})
		client := newClient(t)
		far := map[int]int{a: aFar, b: bFar}
		parentOf := func(t *testing.T, index int) int {
			s, err := client.SecY(index)
			if err != nil {
				t.Fatal(err)
			}
			return s.Parent
		}
		return &conformance.Lab{
			Kernel: client,
			Parent: a, Other: b,
			MAC: net.HardwareAddr{2, 0, 0, 0, 1, 1}, OtherMAC: net.HardwareAddr{2, 0, 0, 0, 1, 2},
			Send: func(t *testing.T, index int, frame []byte, want int) [][]byte {
				parent := parentOf(t, index)
				return observe(t, far[parent], parent, want, func() { write(t, index, frame) })
			},
			Arrive: func(t *testing.T, index int, frames [][]byte, want int) [][]byte {
				outside := far[parentOf(t, index)]
				// A sentinel cannot pass the device: it goes to the parent, behind
				// the frames, and is looked for there.
				in := open(t, index)
				defer in.close(t)
				observe(t, parentOf(t, index), outside, len(frames), func() {
					for _, f := range frames {
						write(t, outside, f)
					}
				})
				return in.read(t, want)
			},
		}
	})
}

// newClient is a client in the test's network namespace.
func newClient(t *testing.T) *macsec.Client {
	t.Helper()
	client, err := macsec.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

// newNetNS puts the test into a network namespace of its own, without IPv6 and
// its chatter.
func newNetNS(t *testing.T) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	old, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(netns.Set(old), old.Close(), ns.Close()); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	})
	quiet(t)
	return ns
}

func quiet(t *testing.T) {
	t.Helper()
	for _, which := range []string{"all", "default"} {
		// Per namespace: what this thread sees.
		path := fmt.Sprintf("/proc/sys/net/ipv6/conf/%s/disable_ipv6", which)
		if err := os.WriteFile(path, []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// vethPair makes name with the address mac, and name-far.
func vethPair(t *testing.T, name string, mac net.HardwareAddr) (near, far int) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU = name, mac, 1500
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "-far"}); err != nil {
		t.Fatal(err)
	}
	near, far = linkUp(t, name), linkUp(t, name+"-far")
	operational(t, near)
	operational(t, far)
	return near, far
}

// operational waits until the interface sends. It drops what it is given from
// the time it is up until the kernel has worked off that its peer is, too
// (linkwatch_do_dev), which may take a second.
func operational(t *testing.T, index int) {
	t.Helper()
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	defer func() {
		close(done)
		for range updates { // until the reader has ended
			continue
		}
	}()
	if err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{ListExisting: true}); err != nil {
		t.Fatal(err)
	}
	late := time.After(patience)
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				t.Fatalf("no more news about interface %d", index)
			}
			if int(u.Index) == index && u.Attrs().OperState == netlink.OperUp {
				return
			}
		case <-late:
			t.Fatalf("interface %d is not operational after %s", index, patience)
		}
	}
}

func linkUp(t *testing.T, name string) int {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Index
}

// packetSocket reads every frame that arrives at an interface.
type packetSocket struct{ fd int }

func open(t *testing.T, index int) packetSocket {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}); err != nil {
		t.Fatal(err)
	}
	return packetSocket{fd}
}

func (s packetSocket) close(t *testing.T) {
	if err := unix.Close(s.fd); err != nil {
		t.Error(err)
	}
}

// next is the next frame that arrived, nil if there is none within the time.
func (s packetSocket) next(t *testing.T, within time.Duration) []byte {
	t.Helper()
	buf := make([]byte, 65536)
	for {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, int(within.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if ready == 0 {
			return nil
		}
		n, from, err := unix.Recvfrom(s.fd, buf, 0)
		if err != nil {
			t.Fatal(err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING {
			return bytes.Clone(buf[:n])
		}
	}
}

// patience is how long a kernel may take that owes us a frame.
const patience = 10 * time.Second

// read returns want frames and whatever else is there already.
func (s packetSocket) read(t *testing.T, want int) (frames [][]byte) {
	t.Helper()
	for {
		within := time.Duration(0)
		if len(frames) < want {
			within = patience
		}
		f := s.next(t, within)
		if f == nil {
			return frames
		}
		frames = append(frames, f)
	}
}

var sentinels uint64

// observe returns the frames that arrive at the interface at while act runs: at
// least want, and all that came before a sentinel sent from the interface from
// afterwards.
func observe(t *testing.T, at, from, want int, act func()) (frames [][]byte) {
	t.Helper()
	s := open(t, at)
	defer s.close(t)
	act()
	for len(frames) < want {
		f := s.next(t, patience)
		if f == nil {
			return frames
		}
		frames = append(frames, f)
	}
	sentinels++
	// A SecTAG with E and without C is for nobody: MACsec neither takes nor
	// counts it.
	end := binary.BigEndian.AppendUint64([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xe5, 0x08, 0}, sentinels)
	end = append(end, make([]byte, 60-len(end))...)
	write(t, from, end)
	for {
		f := s.next(t, patience)
		switch {
		case f == nil:
			t.Fatalf("the sentinel sent on interface %d did not arrive at %d", from, at)
		case bytes.Equal(f, end):
			return frames
		}
		frames = append(frames, f)
	}
}

// write sends a frame as it is. That an interface drops it silently, or is down
// and says so, is not the sender's problem.
func write(t *testing.T, index int, frame []byte) {
	t.Helper()
	s := open(t, index)
	defer s.close(t)
	to := &unix.SockaddrLinklayer{Ifindex: index, Halen: 6}
	if err := unix.Sendto(s.fd, frame, 0, to); err != nil && !errors.Is(err, unix.ENETDOWN) {
		t.Fatalf("send on interface %d: %v", index, err)
	}
}

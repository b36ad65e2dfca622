// Package conformance holds a macsec.Kernel to the behaviour of Linux. It runs
// natively against macsectest, and with the build tag "kernel" against the real
// kernel, so that what one test proves of the first is true of the second:
//
//	go test -tags kernel -exec "$UMLEXEC" ./macsec/macsectest/conformance
//
// What belongs here: what both must do, seen through macsec.Kernel and on the
// wire. What does not: what only one of them can do.
package conformance

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"syscall"
	"testing"

	"github.com/lever-link/lever/macsec"
)

// Lab is a fresh kernel with two Ethernet interfaces of MTU 1500, and somebody
// at the far end of each.
type Lab struct {
	macsec.Kernel
	// Parent and Other are the interface indexes.
	Parent, Other int
	// MAC and OtherMAC are their addresses.
	MAC, OtherMAC net.HardwareAddr
	// Send sends an Ethernet frame through the device and returns the frames
	// that arrived at the far end of its parent: at least want of them, with
	// all that followed.
	Send func(t *testing.T, index int, frame []byte, want int) [][]byte
	// Arrive lets frames arrive at the parent of the device, in order, and
	// returns what the device delivered, at least want frames.
	Arrive func(t *testing.T, index int, frames [][]byte, want int) [][]byte
}

// Run runs every case on a Lab of its own.
func Run(t *testing.T, newLab func(t *testing.T) *Lab) {
	for _, c := range slices.Concat(deviceCases, channelCases, transmitCases, receiveCases) {
		t.Run(c.name, func(t *testing.T) { c.run(t, &lab{newLab(t)}) })
	}
}

type testCase struct {
	name string
	run  func(t *testing.T, l *lab)
}

// lab adds what the cases have in common.
type lab struct{ *Lab }

var (
	peer  = macsec.SCI{2, 0, 0, 0, 0, 0x99, 0, 1}
	peer2 = macsec.SCI{2, 0, 0, 0, 0, 0x98, 0, 1}
	mine  = macsec.SCI{2, 0, 0, 0, 0, 0x11, 0, 7}

	allSuites = []macsec.CipherSuite{macsec.GCMAES128, macsec.GCMAES256, macsec.GCMAESXPN128, macsec.GCMAESXPN256}
)

//go:fix inline

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused checks that an operation failed in that way.
func refused(t *testing.T, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("got %v, want %v", err, kind)
	}
	var e *macsec.Error
	if err != nil && !errors.As(err, &e) {
		t.Errorf("%T is not a *macsec.Error: %v", err, err)
	}
}

func (l *lab) create(t *testing.T, parent int, name string, cfg macsec.DeviceConfig) *macsec.Device {
	t.Helper()
	d, err := l.CreateDevice(parent, name, cfg)
	must(t, err)
	return d
}

func (l *lab) closed(t *testing.T, suite macsec.CipherSuite) *macsec.Device {
	t.Helper()
	return l.create(t, l.Parent, "ms0", macsec.Closed(mine, suite))
}

func (l *lab) secY(t *testing.T, index int) *macsec.SecY {
	t.Helper()
	s, err := l.SecY(index)
	must(t, err)
	return s
}

func (l *lab) up(t *testing.T, index int) {
	t.Helper()
	must(t, l.UpdateDevice(index, macsec.DeviceUpdate{Up: new(true)}))
}

// key is a different key for every n, of the suite's length.
func key(suite macsec.CipherSuite, n byte) macsec.Key {
	return macsec.NewKey(bytes.Repeat([]byte{n ^ 0x5c}, suite.KeyLen()))
}

// sa is an active association under key n.
func sa(suite macsec.CipherSuite, an macsec.AN, n byte) macsec.SA {
	return macsec.SA{
		AN: an, Active: true, NextPN: 1, Key: key(suite, n), KeyID: macsec.KeyID{0xa0, byte(suite), 15: n},
		SSCI: 0x01020300 + macsec.SSCI(n), Salt: macsec.Salt{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, n},
	}
}

// read is how sa comes back: without secrets, and without SSCI unless XPN.
func read(suite macsec.CipherSuite, sa macsec.SA) macsec.SA {
	sa.Key, sa.Salt = macsec.Key{}, macsec.Salt{}
	if !suite.XPN() {
		sa.SSCI = 0
	}
	return sa
}

// frame is an Ethernet frame with n octets behind the addresses.
func frame(n int) []byte {
	f := make([]byte, 12+n)
	copy(f, []byte{2, 0, 0, 0, 0, 0x22, 2, 0, 0, 0, 0, 0x33, 0x88, 0xb7})
	for i := 14; i < len(f); i++ {
		f[i] = byte(i)
	}
	return f
}

// pn is the packet number in a MACsec frame.
func pn(t *testing.T, frame []byte) uint32 {
	t.Helper()
	if len(frame) < 20 || !bytes.Equal(frame[12:14], []byte{0x88, 0xe5}) {
		t.Fatalf("not a MACsec frame: %x", frame)
	}
	return binary.BigEndian.Uint32(frame[16:])
}

// sendOne sends a frame of which exactly one copy must come out, secured.
func (l *lab) sendOne(t *testing.T, index int, f []byte) []byte {
	t.Helper()
	wire := l.Send(t, index, f, 1)
	if len(wire) != 1 {
		t.Fatalf("%d frames on the wire, want 1: %x", len(wire), wire)
	}
	pn(t, wire[0])
	return wire[0]
}

// sendNone sends a frame that must not come out.
func (l *lab) sendNone(t *testing.T, index int, f []byte) {
	t.Helper()
	if wire := l.Send(t, index, f, 0); len(wire) != 0 {
		t.Errorf("%d frames on the wire, want none: %x", len(wire), wire)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %+v, want %+v", what, got, want)
	}
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	errors.As(err, &errno)
	return errno
}

package pae

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync/atomic"

	"golang.org/x/net/bpf"
)

// MaxAnnouncement is how many octets an announcement of ours can carry.
const MaxAnnouncement = 400

// An announcement of ours is an EAPOL-Announcement, generic (IEEE 802.1X-2020
// 11.3.2, packet type 6), with one organizationally specific TLV (11.12, type 127)
// and nothing else: 7 bits of type and 9 of length, three octets that name the
// organization, one of subtype, and the octets that are carried. Equipment that
// does not know the organization passes over it.
const (
	eapolAnnouncement = 6
	eapolVersion      = 3
	tlvAt             = bodyAt
	organizationAt    = tlvAt + 2
	carriedAt         = organizationAt + 4

	// tlvType is the TLV's first word without its length.
	tlvType = 127 << 9
	// organization and subtype in one word. The organization is a company id from
	// the range that anybody may use (IEEE 802: the U/L bit set, as in a local
	// address), not an assigned one; the subtype is 1, the id of a key.
	organization = 0x4a4c5601
)

// announcementGroup is where announcements go: to the MKA of the links between
// nodes of ours. Bridges do not forward it.
var announcementGroup = [6]byte{0x01, 0x80, 0xc2, 0x00, 0x00, 0x03}

// announcementQueue is how much memory of the kernel's the announcements may take
// that wait: some ten of them. Who sends one sends it again until it is answered.
const announcementQueue = 8 << 10

// Announcement is the frame that carries message from source. A message is of 1 to
// MaxAnnouncement octets.
func Announcement(source [6]byte, message []byte) ([]byte, error) {
	if len(message) < 1 || len(message) > MaxAnnouncement {
		return nil, fmt.Errorf("announce: %w: %d octets to carry, want 1 to %d", ErrFrame, len(message), MaxAnnouncement)
	}
	b := make([]byte, 0, carriedAt+len(message))
	b = append(b, announcementGroup[:]...)
	b = append(b, source[:]...)
	b = binary.BigEndian.AppendUint16(b, defaultEtherType)
	b = append(b, eapolVersion, eapolAnnouncement)
	b = binary.BigEndian.AppendUint16(b, uint16(carriedAt-tlvAt+len(message)))
	b = binary.BigEndian.AppendUint16(b, uint16(tlvType+carriedAt-organizationAt+len(message)))
	b = binary.BigEndian.AppendUint32(b, organization)
	return append(b, message...), nil
}

// Announced is what a frame carries, if it is such an announcement. It is a part of
// the frame, and whoever is on the wire may have written it.
func Announced(frame []byte) (message []byte, ok bool) {
	if len(frame) <= carriedAt || len(frame) > MaxFrame || [6]byte(frame) != announcementGroup ||
		binary.BigEndian.Uint16(frame[etherTypeAt:]) != defaultEtherType || frame[eapolTypeAt] != eapolAnnouncement {
		return nil, false
	}
	body := int(binary.BigEndian.Uint16(frame[eapolLenAt:]))
	if body <= carriedAt-tlvAt || body > carriedAt-tlvAt+MaxAnnouncement || bodyAt+body > len(frame) ||
		int(binary.BigEndian.Uint16(frame[tlvAt:])) != tlvType+body-(organizationAt-tlvAt) ||
		binary.BigEndian.Uint32(frame[organizationAt:]) != organization {
		return nil, false
	}
	return frame[carriedAt : bodyAt+body : bodyAt+body], true
}

// Announcements is the socket for announcements on an interface. It has nothing to
// do with that of MKA, and its queue is short: a flood of announcements costs some
// announcements.
type Announcements struct {
	ifindex int
	source  [6]byte
	socket  *socket
	closed  atomic.Bool
}

// OpenAnnouncements opens the interface in the network namespace of the calling
// thread, whose address is source. Like a Conn it can be opened while the interface
// is down.
func OpenAnnouncements(ifindex int, source [6]byte) (*Announcements, error) {
	a := &Announcements{ifindex: ifindex, source: source}
	var err error
	if a.socket, err = newSocket(); err != nil {
		return nil, a.wrap("open for announcements", err)
	}
	if err := a.open(); err != nil {
		_ = a.socket.close()
		return nil, a.wrap("open for announcements", err)
	}
	return a, nil
}

func (a *Announcements) open() error {
	filter, err := bpf.Assemble(append(ours(), announcement()...))
	if err != nil {
		return fmt.Errorf("assemble the filter: %w", err)
	}
	if err := a.socket.filter(filter); err != nil {
		return err
	}
	if err := a.socket.limitQueue(announcementQueue); err != nil {
		return err
	}
	if err := a.socket.ignoreOutgoing(); err != nil {
		return err
	}
	if err := a.socket.bind(a.ifindex, defaultEtherType); err != nil {
		return err
	}
	return a.socket.join(a.ifindex, announcementGroup)
}

// Read waits for announcements and fills b with the frames; see Announced. The
// errors are those of Conn.ReadFrames. One goroutine at a time may read.
func (a *Announcements) Read(b *Batch) error {
	if err := a.socket.receive(a.ifindex, b); err != nil {
		return a.wrap("receive announcements", err)
	}
	return nil
}

// Send announces message: no other frame leaves by this socket.
func (a *Announcements) Send(message []byte) error {
	frame, err := Announcement(a.source, message)
	if err != nil {
		return err
	}
	if err := a.socket.send(a.ifindex, frame); err != nil {
		return a.wrap("send an announcement", err)
	}
	return nil
}

// Close closes the socket; a Read that waits returns net.ErrClosed.
func (a *Announcements) Close() error {
	if a.closed.Swap(true) {
		return fmt.Errorf("close on interface %d: %w", a.ifindex, net.ErrClosed)
	}
	if err := a.socket.close(); err != nil {
		return fmt.Errorf("close on interface %d: %w", a.ifindex, err)
	}
	return nil
}

func (a *Announcements) wrap(what string, err error) error {
	return wrap(what, a.ifindex, a.closed.Load(), err)
}

// announcement is the kernel's version of Announced. A load from beyond the frame's
// end rejects it.
func announcement() []bpf.Instruction {
	reject := bpf.RetConstant{Val: 0}
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: etherTypeAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: defaultEtherType, SkipTrue: 1},
		reject,
		bpf.LoadAbsolute{Off: eapolTypeAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: eapolAnnouncement, SkipTrue: 1},
		reject,
	}
	p = append(p, isAddress(0, [][6]byte{announcementGroup}, nil, []bpf.Instruction{reject})...)
	return append(p,
		bpf.LoadAbsolute{Off: organizationAt, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: organization, SkipTrue: 1},
		reject,
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: MaxFrame, SkipTrue: 1},
		reject,
		// The EAPOL body is the TLV, of a size that ours can have.
		bpf.LoadAbsolute{Off: eapolLenAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: carriedAt - tlvAt, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: carriedAt - tlvAt + MaxAnnouncement, SkipTrue: 1},
		reject,
		bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: tlvType - (organizationAt - tlvAt)},
		bpf.TAX{},
		bpf.LoadAbsolute{Off: tlvAt, Size: 2},
		bpf.JumpIfX{Cond: bpf.JumpEqual, SkipTrue: 1},
		reject,
		// And all there.
		bpf.LoadAbsolute{Off: eapolLenAt, Size: 2},
		bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: bodyAt},
		bpf.TAX{},
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.JumpIfX{Cond: bpf.JumpGreaterOrEqual, SkipTrue: 1},
		reject,
		bpf.RetConstant{Val: MaxFrame},
	)
}

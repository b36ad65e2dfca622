package lab

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"
)

// A Ledger remembers every number that was spent on a wire and may be spent
// once only: message numbers of a member, keys of a key server, packet numbers
// of a key. The same frame seen again, as a lossy link makes them, is the same
// spending. It reads frames by itself, so that a mistake of the product's codec
// cannot hide in it; what an attacker injects it takes for genuine.
type Ledger struct {
	mu       sync.Mutex
	seed     maphash.Seed
	messages map[messageID]uint64 // the frame's hash
	members  map[[12]byte]struct{}
	keys     map[[16]byte]keyDue
	keyOf    map[byte][16]byte       // the KI under an AN, as distributed last
	usedBy   map[senderAN][16]byte   // the same, by what the sender says
	packets  map[sending]packetMarks // by page
	repeats  []string
	counts   LedgerCounts
}

// LedgerCounts is how much a Ledger has seen.
type LedgerCounts struct {
	Messages int // MKPDUs
	Members  int // member identifiers
	Keys     int // SAKs distributed
	Packets  int // MACsec frames
	// Unencrypted is how many of them had no confidentiality.
	Unencrypted int
	// Repeats is how often a number was spent a second time.
	Repeats int
}

type messageID struct {
	mi [12]byte
	mn uint32
}

// keyDue is the one SAK that a KI may be distributed with.
type keyDue struct{ wrapped uint64 }

type senderAN struct {
	sci [8]byte
	an  byte
}

// sending is what a packet number may be used for once; page is its upper part.
type sending struct {
	ki   [16]byte
	sci  [8]byte
	page uint32
}

// packetMarks has for each packet number of a page four octets of the ICV that
// it went out with, 0 for none.
type packetMarks *[1 << pageBits]uint32

const pageBits = 10

// mostRepeats bounds what is told one by one.
const mostRepeats = 8

// NewLedger makes an empty one.
func NewLedger() *Ledger {
	return &Ledger{
		seed: maphash.MakeSeed(), messages: map[messageID]uint64{}, members: map[[12]byte]struct{}{}, keys: map[[16]byte]keyDue{},
		keyOf: map[byte][16]byte{}, usedBy: map[senderAN][16]byte{}, packets: map[sending]packetMarks{},
	}
}

// Note takes a frame in. It is an observer of a Capture.
func (l *Ledger) Note(frame []byte, at time.Time) {
	if len(frame) < 14 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch binary.BigEndian.Uint16(frame[12:]) {
	case EtherTypeMACsec:
		l.packet(frame, at)
	case EtherTypeEAPOL:
		l.message(frame, at)
	}
}

// Repeats describes the first of them; none is how it has to be.
func (l *Ledger) Repeats() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.repeats)
}

// Counts is how much was seen so far.
func (l *Ledger) Counts() LedgerCounts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts
}

// String is the counts in one line.
func (c LedgerCounts) String() string {
	return fmt.Sprintf("%d MACsec frames under %d SAKs, %d MKPDUs of %d member identifiers, %d numbers used twice, %d frames not encrypted",
		c.Packets, c.Keys, c.Messages, c.Members, c.Repeats, c.Unencrypted)
}

func (l *Ledger) repeated(at time.Time, format string, args ...any) {
	l.counts.Repeats++
	if len(l.repeats) < mostRepeats {
		l.repeats = append(l.repeats, at.Format("15:04:05.000000 ")+fmt.Sprintf(format, args...))
	}
}

// The SecTAG (IEEE 802.1AE 9.3): TCI and AN, short length, packet number, SCI.
const (
	tagSC, tagE, tagAN = 0x20, 0x08, 0x03
	icvLen             = 16
)

// packet notes a MACsec frame. One without an SCI comes from port 1 of its
// source (9.9, the end station bit).
func (l *Ledger) packet(f []byte, at time.Time) {
	l.counts.Packets++
	if len(f) < 20+icvLen {
		return
	}
	tci := f[14]
	if tci&tagE == 0 {
		l.counts.Unencrypted++
	}
	s := senderAN{an: tci & tagAN}
	if tci&tagSC != 0 && len(f) >= 28+icvLen {
		copy(s.sci[:], f[20:28])
	} else {
		copy(s.sci[:6], f[6:12])
		s.sci[7] = 1
	}
	ki, named := l.usedBy[s]
	if !named {
		ki, named = l.keyOf[s.an]
	}
	if !named {
		ki[miLen] = s.an // distributed before we looked
	}
	pn := binary.BigEndian.Uint32(f[16:])
	page := sending{ki, s.sci, pn >> pageBits}
	marks := l.packets[page]
	if marks == nil {
		marks = new([1 << pageBits]uint32)
		l.packets[page] = marks
	}
	icv := max(binary.BigEndian.Uint32(f[len(f)-icvLen:]), 1)
	switch mark := &marks[pn%(1<<pageBits)]; *mark {
	case 0:
		*mark = icv
	case icv:
	default:
		l.repeated(at, "packet number %d of KI %x (AN %d) went out twice from SCI %x", pn, ki, s.an, s.sci)
	}
}

// MKPDUs (IEEE 802.1X-2020 11.11): sets of a type, an octet of flags with the
// upper bits of the length, the length, and a body padded to four octets.
const (
	setsAt            = 18
	setSAKUse         = 3
	setDistributedSAK = 4
	sakUseLen         = 40
	miLen             = 12
)

// message notes an MKPDU.
func (l *Ledger) message(f []byte, at time.Time) {
	if len(f) < setsAt+28 {
		return
	}
	l.counts.Messages++
	id := messageID{mn: binary.BigEndian.Uint32(f[42:])}
	copy(id.mi[:], f[30:])
	hash := maphash.Bytes(l.seed, f)
	first, known := l.messages[id]
	switch {
	case !known:
		l.messages[id] = hash
	case first != hash:
		l.repeated(at, "message number %d of MI %x was used for two messages", id.mn, id.mi)
	default:
		return // the very same frame says nothing new, and may be an old one
	}
	l.members[id.mi] = struct{}{}
	l.counts.Members = len(l.members)
	var sci [8]byte
	copy(sci[:], f[22:])
	for body := f[setsAt:]; len(body) >= 4; {
		size := int(body[2]&0x0f)<<8 | int(body[3])
		padded := 4 + (size+3)&^3
		if 4+size > len(body) {
			return
		}
		switch set := body[4 : 4+size]; {
		case body[0] == setDistributedSAK && size > 4:
			l.distributed(id.mi, body[1]>>6, set, at)
		case body[0] == setSAKUse && size == sakUseLen && len(body) >= padded:
			l.used(sci, body[1], set)
		}
		if padded > len(body) {
			return
		}
		body = body[padded:]
	}
}

// distributed notes a SAK that a key server hands out: KN, the cipher suite if
// it is not the default, and the wrapped key.
func (l *Ledger) distributed(mi [12]byte, an byte, set []byte, at time.Time) {
	var ki [16]byte
	copy(ki[:], mi[:])
	copy(ki[miLen:], set[:4])
	due := keyDue{maphash.Bytes(l.seed, set[4:])}
	switch first, known := l.keys[ki]; {
	case !known:
		l.counts.Keys++
		l.keys[ki] = due
		l.keyOf[an] = ki
		for s := range l.usedBy {
			if s.an == an {
				delete(l.usedBy, s)
			}
		}
	case first != due:
		l.repeated(at, "KI %x was distributed with two keys", ki)
	}
}

// used notes what a member says that it transmits with. That names the key of
// frames that were sent under an AN before it was given to another key.
func (l *Ledger) used(sci [8]byte, flags byte, set []byte) {
	const latestTx, oldTx = 0x20, 0x02
	for _, u := range []struct {
		tx bool
		an byte
		ki []byte
	}{{flags&oldTx != 0, flags >> 2 & 3, set[20:36]}, {flags&latestTx != 0, flags >> 6, set[:16]}} {
		if u.tx {
			l.usedBy[senderAN{sci, u.an}] = [16]byte(u.ki)
		}
	}
}

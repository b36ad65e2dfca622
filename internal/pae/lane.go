package pae

import (
	"encoding/binary"
	"slices"
)

// Lane is one of the ways on which frames come in. Each is a socket with a
// queue of its own, and the kernel sorts frames into them, so that a flood
// fills the queue of its kind and no other. A lane is about rate, never about
// trust: a frame of any may be forged or good.
type Lane int

const (
	// Peers has frames under a CKN in use that say they are from a live peer.
	// Only somebody who spoofs that one's address can flood it.
	Peers Lane = iota
	// Known has the other frames under a CKN in use: of newcomers, mostly.
	Known
	// Strangers has frames under any other CKN. Nobody can act on them: they are
	// worth a diagnosis, and so its queue is short.
	Strangers

	// Lanes is how many there are.
	Lanes = 3
)

// String is the lane's name.
func (l Lane) String() string {
	switch l {
	case Peers:
		return "peers"
	case Known:
		return "known"
	case Strangers:
		return "strangers"
	}
	return "no lane"
}

// queueLimit is how much memory of the kernel's the frames may take that wait.
// The kernel counts about 800 octets for a usual one: Peers has room for what
// comes in while the agent waits for its turn of a busy processor.
var queueLimit = [Lanes]int{Peers: 4 << 20, Known: 512 << 10, Strangers: 8 << 10}

// Focus is what frames are sorted by. The zero Focus makes everybody a
// stranger.
type Focus struct {
	CKNs  []string  // of the CAKs in use, as octets
	Peers [][6]byte // the addresses of the live peers
}

// Equal says whether both sort alike.
func (f Focus) Equal(o Focus) bool {
	return slices.Equal(f.CKNs, o.CKNs) && slices.Equal(f.Peers, o.Peers)
}

// bounded keeps what the kernel's filters have room for. What is cut off comes
// in by another lane.
func (f Focus) bounded() Focus {
	f.CKNs = slices.DeleteFunc(slices.Clone(f.CKNs), func(ckn string) bool { return len(ckn) < 1 || len(ckn) > maxCKN })
	f.CKNs = f.CKNs[:min(len(f.CKNs), maxCKNs)]
	f.Peers = f.Peers[:min(len(f.Peers), maxPeers)]
	return f
}

// Lane is what the kernel's filters are held to: into which lane frame goes, or
// none, when it cannot be an MKPDU for this EtherType and these groups.
func (f Focus) Lane(frame []byte, opts Options) (Lane, bool) {
	opts = opts.orDefaults()
	if len(frame) < bodyAt+minBody || len(frame) > MaxFrame ||
		binary.BigEndian.Uint16(frame[etherTypeAt:]) != opts.EtherType || frame[eapolTypeAt] != eapolMKA ||
		!slices.Contains(opts.Groups, [6]byte(frame)) {
		return 0, false
	}
	body := int(binary.BigEndian.Uint16(frame[eapolLenAt:]))
	basic := int(binary.BigEndian.Uint16(frame[basicLenAt:]) & 0xfff)
	ckn := basic - basicFixed
	if body < minBody || body%4 != 0 || bodyAt+body > len(frame) || ckn < 1 || ckn > maxCKN ||
		setHeader+(basic+3)&^3+icvLen > body {
		return 0, false
	}
	f = f.bounded()
	switch {
	case !slices.Contains(f.CKNs, string(frame[cknAt:cknAt+ckn])):
		return Strangers, true
	case slices.Contains(f.Peers, [6]byte(frame[sourceAt:])):
		return Peers, true
	}
	return Known, true
}

// Focus tells the kernel what to sort by from now on. After an error it sorts by
// this or by what it was told before, lane by lane, and each frame has a lane.
func (c *Conn) Focus(f Focus) error {
	f = f.bounded()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range steps(c.focus, f) {
		if err := c.attach(s.lane, s.focus); err != nil {
			c.focus = f.common(c.focus) // all that can be said of each lane
			return err
		}
	}
	c.focus = f
	return nil
}

// step is the replacement of one lane's filter.
type step struct {
	lane  Lane
	focus Focus
}

// steps replaces all filters, one after the other. Those that are widened come
// first, so that at every moment each frame has a lane that takes it; some may
// come in twice.
func steps(from, to Focus) []step {
	both := from.common(to)
	return []step{
		{Strangers, both},
		{Known, Focus{CKNs: to.CKNs, Peers: both.Peers}},
		{Peers, to},
		{Known, to},
		{Strangers, to},
	}
}

func (f Focus) common(o Focus) Focus {
	return Focus{CKNs: common(f.CKNs, o.CKNs), Peers: common(f.Peers, o.Peers)}
}

// common is what is in both.
func common[E comparable](a, b []E) []E {
	return slices.DeleteFunc(slices.Clone(a), func(e E) bool { return !slices.Contains(b, e) })
}

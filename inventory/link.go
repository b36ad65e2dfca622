package inventory

import (
	"net/netip"
	"time"
)

// Link is a point-to-point link of two ends, or a shared segment of several.
type Link struct {
	Position
	ID       string    // enters the key derivation and names a directory: never changes
	Ends     []End     // a and z, or the members
	External bool      // one end is equipment that Lever does not run on
	Group    bool      // written with members: one group CA
	Segments []Segment // from a to z
	Override *Override // nil when there is none
	PSK      []PSK     // external links only, at least one there
	Cipher   Cipher    // the link's own or the policy's
	MKA      MKA       // with defaults filled in
	// Allow lists what else may pass the fence in the clear, each once, in the
	// order of the constants.
	Allow   []Protocol
	Verdict Verdict // at the time of Load

	badID                       bool // reported already; ID is for other errors
	badPSK                      bool // what its psk says was reported
	ownCipher                   bool
	endsKnown                   bool // every end was decoded
	cipherAt, segmentsAt, pskAt Position
	allowAt                     Position
	mkaAt                       map[string]Position // of what mka sets
}

// End is where a link meets a node.
type End struct {
	Position
	External  bool // equipment that Lever does not run on; the other fields are empty
	Node      string
	Interface string         // the parent device
	Secure    string         // the secured device: <interface>-sec unless the end names it
	Addresses []netip.Prefix // of the secured device

	nodeAt, interfaceAt, secureAt Position
	addressesAt                   []Position
}

// Segment is one stretch of a link under one custody.
type Segment struct {
	Position
	Custody  Custody // as written, the site's when the segment names a site only
	Site     string
	Provider string
	Ref      string
	Controls []Evidence

	siteAt Position
}

// Evidence shows that a physical control is in place.
type Evidence struct {
	Position
	Control  Control
	Evidence string    // where a person finds it, such as a ticket
	Expires  time.Time // midnight UTC at the start of the first day on which it does not hold
}

// Override is an operator's decision that goes before the rules of custody.
type Override struct {
	Position
	Action    Kind // Encrypt or Exempt
	Approvers []string
	Reason    string
	Expires   time.Time // as in Evidence; the zero time for encrypt without a date
}

// PSK is a pre-shared CAK of an external link, one of a chain.
type PSK struct {
	Position
	CKN     []byte // 1 to 32 octets
	CAKFile string // relative paths are joined to the directory of the inventory file
	// NotBefore is the first moment at which the key is valid, NotAfter the first
	// at which it no longer is. A zero one means no such bound.
	NotBefore, NotAfter time.Time
}

// ValidAt reports whether the key may be used at a moment.
func (k PSK) ValidAt(t time.Time) bool {
	return !t.Before(k.NotBefore) && (k.NotAfter.IsZero() || t.Before(k.NotAfter))
}

// MKA are the parameters of the key agreement and of the replay protection of a
// link. Between Levers only DelayProtect and ReplayWindow may be set.
type MKA struct {
	Priority     uint8 // key server priority: the lowest wins
	Hello, Life  time.Duration
	Destination  [6]byte // a group address
	EtherType    uint16
	ICVIndicator bool   // say in each MKPDU where its ICV is
	DelayProtect bool   // say hello every 0.5 s, and accept no frame that is older than about two of them
	ReplayWindow uint32 // how far, in frames, a frame may be overtaken on the way; 0: not at all
}

// boundedHello is the hello with delay protection (IEEE 802.1X-2020 Table 9-3).
const boundedHello = 500 * time.Millisecond

// DefaultMKA returns the parameters of a link that sets none: those of IEEE
// 802.1X, and the priority 16.
func DefaultMKA() MKA {
	return MKA{
		Priority:    16,
		Hello:       2 * time.Second,
		Life:        6 * time.Second,
		Destination: [6]byte{0x01, 0x80, 0xc2, 0x00, 0x00, 0x03},
		EtherType:   0x888e,
		// Linux counts transmit packet numbers before its crypto is done and
		// carriers balance by flow, so that a window of zero loses frames on good
		// links.
		ReplayWindow: 64,
	}
}

// String returns node/interface, or external.
func (e End) String() string {
	if e.External {
		return "external"
	}
	return e.Node + "/" + e.Interface
}

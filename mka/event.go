package mka

import "time"

// EventKind says what an Event reports to a Port.
type EventKind uint8

// The inputs of a Port. Everything it ever learns, time included, arrives so.
const (
	// EventTick reports that time has passed and nothing else.
	EventTick EventKind = iota
	// EventFrame delivers Frame, a whole Ethernet frame; it is not retained.
	EventFrame
	// EventAddCAK adds a participant for CAK, CKN and Rank. The Port erases
	// CAK when the participant is removed, or at once if there is no use for it:
	// hand it a Clone.
	EventAddCAK
	// EventRemoveCAK ends the participant of CKN because a better one has
	// replaced it; SAs that its SAK keys stay until they are replaced.
	EventRemoveCAK
	// EventRevokeCAK ends the participant of CKN because its CAK must not be
	// used any more; SAs that its SAK keys are deleted at once, also those that an
	// earlier agent left and that the record ascribes to it.
	EventRevokeCAK
	// EventOpDone reports the result of operation OpID. Results arrive in the
	// order of the operations.
	EventOpDone
	// EventPN reports NextPN, the transmit SA's next packet number, of KI.
	EventPN
	// EventRekey asks for a fresh SAK now.
	EventRekey
	// EventSuspend announces that this end will be silent for Suspend, at most
	// MaxSuspension; zero takes it back.
	EventSuspend
	// EventLeave reports that the driver is about to end: a last hello makes our
	// life time at the peers start anew.
	EventLeave
	// EventSALost reports that an SA of KI is not in the SecY any more, which the
	// Port did not take out: the transmit SA when SCI is our own, else the receive
	// SA of that SCI. With a zero SCI all are there, and what they have become does
	// not work.
	EventSALost
	// EventLinkUp reports that the interface can carry frames (again).
	EventLinkUp
)

// Event is one input of Port.Step: Kind says which of the fields count.
type Event struct {
	Kind   EventKind
	Frame  []byte
	CKN    CKN
	CAK    Key
	Rank   uint64 // of two CAKs that work, the one with the greater rank is used
	OpID   uint64
	Err    error
	KI     KI
	NextPN uint64
	SCI    SCI

	Suspend time.Duration
}

// OpKind is what a SecY operation does.
type OpKind uint8

// The operations that a Port asks of its SecY (IEEE 802.1AE 10.7).
const (
	// OpAddReceiveSC creates the receive SC of SCI, enabled. It may exist.
	OpAddReceiveSC OpKind = iota
	// OpDeleteReceiveSC deletes it and what SAs it still has.
	OpDeleteReceiveSC
	// OpAddReceiveSA creates a receive SA of SCI and AN, enabled.
	OpAddReceiveSA
	// OpDeleteReceiveSA disables and deletes it. It may be gone.
	OpDeleteReceiveSA
	// OpAddTransmitSA creates the transmit SA of AN, not enabled.
	OpAddTransmitSA
	// OpEnableTransmitSA enables the transmit SA of AN and makes it the
	// encoding SA, in this order.
	OpEnableTransmitSA
	// OpDeleteTransmitSA disables and deletes it. It may be gone.
	OpDeleteTransmitSA
	// OpRaiseReceivePN has the receive SA of SCI and AN accept no frame with a
	// packet number below LowestPN from now on. It may be gone; what it accepts
	// already must not become more.
	OpRaiseReceivePN
)

var opNames = [...]string{
	OpAddReceiveSC:     "add receive SC",
	OpDeleteReceiveSC:  "delete receive SC",
	OpAddReceiveSA:     "add receive SA",
	OpDeleteReceiveSA:  "delete receive SA",
	OpAddTransmitSA:    "add transmit SA",
	OpEnableTransmitSA: "enable transmit SA",
	OpDeleteTransmitSA: "delete transmit SA",
	OpRaiseReceivePN:   "raise receive PN",
}

func (k OpKind) String() string {
	if int(k) < len(opNames) {
		return opNames[k]
	}
	return "unknown operation"
}

// Op is one SecY operation. The driver carries operations out in order and
// reports each with an EventOpDone of its ID.
type Op struct {
	ID   uint64
	Kind OpKind
	SCI  SCI // of the receive SC; our own for transmit operations
	AN   AN
	KI   KI

	// For OpAddReceiveSA and OpAddTransmitSA. SAK is shared with the Port,
	// which erases it: do not retain it, and look whether it is still there
	// when the operation had to wait.
	SAK   Key
	Suite CipherSuite
	SSCI  uint32
	Salt  [12]byte

	LowestPN uint64 // for OpRaiseReceivePN
}

// NoticeKind is what a Notice reports.
type NoticeKind uint8

// The notices of a Port, one for each change that an operator may care about.
const (
	// NoticePeerLive: a peer has proved that it hears us.
	NoticePeerLive NoticeKind = iota
	// NoticePeerLost: a live peer's MKA life time ended.
	NoticePeerLost
	// NoticeKeyServer: another member was elected.
	NoticeKeyServer
	// NoticeSAK: a new SAK was distributed or accepted.
	NoticeSAK
	// NoticeSecured: we transmit with KI and every live peer receives it.
	NoticeSecured
	// NoticeInUse: every live peer transmits with KI, the first time so under
	// CKN: both ends have proved to hold and use this CAK.
	NoticeInUse
	// NoticeRetired: the SAK before KI was deleted; a rekey is complete.
	NoticeRetired
	// NoticeClosed: a revocation took the SAs in use.
	NoticeClosed
)

var noticeNames = [...]string{
	NoticePeerLive:  "peer_live",
	NoticePeerLost:  "peer_lost",
	NoticeKeyServer: "key_server",
	NoticeSAK:       "sak",
	NoticeSecured:   "secured",
	NoticeInUse:     "in_use",
	NoticeRetired:   "retired",
	NoticeClosed:    "closed",
}

func (k NoticeKind) String() string {
	if int(k) < len(noticeNames) {
		return noticeNames[k]
	}
	return "unknown"
}

// Notice is one change of state.
type Notice struct {
	Kind NoticeKind
	CKN  CKN
	SCI  SCI // the peer's, or the key server's
	KI   KI
	AN   AN
}

// Output is what a Port wants done after a Step: first Persist (when not nil)
// is made durable, then Frames are sent, then Ops carried out in order. The
// slices and what they refer to are valid until the next Step.
type Output struct {
	// Persist, when not nil, replaces the record from which a restarted agent
	// resumes. Until it is stored, Frames must not be sent: it holds the
	// ceilings that keep message and key numbers from being repeated.
	Persist *Record
	Frames  [][]byte
	Ops     []Op
	Notices []Notice
	// Deadline is when to Step with EventTick if nothing happens before; zero
	// means never.
	Deadline time.Time
}

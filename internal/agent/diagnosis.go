package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// silentAfter is how long a far end may say nothing before that is a fault: a
// peer that is just starting, or says hello every ten seconds, is none.
const silentAfter = 12 * time.Second

type fenceError struct{ err error }

func (e *fenceError) Error() string { return "close the fence: " + e.err.Error() }
func (e *fenceError) Unwrap() error { return e.err }

type enslavedError struct{ name, master string }

func (e *enslavedError) Error() string { return fmt.Sprintf("%s is a port of %s", e.name, e.master) }

// setupCodes are the faults that the end of a session can leave; a session
// that is set up has none of them.
var setupCodes = []health.Code{
	health.ParentMissing, health.ParentEnslaved, health.DeviceForeign, health.FenceMissing,
	health.KernelLacking, health.LinkFailed,
}

// explain turns the end of a session into the fault that an operator can act on.
func (t *task) explain(err error) {
	if err == nil {
		t.faults.Replace(setupCodes, nil)
		return
	}
	now, name, device := time.Now(), t.link.Local.Interface, t.link.Local.Secure
	var f health.Fault
	switch {
	case isA[*missingError](err):
		f = health.Raise(health.ParentMissing, now, "interface", name)
	case isA[*enslavedError](err):
		e, _ := errors.AsType[*enslavedError](err)
		f = health.Raise(health.ParentEnslaved, now, "interface", name, "master", e.master, "device", device)
	case isA[*foreignError](err):
		f = health.Raise(health.DeviceForeign, now, "device", device, "interface", name, "detail", err)
	case errors.Is(err, macsec.ErrUnsupported):
		f = health.Raise(health.KernelLacking, now, "feature", "MACsec", "detail", err)
	case isA[*fenceError](err):
		f = health.Raise(health.FenceMissing, now, "interface", name, "detail", err)
	default:
		f = health.Raise(health.LinkFailed, now, "interface", name, "detail", err)
	}
	t.faults.Replace(setupCodes, []health.Fault{f})
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// diagnosed are the faults that follow from the Port's state alone.
var diagnosed = []health.Code{
	health.ICVMismatch, health.UnknownCKN, health.SuiteMismatch, health.KeyServerNone,
	health.ReplayedKI, health.SAKInstallFailed, health.PeerSilent, health.OwnSCI,
	health.NotConfidential, health.BadSAK, health.BadCAK, health.SAKNotTaken, health.BelowPolicyCipher,
}

// diagnose says what keeps the link from being secured, as far as MKA can tell.
func (t *task) diagnose(st *mka.Status, now time.Time) {
	var found []health.Fault
	for i := range st.Conditions {
		c := &st.Conditions[i]
		if c.Kind == mka.ConditionUnknownCKN && c.Last.Sub(c.Since) < 2*mka.DefaultHello {
			continue // an epoch arrives here a moment later than there, or leaves
		}
		found = append(found, t.word(c))
	}
	if t.link.Cipher.Bits() < t.policy.Cipher.Bits() {
		found = append(found, health.Raise(health.BelowPolicyCipher, t.began, "cipher", t.link.Cipher, "policy", t.policy.Cipher))
	}
	if st.Counters.Received+st.Counters.ICVMismatch+st.Counters.UnknownCKN == 0 &&
		len(st.Participants) > 0 && now.Sub(t.began) >= silentAfter {
		found = append(found, health.Raise(health.PeerSilent, t.began, "interface", t.parent.name,
			"since", t.began.Format(time.TimeOnly), "destination", macString(t.link.MKA.Destination)))
	}
	if f, ok := announcedMismatch(st, now); ok && !slices.ContainsFunc(found, func(f health.Fault) bool { return f.Code == health.SuiteMismatch }) {
		found = append(found, f)
	}
	if !st.IsKeyServer || st.Secured || !anyLive(st) {
		t.untakenSince = time.Time{}
	} else if t.untakenSince.IsZero() {
		t.untakenSince = now
	} else if now.Sub(t.untakenSince) >= mka.DefaultLife {
		found = append(found, health.Raise(health.SAKNotTaken, t.untakenSince, "interface", t.parent.name, "cipher", st.Suite))
	}
	t.faults.Replace(diagnosed, found)
}

// announcedMismatch finds a live peer that announces cipher suites without ours,
// while nothing better is known: the key server never hears of a suite other than
// the one that it distributes.
func announcedMismatch(st *mka.Status, now time.Time) (health.Fault, bool) {
	for i := range st.Participants {
		for j := range st.Participants[i].Peers {
			pe := &st.Participants[i].Peers[j]
			if st.Secured || !pe.Live || len(pe.Suites) == 0 || slices.Contains(pe.Suites, st.Suite) {
				continue
			}
			names := make([]string, len(pe.Suites))
			for k, s := range pe.Suites {
				names[k] = s.String()
			}
			return health.Raise(health.SuiteMismatch, now, "peer", pe.SCI,
				"offers", "announces that it can do", "offered", strings.Join(names, " and "), "cipher", st.Suite), true
		}
	}
	return health.Fault{}, false
}

func anyLive(st *mka.Status) bool {
	for _, p := range st.Participants {
		for _, pe := range p.Peers {
			if pe.Live {
				return true
			}
		}
	}
	return false
}

// word puts a condition into the words of its fault.
func (t *task) word(c *mka.Condition) health.Fault {
	ckn, source := c.CKN.String(), macString(c.Source)
	switch c.Kind {
	case mka.ConditionICVMismatch:
		return health.Raise(health.ICVMismatch, c.Since, "peer", source, "ckn", ckn, "epoch", t.pairing(c.CKN))
	case mka.ConditionUnknownCKN:
		return health.Raise(health.UnknownCKN, c.Since, "peer", source, "ckn", ckn, "detail", t.identify(c.CKN))
	case mka.ConditionOwnSCI:
		return health.Raise(health.OwnSCI, c.Since, "peer", source, "interface", t.parent.name)
	case mka.ConditionNoKeyServer:
		return health.Raise(health.KeyServerNone, c.Since, "interface", t.parent.name)
	case mka.ConditionSuiteMismatch:
		return health.Raise(health.SuiteMismatch, c.Since, "peer", c.SCI, "offers", "distributes a key for", "offered", c.Theirs, "cipher", c.Ours)
	case mka.ConditionNotConfidential:
		return health.Raise(health.NotConfidential, c.Since, "peer", c.SCI)
	case mka.ConditionReplayedKI:
		return health.Raise(health.ReplayedKI, c.Since, "peer", c.SCI, "ki", c.KI)
	case mka.ConditionBadSAK:
		return health.Raise(health.BadSAK, c.Since, "peer", c.SCI, "detail", c.Err)
	case mka.ConditionInstallFailed:
		return health.Raise(health.SAKInstallFailed, c.Since, "interface", t.link.Local.Secure, "detail", c.Err)
	case mka.ConditionBadCAK:
		return health.Raise(health.BadCAK, c.Since, "ckn", ckn, "detail", c.Err)
	}
	return health.Raise(health.LinkFailed, c.Since, "interface", t.parent.name, "detail", c.Kind)
}

func (t *task) epochName(ckn mka.CKN) string {
	if e, ok := t.epochs[ckn]; ok && !e.IsZero() {
		return e.String()
	}
	return "static"
}

// pairing is epochName with what the channels call it.
func (t *task) pairing(ckn mka.CKN) string {
	if e := t.epochs[ckn]; !e.IsZero() {
		return e.Pairing()
	}
	return t.epochName(ckn)
}

// identify says what an unknown CKN is, if it is one of this link's.
func (t *task) identify(ckn mka.CKN) string {
	if t.ring == nil {
		return "the inventory gives this link other CKNs"
	}
	e, missing, ok := t.ring.Identify([]byte(ckn))
	switch {
	case !ok:
		return "it is none of this link's epochs near those that this end has"
	case len(missing) == 0:
		return fmt.Sprintf("it is epoch %s of this link, which this end has, and does not offer: a newer one is confirmed, or its time has not come here", e.Pairing())
	}
	sides := make([]string, len(missing))
	for i, s := range missing {
		sides[i] = s.String()
	}
	return fmt.Sprintf("it is epoch %s of this link, which channel %s has not delivered here", e.Pairing(), strings.Join(sides, " and channel "))
}

// statusNow is the link's status as of now.
func (t *task) statusNow(now time.Time) (out LinkStatus) {
	l := t.link
	out = LinkStatus{
		ID: l.ID, Interface: l.Local.Interface, SecureInterface: l.Local.Secure,
		Verdict: l.Verdict.Kind.String(), Reason: l.Verdict.Reason, State: StateNegotiating,
		Cipher: t.suite().String(), Rekeys: t.rekeys, Fence: fenceStatus(t.fenceOptions()),
	}
	defer func() { out.Faults = t.faults.List() }()
	if t.port == nil {
		switch {
		case t.takenDown:
			out.State, out.Traffic, out.TrafficDetail = StateDown, TrafficPlain, "the device and the fence were removed"
		case t.failed:
			out.State = StateFailed
		}
		return out
	}
	st := t.port.Status()
	amiss := errors.Join(t.unmended, t.uncarried)
	t.explain(amiss)
	t.diagnose(&st, now)
	out.LocalSCI = t.device.SCI.String()
	out.CKN = st.CKN.String()
	for _, p := range st.Participants {
		out.Offers = append(out.Offers, p.CKN.String())
	}
	if e, ok := t.epochs[st.CKN]; ok && !e.IsZero() {
		out.Epoch = e.String()
	}
	if st.KeyServer != (mka.SCI{}) {
		out.KeyServer = st.KeyServer.String()
	}
	if st.Carrying {
		out.AN, out.KN = new(st.AN), st.KI.KN
	}
	out.Associations = associations(t.port)
	t.welcome(&st)
	out.Traffic, out.TrafficDetail = t.trafficNow(&st)
	t.mourn(out.TrafficDetail)
	switch {
	case amiss != nil: // whatever MKA says
		out.State, out.Traffic, out.TrafficDetail = StateFailed, "", ""
		if !t.securedAt.IsZero() {
			t.securedAt = now // at the earliest
		}
	case st.Secured:
		out.State = StateSecured
		out.SecuredSince = new(t.securedAt)
	case len(st.Participants) == 0 && t.faults.Has(health.KeyTooOld):
		out.State = StateFailed
	case len(st.Participants) == 0:
		out.State = StateWaiting
	}
	if !st.Secured {
		t.securedAt = time.Time{}
	}
	if !t.lastRekey.IsZero() {
		out.LastRekey = new(t.lastRekey)
	}
	out.Peers, out.DelayProtect = peersOf(&st), st.DelayProtect
	if until := st.Suspension.Until; !until.IsZero() {
		out.SuspendedUntil = new(until)
	}
	return out
}

// peersOf lists each peer once, however many CAKs it has.
func peersOf(st *mka.Status) []PeerStatus {
	var peers []PeerStatus
	at := map[mka.SCI]int{}
	for _, p := range st.Participants {
		for _, pe := range p.Peers {
			i, known := at[pe.SCI]
			if !known {
				i = len(peers)
				at[pe.SCI] = i
				peers = append(peers, PeerStatus{SCI: pe.SCI.String()})
			}
			peers[i].Live = peers[i].Live || pe.Live
			if until := pe.SuspendedUntil; !until.IsZero() && (peers[i].SuspendedUntil == nil || until.After(*peers[i].SuspendedUntil)) {
				peers[i].SuspendedUntil = new(until.Truncate(time.Second))
			}
		}
	}
	return peers
}

// publish makes the status known if it has changed.
func (t *task) publish() {
	defer t.reply()
	t.news, t.published = false, time.Now()
	st := t.statusNow(t.published)
	b, err := json.Marshal(st)
	if err != nil || string(b) == t.lastStatus {
		return
	}
	t.lastStatus = string(b)
	t.server.setStatus(st)
}

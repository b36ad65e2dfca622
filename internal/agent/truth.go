package agent

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// KernelStatus is what the kernel has of a link, read apart from the agent, and
// whether the two are at one. Identifiers are hexadecimal.
type KernelStatus struct {
	Cipher  string     `json:"cipher,omitempty"` // empty: there is no device
	Encrypt bool       `json:"encrypt"`
	AN      *uint8     `json:"an,omitempty"` // of the SA that transmits; absent when none does
	KI      string     `json:"ki,omitempty"`
	TxPN    uint64     `json:"tx_pn,omitempty"` // the packet number of the next frame
	Rx      []KernelRx `json:"rx"`
	Fence   string     `json:"fence"` // closed, open or monitor; unknown when it could not be read
	Dropped Dropped    `json:"dropped"`
	Agrees  bool       `json:"agrees"`
	Differs []string   `json:"differs,omitempty"`
}

// KernelRx is a receive SA.
type KernelRx struct {
	SCI    string `json:"sci"`
	AN     uint8  `json:"an"`
	KI     string `json:"ki"`
	Active bool   `json:"active"`
	NextPN uint64 `json:"next_pn"`
}

// Dropped counts frames that the fence has stopped since it was last made; in
// mode monitor, those that it would have.
type Dropped struct {
	Egress  uint64 `json:"egress"`
	Ingress uint64 `json:"ingress"`
}

// AssociationStatus is what the agent has put into the kernel of one SAK.
type AssociationStatus struct {
	AN       uint8    `json:"an"`
	KI       string   `json:"ki"`
	Transmit bool     `json:"transmit"` // its transmit SA is there
	Encoding bool     `json:"encoding"` // and is the one that transmits
	Receive  []string `json:"receive"`  // the SCIs that have a receive SA
}

// FenceStatus is what the fence of a link is meant to be.
type FenceStatus struct {
	Mode      string   `json:"mode"` // enforce or monitor
	EtherType uint16   `json:"ethertype,omitempty"`
	Allow     []string `json:"allow,omitempty"` // link protocols that pass beside MACsec and MKA
}

// allowable are the protocols that a fence can be told to pass.
var allowable = [...]fence.Protocols{fence.LLDP, fence.LACP, fence.Pause}

func fenceStatus(o fence.Options) *FenceStatus {
	f := &FenceStatus{Mode: inventory.Enforce.String(), EtherType: o.EtherType}
	if o.Monitor {
		f.Mode = inventory.Monitor.String()
	}
	for _, p := range allowable {
		if o.Allow&p != 0 {
			f.Allow = append(f.Allow, p.String())
		}
	}
	return f
}

func (f *FenceStatus) options() fence.Options {
	o := fence.Options{EtherType: f.EtherType, Monitor: f.Mode == inventory.Monitor.String()}
	for _, p := range allowable {
		if slices.Contains(f.Allow, p.String()) {
			o.Allow |= p
		}
	}
	return o
}

// associations are those of the Port; nil when it does not know them at the
// moment, because the result of an operation is not known.
func associations(p *mka.Port) []AssociationStatus {
	all, _, known := p.Associations()
	if !known {
		return nil
	}
	out := []AssociationStatus{}
	for i := range all {
		a := &all[i]
		s := AssociationStatus{AN: uint8(a.AN), KI: keyID(a.KI), Transmit: a.Transmit, Encoding: a.Encoding, Receive: []string{}}
		for _, sci := range a.Receive {
			s.Receive = append(s.Receive, sci.String())
		}
		out = append(out, s)
	}
	return out
}

// keyID is a KI as the kernel shows it.
func keyID(ki mka.KI) string { return macsec.KeyID(ki.Bytes()).String() }

// recorded are the associations of a link's record in the run directory: those
// that may be in the kernel, of which one transmits.
func recorded(r *mka.Record) []AssociationStatus {
	out := []AssociationStatus{}
	if r == nil {
		return out
	}
	add := func(k *mka.KeyRecord) {
		if k == nil {
			return
		}
		s := AssociationStatus{AN: uint8(k.AN), KI: keyID(mka.KI{MI: k.MI, KN: k.KN}), Receive: []string{}}
		for _, m := range k.Members {
			s.Receive = append(s.Receive, m.SCI.String())
		}
		out = append(out, s)
	}
	add(r.Latest)
	for _, k := range r.Olds {
		add(k)
	}
	return out
}

// sight is what is read of the kernel, once for all links.
type sight struct {
	on    *platform
	secys []macsec.SecY
	err   error
}

// see reads all devices. A kernel without MACsec has none.
func see(on *platform, open func() (macsec.Kernel, error)) *sight {
	s := &sight{on: on}
	k, err := open()
	if err == nil {
		s.secys, err = k.SecYs()
		err = errors.Join(err, k.Close())
	}
	if !errors.Is(err, macsec.ErrUnsupported) {
		s.err = err
	}
	return s
}

// compare fills in what the kernel has of a link, and in what it differs from
// what the link's status claims.
func (s *sight) compare(l *LinkStatus) {
	if l.SecureInterface == "" {
		return // left alone
	}
	k := &KernelStatus{Rx: []KernelRx{}, Fence: "unknown"}
	l.Kernel = k
	defer func() { k.Agrees = len(k.Differs) == 0 }()
	parent, err := s.on.findParent(l.Interface)
	if err != nil {
		if l.State != StateFailed {
			k.differ("%v", err)
		}
		return
	}
	s.compareFence(l, parent)
	if s.err != nil {
		k.differ("the MACsec devices cannot be read: %v", s.err)
		return
	}
	at := slices.IndexFunc(s.secys, func(y macsec.SecY) bool { return y.Name == l.SecureInterface })
	if at < 0 {
		if l.setUp() {
			k.differ("there is no device %s", l.SecureInterface)
		}
		return
	}
	y := &s.secys[at]
	k.fill(y)
	switch {
	case l.State == StateDown:
		k.differ("device %s is there, although the link was taken down", y.Name)
	case l.State == StateRemoved:
		k.differ("device %s is there, although the link is no longer in the inventory", y.Name)
	case l.setUp():
		if y.Parent != parent.index {
			k.differ("device %s sits on %s", y.Name, s.on.interfaceName(y.Parent))
		}
		k.compareDevice(l, y)
		k.compareAssociations(l, y)
	}
}

// setUp says whether the link claims to have a device.
func (l *LinkStatus) setUp() bool {
	switch l.State {
	case StateSecured, StateNegotiating, StateWaiting:
		return l.LocalSCI != ""
	case StateUnattended:
		return true
	case StateFailed, StateInside, StateExempt, StateDown, StateRemoved:
	}
	return false
}

func (k *KernelStatus) differ(format string, args ...any) {
	k.Differs = append(k.Differs, fmt.Sprintf(format, args...))
}

func (s *sight) compareFence(l *LinkStatus, p parent) {
	k := l.Kernel
	if l.Fence == nil {
		return
	}
	opts := l.Fence.options()
	st, err := s.on.inspectFence(p.index, opts)
	if err != nil {
		k.differ("the fence on %s cannot be read: %v", p.name, err)
		return
	}
	k.Dropped = Dropped{Egress: st.DroppedEgress.Frames, Ingress: st.DroppedIngress.Frames}
	switch {
	case st.Closed:
		k.Fence = "closed"
	case opts.Monitor && st.InPlace:
		k.Fence = "monitor"
	default:
		k.Fence = "open"
	}
	switch {
	case l.State == StateDown && st.Closed:
		k.differ("the fence on %s is closed, although the link was taken down", p.name)
	case !l.setUp() && l.State != StateRemoved:
	case opts.Monitor && !st.InPlace:
		k.differ("the fence on %s does not just count, as in mode monitor%s", p.name, firstOf(st.Findings))
	case !opts.Monitor && (!st.Closed || st.Leaks()):
		k.differ("the fence on %s is not closed%s", p.name, firstOf(st.Findings))
	}
}

func firstOf(findings []fence.Finding) string {
	if len(findings) == 0 {
		return ""
	}
	return ": " + findings[0].String()
}

func (k *KernelStatus) fill(y *macsec.SecY) {
	k.Cipher, k.Encrypt = y.CipherSuite.String(), y.Encrypt
	if sa := y.TxSC.SA(y.EncodingAN); sa != nil && sa.Active {
		k.AN, k.KI, k.TxPN = new(uint8(sa.AN)), sa.KeyID.String(), sa.NextPN
	}
	for i := range y.RxSCs {
		sc := &y.RxSCs[i]
		for j := range sc.SAs {
			sa := &sc.SAs[j]
			k.Rx = append(k.Rx, KernelRx{
				SCI: sc.SCI.String(), AN: uint8(sa.AN), KI: sa.KeyID.String(), Active: sa.Active && sc.Active, NextPN: sa.NextPN,
			})
		}
	}
}

func (k *KernelStatus) compareDevice(l *LinkStatus, y *macsec.SecY) {
	name := y.Name
	if l.Cipher != "" && k.Cipher != l.Cipher {
		k.differ("%s is made for %s, not %s", name, k.Cipher, l.Cipher)
	}
	if l.LocalSCI != "" && y.SCI.String() != l.LocalSCI {
		k.differ("%s sends as SCI %s", name, y.SCI)
	}
	if !y.Encrypt {
		k.differ("%s does not encrypt: encrypt is off", name)
	}
	if !y.Protect {
		k.differ("%s sends in plain: protect is off", name)
	}
	if y.Validate != macsec.Strict {
		k.differ("%s takes in what does not verify: validate is %s", name, y.Validate)
	}
	if !y.ReplayProtect {
		k.differ("%s takes frames in twice: replay protection is off", name)
	}
	if l.State == StateSecured && !y.Up {
		k.differ("%s is down", name)
	}
}

// compareAssociations holds the SAs against those that the agent says are there.
// Of what an agent has only recorded before it ended, some may be gone.
func (k *KernelStatus) compareAssociations(l *LinkStatus, y *macsec.SecY) {
	if l.Associations == nil {
		return
	}
	claimed := func(an macsec.AN, ki macsec.KeyID) *AssociationStatus {
		for i := range l.Associations {
			if a := &l.Associations[i]; a.AN == uint8(an) && a.KI == ki.String() {
				return a
			}
		}
		return nil
	}
	for i := range y.TxSC.SAs {
		if sa := &y.TxSC.SAs[i]; sa.Active && claimed(sa.AN, sa.KeyID) == nil {
			k.differ("transmit SA %d has key %s, which the agent does not know of", sa.AN, sa.KeyID)
		}
	}
	for _, rx := range k.Rx {
		known := slices.ContainsFunc(l.Associations, func(a AssociationStatus) bool { return a.AN == rx.AN && a.KI == rx.KI })
		if rx.Active && !known {
			k.differ("receive SA %d of %s has key %s, which the agent does not know of", rx.AN, rx.SCI, rx.KI)
		}
	}
	if l.State == StateUnattended {
		if len(l.Associations) > 0 && k.AN == nil {
			k.differ("no SA transmits: %s drops what it is given", y.Name)
		}
		return
	}
	for i := range l.Associations {
		a := &l.Associations[i]
		if a.Encoding && (k.AN == nil || *k.AN != a.AN || k.KI != a.KI) {
			k.differ("key %s under AN %d should transmit, and %s", a.KI, a.AN, k.transmits())
		}
		for _, sci := range a.Receive {
			if !slices.ContainsFunc(k.Rx, func(rx KernelRx) bool { return rx.SCI == sci && rx.AN == a.AN && rx.KI == a.KI && rx.Active }) {
				k.differ("no active receive SA %d of %s with key %s", a.AN, sci, a.KI)
			}
		}
	}
}

// KeyNumber is the KN in the key identifier of the SA that transmits.
func (k *KernelStatus) KeyNumber() uint32 {
	b, err := hex.DecodeString(k.KI)
	if err != nil || len(b) != len(macsec.KeyID{}) {
		return 0
	}
	return mka.KIFromBytes([16]byte(b)).KN
}

func (k *KernelStatus) transmits() string {
	if k.AN == nil {
		return "no SA does"
	}
	return fmt.Sprintf("key %s under AN %d does", k.KI, *k.AN)
}

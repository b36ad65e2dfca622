package sim

import (
	"slices"
	"time"

	"github.com/lever-link/lever/mka"
)

// MKAdaemon behaves as Technica's was seen to: MKA version 3 and nothing else, sets
// 1, 3, 7 and 8 always, one peer a port, hellos that ramp up, and answers at once. As
// key server it reports its first SAK as the old one, received and transmitted with,
// in the MKPDU that distributes it, and transmits before the client can receive. Its
// first AN is 1. A new MI under a known SCI is taken at once.
type MKAdaemon struct {
	Other
	Latest, Old *Key
	KN          uint32

	an    mka.AN
	dist  *mka.DistributedSAK
	ramp  time.Duration
	armed int // counts, so that of two timers the later one counts
}

const (
	mkadRamp  = 250 * time.Millisecond
	mkadHello = 2 * time.Second
	mkadLife  = 6 * time.Second
)

// AddMKAdaemon makes one, not started.
func (s *Sim) AddMKAdaemon(name string, n byte, change func(*mka.Config)) *MKAdaemon {
	d := &MKAdaemon{Other: *s.AddOther(name, n, change)}
	d.Frame, d.Hear = d.take, d.listen
	return d
}

// Run starts it.
func (d *MKAdaemon) Run(c CAK) error {
	d.Latest, d.Old, d.KN, d.an, d.dist, d.ramp = nil, nil, 0, 1, nil, mkadRamp
	if err := d.Join(c); err != nil {
		return err
	}
	d.after(0, d.speak)
	return nil
}

// Rekey has it make a SAK.
func (d *MKAdaemon) Rekey() { d.makeSAK() }

func (d *MKAdaemon) serving() bool { return len(d.live()) > 0 && d.server() == nil }

func (d *MKAdaemon) listen(m *mka.MKPDU) {
	if m.Basic.Version != 3 || m.EAPOLVersion != 3 {
		d.Say("drops MKA version %d in EAPOL version %d", m.Basic.Version, m.EAPOLVersion)
		return
	}
	if len(d.Heard) > 0 && d.Heard[0].SCI != m.Basic.SCI {
		d.Say("ignores a second peer")
		return
	}
	d.Heard = slices.DeleteFunc(d.Heard, func(h *Heard) bool { return h.MI != m.Basic.MI })
	h := d.Note(m)
	if h == nil {
		return
	}
	news := h.expires.IsZero()
	if news {
		h.expires = d.sim.Net.Now().Add(mkadLife)
	}
	before := h.Use
	h.Use = m.SAKUse
	if mn, ok := d.listed(m); ok && mn <= d.MN {
		h.expires = d.sim.Net.Now().Add(mkadLife)
		if !h.Live {
			h.Live, news = true, true
			if d.serving() {
				d.makeSAK()
				return
			}
		}
	}
	if s := &m.DistributedSAK; s.Present && h.Live && d.server() == h {
		news = d.told(mka.KI{MI: h.MI, KN: s.KN}, s) || news
	}
	if d.advance() || news || before.Latest != h.Use.Latest || before.LatestRx != h.Use.LatestRx || before.LatestTx != h.Use.LatestTx {
		d.speak()
	}
}

func (d *MKAdaemon) makeSAK() {
	d.KN++
	sak, wrapped, err := d.NewSAK(d.KN, 0, d.Config.Suite)
	if err != nil {
		d.sim.fail("%s: %v", d.Name, err)
		return
	}
	d.dist = &mka.DistributedSAK{
		Present: true, AN: d.an, ConfidentialityOffset: mka.Confidentiality0, KN: d.KN, Suite: d.Config.Suite, Wrapped: wrapped,
	}
	k := &Key{KI: mka.KI{MI: d.MI, KN: d.KN}, AN: d.an, Suite: d.Config.Suite, SAK: sak}
	d.an = (d.an + 1) % 4
	d.receive(k)
	if d.Old == nil { // the first one: all at once
		d.transmitWith(k)
		d.settle(k)
	}
	d.speak()
}

// receive makes the receive SAs of a SAK.
func (d *MKAdaemon) receive(k *Key) {
	if d.Latest != nil && !d.Latest.Tx {
		d.forget(d.Latest) // abandoned
	}
	d.Latest = k
	for _, h := range d.live() {
		d.receiveFrom(k, h.SCI)
	}
	k.Rx = true
}

func (d *MKAdaemon) told(ki mka.KI, s *mka.DistributedSAK) bool {
	if d.Latest != nil && d.Latest.KI == ki || d.Old != nil && d.Old.KI == ki {
		return false
	}
	sak, err := mka.UnwrapSAK(d.keys.kek, s.Wrapped)
	if err != nil {
		d.Say("cannot unwrap a SAK: %v", err)
		return false
	}
	d.receive(&Key{KI: ki, AN: s.AN, Suite: s.Suite, SAK: sak})
	return true
}

func (d *MKAdaemon) advance() bool {
	k := d.Latest
	live := d.live()
	if k == nil || k.Tx || len(live) == 0 {
		return false
	}
	switch s := d.server(); {
	case s != nil && !s.transmits(k.KI), s == nil && !live[0].receives(k.KI):
		return false
	}
	d.transmitWith(k)
	if d.Old != nil {
		d.Old.Tx = false
		d.after(3*time.Second, func() { d.settle(k) })
	} else {
		d.after(mkadRamp, func() { d.settle(k) })
	}
	return true
}

// settle makes the latest SAK the old one.
func (d *MKAdaemon) settle(k *Key) {
	if d.Latest != k {
		return
	}
	if d.Old != nil {
		d.Old.Tx = true // so that its transmit SA goes, too
		d.forget(d.Old)
	}
	d.Old, d.Latest = k, nil
}

func (d *MKAdaemon) speak() {
	now := d.sim.Net.Now()
	if len(d.Heard) > 0 && !now.Before(d.Heard[0].expires) {
		d.Say("loses %s", d.sim.who(d.Heard[0].SCI))
		d.Heard, d.dist = nil, nil
		d.forget(d.Latest)
		d.forget(d.Old)
		d.Latest, d.Old = nil, nil
	}
	m := mka.MKPDU{Basic: d.basic(3), SAKUse: d.use(d.Latest, d.Old)}
	if !m.SAKUse.Present { // the set is there in any case
		m.SAKUse = mka.SAKUse{Present: true, LatestLPN: 1}
	}
	d.lists(&m)
	m.XPN.Present = true
	m.Announcement = mka.Announcement{Present: true, TLVs: []mka.TLV{
		mka.NewCipherSuitesTLV(mka.SuiteOffer{Suite: d.Config.Suite, Capability: mka.CapabilityConfidentiality}),
	}}
	if live := d.live(); d.dist != nil && d.serving() && !live[0].transmits(mka.KI{MI: d.MI, KN: d.dist.KN}) {
		m.DistributedSAK = *d.dist
		if d.dist.Suite.XPN() {
			m.Live.KeyServerSSCI = uint8(d.ssci(d.Config.SCI))
		}
	}
	d.transmit(&m)
	d.armed++
	armed := d.armed
	d.after(d.ramp, func() {
		if d.armed == armed {
			d.speak()
		}
	})
	d.ramp = min(2*d.ramp, mkadHello)
}

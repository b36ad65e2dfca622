package sim

import (
	"slices"
	"time"

	"github.com/lever-link/lever/mka"
)

// WPA behaves as wpa_supplicant 2.10 was seen to: MKA version 1 and parameter sets
// 1 to 4 only, an MKPDU every two seconds and none in between, GCM-AES-128. It
// believes a peer that lists one of its last two message numbers, ignores a new MI
// under an SCI that it knows, counts KNs from 1 and ANs from 0, repeats a SAK until
// all say that they receive with it, calls a SAK that is settled the old one, drops
// an MKPDU without SAK Use of a peer that once sent one, and complains of sets that
// it does not know.
type WPA struct {
	Other
	Latest, Old *Key
	KN          uint32 // the last that it gave out; set, it counts on from there

	next     *Key
	an       mka.AN
	dist     *mka.DistributedSAK
	needsSAK bool
	made     time.Time
}

// What wpa_supplicant's timers say.
const (
	wpaHello  = 2 * time.Second
	wpaLife   = 6 * time.Second
	wpaRetire = 3 * time.Second
)

// AddWPA makes one, not started.
func (s *Sim) AddWPA(name string, n byte, change func(*mka.Config)) *WPA {
	w := &WPA{Other: *s.AddOther(name, n, func(c *mka.Config) {
		c.Suite = mka.GCMAES128
		if change != nil {
			change(c)
		}
	})}
	w.Frame, w.Hear = w.take, w.listen
	return w
}

// Run starts it, with no memory of what it was before. Its device was made anew if
// it was left in order; a daemon that was killed finds the old one and stays away.
func (w *WPA) Run(c CAK) error {
	w.forget(w.Latest)
	w.forget(w.Old)
	w.Latest, w.Old, w.next, w.KN, w.an, w.dist, w.needsSAK = nil, nil, nil, 0, 0, nil, false
	if err := w.Join(c); err != nil {
		return err
	}
	w.Every(wpaHello, w.tick)
	return nil
}

// Rekey makes it make a SAK, as it does when packet numbers run out.
func (w *WPA) Rekey() { w.needsSAK = true }

func (w *WPA) serving() bool { return len(w.live()) > 0 && w.server() == nil }

func (w *WPA) listen(m *mka.MKPDU) {
	now := w.sim.Net.Now()
	h := w.heard(m.Basic.MI)
	if h == nil && slices.ContainsFunc(w.Heard, func(o *Heard) bool { return o.SCI == m.Basic.SCI }) {
		w.Say("ignores another MI under an SCI that it knows")
		return
	}
	if h != nil && m.XPN.Present && !h.strange {
		w.Say("complains of the XPN set, and goes on")
		h.strange = true
	}
	if h != nil && h.usedSAK && !m.SAKUse.Present {
		w.Say("drops an MKPDU without SAK Use")
		return
	}
	if h = w.Note(m); h == nil {
		return
	}
	if h.expires.IsZero() {
		h.expires = now.Add(wpaLife)
	}
	h.Use = m.SAKUse
	h.usedSAK = h.usedSAK || m.SAKUse.Present
	mn, listed := w.listed(m)
	if listed && mn+1 >= w.MN && mn <= w.MN { // one of the last two
		h.expires = now.Add(wpaLife)
		if !h.Live {
			h.Live, w.needsSAK = true, true
		}
	}
	if d := &m.DistributedSAK; d.Present && h.Live && w.server() == h {
		w.told(mka.KI{MI: h.MI, KN: d.KN}, d)
	}
	w.advance()
}

// told takes a SAK from the key server. One that it has is no news.
func (w *WPA) told(ki mka.KI, d *mka.DistributedSAK) {
	if w.Latest != nil && w.Latest.KI == ki || w.Old != nil && w.Old.KI == ki || w.next != nil && w.next.KI == ki {
		return
	}
	sak, err := mka.UnwrapSAK(w.keys.kek, d.Wrapped)
	if err != nil {
		w.Say("cannot unwrap a SAK: %v", err)
		return
	}
	w.install(&Key{KI: ki, AN: d.AN, Suite: d.Suite, SAK: sak})
}

func (w *WPA) makeSAK() {
	w.KN++
	w.needsSAK, w.made = false, w.sim.Net.Now()
	sak, wrapped, err := w.NewSAK(w.KN, 0, mka.GCMAES128)
	if err != nil {
		w.sim.fail("%s: %v", w.Name, err)
		return
	}
	w.dist = &mka.DistributedSAK{
		Present: true, AN: w.an, ConfidentialityOffset: mka.Confidentiality0, KN: w.KN, Suite: mka.GCMAES128, Wrapped: wrapped,
	}
	w.install(&Key{KI: mka.KI{MI: w.MI, KN: w.KN}, AN: w.an, Suite: mka.GCMAES128, SAK: sak})
	w.an = (w.an + 1) % 4
}

// install goes by AN, as its driver does, and believes that it worked. A SAK that it
// did not transmit with is abandoned; while the last one is being taken into use the
// new one waits for RETIRE.
func (w *WPA) install(k *Key) {
	switch {
	case w.Latest != nil && w.Latest.Tx:
		w.next = k
		return
	case w.Latest != nil:
		w.forget(w.Latest)
	}
	w.Latest = k
	for _, h := range w.live() {
		w.receiveFrom(k, h.SCI)
	}
	k.Rx = true
}

// advance: the key server transmits when all receive, others when it transmits.
func (w *WPA) advance() {
	k := w.Latest
	if k == nil || k.Tx {
		return
	}
	may := false
	if s := w.server(); s != nil {
		may = s.transmits(k.KI)
	} else {
		may = !slices.ContainsFunc(w.live(), func(h *Heard) bool { return !h.receives(k.KI) })
		if may {
			w.dist = nil
		}
	}
	if !may {
		return
	}
	w.transmitWith(k)
	var retire time.Duration
	if w.Old != nil {
		w.Old.Tx = false
		retire = wpaRetire
	}
	w.after(retire, func() {
		if w.Latest == k {
			if w.Old != nil {
				w.Old.Tx = true // so that its transmit SA goes, too
				w.forget(w.Old)
			}
			w.Old, w.Latest = k, nil // RETIRE: what is settled is the old one
			if next := w.next; next != nil {
				w.next = nil
				w.install(next)
			}
		}
	})
}

// tick is all that its timer does, on a grid of two seconds.
func (w *WPA) tick() {
	now := w.sim.Net.Now()
	lost := false
	w.Heard = slices.DeleteFunc(w.Heard, func(h *Heard) bool {
		gone := !now.Before(h.expires)
		if gone && h.Live {
			w.Say("loses %s", w.sim.who(h.SCI))
			lost = true
		}
		return gone
	})
	if lost {
		w.dist, w.needsSAK = nil, true
		if len(w.live()) == 0 {
			w.forget(w.Latest)
			w.forget(w.Old)
			w.Latest, w.Old, w.next = nil, nil, nil
		}
	}
	if !w.serving() {
		w.dist, w.needsSAK = nil, w.needsSAK && len(w.live()) == 0
	} else if w.needsSAK && (len(w.live()) == len(w.Heard) || now.Sub(w.made) >= wpaLife) {
		w.makeSAK()
	}
	m := mka.MKPDU{Basic: w.basic(1), SAKUse: w.use(w.Latest, w.Old)}
	w.lists(&m)
	if w.dist != nil && w.serving() {
		m.DistributedSAK = *w.dist
	}
	w.transmit(&m)
}

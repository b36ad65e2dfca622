package mka_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/sim"
	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/mka"
)

// wpa behaves as wpa_supplicant 2.10 was seen to: MKA version 1, parameter sets
// 1 to 4 only, GCM-AES-128, an MKPDU every two seconds and none in between. It
// believes a peer that lists one of its last two message numbers, ignores a new
// MI under an SCI that it knows, makes a SAK when its live set changes (AN 0 and
// KN 1 first), and as client repeats what it is told of a SAK.
type wpa struct {
	sim      *scene
	station  *simlink.Station
	secy     secy
	sci      mka.SCI
	mac      mka.MAC
	priority uint8
	mi       mka.MI
	mn       uint32
	ick      *mka.ICK
	kek      mka.Key
	cak      mka.Key

	peer      *wpaPeer
	lost      int // peers whose six seconds ended
	strangers int // frames of a new MI under the known SCI
	kn        uint32
	an        mka.AN
	dist      *mka.DistributedSAK
	saks      int
	latest    *wpaKey
	old       *wpaKey
	retire    time.Time
}

type wpaPeer struct {
	mi       mka.MI
	mn       uint32
	sci      mka.SCI
	priority uint8
	live     bool
	expires  time.Time
	use      mka.SAKUse
}

type wpaKey struct {
	ki     mka.KI
	an     mka.AN
	rx, tx bool
}

// secy is the data path: what is installed, by KI.
type secy struct {
	tx       map[mka.AN]mka.KI
	active   map[mka.AN]bool
	encoding mka.AN
	rx       map[mka.SCI]map[mka.AN]mka.KI
}

const wpaLife, wpaHello = 6 * time.Second, 2 * time.Second

// addWPA attaches one to s, with its SecY, and starts it.
func (s *scene) addWPA(n, priority byte, c sim.CAK) *wpa {
	s.t.Helper()
	w := &wpa{
		sim: s, mac: mka.MAC{2, 0, 0, 0, 0, n}, priority: priority, mi: mka.MI{n, 'w', 'p', 'a'},
		cak:  secret.New(bytes.Repeat([]byte{c.Octet}, 32)),
		secy: secy{tx: map[mka.AN]mka.KI{}, active: map[mka.AN]bool{}, rx: map[mka.SCI]map[mka.AN]mka.KI{}},
	}
	w.sci = mka.NewSCI(w.mac, 1)
	var err error
	if w.kek, err = mka.DeriveKEK(w.cak, c.CKN); err != nil {
		s.t.Fatal(err)
	}
	key, err := mka.DeriveICK(w.cak, c.CKN)
	if err != nil {
		s.t.Fatal(err)
	}
	if w.ick, err = mka.NewICK(key); err != nil {
		s.t.Fatal(err)
	}
	w.station = s.Segment.Attach(w.receive)
	var hello func()
	hello = func() {
		w.speak(c.CKN)
		s.Net.After(wpaHello, hello)
	}
	s.Net.After(0, hello)
	return w
}

func (w *wpa) serving() bool {
	p := w.peer
	return p != nil && p.live && (w.priority < p.priority || w.priority == p.priority && w.sci.Less(p.sci))
}

func (w *wpa) receive(frame []byte) {
	e, err := mka.Open(frame, mka.OpenParams{})
	if err != nil || !e.Verify(w.ick) {
		return
	}
	var m mka.MKPDU
	if err := m.Decode(&e); err != nil {
		w.sim.t.Errorf("wpa: %v", err)
		return
	}
	p := w.peer
	if p != nil && p.mi != m.Basic.MI {
		w.strangers++
		return
	}
	if p == nil {
		p = &wpaPeer{mi: m.Basic.MI, sci: m.Basic.SCI, priority: m.Basic.Priority, expires: w.sim.Net.Now().Add(wpaLife)}
		w.peer = p
	} else if m.Basic.MN <= p.mn {
		return
	}
	p.mn, p.use = m.Basic.MN, m.SAKUse
	mn, listed := m.Live.Contains(w.mi)
	if !listed {
		mn, listed = m.Potential.Contains(w.mi)
	}
	if listed && mn+1 >= w.mn && mn <= w.mn { // one of the last two
		p.expires = w.sim.Net.Now().Add(wpaLife)
		if !p.live {
			p.live = true
			if w.serving() {
				w.makeSAK()
			}
		}
	}
	if d := &m.DistributedSAK; d.Present && p.live && !w.serving() {
		w.take(mka.KI{MI: p.mi, KN: d.KN}, d)
	}
	w.advance()
}

func (w *wpa) makeSAK() {
	w.kn++
	w.saks++
	nonce := bytes.Repeat([]byte{byte(w.kn)}, 16)
	sak, err := mka.DeriveSAK(w.cak, nonce, []mka.MI{w.mi, w.peer.mi}, w.kn, 16)
	if err != nil {
		w.sim.t.Fatal(err)
	}
	wrapped, err := mka.WrapSAK(w.kek, sak)
	if err != nil {
		w.sim.t.Fatal(err)
	}
	w.dist = &mka.DistributedSAK{
		Present: true, AN: w.an, ConfidentialityOffset: 1, KN: w.kn, Suite: mka.GCMAES128, Wrapped: wrapped,
	}
	w.install(mka.KI{MI: w.mi, KN: w.kn}, w.an, sak)
	w.an = (w.an + 1) % 4
}

func (w *wpa) take(ki mka.KI, d *mka.DistributedSAK) {
	if w.latest != nil && w.latest.ki == ki || w.old != nil && w.old.ki == ki {
		return
	}
	if d.Suite != mka.GCMAES128 {
		w.sim.t.Errorf("wpa: told a SAK for %v", d.Suite)
		return
	}
	sak, err := mka.UnwrapSAK(w.kek, d.Wrapped)
	if err != nil {
		w.sim.t.Errorf("wpa: %v", err)
		return
	}
	w.saks++
	w.install(ki, d.AN, sak)
}

// install adds the SAs; the one that served becomes the old one.
func (w *wpa) install(ki mka.KI, an mka.AN, sak mka.Key) {
	w.forget(w.old)
	w.old = w.latest
	w.latest = &wpaKey{ki: ki, an: an, rx: true}
	// Without an SCI: it has no SSCI to compare.
	w.sim.SameSAK("wpa", mka.Op{
		Kind: mka.OpAddReceiveSA, KI: ki, SAK: sak, Suite: mka.GCMAES128, Salt: mka.Salt(ki.MI, ki.KN),
	})
	if w.secy.rx[w.peer.sci] == nil {
		w.secy.rx[w.peer.sci] = map[mka.AN]mka.KI{}
	}
	if was, taken := w.secy.rx[w.peer.sci][an]; taken {
		w.sim.t.Errorf("wpa: AN %d is taken by %v", an, was)
	}
	w.secy.rx[w.peer.sci][an] = ki
}

func (w *wpa) forget(k *wpaKey) {
	if k == nil {
		return
	}
	for _, sas := range w.secy.rx {
		delete(sas, k.an)
	}
	delete(w.secy.tx, k.an)
	delete(w.secy.active, k.an)
}

func (w *wpa) advance() {
	k, p := w.latest, w.peer
	if k == nil || p == nil || k.tx {
		return
	}
	u := &p.use
	theirs := u.Present && u.Latest == k.ki
	if w.serving() && theirs && u.LatestRx || !w.serving() && theirs && u.LatestTx {
		k.tx = true
		w.secy.tx[k.an], w.secy.active[k.an], w.secy.encoding = k.ki, true, k.an
		w.retire = w.sim.Net.Now().Add(3 * time.Second)
	}
}

func (w *wpa) speak(ckn mka.CKN) {
	now := w.sim.Net.Now()
	if p := w.peer; p != nil && !now.Before(p.expires) {
		w.lost++
		w.peer, w.dist = nil, nil
		w.forget(w.latest)
		w.forget(w.old)
		w.latest, w.old = nil, nil
	}
	if w.latest != nil && w.latest.tx && w.old != nil && !now.Before(w.retire) {
		w.forget(w.old)
		w.old = nil
	}
	w.mn++
	m := mka.MKPDU{Source: w.mac, EAPOLVersion: 3}
	m.Basic = mka.Basic{
		Version: 1, Priority: w.priority, KeyServer: w.peer == nil || !w.peer.live || w.serving(),
		MACsecDesired: true, Capability: mka.CapabilityConfidentiality, SCI: w.sci, MI: w.mi, MN: w.mn, CKN: ckn,
	}
	if p := w.peer; p != nil {
		l := mka.PeerList{Present: true, Entries: []mka.PeerEntry{{MI: p.mi, MN: p.mn}}}
		if p.live {
			m.Live = l
		} else {
			m.Potential = l
		}
	}
	if k := w.latest; k != nil {
		m.SAKUse = mka.SAKUse{Present: true, Latest: k.ki, LatestAN: k.an, LatestRx: k.rx, LatestTx: k.tx, LatestLPN: 1}
		if o := w.old; o != nil {
			m.SAKUse.Old, m.SAKUse.OldAN, m.SAKUse.OldRx, m.SAKUse.OldTx, m.SAKUse.OldLPN = o.ki, o.an, o.rx, o.tx && !k.tx, 1
		}
	}
	// Told until the client says that it transmits with it.
	if w.dist != nil && w.serving() && !(w.peer.use.Latest == w.latest.ki && w.peer.use.LatestTx) {
		m.DistributedSAK = *w.dist
	}
	frame, err := m.Append(nil, w.ick)
	if err != nil {
		w.sim.t.Fatal(err)
	}
	w.station.Send(slices.Clone(frame))
}

// reaches says whether frames go both ways between m and w.
func (w *wpa) reaches(m *sim.Member) bool {
	ours, ok := m.SAs.Encoding()
	theirs, ok2 := w.secy.tx[w.secy.encoding]
	return ok && ok2 && w.secy.rx[m.Config.SCI][m.SAs.EncodingAN] == ours && m.SAs.Receive(w.sci, w.secy.encoding) == theirs
}

// withWPA is a member of ours beside a wpa_supplicant, secured, and a count of
// the moments at which frames did not pass from then on.
func withWPA(t *testing.T, ours, theirs uint8) (s *scene, m *sim.Member, w *wpa, gaps *int) {
	t.Helper()
	s = newSim(t, 1)
	m = s.Add("a", 1, func(c *mka.Config) {
		c.External, c.Suite, c.Priority = true, mka.GCMAES128, ours
	})
	m.Start(epoch1)
	s.Net.Run(700 * time.Millisecond)
	w = s.addWPA(2, theirs, epoch1)
	d, ok := s.Net.RunUntil(20*time.Second, func() bool { return m.Status().Secured && w.reaches(m) })
	if !ok {
		t.Fatalf("not secured: %+v", m.Status())
	}
	if d > 8*time.Second {
		t.Errorf("secured after %v: of a peer that speaks every 2 s four hellos are enough", d)
	}
	gaps = new(int)
	s.Stepped = func(*sim.Member, *mka.Output) {
		if !w.reaches(m) {
			*gaps++
		}
	}
	s.Net.Run(10 * time.Second)
	return s, m, w, gaps
}

func TestBesideWPASupplicant(t *testing.T) {
	for _, tt := range []struct {
		name         string
		ours, theirs uint8
		server       bool
	}{
		{"we are key server", 16, 255, true},
		{"it is key server", 17, 16, false},
		{"equal priorities", 16, 16, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, m, w, gaps := withWPA(t, tt.ours, tt.theirs)
			if st := m.Status(); st.IsKeyServer != tt.server || st.Suite != mka.GCMAES128 {
				t.Errorf("key server %v, suite %v", st.IsKeyServer, st.Suite)
			}
			s.Net.Run(10 * time.Minute)
			if w.saks != 1 || w.lost != 0 || !m.Status().Secured {
				t.Errorf("after ten quiet minutes: %d SAKs, %d times lost, %+v", w.saks, w.lost, m.Status())
			}

			for i := range 5 {
				if tt.server {
					m.Step(mka.Event{Kind: mka.EventRekey})
				} else {
					w.makeSAK() // on packet number exhaustion
				}
				s.Net.Run(15 * time.Second)
				if w.saks != i+2 || !m.Status().Secured || m.Status().KI != w.latest.ki {
					t.Fatalf("rekey %d: %d SAKs, %+v", i, w.saks, m.Status())
				}
			}

			// Restarts with the record are not noticed, however soon.
			for _, down := range []time.Duration{0, 100 * time.Millisecond, time.Second, 2500 * time.Millisecond} {
				before := m.Status().KI
				m.Kill()
				s.Net.Run(down)
				m.Start(epoch1)
				s.Net.Run(20 * time.Second)
				if w.lost != 0 || w.strangers != 0 || m.Status().KI != before || !m.Status().Secured {
					t.Errorf("restart after %v: lost %d times, %d strange frames, %+v", down, w.lost, w.strangers, m.Status())
				}
			}
			if *gaps != 0 {
				t.Errorf("%d moments without a way for a frame", *gaps)
			}
			if (m.Port.CanRekey() == nil) != tt.server {
				t.Errorf("CanRekey says %v", m.Port.CanRekey())
			}
		})
	}
}

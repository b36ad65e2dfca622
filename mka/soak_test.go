package mka_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/lever-link/lever/internal/simlink"
	"github.com/lever-link/lever/mka"
)

var (
	soakFirst   = flag.Uint64("soak.first", 1, "the first seed of TestSoak")
	soakSeeds   = flag.Uint64("soak.seeds", 40, "how many seeds TestSoak runs")
	soakMembers = flag.Int("soak.members", 0, "how many members TestSoak has; 0 leaves it to the seed")
)

// calmBound is how soon after the last fault everybody is secured on one SAK of
// the best CAK that all have: a life time for what is dead to be forgotten,
// another one for which a potential peer may hold up a SAK, retries at hello
// pace, and the old SAK's retirement.
const calmBound = 30 * time.Second

// TestSoak lets everything that can go wrong go wrong, in an order that the
// seed decides, for two to five members; then all faults end. What must hold at
// all times is checked after every event.
func TestSoak(t *testing.T) {
	for seed := *soakFirst; seed < *soakFirst+*soakSeeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { newSoak(t, seed).run() })
	}
}

// soak is a sim whose members keep a ring of CAKs as internal/keys does, and
// that knows which gap in the data path which fault excuses:
//
//   - A revocation of a CAK that an end has SAs of closes its SecY, and in a group
//     has others follow it to another CAK.
//   - A refused SecY operation closes the pairs of that member.
//   - In a group, a member that somebody's MKA life time lost is left behind:
//     the others agree a SAK without it. Of two members there are no others, so
//     that silence alone excuses nothing.
//   - In a group, of several members that are dead or cut off at once each may miss
//     that another came back and made a SAK without it.
//   - In a group, a key server that never had the CAK in use cannot know which ANs
//     that occupies: members speak of a SAK under its own CAK alone.
//   - Of two members, one that is cut off or dead for longer than the key server
//     waits in the middle of a rekey (patience, a minute): none here is.
//
// A pair is open again, and must stay so, as soon as both ends say secured and
// mean the same SAK.
type soak struct {
	*sim
	seed     uint64
	open     map[[2]*member]bool
	troubled map[*member]int
	rings    map[*member]*ring
	caks     uint64 // made so far
	ckns     map[mka.KI]mka.CKN
	frames   []sentFrame
	attacker *simlink.Station
	diary    []string
}

type sentFrame struct {
	at    time.Time
	frame []byte
}

// ring is what one end offers to MKA.
type ring struct {
	caks    []cak
	revoked []cak
	mark    uint64 // the rank of the best CAK that was in use
	fail    float64
}

func newSoak(t *testing.T, seed uint64) *soak {
	k := &soak{
		sim: newSim(t, seed), seed: seed,
		open: map[[2]*member]bool{}, rings: map[*member]*ring{}, troubled: map[*member]int{}, ckns: map[mka.KI]mka.CKN{},
	}
	k.watch = k.watchPairs
	k.segment.Tap = func(at time.Time, from *simlink.Station, frame []byte) {
		if from != k.attacker {
			k.frames = append(k.frames, sentFrame{at, slices.Clone(frame)})
		}
	}
	k.attacker = k.segment.Attach(func([]byte) {})
	t.Cleanup(k.explain)
	return k
}

func (k *soak) note(format string, args ...any) {
	k.diary = append(k.diary, fmt.Sprintf("%12v  ", k.net.Now().Sub(simlink.Epoch))+fmt.Sprintf(format, args...))
}

// explain tells how to replay a run that failed, and what happened in it.
func (k *soak) explain() {
	if !k.t.Failed() {
		return
	}
	k.t.Logf("replay with: go test ./mka -run TestSoak -soak.first=%d -soak.seeds=1 -soak.members=%d -artifacts -outputdir=.", k.seed, *soakMembers)
	name := filepath.Join(k.t.ArtifactDir(), fmt.Sprintf("soak-%d.pcap", k.seed))
	if err := k.capture(name); err != nil {
		k.t.Logf("no capture: %v", err)
	} else {
		k.t.Logf("capture, with -artifacts: %s", name)
	}
	k.t.Logf("what happened:\n%s", strings.Join(k.diary, "\n"))
}

func (k *soak) capture(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	w := pcapgo.NewWriter(f)
	if err := w.WriteFileHeader(65536, layers.LinkTypeEthernet); err != nil {
		return err
	}
	for _, x := range k.frames {
		ci := gopacket.CaptureInfo{Timestamp: x.at, CaptureLength: len(x.frame), Length: len(x.frame)}
		if err := w.WritePacket(ci, x.frame); err != nil {
			return err
		}
	}
	return nil
}

// join adds a member that is driven as internal/agent drives its Port.
func (k *soak) join(n byte) {
	m := k.add(string(rune('a'+n-1)), n, func(c *mka.Config) {
		c.Rand = chacha(k.seed<<8 + uint64(n))
		c.Priority = mka.DefaultPriority + uint8(k.net.Rand().IntN(2))
		if k.net.Rand().IntN(4) == 0 {
			c.SAKRekey = 30 * time.Second
		}
	})
	r := &ring{}
	k.rings[m] = r
	m.notice = func(x mka.Notice) {
		if x.Kind != mka.NoticePeerLive {
			k.note("%s: %v %q %v %v", m.name, x.Kind, string(x.CKN), x.SCI, x.KI)
		}
		switch x.Kind {
		case mka.NoticeSAK:
			k.ckns[x.KI] = x.CKN
			if len(k.members) > 2 && !k.has(k.bySCI(x.SCI), k.ckns[m.secy.tx[m.secy.encoding]]) {
				k.excuse(m)
			}
		case mka.NoticePeerLost:
			if len(k.members) > 2 {
				k.excuse(k.bySCI(x.SCI))
			}
		case mka.NoticeInUse:
			life := m.life
			k.net.After(0, func() { // never from within a Step
				if m.life == life {
					k.confirm(m, x.CKN)
				}
			})
		case mka.NoticePeerLive, mka.NoticeKeyServer, mka.NoticeSecured, mka.NoticeRetired, mka.NoticeClosed:
		}
	}
	m.opFail = func(op mka.Op) error {
		switch op.Kind {
		case mka.OpAddReceiveSC, mka.OpAddReceiveSA, mka.OpAddTransmitSA, mka.OpEnableTransmitSA:
			if r.fail > 0 && k.net.Rand().Float64() < r.fail {
				k.note("%s: %v of %v fails", m.name, op.Kind, op.KI)
				k.excuse(m)
				return fmt.Errorf("%v: no memory", op.Kind)
			}
			if op.Kind != mka.OpEnableTransmitSA && op.Kind != mka.OpAddReceiveSC && op.SAK.IsZero() {
				return fmt.Errorf("%v: the SAK was erased", op.Kind)
			}
		case mka.OpDeleteReceiveSC, mka.OpDeleteReceiveSA, mka.OpDeleteTransmitSA:
		}
		return nil
	}
	k.sampleSoon(m)
}

// sampleSoon reports packet numbers every hello, as the agent's sampling does.
func (k *soak) sampleSoon(m *member) {
	k.net.After(mka.DefaultHello, func() {
		for an := range mka.AN(4) {
			ki, ok := m.secy.tx[an]
			if ok && m.secy.active[an] && m.secy.encoding == an {
				m.nextPN[ki] += 1000
			}
			if ok && m.port != nil {
				m.step(mka.Event{Kind: mka.EventPN, KI: ki, NextPN: max(m.nextPN[ki], 1)})
			}
		}
		k.sampleSoon(m)
	})
}

func (k *soak) bySCI(sci mka.SCI) *member {
	i := slices.IndexFunc(k.members, func(m *member) bool { return m.cfg.SCI == sci })
	return k.members[i]
}

// has says whether m's ring has the CAK.
func (k *soak) has(m *member, ckn mka.CKN) bool {
	return slices.ContainsFunc(k.rings[m].caks, func(c cak) bool { return c.ckn == ckn })
}

func (k *soak) excuse(m *member) {
	for _, o := range k.members {
		delete(k.open, [2]*member{m, o})
		delete(k.open, [2]*member{o, m})
	}
}

func (k *soak) watchPairs() {
	for _, from := range k.members {
		for _, to := range k.members {
			if from == to {
				continue
			}
			pair := [2]*member{from, to}
			carries := k.carries(from, to)
			if k.open[pair] && !carries {
				k.t.Errorf("%v: %s does not reach %s any more", k.net.Now().Sub(simlink.Epoch), from.name, to.name)
				k.note("GAP from %s to %s\n  %s\n  %s", from.name, to.name, k.describe(from), k.describe(to))
				delete(k.open, pair)
			}
			if !k.open[pair] && carries && k.carries(to, from) && from.port != nil && to.port != nil {
				a, b := from.port.Status(), to.port.Status()
				k.open[pair] = a.Secured && b.Secured && a.KI == b.KI && hears(&a, to) && hears(&b, from) && k.served(&a, from, to) &&
					(len(k.members) == 2 || !a.Rekeying && !b.Rekeying) && !k.abandoned(from) && !k.abandoned(to)
			}
		}
	}
}

// trouble counts a fault that keeps m from hearing or being heard, and returns
// what ends it.
func (k *soak) trouble(m *member) (over func()) {
	k.troubled[m]++
	for _, o := range k.members {
		if k.abandoned(o) {
			k.excuse(o)
		}
	}
	return func() { k.troubled[m]-- }
}

// abandoned says whether the others may agree without m: it has revoked a CAK that
// they still have, or is one of several of a group that are in trouble.
func (k *soak) abandoned(m *member) bool {
	n := 0
	for _, x := range k.troubled {
		if x > 0 {
			n++
		}
	}
	for o, r := range k.rings {
		if o != m && slices.ContainsFunc(r.caks, func(c cak) bool { return slices.Contains(k.rings[m].revoked, c) }) {
			return true // they may agree on what m must not use
		}
	}
	return len(k.members) > 2 && n > 1 && k.troubled[m] > 0
}

// served says whether the key server of s knows both.
func (k *soak) served(s *mka.Status, a, b *member) bool {
	if s.KeyServer == (mka.SCI{}) {
		return false
	}
	server := k.bySCI(s.KeyServer)
	st := server.status()
	return st.KI == s.KI && (server == a || hears(&st, a)) && (server == b || hears(&st, b))
}

// describe is m's SecY in one line.
func (k *soak) describe(m *member) string {
	var b strings.Builder
	ki := func(ki mka.KI) string { return fmt.Sprintf("%x../%d", ki.MI[:2], ki.KN) }
	fmt.Fprintf(&b, "%s encodes with AN %d, transmit SAs", m.name, m.secy.encoding)
	for an, x := range m.secy.tx {
		fmt.Fprintf(&b, " %d:%s", an, ki(x))
	}
	for sci, sc := range m.secy.rx {
		fmt.Fprintf(&b, ", from %s", k.bySCI(sci).name)
		for an, x := range sc {
			fmt.Fprintf(&b, " %d:%s", an, ki(x))
		}
	}
	return b.String()
}

// hears says whether the status has o as a live peer under the CAK in use.
func hears(s *mka.Status, o *member) bool {
	for _, pa := range s.Participants {
		for _, pe := range pa.Peers {
			if pa.CKN == s.CKN && pe.Live && pe.SCI == o.cfg.SCI {
				return true
			}
		}
	}
	return false
}

// bounded checks that nothing grows.
func (k *soak) bounded(m *member) {
	if r := m.record; r != nil {
		if len(r.Spent) > 64 || len(r.Participants) > 8 {
			k.t.Errorf("%s: a record of %d key servers and %d participants", m.name, len(r.Spent), len(r.Participants))
		}
		for _, p := range r.Participants {
			if len(p.Peers) > 64 {
				k.t.Errorf("%s: %d peers", m.name, len(p.Peers))
			}
		}
	}
	if n := len(m.status().Conditions); n > 16 {
		k.t.Errorf("%s: %d conditions", m.name, n)
	}
}

// offer is what happens when an end's channels deliver a CAK: it and the next
// best are offered to MKA, and the confirmed one.
func (k *soak) offer(m *member, c cak) {
	r := k.rings[m]
	if c.rank < r.mark || slices.Contains(r.caks, c) {
		return
	}
	k.note("%s: has %q", m.name, string(c.ckn))
	r.caks = append(r.caks, c)
	slices.SortFunc(r.caks, func(a, b cak) int { return int(b.rank) - int(a.rank) })
	keep := 2
	if r.mark == 0 {
		keep = 3
	}
	for i := len(r.caks) - 1; i >= keep; i-- {
		if r.caks[i].rank != r.mark {
			k.withdraw(m, r.caks[i], mka.EventRemoveCAK)
		}
	}
	if m.port != nil {
		m.addCAK(c)
	}
}

func (k *soak) withdraw(m *member, c cak, kind mka.EventKind) {
	r := k.rings[m]
	r.caks = slices.DeleteFunc(r.caks, func(o cak) bool { return o == c })
	if kind == mka.EventRevokeCAK {
		k.note("%s: revokes %q", m.name, string(c.ckn))
	} else {
		k.note("%s: removes %q", m.name, string(c.ckn))
	}
	if kind == mka.EventRevokeCAK || c.rank > r.mark { // not because a better one is in use
		r.revoked = append(r.revoked, c)
		if k.abandoned(m) {
			k.excuse(m)
		}
		if k.holds(m, c.ckn) {
			clear(k.open)
		}
	}
	if m.port != nil {
		m.step(mka.Event{Kind: kind, CKN: c.ckn})
	}
}

func (k *soak) holds(m *member, ckn mka.CKN) bool {
	for _, ki := range m.secy.tx {
		if k.ckns[ki] == ckn {
			return true
		}
	}
	for _, sc := range m.secy.rx {
		for _, ki := range sc {
			if k.ckns[ki] == ckn {
				return true
			}
		}
	}
	return false
}

func (k *soak) confirm(m *member, ckn mka.CKN) {
	r := k.rings[m]
	i := slices.IndexFunc(r.caks, func(c cak) bool { return c.ckn == ckn })
	if i < 0 || r.caks[i].rank <= r.mark {
		return
	}
	r.mark = r.caks[i].rank
	for _, c := range slices.Clone(r.caks) {
		if c.rank < r.mark {
			k.withdraw(m, c, mka.EventRemoveCAK)
		}
	}
}

// issue delivers a new CAK to every end, each in its own time.
func (k *soak) issue(spread time.Duration) cak {
	k.caks++
	c := cak{ckn: mka.CKN(fmt.Sprint("epoch-", k.caks)), key: byte(k.caks), rank: k.caks}
	for _, m := range k.members {
		if spread == 0 {
			k.offer(m, c)
		} else {
			k.after(spread, func() { k.offer(m, c) })
		}
	}
	return c
}

func (k *soak) after(spread time.Duration, do func()) {
	k.net.After(k.upTo(spread), do)
}

func (k *soak) upTo(d time.Duration) time.Duration {
	return time.Duration(k.net.Rand().Int64N(int64(d)))
}

func (k *soak) someone() *member { return k.members[k.net.Rand().IntN(len(k.members))] }

// crash kills m and starts it again later, from one record or another.
func (k *soak) crash(m *member) {
	if m.port == nil {
		return
	}
	spread := 3 * time.Second
	if k.net.Rand().IntN(4) == 0 {
		spread = 20 * time.Second
	}
	k.note("%s: killed", m.name)
	m.kill()
	over := k.trouble(m)
	k.after(spread, func() { k.restart(m); k.net.After(mka.DefaultLife, over) })
}

func (k *soak) restart(m *member) {
	if m.port != nil {
		return
	}
	record, which := m.record, "its record"
	switch k.net.Rand().IntN(4) {
	case 0:
		record, which = nil, "no record"
	case 1:
		if m.earlier != nil {
			record, which = m.earlier, "the record before the last"
		}
	}
	m.earlier = nil // a record is lost at most once in a life
	k.note("%s: starts with %s", m.name, which)
	m.startFrom(record, k.rings[m].caks...)
}

// misfortune is one thing that goes wrong, or at least happens.
func (k *soak) misfortune() {
	r := k.net.Rand()
	m := k.someone()
	switch r.IntN(14) {
	case 0, 1:
		f := simlink.Faults{
			Loss: r.Float64() * 0.2, Duplicate: r.Float64() * 0.2, Corrupt: r.Float64() * 0.1,
			Reorder: r.Float64() * 0.5, ReorderBy: 1 + k.upTo(300*time.Millisecond),
		}
		if len(k.members) > 2 {
			f.Loss *= 2
		}
		k.segment.Faults = f
		k.note("%+v", f)
	case 2:
		k.segment.Faults = simlink.Faults{}
		k.note("no faults")
	case 3: // one way
		o := k.someone()
		k.note("%s does not hear %s", m.name, o.name)
		m.station.Cut(o.station)
		over := k.trouble(m)
		k.after(15*time.Second, func() {
			k.note("%s hears all", m.name)
			m.station.Heal()
			k.net.After(mka.DefaultLife, over)
		})
	case 4: // both ways
		k.note("%s is cut off", m.name)
		over := k.trouble(m)
		for _, o := range k.members {
			m.station.Cut(o.station)
			o.station.Cut(m.station)
		}
		k.after(20*time.Second, func() {
			k.net.After(mka.DefaultLife, over)
			k.note("everybody hears all")
			for _, o := range k.members {
				o.station.Heal()
			}
		})
	case 5, 6:
		k.crash(m)
	case 7:
		for _, o := range k.members {
			if len(k.rings[o].caks) > 2 {
				return
			}
		}
		k.issue(12 * time.Second)
	case 8:
		if ring := k.rings[m]; len(ring.caks) > 1 || r.IntN(4) == 0 && len(ring.caks) > 0 {
			k.withdraw(m, ring.caks[r.IntN(len(ring.caks))], mka.EventRevokeCAK)
		}
	case 9, 10:
		if m.port != nil {
			k.note("%s: rekey", m.name)
			m.step(mka.Event{Kind: mka.EventRekey})
		}
	case 11:
		if ki, ok := m.secy.tx[m.secy.encoding]; ok {
			k.note("%s: the packet numbers of %v run out", m.name, ki)
			m.nextPN[ki] = max(m.nextPN[ki], 0xC000000000000000)
		}
	case 12:
		m.opDelay = k.upTo(300 * time.Millisecond)
		k.note("%s: the SecY takes %v", m.name, m.opDelay)
		if r.IntN(3) == 0 {
			k.rings[m].fail = 0.3
			k.note("%s: the SecY fails", m.name)
			k.after(5*time.Second, func() { k.rings[m].fail = 0; k.note("%s: the SecY works", m.name) })
		}
	case 13:
		k.note("%d old frames again", len(k.frames))
		every := 1 + len(k.frames)/500
		for i := r.IntN(every); i < len(k.frames); i += every {
			k.attacker.Send(k.frames[i].frame)
		}
		if m.port != nil {
			m.step(mka.Event{Kind: mka.EventLinkUp})
		}
	}
}

func (k *soak) run() {
	r := k.net.Rand()
	members := 2
	if r.IntN(2) == 0 {
		members = 3 + r.IntN(3)
	}
	if *soakMembers != 0 {
		members = *soakMembers
	}
	for n := range members {
		k.join(byte(n + 1))
	}
	k.issue(0)
	for _, m := range k.members {
		over := k.trouble(m)
		k.after(4*time.Second, func() { k.restart(m); k.net.After(mka.DefaultLife, over) })
	}
	for range 40 + r.IntN(40) {
		k.net.Run(k.upTo(4 * time.Second))
		k.misfortune()
		for _, m := range k.members {
			k.bounded(m)
		}
		if k.t.Failed() {
			return
		}
	}
	k.calm()
}

// calm ends every fault and then wants everything as it should be.
func (k *soak) calm() {
	k.net.Run(21 * time.Second) // what is under way ends: cuts, deliveries
	k.note("calm")
	k.segment.Faults = simlink.Faults{}
	for _, m := range k.members {
		k.rings[m].fail, m.opDelay = 0, 0
		m.station.Heal()
		k.restart(m)
	}
	best := k.bestCommon()
	if best.rank == 0 {
		best = k.issue(0)
	}
	began := k.net.Now()
	if _, ok := k.net.RunUntil(calmBound, func() bool { return k.secured() && k.members[0].status().CKN == best.ckn }); !ok {
		for _, m := range k.members {
			k.t.Logf("%s: %+v %+v", m.name, m.status(), m.secy)
		}
		k.t.Fatalf("not secured on %q %v after the last fault", string(best.ckn), k.net.Now().Sub(began))
	}
	k.net.Run(2 * time.Minute)
	k.settled("two minutes of calm")
	saks := k.members[0].status().KI
	k.someone().step(mka.Event{Kind: mka.EventRekey})
	k.net.Run(20 * time.Second)
	k.settled("a rekey")
	if k.members[0].status().KI == saks {
		k.t.Error("no rekey on request")
	}
}

func (k *soak) bestCommon() (best cak) {
	for _, c := range k.rings[k.members[0]].caks {
		all := true
		for _, m := range k.members {
			all = all && slices.Contains(k.rings[m].caks, c)
		}
		if all && c.rank > best.rank {
			best = c
		}
	}
	return best
}

// settled wants all secured, with one SA each way for each peer and no rest of
// anything in the SecYs.
func (k *soak) settled(when string) {
	if !k.secured() {
		for _, m := range k.members {
			k.t.Logf("%s: %+v", m.name, m.status())
		}
		k.t.Errorf("not secured after %s", when)
	}
	for _, m := range k.members {
		if m.status().Rekeying {
			continue // one on the timer is under way
		}
		if len(m.secy.tx) != 1 || len(m.secy.rx) != len(k.members)-1 {
			k.t.Errorf("%s: after %s %d transmit SAs and %d receive SCs", m.name, when, len(m.secy.tx), len(m.secy.rx))
		}
		for sci, sas := range m.secy.rx {
			if len(sas) != 1 {
				k.t.Errorf("%s: after %s %d receive SAs of %v", m.name, when, len(sas), sci)
			}
		}
	}
}

package mka

import (
	"bytes"
	"slices"
	"time"
)

// peer is another member of the CA, as its MKPDUs show it.
type peer struct {
	mi  MI
	mn  uint32 // the last accepted; smaller or equal ones are replays
	sci SCI

	address MAC // the source of its last frame
	// live: it once listed our MI with a recent MN (802.1X-2020 9.4.3).
	// proven: it did so to this process; a resumed peer is live before it is.
	live, proven bool
	firstSeen    time.Time
	heard        time.Time
	expires      time.Time

	priority  uint8
	version   uint8
	keyServer bool // it believes itself to be key server
	desired   bool

	// unmet are those whom it lists as live and who are not live here.
	unmet []MI

	heardMN        uint32    // the last of our MNs that it listed
	suspendedUntil time.Time // it announced to be silent until then
	suites         []CipherSuite

	use     SAKUse
	lpnHigh struct{ latest, old uint32 } // of the LPNs in use, from the XPN set
	// lackingSince is since when its MKPDUs do not say that it transmits
	// with the SAK in use; zero when they do.
	lackingSince time.Time
	// droppedSince is since when they do not mention that SAK at all.
	droppedSince time.Time
}

func (pa *participant) peer(mi MI) *peer {
	for _, pe := range pa.peers {
		if pe.mi == mi {
			return pe
		}
	}
	return nil
}

func (pa *participant) livePeers() int {
	n := 0
	for _, pe := range pa.peers {
		if pe.live {
			n++
		}
	}
	return n
}

// compareSCI orders by SCI, the numerically greatest first: the order of
// SSCIs (IEEE 802.1AEbw), and so of the Live Peer List.
func compareSCI(a, b *peer) int { return bytes.Compare(b.sci[:], a.sci[:]) }

// addPeer makes room for one that proves to hear us at once: replays of former members
// do not, and must not keep it out.
func (p *Port) addPeer(pa *participant, mi MI, sci SCI, proves bool) *peer {
	if i := slices.IndexFunc(pa.peers, func(o *peer) bool { return !o.live }); proves && i >= 0 && len(pa.peers) >= maxPeers {
		pa.peers = slices.Delete(pa.peers, i, i+1)
	}
	if len(pa.peers) >= maxPeers {
		p.counters.TooMany++
		return nil
	}
	pe := &peer{mi: mi, sci: sci, firstSeen: p.now, expires: p.now.Add(p.cfg.Life), heardMN: pa.heardBefore(mi)}
	pa.peers = append(pa.peers, pe)
	slices.SortStableFunc(pa.peers, compareSCI)
	if pa.potentialUntil.IsZero() {
		pa.potentialUntil = p.now.Add(p.cfg.Life)
	}
	return pe
}

// becomeLive takes pe into the live peers. A member that restarted comes with
// a new MI under its SCI: the old one goes now that the new one has proved
// itself, and not before, so that a replayed MKPDU displaces nobody.
func (p *Port) becomeLive(pa *participant, pe *peer) {
	pe.live, pe.proven = true, true
	pa.peers = slices.DeleteFunc(pa.peers, func(o *peer) bool {
		if o == pe || o.sci != pe.sci {
			return false
		}
		// Frames of its former life that are late, or replayed, would prove it
		// alive again for as long as the message numbers in them are recent.
		if len(pa.displaced) == maxPeers {
			pa.displaced = slices.Delete(pa.displaced, 0, 1)
		}
		pa.displaced = append(pa.displaced, displacedMI{o.mi, p.now.Add(3 * p.cfg.Life)})
		return true
	})
	pa.sendNow = true
	p.persistDirty = true
	p.extendPatience(pa)
	p.notice(Notice{Kind: NoticePeerLive, CKN: pa.ckn, SCI: pe.sci})
}

// outlived says whether somebody else is live under pe's SCI who has heard at
// least as much of us as pe, which lists our MN mn. A member that restarted will
// soon list a later one; a replay of its former life never does, and must not
// displace it.
func (pa *participant) outlived(pe *peer, mn uint32) bool {
	return slices.ContainsFunc(pa.peers, func(o *peer) bool {
		return o != pe && o.live && o.proven && o.sci == pe.sci && o.heardMN >= mn
	})
}

// displacedMI is a former MI of a live peer, not believed for a while.
type displacedMI struct {
	mi    MI
	until time.Time
}

func (pa *participant) wasDisplaced(mi MI, now time.Time) bool {
	return slices.ContainsFunc(pa.displaced, func(d displacedMI) bool { return d.mi == mi && now.Before(d.until) })
}

// goneMI is a peer that was live, and the last of our message numbers that it listed:
// its frames, replayed, list none that is greater.
type goneMI struct {
	mi      MI
	heardMN uint32
}

// heardBefore is what a peer had heard of us when it was lost.
func (pa *participant) heardBefore(mi MI) uint32 {
	for _, g := range pa.gone {
		if g.mi == mi {
			return g.heardMN
		}
	}
	return 0
}

func (p *Port) expirePeers(pa *participant) {
	lost := false
	pa.peers = slices.DeleteFunc(pa.peers, func(pe *peer) bool {
		if p.now.Before(pe.expires) {
			return false
		}
		if pe.live {
			p.notice(Notice{Kind: NoticePeerLost, CKN: pa.ckn, SCI: pe.sci})
			lost = true
			p.cp.lose(pe.mi)
			if len(pa.gone) == maxPeers {
				pa.gone = slices.Delete(pa.gone, 0, 1)
			}
			pa.gone = append(slices.DeleteFunc(pa.gone, func(g goneMI) bool { return g.mi == pe.mi }), goneMI{pe.mi, pe.heardMN})
		}
		return true
	})
	if lost {
		pa.lostAt = p.now
		pa.ramp, pa.sendNow = firstRamp, true
		p.persistDirty = true
	}
	switch {
	case !pa.hasPotential():
		pa.potentialUntil = time.Time{}
	case pa.potentialUntil.IsZero():
		pa.potentialUntil = p.now.Add(p.cfg.Life)
	}
}

// hasPotential says whether somebody may be about to become live. A potential
// peer under the SCI of a live one does not count: it is that one restarted,
// or a replay. Whom a live peer hears we are likely to hear, too.
func (pa *participant) hasPotential() bool {
	for _, pe := range pa.peers {
		if pe.live && slices.ContainsFunc(pe.unmet, func(mi MI) bool { return !pa.lives(mi) }) {
			return true
		}
		if pe.live {
			continue
		}
		if !slices.ContainsFunc(pa.peers, func(o *peer) bool { return o.live && o.sci == pe.sci }) {
			return true
		}
	}
	return false
}

// noteUnmet remembers whom the Live Peer List of m has that is not live here, and
// is not a former MI of somebody who is.
func (p *Port) noteUnmet(pa *participant, pe *peer, m *MKPDU) {
	pe.unmet = pe.unmet[:0]
	for i := range m.Live.Entries {
		mi := m.Live.Entries[i].MI
		if len(pe.unmet) < maxPeers && mi != pa.mi && mi != pa.formerMI && !pa.lives(mi) && !pa.wasDisplaced(mi, p.now) {
			pe.unmet = append(pe.unmet, mi)
		}
	}
}

func (pa *participant) lives(mi MI) bool {
	pe := pa.peer(mi)
	return pe != nil && pe.live
}

// spentKIs remembers the SAKs that were accepted here, also when their key
// server was forgotten in between: none is installed a second time, for its
// packet numbers would start again. Some equipment numbers keys from 1 under an
// old MI after a restart.
type spentKIs []KI

// maxSpent bounds the memory: it is the number of key servers, not of SAKs.
const maxSpent = 64

// has says whether ki, or a later key of the same server, was accepted.
func (s spentKIs) has(ki KI) bool {
	i := slices.IndexFunc(s, func(o KI) bool { return o.MI == ki.MI })
	return i >= 0 && ki.KN <= s[i].KN
}

func (s *spentKIs) add(ki KI) {
	*s = slices.DeleteFunc(*s, func(o KI) bool { return o.MI == ki.MI })
	if len(*s) == maxSpent {
		*s = slices.Delete(*s, 0, 1)
	}
	*s = append(*s, ki)
}

// giveBack forgets ki, which was accepted and never protected a frame.
func (s spentKIs) giveBack(ki KI) {
	for i := range s {
		if s[i] == ki && ki.KN > 0 {
			s[i].KN--
		}
	}
}

// serverSCI is the elected key server's SCI, ours included; zero when nobody is.
func (pa *participant) serverSCI(p *Port) SCI {
	switch {
	case pa.serving:
		return p.cfg.SCI
	case pa.server != nil:
		return pa.server.sci
	}
	return SCI{}
}

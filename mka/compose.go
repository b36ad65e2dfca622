package mka

// mkaVersion is what we speak: IEEE 802.1Xck-2018 and 802.1X-2020.
const mkaVersion = 3

// compose fills p.tx with pa's next MKPDU (802.1X-2020 11.11).
func (p *Port) compose(pa *participant) {
	m := &p.tx
	m.Reset()
	m.Destination, m.Source, m.EtherType = p.cfg.Destination, p.cfg.Address, p.cfg.EtherType
	m.Basic = Basic{
		Version:       mkaVersion,
		Priority:      p.cfg.Priority,
		KeyServer:     pa.serving || pa.livePeers() == 0 && p.cfg.Priority != NeverKeyServer,
		MACsecDesired: true,
		Capability:    CapabilityConfidentiality, // offset 0 is all that Linux does
		SCI:           p.cfg.SCI,
		MI:            pa.mi,
		MN:            pa.mn,
		CKN:           pa.ckn,
	}
	m.ICVIndicator = p.cfg.ICVIndicator
	pa.listPeers(m)
	p.composeSAKUse(pa, m)
	p.composeExtras(pa, m)
	// The Live Peer List beside a SAK is that for which it was made: SSCIs
	// follow from it.
	if d, l := pa.dist, p.cp.latest; d != nil && pa.serving && l != nil && d.ki == l.ki && pa.madeFor(l) && !p.mustMove(l) {
		m.DistributedSAK = DistributedSAK{
			Present: true, AN: d.an, ConfidentialityOffset: Confidentiality0,
			KN: d.ki.KN, Suite: d.suite, Wrapped: d.wrapped,
		}
		if d.suite.XPN() {
			m.Live.KeyServerSSCI = uint8(d.ssci)
		}
	}
}

// composeSAKUse reports the keys of pa's own CAK: during a CAK rollover each
// participant speaks of what it distributed.
func (p *Port) composeSAKUse(pa *participant, m *MKPDU) {
	var l, o *dataKey
	for k := range p.cp.keys {
		switch {
		case k.owner != pa:
		case l == nil:
			l = k
		case o == nil || k.tx:
			o = k // of several, the one that carries traffic
		}
	}
	if l == nil {
		return
	}
	u := &m.SAKUse
	*u = SAKUse{
		Present: true, Latest: l.ki, LatestAN: l.an, LatestTx: l.tx, LatestRx: l.saidRx,
		LatestLPN: uint32(max(l.lpn, 1)),
	}
	if o != nil {
		u.Old, u.OldAN, u.OldTx, u.OldRx = o.ki, o.an, o.tx, o.saidRx
		u.OldLPN = uint32(max(o.lpn, 1))
		m.XPN.OldLPNHigh = uint32(o.lpn >> 32)
	}
	u.DelayProtect = p.delayProtected()
	m.XPN.LatestLPNHigh = uint32(l.lpn >> 32)
	m.XPN.Present = l.suite.XPN()
}

// composeExtras adds the sets that older equipment does not know, and complains
// of: to those only that send them, or when they are needed.
func (p *Port) composeExtras(pa *participant, m *MKPDU) {
	m.XPN.Suspension = p.suspension(pa)
	m.XPN.Present = m.XPN.Present || m.XPN.Suspension > 0 || pa.peerSendsXPN && m.SAKUse.Present
	if pa.peerAnnounces {
		if p.announced.Value == nil {
			p.announced = NewCipherSuitesTLV(SuiteOffer{Suite: p.cfg.Suite, Capability: CapabilityConfidentiality})
		}
		m.Announcement.Present = true
		m.Announcement.TLVs = append(m.Announcement.TLVs, p.announced)
	}
}

// listPeers fills the two peer lists. Peers are kept in the order of SCIs, so
// the Live Peer List is in the order of SSCIs, as version 3 demands.
func (pa *participant) listPeers(m *MKPDU) {
	for _, pe := range pa.peers {
		list := &m.Potential
		if pe.live {
			list = &m.Live
		}
		list.Present = true
		list.Entries = append(list.Entries, PeerEntry{MI: pe.mi, MN: pe.mn})
	}
}

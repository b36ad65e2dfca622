package mka

import "slices"

// What became of SAs that somebody else changed in the SecY. A SAK is never
// installed twice: its octets are gone, and its packet numbers would start
// again (802.1AE 10.7.13). So what is lost is replaced by a fresh SAK.

// Association is what the SecY should have of one SAK.
type Association struct {
	KI       KI
	AN       AN
	Transmit bool  // its transmit SA is there, enabled once it was to protect frames
	Encoding bool  // ... and is the encoding SA
	Receive  []SCI // its receive SAs, enabled
}

// Associations is what the Port has put into its SecY and not taken out again,
// the latest SAK first, and which receive SCs. It is not known as long as the
// result of an operation is.
func (p *Port) Associations() (all []Association, receiveSCs []SCI, known bool) {
	if p.operating() || len(p.cp.stray) > 0 {
		return nil, nil, false
	}
	encoding := false
	for k := range p.cp.keys {
		a := Association{KI: k.ki, AN: k.an, Transmit: !k.noTransmit}
		a.Encoding = k.tx && !encoding && a.Transmit
		encoding = encoding || k.tx
		for _, m := range k.members {
			if m.keyed && !m.gone {
				a.Receive = append(a.Receive, m.sci)
			}
		}
		all = append(all, a)
	}
	return all, slices.Clone(p.cp.receiveSCs), true
}

// lostSA takes the news that an SA of ki is gone: the transmit SA, or the receive
// SA of sci; or, without one, that the SAs are there and do not work.
func (p *Port) lostSA(ki KI, sci SCI) {
	for k := range p.cp.keys {
		if k.ki != ki {
			continue
		}
		if sci == p.cfg.SCI {
			k.noTransmit = true
		}
		for i := range k.members {
			if m := &k.members[i]; m.sci == sci && sci != (SCI{}) {
				m.gone = true
			}
		}
		if k.lost {
			return
		}
		k.lost = true
		if pa := k.owner; k == p.cp.latest && pa != nil && !pa.serving {
			// MKA gives a client no way to ask for a SAK, but a fresh MI: see
			// requestRekey. Other equipment takes a life time to notice; without,
			// it would be the rest of the SAK's life.
			p.renewMI(pa)
		}
	}
}

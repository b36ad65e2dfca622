package macsec

import "maps"

// Totals are the counters of a SecY since the first dump that an Accumulator
// saw, that dump included.
type Totals struct {
	SecY SecYStats
	Tx   TxTotals
	// Rx has every peer that was ever seen.
	Rx map[SCI]RxTotals
}

// TxTotals are the totals of the transmit channel.
type TxTotals struct {
	TxSCStats
	// SA sums over the associations that came and went.
	SA SATotals
}

// RxTotals are the totals of a peer's channels.
type RxTotals struct {
	RxSCStats
	// SA sums over the associations that came and went.
	SA SATotals
}

// Accumulator makes totals of 64 bits out of consecutive dumps of one SecY. The
// kernel's own do not last: those of an association have 32 bits, wrap, and go
// with the association at every rekey; those of a channel go with the channel;
// all of them go with the device.
//
// What happens between the last dump that shows a counter and its end is lost:
// dump before deleting what matters. A dump at least every 2^32 frames is enough
// otherwise. The zero Accumulator is ready; it is not safe for concurrent use.
type Accumulator struct {
	index  int
	totals Totals
	// The counters as last dumped.
	secy SecYStats
	tx   TxSCStats
	rx   map[SCI]RxSCStats
	sas  map[saID]saSeen
}

// saID tells associations apart over rekeys, which use their numbers again.
type saID struct {
	tx  bool
	sci SCI
	an  AN
	key KeyID
}

type saSeen struct {
	stats SAStats
	next  uint64
}

// Add takes the next dump. A device made anew under another index goes on
// counting where the old one ended.
func (a *Accumulator) Add(s *SecY) {
	if s.Index != a.index {
		*a = Accumulator{index: s.Index, totals: a.totals}
	}
	if a.totals.Rx == nil {
		a.totals.Rx = map[SCI]RxTotals{}
	}
	grow(a.totals.SecY.counters(), a.secy.counters(), s.Stats.counters())
	a.secy = s.Stats
	grow(a.totals.Tx.counters(), a.tx.counters(), s.TxSC.Stats.counters())
	a.tx = s.TxSC.Stats

	// What is not in this dump is gone; if it comes back it starts from zero.
	rx, sas := make(map[SCI]RxSCStats, len(s.RxSCs)), map[saID]saSeen{}
	a.addSAs(sas, &a.totals.Tx.SA, saID{tx: true, sci: s.SCI}, s.TxSC.SAs)
	for i := range s.RxSCs {
		sc := &s.RxSCs[i]
		total, last := a.totals.Rx[sc.SCI], a.rx[sc.SCI]
		grow(total.RxSCStats.counters(), last.counters(), sc.Stats.counters())
		rx[sc.SCI] = sc.Stats
		a.addSAs(sas, &total.SA, saID{sci: sc.SCI}, sc.SAs)
		a.totals.Rx[sc.SCI] = total
	}
	a.rx, a.sas = rx, sas
}

// Totals returns a copy of the totals so far.
func (a *Accumulator) Totals() Totals {
	t := a.totals
	t.Rx = maps.Clone(t.Rx)
	return t
}

func (a *Accumulator) addSAs(seen map[saID]saSeen, total *SATotals, id saID, sas []SA) {
	for i := range sas {
		sa := &sas[i]
		id.an, id.key = sa.AN, sa.KeyID
		last := a.sas[id]
		if last.replacedBy(sa) {
			last = saSeen{}
		}
		to, was, is := total.counters(), last.stats.counters(), sa.Stats.counters()
		for n := range to {
			// Unsigned arithmetic carries over the wrap.
			*to[n] += uint64(*is[n] - *was[n])
		}
		seen[id] = saSeen{sa.Stats, sa.NextPN}
	}
}

// replacedBy tells an association that was deleted and added again under its
// number and key from one whose counters wrapped: its packet number fell too.
// One that used up its packet numbers shows zero, and did not fall.
func (l saSeen) replacedBy(sa *SA) bool {
	if sa.NextPN >= l.next || sa.NextPN == 0 {
		return false
	}
	was, is := l.stats.counters(), sa.Stats.counters()
	for n := range was {
		if *is[n] < *was[n] {
			return true
		}
	}
	return false
}

// grow adds what the counters gained. Counters of 64 bits do not wrap in this
// life: one that is smaller has started again.
func grow(total, last, now []*uint64) {
	for i := range total {
		if *now[i] >= *last[i] {
			*total[i] += *now[i] - *last[i]
		} else {
			*total[i] += *now[i]
		}
	}
}

package secy

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// A Difference is one thing in a device that is not as its Port has it: somebody
// else changed it, or an operation of ours failed.
type Difference struct {
	// Kind says what it is in a few words, of a small set; Detail is the rest.
	Kind, Detail string
	// Repair puts it right; nil if only a fresh SAK does.
	Repair func() error
	// Lost, if it is an EventSALost, is what the Port must be told afterwards.
	Lost mka.Event
	// UsedUp: nobody has done this, the packet numbers of a transmit SA are at their end;
	// Encoding: of the one in use.
	UsedUp, Encoding bool
}

func (d Difference) String() string {
	if d.Detail == "" {
		return d.Kind
	}
	return d.Kind + ": " + d.Detail
}

// PNs are the transmit packet numbers that were last seen, by KI.
type PNs map[mka.KI]uint64

// Arrivals are counts of a peer's frames that were accepted, and of those that were
// not for being late; and the next packet number accepted of a SAK.
type Arrivals struct {
	OK, Late uint64
	KI       mka.KI
	NextPN   uint64
	Since    time.Time // that NextPN is what it is
	// Jumped: since it moved by more than the frames that were accepted with it, and the
	// window, none has been accepted.
	Jumped bool
}

// Late finds receive SAs of ki that somebody set forward, so that all the peer sends
// is late. It was by more than a link carries, and frames are late since; or the next
// packet number accepted is beyond what the peer says that it has come to, and either it
// jumped there, and all has been late since, or it has been there for so long, lag, that
// the peer speaks of a later time: then it is not from a frame. Frames that somebody replays are late, too, and move nothing. What is within the
// window is late for nobody, and delay protection sets it forward by that much.
func Late(found *macsec.SecY, ki mka.KI, said map[mka.SCI]uint64, last map[mka.SCI]Arrivals, at time.Time, lag time.Duration) (ds []Difference) {
	window := uint64(found.ReplayWindow)
	for i := range found.RxSCs {
		sc := &found.RxSCs[i]
		sci := mka.SCI(sc.SCI)
		before, known := last[sci]
		now := Arrivals{OK: sc.Stats.InPktsOK + sc.Stats.InPktsDelayed, Late: sc.Stats.InPktsLate, KI: ki}
		for j := range sc.SAs {
			if mka.KIFromBytes(sc.SAs[j].KeyID) == ki {
				now.NextPN = sc.SAs[j].NextPN
			}
		}
		if now.Since = at; known && before.KI == ki && before.NextPN == now.NextPN {
			now.Since = before.Since
		}
		if known && before.KI == ki && before.NextPN != 0 {
			accepted := now.OK - before.OK
			now.Jumped = before.Jumped && accepted == 0 ||
				now.NextPN > before.NextPN && now.NextPN-before.NextPN > accepted+window
		}
		last[sci] = now
		if !known || before.KI != ki || now.NextPN == 0 || before.NextPN == 0 {
			continue
		}
		if now.Late < before.Late+minLate {
			continue
		}
		leapt := now.NextPN > before.NextPN && now.NextPN-before.NextPN > leap+window
		allLate := (before.Jumped && now.Jumped || at.Sub(now.Since) >= lag) && said[sci] != 0 && now.NextPN > window && now.NextPN-window > said[sci]
		if !leapt && !allLate {
			continue
		}
		for j := range sc.SAs {
			sa := &sc.SAs[j]
			if mka.KIFromBytes(sa.KeyID) != ki {
				continue
			}
			ds = append(ds, Difference{
				// It stays until the next SAK is in use: should this be a mistake, that
				// costs nothing.
				Kind: "receive packet number set forward", Detail: fmt.Sprintf("SCI %v, AN %d, from %d to %d", sc.SCI, sa.AN, before.NextPN, sa.NextPN),
				Lost: mka.Event{Kind: mka.EventSALost, KI: ki},
			})
		}
	}
	return ds
}

const (
	minLate = 3
	// leap is more than a link of 100 Gbit/s has frames in a second.
	leap = 1 << 28
)

// Compare says how the SAs that were found in the device differ from those that the
// Port has there, in the order in which they are to be put right: what leaks or
// repeats a nonce first, then what lets somebody else's frames in, then what loses
// ours. The packet numbers found become those last seen.
func (y *SecY) Compare(found *macsec.SecY, want []mka.Association, receiveSCs []mka.SCI, last PNs) []Difference {
	own := mka.SCI(found.SCI)
	var first, foreign, lost []Difference
	for i := range found.TxSC.SAs {
		sa := &found.TxSC.SAs[i]
		a := of(want, sa.AN, sa.KeyID)
		if a == nil || !a.Transmit {
			foreign = append(foreign, Difference{
				Kind: "foreign transmit SA", Detail: fmt.Sprintf("AN %d, key id %v", sa.AN, sa.KeyID),
				Repair: y.op(mka.Op{Kind: mka.OpDeleteTransmitSA, SCI: own, AN: mka.AN(sa.AN)}),
			})
			continue
		}
		before := last[a.KI]
		last[a.KI] = sa.NextPN
		switch {
		case sa.NextPN != 0 && sa.NextPN < before:
			// What it sends now was sent before: the same nonce twice. It ends here.
			first = append(first, Difference{
				Kind: "packet number set back", Detail: fmt.Sprintf("AN %d, from %d to %d", sa.AN, before, sa.NextPN),
				Repair: y.op(mka.Op{Kind: mka.OpDeleteTransmitSA, SCI: own, AN: a.AN}),
				Lost:   mka.Event{Kind: mka.EventSALost, KI: a.KI, SCI: own},
			})
		case sa.NextPN == 0:
			// The kernel has switched it off; on again, it would begin with packet number 1.
			first = append(first, Difference{
				Kind: "packet numbers used up", Detail: fmt.Sprintf("AN %d, KI %v", sa.AN, a.KI), UsedUp: true, Encoding: a.Encoding,
				Repair: y.op(mka.Op{Kind: mka.OpDeleteTransmitSA, SCI: own, AN: a.AN}),
				Lost:   mka.Event{Kind: mka.EventSALost, KI: a.KI, SCI: own},
			})
		case a.Encoding && (!sa.Active || found.EncodingAN != sa.AN):
			kind := "encoding SA switched"
			if !sa.Active {
				kind = "transmit SA disabled"
			}
			first = append(first, Difference{
				Kind: kind, Detail: fmt.Sprintf("AN %d instead of %d", found.EncodingAN, sa.AN),
				Repair: y.op(mka.Op{Kind: mka.OpEnableTransmitSA, SCI: own, AN: a.AN}),
			})
		}
	}
	for i := range found.RxSCs {
		sc := &found.RxSCs[i]
		sci := mka.SCI(sc.SCI)
		if !slices.Contains(receiveSCs, sci) {
			foreign = append(foreign, Difference{
				Kind: "foreign receive SC", Detail: fmt.Sprintf("SCI %v with %d SAs", sc.SCI, len(sc.SAs)),
				Repair: y.op(mka.Op{Kind: mka.OpDeleteReceiveSC, SCI: sci}),
			})
			continue
		}
		if !sc.Active {
			lost = append(lost, Difference{
				Kind: "receive SC disabled", Detail: fmt.Sprintf("SCI %v", sc.SCI),
				Repair: func() error { return y.Kernel.UpdateRxSC(y.Index, sc.SCI, true) },
			})
		}
		for j := range sc.SAs {
			sa := &sc.SAs[j]
			a := of(want, sa.AN, sa.KeyID)
			switch {
			case a == nil || !slices.Contains(a.Receive, sci):
				foreign = append(foreign, Difference{
					Kind: "foreign receive SA", Detail: fmt.Sprintf("SCI %v, AN %d, key id %v", sc.SCI, sa.AN, sa.KeyID),
					Repair: y.op(mka.Op{Kind: mka.OpDeleteReceiveSA, SCI: sci, AN: mka.AN(sa.AN)}),
				})
			case !sa.Active:
				lost = append(lost, Difference{
					Kind: "receive SA disabled", Detail: fmt.Sprintf("SCI %v, AN %d", sc.SCI, sa.AN),
					Repair: func() error {
						return y.Kernel.UpdateRxSA(y.Index, sc.SCI, sa.AN, macsec.SAUpdate{Active: new(true)})
					},
				})
			}
		}
	}
	for i := range want {
		a := &want[i]
		an, key := macsec.AN(a.AN), macsec.KeyID(a.KI.Bytes())
		if sa := found.TxSC.SA(an); a.Transmit && (sa == nil || sa.KeyID != key) {
			lost = append(lost, Difference{
				Kind: "transmit SA gone", Detail: fmt.Sprintf("AN %d, KI %v", a.AN, a.KI),
				Lost: mka.Event{Kind: mka.EventSALost, KI: a.KI, SCI: own},
			})
		}
		for _, sci := range a.Receive {
			sc := found.RxSC(macsec.SCI(sci))
			if sc != nil {
				if sa := sc.SA(an); sa != nil && sa.KeyID == key {
					continue
				}
			}
			lost = append(lost, Difference{
				Kind: "receive SA gone", Detail: fmt.Sprintf("SCI %v, AN %d, KI %v", sci, a.AN, a.KI),
				Lost: mka.Event{Kind: mka.EventSALost, KI: a.KI, SCI: sci},
			})
		}
	}
	for ki := range last {
		if !slices.ContainsFunc(want, func(a mka.Association) bool { return a.KI == ki }) {
			delete(last, ki)
		}
	}
	return slices.Concat(first, foreign, lost)
}

// of is the SAK that keys the SAs of that number and key identifier.
func of(want []mka.Association, an macsec.AN, key macsec.KeyID) *mka.Association {
	i := slices.IndexFunc(want, func(a mka.Association) bool {
		return macsec.AN(a.AN) == an && macsec.KeyID(a.KI.Bytes()) == key
	})
	if i < 0 {
		return nil
	}
	return &want[i]
}

func (y *SecY) op(op mka.Op) func() error { return func() error { return y.Do(op) } }

// Mend puts the differences right, in their order.
func Mend(ds []Difference) error {
	var errs []error
	for _, d := range ds {
		if d.Repair == nil {
			continue
		}
		if err := d.Repair(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d, err))
		}
	}
	return errors.Join(errs...)
}

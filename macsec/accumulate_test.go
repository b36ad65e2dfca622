package macsec_test

import (
	"math"
	"testing"

	"github.com/lever-link/lever/macsec"
)

func txSA(an macsec.AN, key byte, next uint64, sent uint32) macsec.SA {
	return macsec.SA{AN: an, KeyID: macsec.KeyID{key}, NextPN: next, Stats: macsec.SAStats{OutPktsEncrypted: sent}}
}

func TestAccumulatorCarriesAssociationsOverRekeys(t *testing.T) {
	for _, c := range []struct {
		name  string
		dumps [][]macsec.SA
		want  uint64
	}{
		{"the first dump counts", [][]macsec.SA{{txSA(0, 1, 11, 10)}}, 10},
		{"the same association", [][]macsec.SA{{txSA(0, 1, 11, 10)}, {txSA(0, 1, 16, 15)}, {txSA(0, 1, 16, 15)}}, 15},
		{"a rekey to the next number", [][]macsec.SA{{txSA(0, 1, 11, 10)}, {txSA(0, 1, 13, 12), txSA(1, 2, 4, 3)}, {txSA(1, 2, 6, 5)}}, 17},
		{"a new key under the old number, fewer frames", [][]macsec.SA{{txSA(0, 1, 11, 10)}, {txSA(0, 2, 4, 3)}}, 13},
		{"a new key under the old number, more frames", [][]macsec.SA{{txSA(0, 1, 11, 10)}, {txSA(0, 2, 31, 30)}}, 40},
		{"wrap of 32 bits", [][]macsec.SA{{txSA(0, 1, math.MaxUint32, math.MaxUint32-1)}, {txSA(0, 1, 1<<32+3, 2)}}, 1<<32 + 2},
		{"used up", [][]macsec.SA{{txSA(0, 1, math.MaxUint32-1, 10)}, {txSA(0, 1, 0, 12)}}, 12},
		{"deleted and added again", [][]macsec.SA{{txSA(0, 1, 11, 10)}, {txSA(0, 1, 5, 4)}}, 14},
		{"gone and back", [][]macsec.SA{{txSA(0, 1, 11, 10)}, {}, {txSA(0, 1, 31, 20)}}, 30},
	} {
		t.Run(c.name, func(t *testing.T) {
			var a macsec.Accumulator
			for _, sas := range c.dumps {
				a.Add(&macsec.SecY{Device: macsec.Device{Index: 7}, TxSC: macsec.TxSC{SAs: sas}})
			}
			if got := a.Totals().Tx.SA.OutPktsEncrypted; got != c.want {
				t.Errorf("total %d, want %d", got, c.want)
			}
		})
	}
}

func TestAccumulatorCarriesChannelsAndDevices(t *testing.T) {
	sci := macsec.SCI{1}
	dump := func(index int, tx, noTag uint64, rx ...uint64) *macsec.SecY {
		s := &macsec.SecY{
			Device: macsec.Device{Index: index}, Stats: macsec.SecYStats{InPktsNoTag: noTag},
			TxSC: macsec.TxSC{Stats: macsec.TxSCStats{OutOctetsEncrypted: tx}},
		}
		for _, n := range rx {
			s.RxSCs = append(s.RxSCs, macsec.RxSC{SCI: sci, Stats: macsec.RxSCStats{InPktsOK: n},
				SAs: []macsec.SA{{KeyID: macsec.KeyID{1}, NextPN: n + 1, Stats: macsec.SAStats{InPktsOK: uint32(n)}}}})
		}
		return s
	}
	var a macsec.Accumulator
	for _, s := range []*macsec.SecY{
		dump(7, 100, 1, 50), dump(7, 150, 2, 60),
		dump(7, 200, 2),    // the channel is deleted …
		dump(7, 200, 2, 5), // … and made again
		dump(9, 30, 1, 8),  // and now the device
	} {
		a.Add(s)
	}
	got := a.Totals()
	if got.Tx.OutOctetsEncrypted != 230 || got.SecY.InPktsNoTag != 3 || got.Rx[sci].InPktsOK != 73 || got.Rx[sci].SA.InPktsOK != 73 {
		t.Errorf("totals %+v", got)
	}
	// The caller's copy is its own.
	got.Rx[sci] = macsec.RxTotals{}
	if a.Totals().Rx[sci].InPktsOK != 73 {
		t.Error("totals handed out are not a copy")
	}
}

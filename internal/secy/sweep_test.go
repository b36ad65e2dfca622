package secy

import (
	"reflect"
	"testing"

	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// A receive SA that is switched off was being deleted when a driver died, unless it
// belongs to what sends: then somebody else switched it off.
func TestSweepOfReceiveSAsThatAreOff(t *testing.T) {
	for _, tt := range []struct {
		name string
		off  mka.AN // of the SAKs of AN 0 and 1, where 1 is in use
		want []macsec.AN
	}{
		{"of the SAK before", 0, []macsec.AN{1}},
		{"of the SAK in use", 1, []macsec.AN{0, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, y := newSecY(t)
			for _, op := range []mka.Op{
				{Kind: mka.OpAddReceiveSC, SCI: farSCI},
				saOp(mka.OpAddReceiveSA, 0, 7), saOp(mka.OpAddTransmitSA, 0, 7), saOp(mka.OpEnableTransmitSA, 0, 7),
				saOp(mka.OpAddReceiveSA, 1, 8), saOp(mka.OpAddTransmitSA, 1, 8), saOp(mka.OpEnableTransmitSA, 1, 8),
			} {
				if err := y.Do(op); err != nil {
					t.Fatal(err)
				}
			}
			if err := k.UpdateRxSA(y.Index, macsec.SCI(farSCI), macsec.AN(tt.off), macsec.SAUpdate{Active: new(false)}); err != nil {
				t.Fatal(err)
			}
			found, err := k.SecY(y.Index)
			if err != nil {
				t.Fatal(err)
			}
			did, err := y.Sweep(found)
			if err != nil || did.SwitchedOn != int(tt.off) {
				t.Fatalf("%+v, %v", did, err)
			}
			after, err := k.SecY(y.Index)
			if err != nil {
				t.Fatal(err)
			}
			var have []macsec.AN
			for _, sa := range after.RxSCs[0].SAs {
				if !sa.Active {
					t.Errorf("AN %d is off", sa.AN)
				}
				have = append(have, sa.AN)
			}
			if !reflect.DeepEqual(have, tt.want) || !reflect.DeepEqual(after, found) {
				t.Errorf("left are %v, want %v; the kernel has %+v, and the caller %+v", have, tt.want, after.RxSCs, found.RxSCs)
			}
		})
	}
}

package secy

import (
	"testing"
	"time"

	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

func TestLate(t *testing.T) {
	ki := mka.KI{MI: mka.MI{7}, KN: 1}
	for _, c := range []struct {
		name             string
		before           Arrivals
		ok, late, nextPN uint64
		said             uint64 // by the peer
		want             int
	}{
		{"first look", Arrivals{}, 10, 90, 1 << 30, 5, 0},
		{"traffic", Arrivals{OK: 10, KI: ki, NextPN: 11}, 1000, 0, 1001, 900, 0},
		{"set forward, no traffic since", Arrivals{OK: 10, KI: ki, NextPN: 11}, 10, 0, 1 << 30, 11, 0},
		{"set far forward amid traffic", Arrivals{OK: 10, KI: ki, NextPN: 11}, 500, 400, 1 << 30, 11, 1},
		{"set forward a little", Arrivals{OK: 500, Late: 400, KI: ki, NextPN: 5000}, 500, 900, 5000, 900, 1},
		{"replayed, the peer is idle", Arrivals{OK: 500, KI: ki, NextPN: 501}, 500, 900, 501, 501, 0},
		{"replayed amid traffic", Arrivals{OK: 500, KI: ki, NextPN: 501}, 800, 900, 801, 700, 0},
		{"the peer leapt", Arrivals{OK: 500, KI: ki, NextPN: 501}, 800, 0, 3 << 30, 501, 0},
		{"replayed, the peer is idle of late", Arrivals{OK: 500, KI: ki, NextPN: 501, Since: time.Unix(95, 0)}, 500, 900, 501, 300, 0},
		{"replayed, the peer is idle, set forward by delay protection", Arrivals{OK: 500, KI: ki, NextPN: 565}, 500, 900, 565, 501, 0},
		{"set forward beyond delay protection", Arrivals{OK: 500, KI: ki, NextPN: 566}, 500, 900, 566, 501, 1},
		{"jumped, and all is late since", Arrivals{OK: 500, KI: ki, NextPN: 5000, Since: time.Unix(99, 0), Jumped: true}, 500, 900, 5000, 900, 1},
		{"jumped, and the peer says so", Arrivals{OK: 500, KI: ki, NextPN: 5000, Since: time.Unix(99, 0), Jumped: true}, 500, 900, 5000, 4990, 0},
		{"jumped, and frames are accepted since", Arrivals{OK: 500, KI: ki, NextPN: 5000, Since: time.Unix(99, 0), Jumped: true}, 510, 900, 5010, 900, 0},
		{"jumps now", Arrivals{OK: 500, KI: ki, NextPN: 501, Since: time.Unix(99, 0)}, 510, 900, 5010, 510, 0},
		{"another SAK since", Arrivals{OK: 500, KI: mka.KI{KN: 9}, NextPN: 501}, 500, 900, 1 << 30, 1, 0},
		{"the peer has not spoken", Arrivals{OK: 500, KI: ki, NextPN: 501}, 500, 900, 501, 0, 0},
	} {
		found := &macsec.SecY{Device: macsec.Device{DeviceConfig: macsec.DeviceConfig{ReplayWindow: 64}}, RxSCs: []macsec.RxSC{{
			SCI: macsec.SCI(farSCI), Active: true, Stats: macsec.RxSCStats{InPktsOK: c.ok, InPktsLate: c.late},
			SAs: []macsec.SA{{AN: 1, Active: true, KeyID: macsec.KeyID(ki.Bytes()), NextPN: c.nextPN}},
		}}}
		last := map[mka.SCI]Arrivals{}
		if c.before != (Arrivals{}) {
			last[farSCI] = c.before
		}
		ds := Late(found, ki, map[mka.SCI]uint64{farSCI: c.said}, last, time.Unix(100, 0), 6*time.Second)
		if len(ds) != c.want {
			t.Errorf("%s: %v", c.name, ds)
		}
		if now := last[farSCI]; now.OK != c.ok || now.Late != c.late || now.NextPN != c.nextPN {
			t.Errorf("%s: remembers %+v", c.name, now)
		}
	}
}

// The order is what keeps from leaking and from repeating nonces.
func TestCompareOrder(t *testing.T) {
	ki := mka.KI{MI: mka.MI{7}, KN: 1}
	key := macsec.KeyID(ki.Bytes())
	want := []mka.Association{{KI: ki, AN: 1, Transmit: true, Encoding: true, Receive: []mka.SCI{farSCI}}}
	stranger := macsec.SCI{9}
	found := &macsec.SecY{
		Device: macsec.Device{DeviceConfig: macsec.DeviceConfig{SCI: macsec.SCI(ownSCI), EncodingAN: 2}},
		TxSC: macsec.TxSC{SAs: []macsec.SA{
			{AN: 1, Active: true, KeyID: key, NextPN: 50}, {AN: 2, Active: true, KeyID: macsec.KeyID{1}, NextPN: 1},
		}},
		RxSCs: []macsec.RxSC{{SCI: stranger, Active: true}, {SCI: macsec.SCI(farSCI)}},
	}
	kinds := func(ds []Difference) (k []string) {
		for _, d := range ds {
			k = append(k, d.Kind)
		}
		return k
	}
	for _, c := range []struct {
		last PNs
		want []string
	}{
		{PNs{ki: 40}, []string{"encoding SA switched", "foreign transmit SA", "foreign receive SC", "receive SC disabled", "receive SA gone"}},
		{PNs{ki: 60}, []string{"packet number set back", "foreign transmit SA", "foreign receive SC", "receive SC disabled", "receive SA gone"}},
	} {
		got := kinds((&SecY{}).Compare(found, want, []mka.SCI{farSCI}, c.last))
		if len(got) != len(c.want) {
			t.Fatalf("got %q, want %q", got, c.want)
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("got %q, want %q", got, c.want)
			}
		}
		if c.last[ki] != 50 {
			t.Errorf("remembers %d", c.last[ki])
		}
	}
}

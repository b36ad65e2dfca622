package secy

import (
	"errors"
	"net"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
	"github.com/lever-link/lever/mka"
)

var (
	ownMAC = mka.MAC{2, 0, 0, 0, 0, 1}
	ownSCI = mka.NewSCI(ownMAC, 1)
	farSCI = mka.SCI{2, 0, 0, 0, 0, 2, 0, 1}
)

// newSecY is a closed device and what drives it.
func newSecY(t *testing.T) (*macsectest.Kernel, *SecY) {
	t.Helper()
	k := macsectest.New()
	index := k.AddInterface("eth4", net.HardwareAddr(ownMAC[:]), 1500)
	d, err := k.CreateDevice(index, "eth4-sec", DeviceConfig(macsec.SCI(ownSCI), macsec.GCMAESXPN256))
	if err != nil {
		t.Fatal(err)
	}
	k.ResetJournal()
	return k, &SecY{k, d.Index}
}

func saOp(kind mka.OpKind, an mka.AN, n byte) mka.Op {
	op := mka.Op{Kind: kind, SCI: farSCI, AN: an, KI: mka.KI{MI: mka.MI{n}, KN: 1}, Suite: mka.GCMAESXPN256, SSCI: 2, Salt: [12]byte{n}}
	op.SAK = secret.New(slices.Repeat([]byte{n}, 32))
	return op
}

func TestSecYOperations(t *testing.T) {
	const add, sa, tx = mka.OpAddReceiveSC, mka.OpAddReceiveSA, mka.OpAddTransmitSA
	for _, c := range []struct {
		name string
		ops  []mka.Op
		want []string // the journal
		err  error    // of the last operation
	}{
		{"receive SC", []mka.Op{{Kind: add, SCI: farSCI}}, []string{
			"AddRxSC eth4-sec sci=0200000000020001 active=true", "UpdateRxSC eth4-sec sci=0200000000020001 active=true",
		}, nil},
		{"receive SC that is there", []mka.Op{{Kind: add, SCI: farSCI}, {Kind: add, SCI: farSCI}}, []string{
			"AddRxSC eth4-sec sci=0200000000020001 active=true", "UpdateRxSC eth4-sec sci=0200000000020001 active=true",
			"AddRxSC eth4-sec sci=0200000000020001 active=true failed: file exists", "UpdateRxSC eth4-sec sci=0200000000020001 active=true",
		}, nil},
		{"receive SA is enabled", []mka.Op{{Kind: add, SCI: farSCI}, saOp(sa, 1, 7)}, []string{
			"AddRxSC", "UpdateRxSC", "AddRxSA eth4-sec sci=0200000000020001 an=1 active=true pn=1",
		}, nil},
		{"receive SA without an SC", []mka.Op{saOp(sa, 1, 7)}, []string{
			"AddRxSA eth4-sec sci=0200000000020001 an=1 active=true pn=1 failed", "AddRxSC eth4-sec sci=0200000000020001 active=true",
			"AddRxSA eth4-sec sci=0200000000020001 an=1 active=true pn=1",
		}, nil},
		{"receive SA on a taken AN", []mka.Op{{Kind: add, SCI: farSCI}, saOp(sa, 1, 7), saOp(sa, 1, 8)}, []string{
			"AddRxSC", "UpdateRxSC", "AddRxSA", "AddRxSA eth4-sec sci=0200000000020001 an=1 active=true pn=1 failed: device or resource busy",
		}, macsec.ErrBusy},
		{"delete a receive SA", []mka.Op{{Kind: add, SCI: farSCI}, saOp(sa, 1, 7), {Kind: mka.OpDeleteReceiveSA, SCI: farSCI, AN: 1}}, []string{
			"AddRxSC", "UpdateRxSC", "AddRxSA",
			"UpdateRxSA eth4-sec sci=0200000000020001 an=1 active=false", "DeleteRxSA eth4-sec sci=0200000000020001 an=1",
		}, nil},
		{"delete a receive SA that is gone", []mka.Op{{Kind: add, SCI: farSCI}, {Kind: mka.OpDeleteReceiveSA, SCI: farSCI, AN: 1}}, []string{
			"AddRxSC", "UpdateRxSC", "UpdateRxSA eth4-sec sci=0200000000020001 an=1 active=false failed",
		}, nil},
		{"delete a receive SA whose SC is gone", []mka.Op{{Kind: mka.OpDeleteReceiveSA, SCI: farSCI, AN: 1}}, []string{
			"UpdateRxSA eth4-sec sci=0200000000020001 an=1 active=false failed",
		}, nil},
		{"delete a receive SC with its SAs", []mka.Op{{Kind: add, SCI: farSCI}, saOp(sa, 1, 7), {Kind: mka.OpDeleteReceiveSC, SCI: farSCI}}, []string{
			"AddRxSC", "UpdateRxSC", "AddRxSA", "DeleteRxSC eth4-sec sci=0200000000020001",
		}, nil},
		{"delete a receive SC that is gone", []mka.Op{{Kind: mka.OpDeleteReceiveSC, SCI: farSCI}}, []string{
			"DeleteRxSC eth4-sec sci=0200000000020001 failed",
		}, nil},
		{"transmit SA is not enabled", []mka.Op{saOp(tx, 2, 7)}, []string{"AddTxSA eth4-sec an=2 active=false pn=1"}, nil},
		{"enable, then encode", []mka.Op{saOp(tx, 2, 7), {Kind: mka.OpEnableTransmitSA, AN: 2}}, []string{
			"AddTxSA", "UpdateTxSA eth4-sec an=2 active=true", "UpdateDevice eth4-sec encoding=2",
		}, nil},
		{"enable what is not there", []mka.Op{{Kind: mka.OpEnableTransmitSA, AN: 2}}, []string{"UpdateTxSA eth4-sec an=2 active=true failed"}, macsec.ErrNotExist},
		{"transmit SA on a taken AN", []mka.Op{saOp(tx, 2, 7), saOp(tx, 2, 8)}, []string{"AddTxSA", "AddTxSA eth4-sec an=2 active=false pn=1 failed: device or resource busy"}, macsec.ErrBusy},
		{"delete a transmit SA", []mka.Op{saOp(tx, 2, 7), {Kind: mka.OpDeleteTransmitSA, AN: 2}}, []string{
			"AddTxSA", "UpdateTxSA eth4-sec an=2 active=false", "DeleteTxSA eth4-sec an=2",
		}, nil},
		{"delete a transmit SA that is gone", []mka.Op{{Kind: mka.OpDeleteTransmitSA, AN: 2}}, []string{"UpdateTxSA eth4-sec an=2 active=false failed"}, nil},
		{"the same SAK a second time", []mka.Op{saOp(tx, 2, 7), saOp(tx, 3, 7)}, []string{"AddTxSA", "AddTxSA eth4-sec an=3 active=false pn=1 failed"}, macsec.ErrPNReuse},
		{"an unknown operation", []mka.Op{{Kind: 99}}, nil, errors.New("unknown operation")},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, y := newSecY(t)
			var err error
			for i, op := range c.ops {
				if err = y.Do(op); err != nil && i < len(c.ops)-1 {
					t.Fatalf("operation %d: %v", i, err)
				}
			}
			if !errors.Is(err, c.err) && (c.err == nil || !strings.Contains(err.Error(), c.err.Error())) {
				t.Errorf("got %v, want %v", err, c.err)
			}
			var got []string
			for _, o := range k.Journal() {
				got = append(got, o.String())
			}
			if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
				t.Errorf("did\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// A SAK that the Port has erased meanwhile must not become a key of zeros.
func TestErasedSAKIsRefused(t *testing.T) {
	for _, kind := range []mka.OpKind{mka.OpAddReceiveSA, mka.OpAddTransmitSA} {
		k, y := newSecY(t)
		op := saOp(kind, 0, 7)
		op.SAK.Erase()
		if err := y.Do(op); err == nil || !strings.Contains(err.Error(), "erased") {
			t.Errorf("%v: %v", kind, err)
		}
		op.SAK = secret.Key{}
		if err := y.Do(op); err == nil {
			t.Errorf("%v: an empty key is accepted", kind)
		}
		if j := k.Journal(); len(j) != 0 {
			t.Errorf("%v: the kernel was asked: %v", kind, j)
		}
	}
}

// What a deletion reports must be only what matters: a failure that is not
// absence.
func TestFailedDeletionsSurface(t *testing.T) {
	for _, c := range []struct {
		op   mka.Op
		fail string
	}{
		{mka.Op{Kind: mka.OpDeleteReceiveSA, SCI: farSCI}, macsec.OpUpdateRxSA},
		{mka.Op{Kind: mka.OpDeleteReceiveSA, SCI: farSCI}, macsec.OpDeleteRxSA},
		{mka.Op{Kind: mka.OpDeleteReceiveSC, SCI: farSCI}, macsec.OpDeleteRxSC},
		{mka.Op{Kind: mka.OpDeleteTransmitSA}, macsec.OpUpdateTxSA},
		{mka.Op{Kind: mka.OpDeleteTransmitSA}, macsec.OpDeleteTxSA},
		{mka.Op{Kind: mka.OpEnableTransmitSA}, macsec.OpUpdateDevice},
		{mka.Op{Kind: mka.OpAddReceiveSC, SCI: farSCI}, macsec.OpUpdateRxSC},
	} {
		k, y := newSecY(t)
		for _, op := range []mka.Op{{Kind: mka.OpAddReceiveSC, SCI: farSCI}, saOp(mka.OpAddReceiveSA, 0, 7), saOp(mka.OpAddTransmitSA, 0, 7)} {
			if err := y.Do(op); err != nil {
				t.Fatal(err)
			}
		}
		k.Fail(c.fail, 1, syscall.EBUSY)
		err := y.Do(c.op)
		var e *macsec.Error
		if !errors.Is(err, macsec.ErrBusy) || !errors.As(err, &e) || e.Op != c.fail || e.Interface != "eth4-sec" {
			t.Errorf("%v with a failing %s: %v", c.op.Kind, c.fail, err)
		}
	}
}

func TestAdopt(t *testing.T) {
	sa := func(an macsec.AN, n byte, pn uint64, active bool) macsec.SA {
		return macsec.SA{AN: an, Active: active, NextPN: pn, KeyID: macsec.KeyID(mka.KI{MI: mka.MI{n}, KN: uint32(n)}.Bytes())}
	}
	key := func(an mka.AN, n byte, pn uint64, tx, encoding bool, from ...mka.SCI) mka.AdoptedKey {
		return mka.AdoptedKey{
			KI: mka.KI{MI: mka.MI{n}, KN: uint32(n)}, AN: an, Suite: mka.GCMAESXPN256, Transmit: tx, Encoding: encoding, NextPN: pn, Receive: from, Heard: from,
		}
	}
	unheard := func(k mka.AdoptedKey) mka.AdoptedKey { k.Heard = nil; return k }
	third := mka.SCI{2, 0, 0, 0, 0, 3, 0, 1}
	rx := func(sci mka.SCI, sas ...macsec.SA) macsec.RxSC {
		return macsec.RxSC{SCI: macsec.SCI(sci), Active: true, SAs: sas}
	}
	for _, c := range []struct {
		name     string
		encoding macsec.AN
		tx       []macsec.SA
		rx       []macsec.RxSC
		want     []mka.AdoptedKey
	}{
		{"nothing", 0, nil, nil, nil},
		{"one key both ways", 1, []macsec.SA{sa(1, 7, 90, true)}, []macsec.RxSC{rx(farSCI, sa(1, 7, 80, true))},
			[]mka.AdoptedKey{key(1, 7, 90, true, true, farSCI)}},
		{"a group", 1, []macsec.SA{sa(1, 7, 90, true)}, []macsec.RxSC{rx(farSCI, sa(1, 7, 80, true)), rx(third, sa(1, 7, 70, true))},
			[]mka.AdoptedKey{key(1, 7, 90, true, true, farSCI, third)}},
		{"in the middle of a rekey", 1, []macsec.SA{sa(1, 7, 90, true), sa(2, 8, 1, false)},
			[]macsec.RxSC{rx(farSCI, sa(1, 7, 80, true), sa(2, 8, 1, true))},
			[]mka.AdoptedKey{key(1, 7, 90, true, true, farSCI), unheard(key(2, 8, 1, true, false, farSCI))}},
		{"half made: received only", 1, []macsec.SA{sa(1, 7, 90, true)}, []macsec.RxSC{rx(farSCI, sa(1, 7, 80, true), sa(2, 8, 1, true))},
			[]mka.AdoptedKey{key(1, 7, 90, true, true, farSCI), unheard(key(2, 8, 0, false, false, farSCI))}},
		{"an inactive encoding SA does not encode", 1, []macsec.SA{sa(1, 7, 90, false)}, nil, []mka.AdoptedKey{key(1, 7, 90, true, false)}},
		{"an inactive receive SA receives nothing", 1, []macsec.SA{sa(1, 7, 90, true)}, []macsec.RxSC{rx(farSCI, sa(1, 7, 80, false))},
			[]mka.AdoptedKey{key(1, 7, 90, true, true)}},
		{"one KI on two ANs is two keys", 1, []macsec.SA{sa(1, 7, 90, true)}, []macsec.RxSC{rx(farSCI, sa(2, 7, 80, true))},
			[]mka.AdoptedKey{key(1, 7, 90, true, true), key(2, 7, 0, false, false, farSCI)}},
		{"one AN with two KIs is two keys", 1, []macsec.SA{sa(1, 7, 90, true)}, []macsec.RxSC{rx(farSCI, sa(1, 8, 80, true))},
			[]mka.AdoptedKey{key(1, 7, 90, true, true), key(1, 8, 0, false, false, farSCI)}},
	} {
		y := &macsec.SecY{TxSC: macsec.TxSC{SAs: c.tx}, RxSCs: c.rx}
		y.CipherSuite, y.EncodingAN = macsec.GCMAESXPN256, c.encoding
		if got := Adopt(y); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// Delay protection moves the floor of what is accepted up, and never down.
func TestRaiseReceivePN(t *testing.T) {
	const top32, top64 = 1<<32 - 1, 1<<64 - 1
	for _, c := range []struct {
		name             string
		suite            macsec.CipherSuite
		window           uint32
		now, lowest, end uint64
	}{
		{"above", macsec.GCMAESXPN256, 64, 1, 1000, 1064},
		{"within the window", macsec.GCMAESXPN256, 64, 1000, 950, 1014},
		{"just as high", macsec.GCMAESXPN256, 64, 1064, 1000, 1064},
		{"far below", macsec.GCMAESXPN256, 64, 1 << 40, 1000, 1 << 40},
		{"strict", macsec.GCMAES256, 0, 5, 9, 9},
		{"the last of 32 bits", macsec.GCMAES256, 64, 5, top32 - 3, top32},
		{"beyond 32 bits", macsec.GCMAES256, 64, 5, top32 + 3, top32},
		{"at the middle of the lower half", macsec.GCMAESXPN256, 64, 5, 1<<31 - 3, 1<<31 - 1},
		{"across the wrap of the lower half", macsec.GCMAESXPN256, 64, 5, top32 - 3, top32},
		{"the last of 64 bits", macsec.GCMAESXPN256, 64, 5, top64 - 3, top64},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := macsectest.New()
			cfg := DeviceConfig(macsec.SCI(ownSCI), c.suite)
			cfg.ReplayWindow = c.window
			d, err := k.CreateDevice(k.AddInterface("eth4", net.HardwareAddr(ownMAC[:]), 1500), "eth4-sec", cfg)
			if err != nil {
				t.Fatal(err)
			}
			y := &SecY{k, d.Index}
			add := saOp(mka.OpAddReceiveSA, 1, 7)
			for _, op := range []mka.Op{{Kind: mka.OpAddReceiveSC, SCI: farSCI}, add} {
				if err := y.Do(op); err != nil {
					t.Fatal(err)
				}
			}
			if err := k.UpdateRxSA(d.Index, macsec.SCI(farSCI), 1, macsec.SAUpdate{NextPN: &c.now}); err != nil {
				t.Fatal(err)
			}
			raise := mka.Op{Kind: mka.OpRaiseReceivePN, SCI: farSCI, AN: 1, KI: add.KI, LowestPN: c.lowest}
			next := func() uint64 {
				s, err := k.SecY(d.Index)
				if err != nil {
					t.Fatal(err)
				}
				return s.RxSC(macsec.SCI(farSCI)).SA(1).NextPN
			}
			for range 2 {
				if err := y.Do(raise); err != nil || next() != c.end {
					t.Errorf("next_pn %d, want %d; %v", next(), c.end, err)
				}
			}
			// What is gone, or is another SAK's by now, is left alone.
			k.ResetJournal()
			for _, other := range []func(*mka.Op){
				func(op *mka.Op) { op.AN = 2 },
				func(op *mka.Op) { op.SCI[0]++ },
				func(op *mka.Op) { op.KI.KN++ },
			} {
				op := raise
				op.LowestPN = top32 - 1
				other(&op)
				if err := y.Do(op); err != nil || len(k.Journal()) != 0 {
					t.Errorf("%+v: %v, %v", op, err, k.Journal())
				}
			}
		})
	}
}

func TestSweepTakesReceiveSCsWithoutSAs(t *testing.T) {
	k, y := newSecY(t)
	third := mka.SCI{2, 0, 0, 0, 0, 3, 0, 1}
	for _, op := range []mka.Op{{Kind: mka.OpAddReceiveSC, SCI: farSCI}, saOp(mka.OpAddReceiveSA, 0, 7), {Kind: mka.OpAddReceiveSC, SCI: third}} {
		if err := y.Do(op); err != nil {
			t.Fatal(err)
		}
	}
	found, err := k.SecY(y.Index)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := y.Sweep(found); err != nil {
		t.Fatal(err)
	}
	after, err := k.SecY(y.Index)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(after, found) || len(after.RxSCs) != 1 || after.RxSCs[0].SCI != macsec.SCI(farSCI) {
		t.Errorf("the kernel has %+v, and the caller %+v", after.RxSCs, found.RxSCs)
	}
}

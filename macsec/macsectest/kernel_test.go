package macsectest_test

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
)

var (
	mac = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	own = macsec.NewSCI(mac, 1)
	far = macsec.SCI{2, 0, 0, 0, 0, 2, 0, 1}
)

const suite = macsec.GCMAESXPN256

//go:fix inline

func device(t *testing.T, k *macsectest.Kernel) *macsec.Device {
	t.Helper()
	d, err := k.CreateDevice(k.AddInterface("eth0", mac, 1500), "eth0-sec", macsec.Closed(own, suite))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.UpdateDevice(d.Index, macsec.DeviceUpdate{Up: new(true)}); err != nil {
		t.Fatal(err)
	}
	return d
}

func association(an macsec.AN, n byte) macsec.SA {
	key := make([]byte, 32)
	key[0] = n
	return macsec.SA{AN: an, Active: true, NextPN: 1, Key: macsec.NewKey(key), KeyID: macsec.KeyID{n}, SSCI: 1}
}

func TestFaults(t *testing.T) {
	k := macsectest.New()
	d := device(t, k)
	add := func() error { return k.AddTxSA(d.Index, association(0, 1)) }
	k.Fail(macsec.OpAddTxSA, 2, syscall.ENOMEM)
	for range 2 {
		err := add()
		var e *macsec.Error
		if !errors.Is(err, syscall.ENOMEM) || !errors.As(err, &e) || e.Interface != "eth0-sec" || e.AN == nil {
			t.Errorf("injected: %v", err)
		}
		if _, err := k.SecY(d.Index); err != nil {
			t.Errorf("another operation fails too: %v", err)
		}
	}
	if err := add(); err != nil {
		t.Errorf("after the faults: %v", err)
	}
	k.Fail("", -1, syscall.EPERM)
	for range 3 {
		if _, err := k.Devices(); !errors.Is(err, macsec.ErrPermission) {
			t.Errorf("every operation: %v", err)
		}
	}
	k.Recover()
	if _, err := k.Devices(); err != nil {
		t.Error(err)
	}
}

func TestHooksAndJournal(t *testing.T) {
	k := macsectest.New()
	d := device(t, k)
	k.ResetJournal()
	crash := errors.New("killed")
	k.Before(func(o macsectest.Operation) error {
		if o.Op == macsec.OpAddRxSC {
			return crash
		}
		return nil
	})
	k.After(func(o macsectest.Operation) error {
		// A hook may look at the kernel.
		if s, err := k.SecY(d.Index); o.Op == macsec.OpAddTxSA && (err != nil || len(s.TxSC.SAs) != 1) {
			t.Errorf("after %s: %+v, %v", o, s, err)
		}
		if o.Op == macsec.OpAddTxSA {
			return crash
		}
		return nil
	})
	if err := k.AddRxSC(d.Index, far, true); !errors.Is(err, crash) {
		t.Errorf("before: %v", err)
	}
	if err := k.AddTxSA(d.Index, association(2, 1)); !errors.Is(err, crash) {
		t.Errorf("after: %v", err)
	}
	k.Before(nil)
	k.After(nil)
	s, err := k.SecY(d.Index)
	if err != nil || s.RxSCs != nil || s.TxSC.SA(2) == nil {
		t.Errorf("what died before is there, or what died after is not: %+v, %v", s, err)
	}
	for _, err := range []error{
		k.UpdateDevice(d.Index, macsec.DeviceUpdate{EncodingAN: new(macsec.AN(2)), Encrypt: new(true)}),
		k.AddRxSC(d.Index, far, true), k.AddRxSA(d.Index, far, association(1, 1)),
		k.UpdateRxSA(d.Index, far, 1, macsec.SAUpdate{NextPN: new(uint64(70)), Active: new(false)}),
		k.SetOffload(d.Index, macsec.Off), k.DeleteDevice(d.Index),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"AddRxSC eth0-sec sci=0200000000020001 active=true failed: killed",
		"AddTxSA eth0-sec an=2 active=true pn=1 failed: killed",
		"UpdateDevice eth0-sec encrypt=true encoding=2",
		"AddRxSC eth0-sec sci=0200000000020001 active=true",
		"AddRxSA eth0-sec sci=0200000000020001 an=1 active=true pn=1",
		"UpdateRxSA eth0-sec sci=0200000000020001 an=1 active=false pn=70",
		"SetOffload eth0-sec offload=off",
		"DeleteDevice eth0-sec",
	}
	var got []string
	for _, o := range k.Journal() {
		got = append(got, o.String())
		if o.SA != nil && o.SA.Key.Len() != 0 {
			t.Errorf("the journal holds a key: %s", o)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("journal\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestInterfaces(t *testing.T) {
	k := macsectest.New()
	parent := k.AddInterface("eth0", mac, 9000)
	k.Enslave(parent, true)
	if _, err := k.CreateDevice(parent, "ms0", macsec.Closed(own, suite)); !errors.Is(err, macsec.ErrBusy) {
		t.Errorf("on a bridge port: %v", err)
	}
	k.Enslave(parent, false)
	d, err := k.CreateDevice(parent, "ms0", macsec.Closed(own, suite))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ parent, want int }{{9000, 8968}, {1500, 1468}, {9000, 1468}, {10, 0}} {
		k.SetMTU(parent, c.parent)
		if got, err := k.Device("ms0"); err != nil || got.MTU != c.want {
			t.Errorf("parent's MTU %d: %+v, %v, want %d", c.parent, got, err, c.want)
		}
	}
	k.RemoveInterface(parent)
	if _, err := k.SecY(d.Index); !errors.Is(err, macsec.ErrNotExist) {
		t.Errorf("without its parent: %v", err)
	}
}

func TestTooLong(t *testing.T) {
	k := macsectest.New()
	d := device(t, k)
	if err := k.AddTxSA(d.Index, association(0, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Transmit(d.Index, make([]byte, 14+1468)); err != nil {
		t.Errorf("the MTU's worth: %v", err)
	}
	if _, err := k.Transmit(d.Index, make([]byte, 14+1469)); !errors.Is(err, macsectest.ErrDropped) {
		t.Errorf("one more: %v", err)
	}
	if s, err := k.SecY(d.Index); err != nil || s.Stats.OutPktsTooLong != 1 || s.TxSC.SA(0).NextPN != 3 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestMove(t *testing.T) {
	k := macsectest.New()
	d := device(t, k)
	for _, err := range []error{
		k.AddTxSA(d.Index, association(0, 1)), k.MoveTx(d.Index, 0, 1<<33),
		k.AddRxSC(d.Index, far, true), k.AddRxSA(d.Index, far, association(0, 1)), k.MoveRx(d.Index, far, 0, 1<<32+5),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := k.SecY(d.Index)
	if err != nil {
		t.Fatal(err)
	}
	tx, rx := s.TxSC.SA(0), s.RxSC(far).SA(0)
	if tx.NextPN != 1<<33+1 || tx.Stats.OutPktsEncrypted != 0 || s.TxSC.Stats.OutPktsEncrypted != 1<<33 {
		t.Errorf("transmit %+v of %+v", tx, s.TxSC.Stats)
	}
	if rx.NextPN != 1<<32+6 || rx.Stats.InPktsOK != 5 || s.RxSC(far).Stats.InPktsOK != 1<<32+5 {
		t.Errorf("receive %+v", rx)
	}
	left := -tx.NextPN // all that there are
	if err := k.MoveTx(d.Index, 0, left+1); !errors.Is(err, syscall.ERANGE) {
		t.Errorf("beyond the end: %v", err)
	}
	if err := k.MoveTx(d.Index, 0, left); err != nil {
		t.Error(err)
	}
	if s, err = k.SecY(d.Index); err != nil || s.Operational || s.TxSC.SA(0).Active || s.TxSC.SA(0).NextPN != 0 {
		t.Errorf("at the end: %+v, %v", s, err)
	}
}

func TestNonceReuseIsSeen(t *testing.T) {
	frame := make([]byte, 60)
	send := func(t *testing.T, k *macsectest.Kernel, index int) {
		t.Helper()
		if _, err := k.Transmit(index, frame); err != nil {
			t.Fatal(err)
		}
	}
	// The guard goes by key identifiers; these tests lie to it.
	relabel := func(sa macsec.SA, id byte) macsec.SA {
		sa.KeyID = macsec.KeyID{id}
		return sa
	}
	for _, c := range []struct {
		name string
		run  func(t *testing.T, k *macsectest.Kernel, d *macsec.Device)
		want []uint64
	}{
		{"ordinary traffic and rekey", func(t *testing.T, k *macsectest.Kernel, d *macsec.Device) {
			for n := range byte(6) {
				an := macsec.AN(n % 4)
				if n >= 4 {
					for _, err := range []error{k.UpdateTxSA(d.Index, an, macsec.SAUpdate{Active: new(false)}), k.DeleteTxSA(d.Index, an)} {
						if err != nil {
							t.Fatal(err)
						}
					}
				}
				for _, err := range []error{k.AddTxSA(d.Index, association(an, n+1)), k.UpdateDevice(d.Index, macsec.DeviceUpdate{EncodingAN: &an})} {
					if err != nil {
						t.Fatal(err)
					}
				}
				for range 10 {
					send(t, k, d.Index)
				}
			}
		}, nil},
		{"the same key twice", func(t *testing.T, k *macsectest.Kernel, d *macsec.Device) {
			for id := range byte(2) {
				if err := k.AddTxSA(d.Index, relabel(association(macsec.AN(id), 1), id+1)); err != nil {
					t.Fatal(err)
				}
			}
			if err := k.MoveTx(d.Index, 1, 100); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				send(t, k, d.Index)
			}
		}, []uint64{1, 2, 3}},
		{"a jump over used ones", func(t *testing.T, k *macsectest.Kernel, d *macsec.Device) {
			late := relabel(association(1, 1), 2)
			late.NextPN = 50
			for _, err := range []error{
				k.AddTxSA(d.Index, association(0, 1)), k.AddTxSA(d.Index, late),
				k.MoveTx(d.Index, 1, 10), k.MoveTx(d.Index, 0, 100),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
		}, []uint64{50}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := macsectest.New()
			d := device(t, k)
			hooked := 0
			k.OnNonce(func(_ macsectest.Nonce, reused bool) {
				if reused {
					hooked++
				}
			})
			c.run(t, k, d)
			var got []uint64
			for _, n := range k.ReusedNonces() {
				got = append(got, n.PN)
			}
			if !reflect.DeepEqual(got, c.want) || hooked != len(c.want) {
				t.Errorf("reused %d (hook: %d), want %d", got, hooked, c.want)
			}
		})
	}
	t.Run("two ends with one SSCI", func(t *testing.T) {
		var log macsectest.NonceLog
		for range 2 {
			k := macsectest.New()
			k.ShareNonces(&log)
			d := device(t, k)
			if err := k.AddTxSA(d.Index, association(0, 1)); err != nil {
				t.Fatal(err)
			}
			send(t, k, d.Index)
		}
		if got := log.Reused(); len(got) != 1 || !strings.Contains(got[0].String(), "SSCI 1 PN 1") {
			t.Errorf("reused %v", got)
		}
	})
}

func TestKeysAreCopied(t *testing.T) {
	k := macsectest.New()
	d := device(t, k)
	sa := association(0, 7)
	for _, err := range []error{k.AddTxSA(d.Index, sa), k.AddRxSC(d.Index, own, true), k.AddRxSA(d.Index, own, association(0, 7))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	sa.Key.Erase()
	wire, err := k.Transmit(d.Index, make([]byte, 60))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Receive(d.Index, wire); err != nil {
		t.Errorf("erasing the caller's key changed the kernel's: %v", err)
	}
}

func TestConcurrentUse(t *testing.T) {
	k := macsectest.New()
	d := device(t, k)
	if err := k.AddTxSA(d.Index, association(0, 1)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make(chan error, 64)
	for g := range 8 {
		wg.Go(func() {
			sci := macsec.SCI{2, byte(g), 7: 1}
			for range 50 {
				_, err := k.Transmit(d.Index, make([]byte, 60))
				errs <- errors.Join(err, k.AddRxSC(d.Index, sci, true), k.DeleteRxSC(d.Index, sci))
				_, err = k.SecYs()
				errs <- err
			}
		})
	}
	go func() { wg.Wait(); close(errs) }()
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if s, err := k.SecY(d.Index); err != nil || s.TxSC.SA(0).NextPN != 401 || len(k.ReusedNonces()) != 0 {
		t.Errorf("%+v, %v, reused %v", s, err, k.ReusedNonces())
	}
}

func FuzzReceive(f *testing.F) {
	k := macsectest.New()
	d, err := k.CreateDevice(k.AddInterface("eth0", mac, 1500), "ms0", macsec.Closed(own, suite))
	for _, err := range []error{
		err, k.UpdateDevice(d.Index, macsec.DeviceUpdate{Up: new(true)}), k.AddTxSA(d.Index, association(0, 7)),
		k.AddRxSC(d.Index, own, true), k.AddRxSA(d.Index, own, association(0, 7)),
	} {
		if err != nil {
			f.Fatal(err)
		}
	}
	for _, n := range []int{14, 40, 60, 1000} {
		wire, err := k.Transmit(d.Index, make([]byte, n))
		if err != nil {
			f.Fatal(err)
		}
		for _, cut := range []int{0, 1, 16, 30} {
			f.Add(wire[:max(0, len(wire)-cut)])
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if _, err := k.Receive(d.Index, frame); err != nil && !errors.Is(err, macsectest.ErrDropped) {
			t.Fatal(fmt.Errorf("neither delivered nor dropped: %w", err))
		}
	})
}

package conformance

import (
	"bytes"
	"testing"

	"github.com/lever-link/lever/macsec"
)

// ends makes a device that sends, on Parent, and one that receives from it, on
// Other, with the same key.
func (l *lab) ends(t *testing.T, cfg macsec.DeviceConfig, k macsec.SA) (from, to *macsec.Device) {
	t.Helper()
	from = l.create(t, l.Parent, "ms0", cfg)
	cfg.SCI = peer
	if !cfg.IncludeSCI {
		cfg.SCI = macsec.SCI{}
	}
	to = l.create(t, l.Other, "ms1", cfg)
	must(t, l.AddRxSC(to.Index, from.SCI, true))
	l.up(t, from.Index)
	l.up(t, to.Index)
	must(t, l.AddTxSA(from.Index, k))
	must(t, l.AddRxSA(to.Index, from.SCI, k))
	return from, to
}

// arriveOne lets a frame arrive that must be delivered as want.
func (l *lab) arriveOne(t *testing.T, index int, wire, want []byte) {
	t.Helper()
	got := l.Arrive(t, index, [][]byte{wire}, 1)
	if len(got) != 1 || !bytes.Equal(got[0], want) {
		t.Errorf("delivered\n %x, want\n %x", got, want)
	}
}

// arriveNone lets a frame arrive that must not be delivered.
func (l *lab) arriveNone(t *testing.T, index int, wire []byte) {
	t.Helper()
	if got := l.Arrive(t, index, [][]byte{wire}, 0); len(got) != 0 {
		t.Errorf("delivered %x, want nothing", got)
	}
}

var receiveCases = []testCase{
	{"receive/every suite", func(t *testing.T, l *lab) {
		n := byte(0)
		for _, suite := range allSuites {
			for _, encrypt := range []bool{true, false} {
				for _, icv := range []uint8{16, 12, 8} {
					n++
					cfg := macsec.Closed(mine, suite)
					cfg.Encrypt, cfg.ICVLen = encrypt, icv
					from, to := l.ends(t, cfg, sa(suite, 1, n))
					must(t, l.UpdateDevice(from.Index, macsec.DeviceUpdate{EncodingAN: new(macsec.AN(1))}))
					octets := uint64(0)
					for _, size := range []int{50, 20, 900} {
						f := frame(size)
						l.arriveOne(t, to.Index, l.sendOne(t, from.Index, f), f)
						octets += uint64(size)
					}
					s := l.secY(t, to.Index)
					want := macsec.RxSCStats{InPktsOK: 3, InOctetsDecrypted: octets}
					if !encrypt {
						want = macsec.RxSCStats{InPktsOK: 3, InOctetsValidated: octets}
					}
					sc := s.RxSC(mine)
					equal(t, "channel", sc.Stats, want)
					equal(t, "association", sc.SA(1).Stats, macsec.SAStats{InPktsOK: 3})
					equal(t, "next", sc.SA(1).NextPN, 4)
					equal(t, "SecY", s.Stats, macsec.SecYStats{})
					must(t, l.DeleteDevice(from.Index))
					must(t, l.DeleteDevice(to.Index))
				}
			}
		}
	}},
	{"receive/refused", func(t *testing.T, l *lab) {
		const suite = macsec.GCMAESXPN256
		from, to := l.ends(t, macsec.Closed(mine, suite), sa(suite, 0, 1))
		wire := l.sendOne(t, from.Index, frame(60))
		change := func(at int, bits byte) []byte {
			w := bytes.Clone(wire)
			w[at] ^= bits
			return w
		}
		for _, f := range [][]byte{
			change(60, 1),          // data
			change(2, 1),           // destination
			change(len(wire)-1, 1), // ICV
			change(19, 4),          // packet number
			change(14, 1),          // association without key
			change(24, 1),          // SCI
			change(14, 0x80),       // version
			change(15, 0x40),       // reserved bits
			change(14, 0x04),       // E without C: not for us
			frame(60),              // no SecTAG
			wire[:96],              // cut off, yet long enough to be one
		} {
			l.arriveNone(t, to.Index, f)
		}
		l.arriveOne(t, to.Index, wire, frame(60))
		l.arriveNone(t, to.Index, wire) // again
		s := l.secY(t, to.Index)
		sc := s.RxSC(mine)
		equal(t, "SecY", s.Stats, macsec.SecYStats{InPktsNoTag: 1, InPktsBadTag: 2, InPktsNoSCI: 1})
		equal(t, "channel", sc.Stats, macsec.RxSCStats{
			InPktsOK: 1, InPktsNotValid: 5, InPktsNotUsingSA: 1, InPktsLate: 1,
			InOctetsDecrypted: 5*60 + 52,
		})
		equal(t, "association", sc.SA(0).Stats, macsec.SAStats{InPktsOK: 1, InPktsNotValid: 5})
		must(t, l.UpdateRxSA(to.Index, mine, 0, macsec.SAUpdate{Active: new(false)}))
		l.arriveNone(t, to.Index, l.sendOne(t, from.Index, frame(60)))
		equal(t, "not in use", l.secY(t, to.Index).RxSC(mine).Stats.InPktsNotUsingSA, 2)
	}},
	{"receive/window", func(t *testing.T, l *lab) {
		for i, suite := range []macsec.CipherSuite{macsec.GCMAES128, macsec.GCMAESXPN128} {
			cfg := macsec.Closed(mine, suite)
			cfg.ReplayWindow = 3
			from, to := l.ends(t, cfg, sa(suite, 0, byte(i)))
			var wire [][]byte
			for range 10 {
				wire = append(wire, l.sendOne(t, from.Index, frame(60)))
			}
			// wire[n] has packet number n+1. Next after 8 is 9; 6 and up are good.
			l.arriveOne(t, to.Index, wire[7], frame(60))
			l.arriveOne(t, to.Index, wire[5], frame(60))
			l.arriveNone(t, to.Index, wire[4])
			// A window is no memory: within it the kernel accepts repeats.
			l.arriveOne(t, to.Index, wire[5], frame(60))
			// Delay protection: raising the next one raises the floor to 10.
			must(t, l.UpdateRxSA(to.Index, mine, 0, macsec.SAUpdate{NextPN: new(uint64(13))}))
			l.arriveNone(t, to.Index, wire[8])
			l.arriveOne(t, to.Index, wire[9], frame(60))
			sc := l.secY(t, to.Index).RxSC(mine)
			equal(t, "late", sc.Stats.InPktsLate, 2)
			equal(t, "good", sc.Stats.InPktsOK, 4)
			equal(t, "next", sc.SA(0).NextPN, 13)
			// Without replay protection what is late counts as delayed.
			must(t, l.UpdateDevice(to.Index, macsec.DeviceUpdate{ReplayProtect: new(false)}))
			l.arriveOne(t, to.Index, wire[0], frame(60))
			equal(t, "delayed", l.secY(t, to.Index).RxSC(mine).Stats.InPktsDelayed, 1)
			must(t, l.DeleteDevice(from.Index))
			must(t, l.DeleteDevice(to.Index))
		}
	}},
	{"receive/beyond 32 bits", func(t *testing.T, l *lab) {
		const suite = macsec.GCMAESXPN256
		k := sa(suite, 0, 1)
		k.NextPN = 5<<32 - 2
		from, to := l.ends(t, macsec.Closed(mine, suite), k)
		for range 4 {
			l.arriveOne(t, to.Index, l.sendOne(t, from.Index, frame(60)), frame(60))
		}
		equal(t, "next", l.secY(t, to.Index).RxSC(mine).SA(0).NextPN, 5<<32+2)
		// Losing up to half of the 32 bits is no problem, more is.
		gap := func(n uint64) uint64 {
			next := l.secY(t, from.Index).TxSC.SA(0).NextPN + n
			must(t, l.UpdateTxSA(from.Index, 0, macsec.SAUpdate{Active: new(false)}))
			must(t, l.UpdateTxSA(from.Index, 0, macsec.SAUpdate{Active: new(true), NextPN: &next}))
			return next
		}
		next := gap(1<<31 - 1)
		l.arriveOne(t, to.Index, l.sendOne(t, from.Index, frame(60)), frame(60))
		equal(t, "next after a gap", l.secY(t, to.Index).RxSC(mine).SA(0).NextPN, next+1)
		gap(1 << 32)
		l.arriveNone(t, to.Index, l.sendOne(t, from.Index, frame(60)))
		equal(t, "not valid", l.secY(t, to.Index).RxSC(mine).Stats.InPktsNotValid, 1)
	}},
	{"receive/lax", func(t *testing.T, l *lab) {
		const suite = macsec.GCMAES256
		cfg := macsec.Closed(mine, suite)
		cfg.Encrypt, cfg.ReplayProtect, cfg.Validate = false, false, macsec.Check
		from, to := l.ends(t, cfg, sa(suite, 0, 1))
		wire := l.sendOne(t, from.Index, frame(60))
		bad := bytes.Clone(wire)
		bad[len(bad)-1] ^= 1
		unused := bytes.Clone(wire)
		unused[14] ^= 1
		l.arriveOne(t, to.Index, bad, frame(60))
		l.arriveOne(t, to.Index, unused, frame(60))
		l.arriveOne(t, to.Index, frame(70), frame(70))
		must(t, l.UpdateDevice(to.Index, macsec.DeviceUpdate{Validate: new(macsec.Disabled)}))
		l.arriveOne(t, to.Index, bad, frame(60))
		s := l.secY(t, to.Index)
		equal(t, "SecY", s.Stats, macsec.SecYStats{InPktsUntagged: 1})
		equal(t, "channel", s.RxSC(mine).Stats, macsec.RxSCStats{
			InPktsInvalid: 1, InPktsUnusedSA: 1, InPktsUnchecked: 1, InOctetsValidated: 60,
		})
		equal(t, "association", s.RxSC(mine).SA(0).Stats, macsec.SAStats{InPktsInvalid: 1})
	}},
	{"receive/without SCI", func(t *testing.T, l *lab) {
		const suite = macsec.GCMAES128
		// A point to point link needs none; an end station has it in its address.
		for i, es := range []bool{false, true} {
			cfg := macsec.Closed(macsec.SCI{}, suite)
			cfg.IncludeSCI, cfg.EndStation = false, es
			from, to := l.ends(t, cfg, sa(suite, 0, byte(i)))
			f := frame(60)
			copy(f[6:], l.MAC)
			l.arriveOne(t, to.Index, l.sendOne(t, from.Index, f), f)
			must(t, l.DeleteDevice(from.Index))
			must(t, l.DeleteDevice(to.Index))
		}
	}},
	{"receive/inactive channel", func(t *testing.T, l *lab) {
		// The kernel keeps the switch of a channel and does not look at it: what
		// shuts a peer out is deactivating the association, or deleting.
		const suite = macsec.GCMAES128
		from, to := l.ends(t, macsec.Closed(mine, suite), sa(suite, 0, 1))
		must(t, l.UpdateRxSC(to.Index, mine, false))
		l.arriveOne(t, to.Index, l.sendOne(t, from.Index, frame(60)), frame(60))
		must(t, l.DeleteRxSC(to.Index, mine))
		l.arriveNone(t, to.Index, l.sendOne(t, from.Index, frame(60)))
		equal(t, "no SCI", l.secY(t, to.Index).Stats.InPktsNoSCI, 1)
	}},
}

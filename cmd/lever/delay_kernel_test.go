//go:build kernel

package main

import (
	"fmt"
	"testing"

	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/macsec"
)

// With delay protection a receive SA's floor follows what its peer has sent, also
// when nothing arrives: an idle link accepts nothing that was held back. Traffic
// goes on, with and without XPN, and with a window that forgives nothing.
func TestDelayProtection(t *testing.T) {
	for _, tt := range []struct {
		cipher string
		window uint32
	}{{"gcm-aes-xpn-256", 8}, {"gcm-aes-256", 0}} {
		t.Run(fmt.Sprintf("%s with a window of %d", tt.cipher, tt.window), func(t *testing.T) {
			t.Parallel()
			inv := inventoryOf("", fmt.Sprintf(`
  - id: link-1
    a: {node: r1, interface: up0, addresses: [10.0.17.1/24]}
    z: {node: r2, interface: up0, addresses: [10.0.17.2/24]}
    cipher: %s
    mka: {delay_protect: true, replay_window: %d}
`, tt.cipher, tt.window))
			s := newSite(t, inv, inv)
			s.deliver(1, "ab")
			s.start()
			key := s.secured()
			follows := func() {
				t.Helper()
				for i, r := range s.routers {
					s.must(lab.Await(s.ctx(), patience, fmt.Sprintf("what %s accepts to follow what its peer sends", r.Name), func() (bool, string) {
						own, err := r.SecY(theDevice)
						s.must(err)
						far, err := s.routers[1-i].SecY(theDevice)
						s.must(err)
						rx, tx := own.RxSC(far.SCI), far.TxSC.SA(far.EncodingAN)
						if rx == nil || tx == nil || rx.SA(tx.AN) == nil {
							return false, "no SA"
						}
						floor := int64(rx.SA(tx.AN).NextPN) - int64(tt.window)
						return own.ReplayProtect && own.ReplayWindow == tt.window && floor == int64(tx.NextPN),
							fmt.Sprintf("%d is accepted with a window of %d, and %d comes next", floor, own.ReplayWindow, tx.NextPN)
					}))
				}
			}
			follows()
			for range 2 {
				s.underStream(0, 1, besides, func() {
					s.passes(3*besides, (*lab.WireCount).MACsec)
				})
				follows()
			}
			s.lever(s.keyServer(), "rekey", theLink)
			key = s.securedAnew(key)
			s.pings(0, 1)
			follows()
			for i := range s.routers {
				if l := s.status(i); !l.DelayProtect || len(l.Faults) != 0 {
					t.Errorf("%+v", l)
				}
				v, err := s.routers[i].SecY(theDevice)
				s.must(err)
				if n := late(v); n != 0 {
					t.Errorf("%s dropped %d frames for being late", s.routers[i].Name, n)
				}
			}
			if again := s.secured(); again.ID != key.ID {
				t.Errorf("%v after %v", again, key)
			}
			s.onlyEncrypted()
		})
	}
}

// late is how many frames a device dropped because their packet numbers were
// below what it accepts.
func late(v *macsec.SecY) (n uint64) {
	for i := range v.RxSCs {
		n += v.RxSCs[i].Stats.InPktsLate
	}
	return n
}

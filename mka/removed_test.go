package mka_test

import (
	"fmt"
	"testing"
	"time"
)

// A CAK that was withdrawn while its SAK carries, and is revoked afterwards.
func TestRevokedAfterItWasRemoved(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint(restart), func(t *testing.T) {
			s, a, b := pair(t, nil)
			b.Kill()
			a.RemoveCAK(epoch1.CKN) // displaced: its SAs stay until they are replaced
			s.Net.Run(10 * time.Second)
			if restart {
				a.Kill()
				a.Start(epoch2)
				s.Net.Run(time.Second)
			}
			a.RevokeCAK(epoch1.CKN)
			s.Net.Run(time.Second)
			if n, m := a.SAs.TransmitSAs(), a.SAs.ReceiveSCs(); n+m > 0 {
				t.Errorf("%d transmit SAs and %d receive SCs of a revoked CAK", n, m)
			}
		})
	}
}

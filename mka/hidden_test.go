package mka_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/internal/sim"
	"github.com/lever-link/lever/mka"
)

// Made-up CKNs, each twice, hide everything else.
func TestMadeUpCKNsHideNothing(t *testing.T) {
	s, a, b := pair(t, nil)
	b.Kill()
	attacker := s.Segment.Attach(func([]byte) {})
	ick, err := mka.NewICK(secret.New(bytes.Repeat([]byte{7}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	flood := func() {
		for i := range 16 {
			m := mka.MKPDU{Source: mka.MAC{2, 9, 9, 9, 9, 9}, Basic: mka.Basic{Version: 3, SCI: mka.SCI{1}, MI: mka.MI{1}, MN: 1, CKN: mka.CKN(fmt.Sprintf("made up %d", i))}}
			f, err := m.Append(nil, ick)
			if err != nil {
				t.Fatal(err)
			}
			attacker.Send(f)
			attacker.Send(f)
		}
	}
	flood()
	s.Net.Run(time.Second)
	b.StartFrom(nil, sim.CAK{CKN: epoch1.CKN, Octet: 9, Rank: 1}) // the wrong key: icv-mismatch
	for range 10 {
		flood()
		s.Net.Run(3 * time.Second)
	}
	if a.Condition(mka.ConditionICVMismatch) == nil {
		t.Errorf("%d conditions, none is the ICV mismatch", len(a.Status().Conditions))
	}
}

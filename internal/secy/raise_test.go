package secy

import (
	"fmt"
	"net"
	"testing"

	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
	"github.com/lever-link/lever/mka"
)

// Raising the floor across the middle of the lower 32 bits costs no frame that is
// above the floor: the kernel would take it for one of after the next wrap.
func TestRaiseAcrossTheMiddle(t *testing.T) {
	for _, window := range []uint32{64, 1 << 20, 1<<30 - 1} {
		t.Run(fmt.Sprint(window), func(t *testing.T) {
			k := macsectest.New()
			ends := [2]*SecY{}
			for i, sci := range []mka.SCI{ownSCI, farSCI} {
				cfg := DeviceConfig(macsec.SCI(sci), macsec.GCMAESXPN256)
				cfg.ReplayWindow = window
				mac := net.HardwareAddr(sci[:6])
				d, err := k.CreateDevice(k.AddInterface(fmt.Sprint("eth", i), mac, 1500), fmt.Sprint("sec", i), cfg)
				if err != nil {
					t.Fatal(err)
				}
				up := true
				if err := k.UpdateDevice(d.Index, macsec.DeviceUpdate{Up: &up}); err != nil {
					t.Fatal(err)
				}
				ends[i] = &SecY{k, d.Index}
			}
			rx, tx := ends[0], ends[1]
			do := func(y *SecY, ops ...mka.Op) {
				t.Helper()
				for _, op := range ops {
					if err := y.Do(op); err != nil {
						t.Fatal(err)
					}
				}
			}
			addRx := saOp(mka.OpAddReceiveSA, 1, 7)
			addRx.SSCI = 1
			addTx := saOp(mka.OpAddTransmitSA, 1, 7)
			addTx.SCI, addTx.SSCI = farSCI, 1
			do(rx, mka.Op{Kind: mka.OpAddReceiveSC, SCI: farSCI}, addRx)
			do(tx, addTx, mka.Op{Kind: mka.OpEnableTransmitSA, SCI: farSCI, AN: 1, KI: addTx.KI})
			lpn := uint64(1<<31) - 40
			if window > 64 {
				lpn = 1<<31 - uint64(window)/2
			}
			if err := k.MoveTx(tx.Index, 1, lpn-1); err != nil {
				t.Fatal(err)
			}
			frame := make([]byte, 60)
			copy(frame[6:], farSCI[:6])
			frame[12] = 8
			pass := func() error {
				w, err := k.Transmit(tx.Index, frame)
				if err != nil {
					t.Fatal(err)
				}
				_, err = k.Receive(rx.Index, w)
				return err
			}
			if err := pass(); err != nil {
				t.Fatalf("before: %v", err)
			}
			do(rx, mka.Op{Kind: mka.OpRaiseReceivePN, SCI: farSCI, AN: 1, KI: addRx.KI, LowestPN: lpn})
			for i := range 10 {
				if err := pass(); err != nil {
					t.Fatalf("frame %d after the floor was raised to %d: %v", i, lpn, err)
				}
			}
		})
	}
}

package conformance_test

import (
	"errors"
	"net"
	"testing"

	"github.com/lever-link/lever/macsec/macsectest"
	"github.com/lever-link/lever/macsec/macsectest/conformance"
)

func TestConformance(t *testing.T) {
	conformance.Run(t, func(*testing.T) *conformance.Lab {
		k := macsectest.New()
		mac, other := net.HardwareAddr{2, 0, 0, 0, 1, 1}, net.HardwareAddr{2, 0, 0, 0, 1, 2}
		// Frames that are dropped are the case's business, anything else is not.
		collect := func(t *testing.T, out [][]byte, frame []byte, err error) [][]byte {
			t.Helper()
			switch {
			case errors.Is(err, macsectest.ErrDropped):
				return out
			case err != nil:
				t.Fatal(err)
			}
			return append(out, frame)
		}
		return &conformance.Lab{
			Kernel: k,
			Parent: k.AddInterface("a", mac, 1500), Other: k.AddInterface("b", other, 1500),
			MAC: mac, OtherMAC: other,
			Send: func(t *testing.T, index int, frame []byte, _ int) [][]byte {
				wire, err := k.Transmit(index, frame)
				return collect(t, nil, wire, err)
			},
			Arrive: func(t *testing.T, index int, frames [][]byte, _ int) (got [][]byte) {
				for _, f := range frames {
					data, err := k.Receive(index, f)
					got = collect(t, got, data, err)
				}
				return got
			},
		}
	})
}

package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lever-link/lever/macsec"
)

// secy is a secured device as the kernel has it.
func (r *router) secy(name string) (*macsec.SecY, error) {
	dev, err := r.kernel.Device(name)
	if err != nil {
		return nil, err
	}
	return r.kernel.SecY(dev.Index)
}

// inUse returns the key that a kernel transmits with, and whether it also
// receives with it from somebody.
func inUse(s *macsec.SecY) (key macsec.KeyID, an macsec.AN, both bool) {
	tx := s.TxSC.SA(s.EncodingAN)
	if tx == nil || !tx.Active {
		return macsec.KeyID{}, 0, false
	}
	for _, rx := range s.RxSCs {
		if sa := rx.SA(tx.AN); rx.Active && sa != nil && sa.Active && sa.KeyID == tx.KeyID {
			return tx.KeyID, tx.AN, true
		}
	}
	return tx.KeyID, tx.AN, false
}

// keyNumber is the KN in a key identifier, which MKA makes of the key server's
// MI and the KN.
func keyNumber(id macsec.KeyID) uint32 { return binary.BigEndian.Uint32(id[12:]) }

// A kernelKey is the SAK that both ends' kernels transmit and receive with.
type kernelKey struct {
	id macsec.KeyID
	an macsec.AN
}

func (k kernelKey) String() string {
	return fmt.Sprintf("KN %d, AN %d", keyNumber(k.id), k.an)
}

// awaitKey waits until both kernels use one key for both directions, and it is
// not old.
func (d *demo) awaitKey(ctx context.Context, limit time.Duration, what string, old macsec.KeyID) (kernelKey, error) {
	var now kernelKey
	err := d.await(ctx, limit, what, func() (bool, string) {
		var keys [2]macsec.KeyID
		var seen []string
		held := true
		for i, r := range d.routers {
			s, err := r.secy(d.ends[i].Secure)
			switch {
			case errors.Is(err, macsec.ErrNotExist):
				seen, held = append(seen, r.name+" has no "+d.ends[i].Secure), false
				continue
			case err != nil:
				seen, held = append(seen, err.Error()), false
				continue
			}
			var both bool
			keys[i], now.an, both = inUse(s)
			now.id = keys[i]
			held = held && both
			seen = append(seen, fmt.Sprintf("%s transmits with %s and %s with it", r.name, describeKey(keys[i]), receives(both)))
		}
		return held && keys[0] == keys[1] && keys[0] != old, strings.Join(seen, "; ")
	})
	return now, err
}

func describeKey(id macsec.KeyID) string {
	if id == (macsec.KeyID{}) {
		return "no key"
	}
	return fmt.Sprintf("KN %d of MI %x", keyNumber(id), id[:12])
}

func receives(both bool) string {
	if both {
		return "receives"
	}
	return "does not receive"
}

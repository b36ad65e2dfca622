package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lever-link/lever/macsec"
)

// SecY is a secured device as the kernel has it.
func (r *Router) SecY(name string) (*macsec.SecY, error) {
	dev, err := r.kernel.Device(name)
	if err != nil {
		return nil, err
	}
	return r.kernel.SecY(dev.Index)
}

// KeyInUse returns the key that a kernel transmits with, and whether it also
// receives with it from somebody.
func KeyInUse(s *macsec.SecY) (key macsec.KeyID, an macsec.AN, both bool) {
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

// KeyNumber is the KN in a key identifier, which MKA makes of the key server's
// MI and the KN.
func KeyNumber(id macsec.KeyID) uint32 { return binary.BigEndian.Uint32(id[12:]) }

// A KernelKey is the SAK that both ends' kernels transmit and receive with.
type KernelKey struct {
	ID macsec.KeyID
	AN macsec.AN
}

func (k KernelKey) String() string {
	return fmt.Sprintf("KN %d, AN %d", KeyNumber(k.ID), k.AN)
}

// A SecuredEnd is a router's end of a secured link.
type SecuredEnd struct {
	Router *Router
	Device string
}

// AwaitKey waits until the kernels of all ends use one key for both directions,
// and it is not old.
func AwaitKey(ctx context.Context, ends []SecuredEnd, limit time.Duration, what string, old macsec.KeyID) (KernelKey, error) {
	var now KernelKey
	var routers []*Router
	for _, e := range ends {
		routers = append(routers, e.Router)
	}
	err := AwaitAlive(ctx, routers, limit, what, func() (bool, string) {
		var seen []string
		held := true
		for i, e := range ends {
			s, err := e.Router.SecY(e.Device)
			switch {
			case errors.Is(err, macsec.ErrNotExist):
				seen, held = append(seen, e.Router.Name+" has no "+e.Device), false
				continue
			case err != nil:
				seen, held = append(seen, err.Error()), false
				continue
			}
			key, an, both := KeyInUse(s)
			held = held && both && len(s.RxSCs) >= len(ends)-1 && (i == 0 || key == now.ID) && key != old
			now = KernelKey{key, an}
			seen = append(seen, fmt.Sprintf("%s transmits with %s and %s with it", e.Router.Name, describeKey(key), receives(both)))
		}
		return held, strings.Join(seen, "; ")
	})
	return now, err
}

func describeKey(id macsec.KeyID) string {
	if id == (macsec.KeyID{}) {
		return "no key"
	}
	return fmt.Sprintf("KN %d of MI %x", KeyNumber(id), id[:12])
}

func receives(both bool) string {
	if both {
		return "receives"
	}
	return "does not receive"
}

package demo

import (
	"context"
	"github.com/lever-link/lever/internal/lab"
	"time"

	"github.com/lever-link/lever/macsec"
)

// await is await for as long as the agents that were started live.
func (d *demo) await(ctx context.Context, limit time.Duration, what string, look func() (bool, string)) error {
	return lab.AwaitAlive(ctx, d.routers[:], limit, what, look)
}

// awaitKey waits until both kernels use one key for both directions, and it is
// not old.
func (d *demo) awaitKey(ctx context.Context, limit time.Duration, what string, old macsec.KeyID) (lab.KernelKey, error) {
	var ends []lab.SecuredEnd
	for i, r := range d.routers {
		ends = append(ends, lab.SecuredEnd{Router: r, Device: d.ends[i].Secure})
	}
	return lab.AwaitKey(ctx, ends, limit, what, old)
}

// bothStatus waits until both ends' status is as it should be, and returns it.
func (d *demo) bothStatus(ctx context.Context, limit time.Duration, what string, good func(lab.LinkStatus) bool) ([2]lab.LinkStatus, error) {
	both, err := lab.AwaitStatus(ctx, d.routers[:], d.secured.ID, limit, what, func(l []lab.LinkStatus) bool { return good(l[0]) && good(l[1]) })
	return [2]lab.LinkStatus(both), err
}

//go:build !kernel

package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/keys"
)

// An epoch that was revoked while the agent was away keys nothing once the channel
// that says so was heard; one that a channel just cannot be asked for goes on.
func TestEpochRevokedWhileAway(t *testing.T) {
	for name, side := range map[string]keys.Side{"channel a": keys.A, "channel b": keys.B} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newSecuredPair(t)
				time.Sleep(time.Minute)
				p.r1.halt()
				p.r1.channels[side].put(epoch(t, "1.0"), nil)
				p.r1.start()
				p.r1.await(time.Second, "waiting for keys", func(s LinkStatus) bool { return s.State == StateWaiting })
				if s := p.r1.device(); len(s.TxSC.SAs) != 0 || len(s.RxSCs) != 0 {
					t.Errorf("still keyed: %+v", s)
				}
				p.deliver(epoch(t, "2.0"))
				p.secured(20 * time.Second)
			})
		})
	}
	for name, away := range map[string][]keys.Side{"neither can be asked": {keys.A, keys.B}, "channel a cannot": {keys.A}, "channel b cannot": {keys.B}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newSecuredPair(t)
				time.Sleep(time.Minute)
				p.r1.halt()
				for _, side := range away {
					p.r1.channels[side].cut(true)
				}
				p.r1.start()
				defer p.stream(t)()
				time.Sleep(time.Minute)
				for _, side := range away {
					p.r1.channels[side].cut(false)
				}
				p.secured(20 * time.Second)
			})
		})
	}
}

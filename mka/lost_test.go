package mka_test

import (
	"testing"
	"time"

	"github.com/lever-link/lever/mka"
)

// SAs that do not work any more are replaced by those of a fresh SAK, at once, and
// no frame is lost that was not lost already, whoever finds it out.
func TestLostSAIsReplaced(t *testing.T) {
	for _, who := range []string{"key server", "client"} {
		t.Run(who, func(t *testing.T) {
			s, a, b := pair(t, nil)
			if !a.Status().IsKeyServer {
				a, b = b, a
			}
			if who == "client" {
				a = b
			}
			s.Net.Run(10 * time.Second)
			before := a.Status().KI
			a.Step(mka.Event{Kind: mka.EventSALost, KI: before})
			if a.Status().Secured {
				t.Error("still said to be secured")
			}
			a.Step(mka.Event{Kind: mka.EventSALost, KI: before}) // again: one fresh SAK is enough
			s.Net.Run(time.Second)
			after := a.Status().KI
			if after == before || !s.Secured() {
				t.Errorf("KI %v after %v, secured %v", after, before, s.Secured())
			}
			s.Net.Run(time.Minute)
			if now := a.Status().KI; now != after {
				t.Errorf("another SAK %v after %v", now, after)
			}
			a.Step(mka.Event{Kind: mka.EventSALost, KI: before}) // of long ago
			s.Net.Run(10 * time.Second)
			if now := a.Status().KI; now != after {
				t.Errorf("another SAK %v for a loss of long ago", now)
			}
			s.noGaps()
		})
	}
}

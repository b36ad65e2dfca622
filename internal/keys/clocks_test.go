package keys_test

import (
	"slices"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/keys"
)

// Two ends, of which one's clock is ahead by as many epochs as are issued ahead, go on
// from each epoch to the next, and neither is left with a key that gets too old.
func TestEndsWithOtherClocksRollOver(t *testing.T) {
	const length, maxAge = time.Hour, 6 * time.Hour
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var ahead [2]time.Duration
	var rings [2]*keys.Ring
	for i := range rings {
		ring, err := keys.NewRing(linkID, keys.State{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		ring.Limits(length, maxAge)
		ring.Wall(func() time.Time { return now.Add(ahead[i]) })
		rings[i] = ring
	}
	// deliver gives both what the issuers have, and has MKA confirm the newest in common.
	deliver := func() (confirmed keys.Epoch) {
		var offered [2][]keys.Epoch
		for i, r := range rings {
			var c keys.Change
			for side := range keys.Side(2) {
				material := map[keys.Epoch][]byte{}
				for k := -7; k <= keys.MaxPrefetch; k++ {
					e := keys.ScheduledEpoch(now.Add(time.Duration(k)*length), length)
					material[e] = octets(side.String() + e.String())
				}
				s := keys.NewSnapshot("x", material)
				s.LimitPrefetch(now.Add(ahead[i]))
				c = r.Update(side, s, now)
			}
			for _, o := range c.Offers {
				offered[i] = append(offered[i], o.Epoch)
			}
		}
		for _, e := range offered[0] {
			if slices.Contains(offered[1], e) {
				for _, r := range rings {
					r.Confirm(e, now)
				}
				return e
			}
		}
		t.Fatalf("at %s nothing is offered by both: %v and %v", now, offered[0], offered[1])
		return keys.Epoch{}
	}
	for hour := range 48 {
		if hour == 3 {
			ahead[1] = keys.MaxPrefetch * length
		}
		current := keys.ScheduledEpoch(now, length)
		confirmed := deliver()
		if hour > 0 && confirmed.Less(keys.ScheduledEpoch(now.Add(-2*length), length)) {
			t.Errorf("in hour %d, epoch %s, both use %s", hour, current, confirmed)
		}
		now = now.Add(length)
	}
}

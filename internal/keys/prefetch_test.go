package keys_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/keys"
)

// names are epochs in order.
func names[V any](m map[keys.Epoch]V) string {
	var out []string
	for _, e := range slices.SortedFunc(maps.Keys(m), keys.Epoch.Compare) {
		out = append(out, e.String())
	}
	return strings.Join(out, " ")
}

func TestLimitPrefetch(t *testing.T) {
	at := func(minute int64) time.Time { return time.Unix(minute*60, 0) }
	for _, c := range []struct {
		name, keys, present   string
		now                   time.Time
		wantKeys, wantPresent string
		again                 time.Time
	}{
		{"nothing", "", "", at(30000000), "", "", time.Time{}},
		{"counted epochs have all begun", "1.0 2.0 3.0 4.0", "", at(0), "1.0 2.0 3.0 4.0", "", time.Time{}},
		{"two that follow", "30000000.0 30000010.0 30000020.0", "", at(30000005), "30000000.0 30000010.0 30000020.0", "", time.Time{}},
		{"three", "30000000.0 30000010.0 30000020.0 30000030.0", "", at(30000005), "30000000.0 30000010.0 30000020.0", "", at(30000010)},
		{"and a moment later", "30000000.0 30000010.0 30000020.0 30000030.0", "", at(30000010), "30000000.0 30000010.0 30000020.0 30000030.0", "", time.Time{}},
		{"just before", "30000010.0 30000020.0 30000030.0", "", at(30000010).Add(-1), "30000010.0 30000020.0", "", at(30000010)},
		{
			"generations of one number count once", "30000010.0 30000010.1 30000020.0 30000020.7 30000030.0 30000030.1", "", at(30000000),
			"30000010.0 30000010.1 30000020.0 30000020.7", "", at(30000010),
		},
		{"what is not usable counts", "30000010.0 30000030.0", "30000020.0 30000040.0", at(30000000), "30000010.0", "30000020.0", at(30000010)},
		{"far beyond any clock", "18446744073709551614.0 18446744073709551615.0", "30000010.0", at(30000000), "18446744073709551614.0", "30000010.0", at(30000010)},
	} {
		t.Run(c.name, func(t *testing.T) {
			material := map[keys.Epoch][]byte{}
			for name := range strings.FieldsSeq(c.keys) {
				material[epoch(t, name)] = octets(name)
			}
			s := keys.NewSnapshot("/keys/a", material)
			all := maps.Clone(s.Keys)
			s.Present = map[keys.Epoch]bool{}
			for name := range strings.FieldsSeq(c.present) {
				s.Present[epoch(t, name)] = true
			}
			again := s.LimitPrefetch(c.now)
			if got := names(s.Keys); got != c.wantKeys {
				t.Errorf("keeps %q, want %q", got, c.wantKeys)
			}
			if got := names(s.Present); got != c.wantPresent {
				t.Errorf("shows %q, want %q", got, c.wantPresent)
			}
			if !again.Equal(c.again) {
				t.Errorf("again %s, want %s", again, c.again)
			}
			for e, m := range all {
				if _, kept := s.Keys[e]; m.Key.IsZero() == kept {
					t.Errorf("%s: kept %v, erased %v", e, kept, m.Key.IsZero())
				}
			}
		})
	}
}

// A machine whose clock is behind begins with what a channel knows to have begun, and
// no machine begins with what no channel has issued yet.
func TestClockThatIsBehind(t *testing.T) {
	id := keys.Identity{Link: "l1", Nodes: []string{"r1", "r2"}}
	const n = 29930400
	start := func(number uint64) time.Time { return keys.Epoch{Number: number}.Start() }
	behind := start(n).AddDate(-3, 0, 0)
	snapshot := func(side keys.Side, asOf time.Time) keys.Snapshot {
		material := map[keys.Epoch][]byte{}
		for i := range uint64(6) {
			material[keys.Epoch{Number: n + i}] = octets(fmt.Sprint(side, i))
		}
		s := keys.NewSnapshot(side.String(), material)
		s.AsOf = asOf
		s.LimitPrefetch(behind)
		return s
	}
	offered := func(asOf time.Time) (newest uint64) {
		r, err := keys.NewRing(id, keys.State{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		r.Wall(func() time.Time { return behind })
		r.Update(keys.A, snapshot(keys.A, asOf), behind)
		c := r.Update(keys.B, snapshot(keys.B, asOf), behind)
		for _, o := range c.Offers {
			newest = max(newest, o.Epoch.Number)
		}
		return newest
	}
	if e := offered(time.Time{}); e != 0 {
		t.Errorf("with a clock that is behind, and no word of a channel, epoch %d is offered", e)
	}
	if e := offered(start(n + 2).Add(time.Second)); e != n+2 {
		t.Errorf("of what was issued in epoch %d, epoch %d is offered", uint64(n+2), e)
	}
}

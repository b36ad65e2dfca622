package keys_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
)

func TestScheduledEpochs(t *testing.T) {
	const two = "a=30000000.0,30000010.0 b=30000000.0,30000010.0 "
	for _, c := range []rule{
		{"an epoch that has not started is not offered", "date=30000000 " + two, "30000000.0", "", ""},
		{"nor is the first", "date=29999990 " + two, "", "", "key-pending 30000000.0"},
		{"revoked before the next has started", "date=30000000 " + two + "ok=30000000.0 a=30000010.0 b=30000010.0", "", "", "key-pending 30000010.0"},
		{"one channel alone before anything has started", "date=29999990 a=30000000.0 b=", "", "", "key-pending 30000000.0"},
		{"it begins at its start", "date=30000000 " + two + "+10m", "30000010.0 30000000.0", "", ""},
		{"a late delivery begins at once", "date=30000011 a=30000000.0,30000010.0 b=30000000.0 b=30000000.0,30000010.0", "30000010.0 30000000.0", "", ""},
		{"a clock that is set forward begins it", "date=30000000 " + two + "clock+1h", "30000010.0 30000000.0", "", ""},
		{"and back again takes nothing away", "date=30000000 " + two + "clock+1h clock-1h", "30000010.0 30000000.0", "", ""},
		{"nor over a restart", "date=30000000 " + two + "clock+1h clock-1h restart", "30000010.0 30000000.0", "", ""},
		{"nor back to 1970", "date=30000000 " + two + "ok=30000000.0 date=1 restart", "30000000.0", "", ""},
		{"counted epochs began before every clock", "date=0 a=1.0,2.0 b=1.0,2.0", "2.0 1.0", "", ""},
		{"what has not started is not late", "date=30000000 a=30000000.0,30000010.0 b=30000000.0", "30000000.0", "", ""},
		{"until it has", "date=30000000 a=30000000.0,30000010.0 b=30000000.0 +10m", "30000000.0", "", "channel-late b 30000010.0"},
		{"material is looked at before it starts", "date=30000000 " + two + "a=30000000.0,30000010.0~", "30000000.0", "", "key-material-short a 30000010.0"},
		{"revoked before it starts", "date=30000000 " + two + "b=30000000.0 +5m", "30000000.0", "", ""},
	} {
		c.run(t)
	}
}

// What a clock that was set back puts beyond what is delivered ahead is not revoked.
func TestClockSetBackRevokesNothing(t *testing.T) {
	b := newBench(t)
	deliver := func(date time.Time) (c keys.Change) {
		for _, side := range []byte("ab") {
			s := b.snapshot(side, "30000000.0,30000010.0,30000020.0,30000030.0")
			s.LimitPrefetch(date)
			c = b.ring.Update(keys.Side(side-'a'), s, b.now)
			b.remember(c)
		}
		return c
	}
	b.do("date=30000021")
	deliver(b.now.Add(b.skew))
	if c := b.do("ok=30000020.0"); offers(c) != "30000020.0" {
		t.Fatalf("offers %q", offers(c))
	}
	if c := deliver(time.Unix(60, 0)); offers(c) != "30000020.0" || len(c.Withdrawn)+len(c.Findings) != 0 {
		t.Errorf("offers %q, withdrawn %q, findings %q", offers(c), withdrawn(c), findings(c))
	}
}

func TestAgeRules(t *testing.T) {
	// An epoch is an hour, and seven hours are too old.
	const used = "limits=1h,7h a=1.0 b=1.0 ok=1.0 "
	for _, c := range []rule{
		{"young", used + "+1h", "1.0", "", ""},
		{"without limits", "a=1.0 b=1.0 ok=1.0 +10000h", "1.0", "", ""},
		{"what was never confirmed has no age", "limits=1h,7h a=1.0 b=1.0 +100h", "1.0", "", ""},
		{"overdue", used + "+66m", "1.0", "", "key-overdue 1.0"},
		{"half its time", used + "+3h30m", "1.0", "", "key-aging 1.0, key-overdue 1.0"},
		{"a later one that is not confirmed changes nothing", used + "+3h30m a=1.0,2.0 b=1.0,2.0", "2.0 1.0", "", "key-aging 1.0, key-overdue 1.0"},
		{"a later one that is", used + "+3h30m a=1.0,2.0 b=1.0,2.0 ok=2.0", "2.0", "1.0 superseded", ""},
		{"too old", used + "+7h", "", "1.0 expired", "key-too-old 1.0"},
		{"and stays so", used + "+7h a=1.0 b=1.0", "", "", "key-too-old 1.0"},
		{"a later one is not affected", used + "a=1.0,2.0 b=1.0,2.0 +7h", "2.0", "1.0 expired", "key-too-old 1.0"},
		{"and brings the link back", used + "+7h a=1.0,2.0 b=1.0,2.0 ok=2.0", "2.0", "", ""},
		{"so does a generation of one channel", used + "+7h b=1.0,1.1 ok=1.1", "1.1", "", ""},
		{"one channel alone does not", used + "+7h a=1.0,2.0", "", "", "channel-late b 2.0, key-too-old 1.0"},
		{"revoked, too", used + "+7h a=2.0 b=2.0", "2.0", "", "key-too-old 1.0"},
		{"other limits", used + "+7h limits=1h,14h", "1.0", "", "key-aging 1.0, key-overdue 1.0"},
		{"no limits any more", used + "+7h limits=0s,0s", "1.0", "", ""},

		{"an override", used + "+7h override=2h", "1.0", "", "key-age-overridden 1.0"},
		{"an override beforehand", used + "+6h override=3h +90m", "1.0", "", "key-age-overridden 1.0"},
		{"an override that is not needed", used + "override=1h", "1.0", "", ""},
		{"an override ends", used + "+7h override=2h +2h", "", "1.0 expired", "key-too-old 1.0"},
		{"an override is taken back", used + "+7h override=2h +1h override=", "", "1.0 expired", "key-too-old 1.0"},
		{"an override that has ended", used + "+7h override=-1h", "", "", "key-too-old 1.0"},
		{"the clock ends no override", used + "+7h override=2h clock+1000h +1h", "1.0", "", "key-age-overridden 1.0"},
		{"nor does it prolong one", used + "+7h override=2h clock-1000h +2h", "", "1.0 expired", "key-too-old 1.0"},

		{"a clock that is set forward ages nothing", used + "clock+100000h +5m", "1.0", "", ""},
		{"nor does one that is set back make younger", used + "+3h30m clock-100000h +3h30m", "", "1.0 expired", "key-too-old 1.0"},
		{"a clock that stands still", used + "+4h clock-4h +3h clock-3h", "", "", "key-too-old 1.0"},
		{"age counts over a restart", used + "+4h restart +3h", "", "1.0 expired", "key-too-old 1.0"},
		{"with a clock that stands still, too", used + "+4h clock-4h restart +3h", "", "1.0 expired", "key-too-old 1.0"},
		{"and one in 1970", used + "+4h clock-1000000h restart +3h", "", "1.0 expired", "key-too-old 1.0"},
		{"time in which no agent ran counts by the clock", used + "off=7h", "", "", "key-too-old 1.0"},
		{"as far as it does", used + "off=3h30m", "1.0", "", "key-aging 1.0, key-overdue 1.0"},
		{"too old stays so over a restart", used + "+7h clock-1000h restart", "", "", "key-too-old 1.0"},
		{"a clock ahead at the start", used + "+1h clock+1000h restart", "", "", "key-too-old 1.0"},
		{"set right, and started again", used + "+1h clock+1000h restart clock-1000h restart", "1.0", "", ""},
		{"a clock that was behind at the confirmation", "clock-1000h " + used + "clock+1000h +2h restart", "1.0", "", "key-overdue 1.0"},
	} {
		c.run(t)
	}
}

// What changes by time alone changes when the Ring is stepped at the times that it
// names, and then at the moment itself.
func TestNext(t *testing.T) {
	b := newBench(t)
	for word := range strings.FieldsSeq("date=30000000 limits=10m,1h a=30000000.0,30000010.0 b=30000000.0 ok=30000000.0 b=30000000.0") {
		b.do(word)
	}
	b.do("ok=30000000.0")
	began := b.now.Add(-2 * time.Second) // when it was confirmed
	var got []string
	said := ""
	for next := b.last.Next; !next.IsZero() && next.Before(began.Add(2*time.Hour)); next = b.last.Next {
		if !next.After(b.now) {
			t.Fatalf("next is %s, now is %s", next, b.now)
		}
		b.now = next
		b.remember(b.ring.Tick(b.now))
		if now := offers(b.last) + "|" + findings(b.last); now != said {
			said = now
			got = append(got, b.now.Sub(began).String()+"|"+now)
		}
	}
	want := []string{
		"3m45s|30000000.0|",
		"9m56s|30000000.0|channel-late b 30000010.0",
		"11m0s|30000000.0|channel-late b 30000010.0, key-overdue 30000000.0",
		"30m0s|30000000.0|channel-late b 30000010.0, key-aging 30000000.0, key-overdue 30000000.0",
		"1h0m0s||channel-late b 30000010.0, key-too-old 30000000.0",
	}
	if len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// An operator reads the dates.
func TestFaultsOfAge(t *testing.T) {
	b := newBench(t)
	for word := range strings.FieldsSeq("date=30000000 limits=1h,7h a=1.0 b=1.0 ok=1.0 +7h override=2h") {
		b.do(word)
	}
	f := b.last.Faults()[0]
	want := "the key of epoch 1.0 is too old since 2027-01-15T15:00:04Z and stays in use until 2027-01-15T17:00:06Z, for a flood (signed by ann, bob)"
	if f.Code != health.KeyAgeOverridden || f.Text != want {
		t.Errorf("%s\nwant %s", f, want)
	}
	f = b.do("override=").Faults()[0]
	if want := "is in use since 2027-01-15T08:00:04Z and too old since 2027-01-15T15:00:04Z"; !strings.Contains(f.Text, want) {
		t.Errorf("%s\nwant %s", f, want)
	}
}

// A record from before ages were kept is as old as its first reading, and says so from
// then on.
func TestAgeOfAnOldRecord(t *testing.T) {
	store := keys.NewStore(t.TempDir())
	if err := store.Save("l1", keys.State{HighWater: epoch(t, "1.0")}); err != nil {
		t.Fatal(err)
	}
	open := func(now time.Time) keys.Change {
		t.Helper()
		ring, err := keys.OpenRing(linkID, store)
		if err != nil {
			t.Fatal(err)
		}
		defer ring.Close()
		ring.Limits(time.Hour, 7*time.Hour)
		return ring.Tick(now)
	}
	at := time.Unix(1800000000, 0)
	if c := open(at); len(c.Findings) != 0 {
		t.Errorf("%+v", c.Findings)
	}
	if c := open(at.Add(7 * time.Hour)); findings(c) != "key-too-old 1.0" {
		t.Errorf("findings %q", findings(c))
	}
	text, err := os.ReadFile(store.Path("l1"))
	if err != nil {
		t.Fatal(err)
	}
	var f map[string]any
	if err := json.Unmarshal(text, &f); err != nil || f["confirmed_at"] != "2027-01-15T08:00:00Z" || f["version"] != 2.0 {
		t.Errorf("%s, %v", text, err)
	}
	bad := strings.Replace(string(text), `"high_water"`, `"used_seconds": -1, "high_water"`, 1)
	if err := os.WriteFile(store.Path("l1"), []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := store.Load("l1"); err == nil {
		t.Errorf("%+v", s)
	}
}

// With the real thing, whose times carry the monotonic clock: what the wall clock says
// matters only at the moment of loading.
func TestAgeByTheMonotonicClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var skew time.Duration
		saved := keys.State{}
		open := func() *keys.Ring {
			ring, err := keys.NewRing(linkID, saved, func(s keys.State) error { saved = s; return nil })
			if err != nil {
				t.Fatal(err)
			}
			ring.Wall(func() time.Time { return time.Now().Add(skew).Round(0) })
			ring.Limits(time.Hour, 7*time.Hour)
			for side := range keys.Side(2) {
				ring.Update(side, keys.NewSnapshot("", map[keys.Epoch][]byte{epoch(t, "1.0"): octets(fmt.Sprint(side))}), time.Now())
			}
			return ring
		}
		ring := open()
		ring.Confirm(epoch(t, "1.0"), time.Now())
		time.Sleep(time.Hour)
		skew = 50 * 365 * 24 * time.Hour
		if c := ring.Tick(time.Now()); offers(c) != "1.0" || findings(c) != "" {
			t.Errorf("offers %q, findings %q", offers(c), findings(c))
		}
		// The same State in the same process, as an interface that was away has it.
		ring.Close()
		ring = open()
		if c := ring.Tick(time.Now()); offers(c) != "1.0" || findings(c) != "" {
			t.Errorf("a second Ring: offers %q, findings %q", offers(c), findings(c))
		}
		time.Sleep(6 * time.Hour)
		if c := ring.Tick(time.Now()); offers(c) != "" || findings(c) != "key-too-old 1.0" {
			t.Errorf("offers %q, findings %q", offers(c), findings(c))
		}
		ring.Close()
	})
}

func TestExpired(t *testing.T) {
	b := newBench(t)
	expired := func(name string) bool {
		ckn, err := keys.CKN(linkID, epoch(t, name))
		if err != nil {
			t.Fatal(err)
		}
		return b.ring.Expired(ckn)
	}
	for word := range strings.FieldsSeq("limits=1h,7h a=1.0,2.0 b=1.0,2.0 ok=2.0 +6h") {
		b.do(word)
	}
	if expired("2.0") || expired("1.0") {
		t.Error("expired before its time")
	}
	b.do("+1h")
	for name, want := range map[string]bool{"1.0": true, "2.0": true, "2.1": false, "3.0": false, "900.0": true} {
		if expired(name) != want {
			t.Errorf("%s is expired: %v", name, !want)
		}
	}
}

package etcdtest_test

import (
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/etcd"
)

// Both ends get the same material, epoch by epoch, and a revocation as soon as it is
// made.
func TestDelivery(t *testing.T) {
	s := theSite(t)
	issuer, ctx := s.issuer(t), within(t)
	a := follow(t, do[*etcd.Channel](t)(etcd.New(s.config(t, "r1"))), "deliver")
	b := follow(t, do[*etcd.Channel](t)(etcd.New(s.config(t, "r2"))), "deliver")
	a.epochs("")
	b.epochs("")
	want := ""
	for n := range 5 {
		p := do[etcd.Progress](t)(issuer.Issue(ctx, between("deliver"), []uint64{uint64(n + 1)}, life, nil))
		if p.Issued != 1 {
			t.Fatalf("%+v", p)
		}
		want = strings.TrimSpace(want + " " + strconv.Itoa(n+1) + ".0")
		if x, y := a.epochs(want), b.epochs(want); !maps.Equal(x.keys, y.keys) {
			t.Fatalf("the ends have different material: %v, %v", x.keys, y.keys)
		}
	}
	p := do[etcd.Progress](t)(issuer.Revoke(ctx, between("deliver"), func(e keys.Epoch) bool { return e.Number == 3 }, nil))
	if p.Keys != 2 || p.Revoked != 1 {
		t.Errorf("%+v", p)
	}
	a.epochs("1.0 2.0 4.0 5.0")
	b.epochs("1.0 2.0 4.0 5.0")
	for _, f := range []*follower{a, b} {
		for _, x := range f.all {
			if len(x.findings) > 0 || x.unavailable {
				t.Errorf("on the way: %s", x)
			}
		}
	}
}

// No more than two epochs are handed over ahead of their time.
func TestPrefetch(t *testing.T) {
	s := theSite(t)
	now := keys.ScheduledEpoch(time.Now(), time.Minute).Number
	numbers := []uint64{now, now + 10, now + 20, now + 30, now + 40}
	do[etcd.Progress](t)(s.issuer(t).Issue(within(t), between("prefetch"), numbers, life, nil))
	f := follow(t, do[*etcd.Channel](t)(etcd.New(s.config(t, "r1"))), "prefetch")
	f.await("the current epoch and two more", func(x seen) bool {
		_, first := x.keys[keys.Epoch{Number: now}]
		_, third := x.keys[keys.Epoch{Number: now + 20}]
		return first && third && len(x.keys) == 3
	})
}

// Each kind of value that is not as it must be has its own fault, and what is in use
// stays.
func TestRefusedValues(t *testing.T) {
	s := theSite(t)
	issuer, ctx := s.issuer(t), within(t)
	root := do[*clientv3.Client](t)(s.c.Admin())
	defer func() { _ = root.Close() }()
	future := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	past := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	digits := strings.Repeat("5a", 32)
	text := func(link, nodes, epoch, from, until string) string {
		return "lever-key/1 " + link + " " + nodes + " " + epoch + " " + from + " " + until + " " + digits + "\n"
	}
	for i, c := range []struct {
		name, value string
		want        health.Code
	}{
		{"another link's", text("other", "2 r1 r2", "2.0", past, future), health.EtcdValueSwapped},
		{"another epoch's", text("LINK", "2 r1 r2", "3.0", past, future), health.EtcdValueSwapped},
		{"another generation's", text("LINK", "2 r1 r2", "2.1", past, future), health.EtcdValueSwapped},
		{"other nodes'", text("LINK", "2 r2 r3", "2.0", past, future), health.EtcdValueSwapped},
		{"nodes that the inventory has not", text("LINK", "2 r1 r3", "2.0", past, future), health.EtcdValueSwapped},
		{"stale", text("LINK", "2 r1 r2", "2.0", "2020-01-01T00:00:00Z", past), health.EtcdValueStale},
		{"oversized", text("LINK", "2 r1 r2", "2.0", past, future) + strings.Repeat(" ", 1024), health.EtcdValueOversized},
		{"empty", "", health.EtcdValueMalformed},
		{"truncated", strings.TrimSuffix(text("LINK", "2 r1 r2", "2.0", past, future), "5a\n"), health.EtcdValueMalformed},
		{"upper case", strings.ToUpper(text("LINK", "2 r1 r2", "2.0", past, future)), health.EtcdValueMalformed},
		{"upper case digits", strings.Replace(text("LINK", "2 r1 r2", "2.0", past, future), digits, strings.ToUpper(digits), 1), health.EtcdValueMalformed},
		{"two spaces", strings.Replace(text("LINK", "2 r1 r2", "2.0", past, future), " 2 ", "  2 ", 1), health.EtcdValueMalformed},
		{"nodes out of order", text("LINK", "2 r2 r1", "2.0", past, future), health.EtcdValueMalformed},
		{"another time zone", text("LINK", "2 r1 r2", "2.0", past, strings.Replace(future, "Z", "+00:00", 1)), health.EtcdValueMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			link := "refused" + strconv.Itoa(i)
			do[etcd.Progress](t)(issuer.Issue(ctx, between(link), []uint64{1, 2}, life, nil))
			f := follow(t, do[*etcd.Channel](t)(etcd.New(s.config(t, "r1"))), link)
			before := f.epochs("1.0 2.0")
			name := "lever/nodes/r1/links/" + link + "/2.0"
			do[*clientv3.PutResponse](t)(root.Put(ctx, name, strings.ReplaceAll(c.value, "LINK", link)))
			after := f.epochs("1.0 (2.0)")
			if e := (keys.Epoch{Number: 1}); before.keys[e] != after.keys[e] {
				t.Error("the other epoch's material has changed")
			}
			if len(after.findings) != 1 || after.findings[0].Code != c.want || after.findings[0].File != "etcd:"+name {
				t.Errorf("found %v, want %s of %s", after.findings, c.want, name)
			}
			if detail := strings.ToLower(after.findings[0].Detail); strings.Contains(detail, "5a5a") || strings.Contains(detail, "r3") {
				t.Errorf("the finding quotes the value: %s", detail)
			}
			_, wrong, err := issuer.Verify(ctx, between(link))
			must(t, err)
			found := false
			for _, w := range wrong {
				found = found || w.Link == link && w.Epoch.Number == 2
			}
			if !found {
				t.Errorf("verify does not find it: %v", wrong)
			}
			do[etcd.Progress](t)(issuer.Revoke(ctx, between(link), nil, nil))
			f.epochs("")
		})
	}
}

// A name that is no epoch's is said, and harms nothing.
func TestStrangeName(t *testing.T) {
	s := theSite(t)
	root, ctx := do[*clientv3.Client](t)(s.c.Admin()), within(t)
	defer func() { _ = root.Close() }()
	f := follow(t, do[*etcd.Channel](t)(etcd.New(s.config(t, "r1"))), "strange")
	do[etcd.Progress](t)(s.issuer(t).Issue(ctx, between("strange"), []uint64{1}, life, nil))
	f.epochs("1.0")
	do[*clientv3.PutResponse](t)(root.Put(ctx, "lever/nodes/r1/links/strange/01.0", "x"))
	f.finding(health.EtcdValueMalformed)
	do[*clientv3.DeleteResponse](t)(root.Delete(ctx, "lever/nodes/r1/links/strange/01.0"))
	f.await("nothing wrong", func(x seen) bool { return len(x.findings) == 0 && x.epochs() == "1.0" })
}

// A value that ends while the agent runs stays Present, and is said to be stale.
func TestValueEnds(t *testing.T) {
	s := theSite(t)
	do[etcd.Progress](t)(s.issuer(t).Issue(within(t), between("ends"), []uint64{1}, etcd.Options{Lifetime: 3 * time.Second}, nil))
	f := follow(t, do[*etcd.Channel](t)(etcd.New(s.config(t, "r1"))), "ends")
	f.finding(health.EtcdValueStale)
	if f.last.epochs() != "(1.0)" {
		t.Error(f.last)
	}
}

// Watching leaves nothing behind, with any number of links, and one connection serves
// them all.
func TestNothingIsLeftRunning(t *testing.T) {
	s := theSite(t)
	t.Run("issue", func(t *testing.T) { // after which the issuer has no connections that it could make anew
		do[etcd.Progress](t)(s.issuer(t).Issue(within(t), between("leak1", "leak2", "leak3"), []uint64{1}, life, nil))
	})
	leaks := goleak.IgnoreCurrent()
	c := do[*etcd.Channel](t)(etcd.New(s.config(t, "r1")))
	for range 3 { // the session ends with its last link, and another one can begin
		var all []*follower
		for _, id := range []string{"leak1", "leak2", "leak3"} {
			all = append(all, follow(t, c, id))
		}
		for _, f := range all {
			f.epochs("1.0")
		}
		for _, f := range all {
			f.stop()
		}
	}
	// What ends takes a busy machine longer than one look waits, which is half a second.
	err := goleak.Find(leaks)
	for deadline := time.Now().Add(time.Minute); err != nil && time.Now().Before(deadline); {
		err = goleak.Find(leaks)
	}
	if err != nil {
		t.Error(err)
	}
}

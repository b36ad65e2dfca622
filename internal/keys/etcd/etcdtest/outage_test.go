package etcdtest_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/etcd"
	"github.com/lever-link/lever/internal/keys/etcd/etcdtest"
)

// trouble is every Snapshot that said something was wrong.
func (f *follower) trouble() (out []seen) {
	for _, x := range f.all {
		if x.unavailable || len(x.findings) > 0 {
			out = append(out, x)
		}
	}
	return out
}

// A leader that is killed, and a member that stays away, are no fault: the grace is
// long enough for another leader on a machine that has much to do.
func TestLeaderKilled(t *testing.T) {
	s := ownSite(t)
	issuer, ctx := s.issuer(t), within(t)
	config := s.config(t, "r1")
	config.Grace = 30 * time.Second
	f := follow(t, do[*etcd.Channel](t)(etcd.New(config)), "leader")
	do[etcd.Progress](t)(issuer.Issue(ctx, between("leader"), []uint64{1}, life, nil))
	f.epochs("1.0")
	leader := do[int](t)(s.c.Leader(ctx))
	must(t, s.c.Kill(leader))
	do[etcd.Progress](t)(issuer.Issue(ctx, between("leader"), []uint64{2}, life, nil))
	f.epochs("1.0 2.0")
	// The member is still away.
	do[etcd.Progress](t)(issuer.Revoke(ctx, between("leader"), func(e keys.Epoch) bool { return e.Number == 1 }, nil))
	f.epochs("2.0")
	must(t, s.c.StartMember(leader))
	must(t, s.c.AwaitMember(ctx, leader))
	do[etcd.Progress](t)(issuer.Issue(ctx, between("leader"), []uint64{3}, life, nil))
	f.epochs("2.0 3.0")
	if x := f.trouble(); len(x) > 0 {
		t.Errorf("there was trouble: %v", x)
	}
}

// Without a majority nothing is delivered and nothing is revoked, it is said, and
// what comes afterwards is caught up with. It costs two lines in the log, however
// long it lasts.
func TestQuorumLost(t *testing.T) {
	s := ownSite(t)
	issuer, ctx := s.issuer(t), within(t)
	var log lines
	config := s.config(t, "r1")
	config.Log = log.log()
	f := follow(t, do[*etcd.Channel](t)(etcd.New(config)), "quorum")
	do[etcd.Progress](t)(issuer.Issue(ctx, between("quorum"), []uint64{1, 2}, life, nil))
	f.epochs("1.0 2.0")
	leader := do[int](t)(s.c.Leader(ctx))
	must(t, s.c.Kill(leader))
	must(t, s.c.Kill((leader+1)%3))
	lost := f.finding(health.ChannelUnreachable)
	if !lost.unavailable || len(lost.keys) > 0 {
		t.Error(lost)
	}
	must(t, s.c.StartAll(ctx))
	f.epochs("1.0 2.0")
	do[etcd.Progress](t)(issuer.Revoke(ctx, between("quorum"), func(e keys.Epoch) bool { return e.Number == 2 }, nil))
	f.epochs("1.0")
	if n := strings.Count(log.String(), "\n"); n > 4 {
		t.Errorf("%d lines in the log:\n%s", n, log.String())
	}
}

// While a node is away, what it missed is compacted: it lists again.
func TestCompactedWhileAway(t *testing.T) {
	s := theSite(t)
	issuer, ctx := s.issuer(t), within(t)
	p := newProxy(t, s.c.Endpoints()[0])
	config := s.config(t, "r1")
	config.Endpoints = []string{p.endpoint()}
	f := follow(t, do[*etcd.Channel](t)(etcd.New(config)), "compacted")
	do[etcd.Progress](t)(issuer.Issue(ctx, between("compacted"), []uint64{1, 2}, life, nil))
	f.epochs("1.0 2.0")
	p.leave()
	f.await("nothing", func(x seen) bool { return x.unavailable })
	do[etcd.Progress](t)(issuer.Revoke(ctx, between("compacted"), func(e keys.Epoch) bool { return e.Number == 1 }, nil))
	do[etcd.Progress](t)(issuer.Issue(ctx, between("compacted"), []uint64{3}, life, nil))
	must(t, s.c.Compact(ctx, 0))
	must(t, s.c.Defragment(ctx))
	p.come()
	f.epochs("2.0 3.0")
}

// A partition, in which connections stay and carry nothing, is noticed; keys stay,
// and the end of it too is noticed.
func TestPartition(t *testing.T) {
	s := theSite(t)
	p := newProxy(t, s.c.Endpoints()[0])
	config := s.config(t, "r1")
	config.Endpoints = []string{p.endpoint()}
	f := follow(t, do[*etcd.Channel](t)(etcd.New(config)), "partition")
	do[etcd.Progress](t)(s.issuer(t).Issue(within(t), between("partition"), []uint64{1}, life, nil))
	f.epochs("1.0")
	p.hang()
	if x := f.finding(health.ChannelUnreachable); !x.unavailable {
		t.Error(x)
	}
	p.cut()
	p.unhang()
	f.epochs("1.0")
}

// One member that hangs is left alone.
func TestMemberHangs(t *testing.T) {
	s := theSite(t)
	issuer, ctx := s.issuer(t), within(t)
	p := newProxy(t, s.c.Endpoints()[1])
	config := s.config(t, "r1")
	config.Endpoints = []string{p.endpoint(), s.c.Endpoints()[0], s.c.Endpoints()[2]}
	f := follow(t, do[*etcd.Channel](t)(etcd.New(config)), "hangs")
	f.epochs("")
	p.hang()
	for n := range uint64(4) {
		do[etcd.Progress](t)(issuer.Issue(ctx, between("hangs"), []uint64{n + 1}, life, nil))
	}
	f.await("everything", func(x seen) bool { return len(x.keys) == 4 })
}

// A certificate that ends is said before and after; the connection that stands goes
// on; a new one is refused; and a new certificate in its place is taken up.
func TestCertificateExpires(t *testing.T) {
	s := theSite(t)
	issuer, ctx := s.issuer(t), within(t)
	p := newProxy(t, s.c.Endpoints()[0])
	config := s.config(t, "r1")
	config.Endpoints = []string{p.endpoint()}
	dir := filepath.Dir(config.Certificate)
	// Room for a slow machine to connect while it is valid.
	do[etcdtest.Pair](t)(s.c.CA.Client(dir, "r1", time.Now().Add(-time.Minute), time.Now().Add(10*time.Second)))
	f := follow(t, do[*etcd.Channel](t)(etcd.New(config)), "expires")
	ending := f.await("a connection", func(x seen) bool { return !x.unavailable && x.has(health.CertificateEnding) })
	if x := ending.findings[0]; x.File != config.Certificate || x.Until.IsZero() {
		t.Error(x)
	}
	f.finding(health.CertificateExpired)
	do[etcd.Progress](t)(issuer.Issue(ctx, between("expires"), []uint64{1}, life, nil))
	if x := f.epochs("1.0"); !x.has(health.CertificateExpired) {
		t.Error(x)
	}
	p.cut()
	if x := f.await("no connection", func(x seen) bool { return x.unavailable }); !x.has(health.CertificateExpired) {
		t.Error(x)
	}
	do[etcd.Progress](t)(issuer.Issue(ctx, between("expires"), []uint64{2}, life, nil))
	do[etcdtest.Pair](t)(s.c.Client(dir, "r1", time.Hour))
	// The connection may be tried again before the files are looked at.
	f.await("both epochs and no finding", func(x seen) bool { return x.epochs() == "1.0 2.0" && !x.unavailable && len(x.findings) == 0 })
}

// A certificate that is renewed in time costs nothing, not even the connection.
func TestRenewal(t *testing.T) {
	s := theSite(t)
	p := newProxy(t, s.c.Endpoints()[0])
	config := s.config(t, "r1")
	config.Endpoints = []string{p.endpoint()}
	dir := filepath.Dir(config.Certificate)
	do[etcdtest.Pair](t)(s.c.CA.Client(dir, "r1", time.Now().Add(-time.Hour), time.Now().Add(10*time.Minute)))
	f := follow(t, do[*etcd.Channel](t)(etcd.New(config)), "renewal")
	f.await("a connection", func(x seen) bool { return !x.unavailable && x.has(health.CertificateEnding) })
	p.mu.Lock()
	first := len(p.conns)
	p.away = true // no other connection is possible
	p.mu.Unlock()
	do[etcdtest.Pair](t)(s.c.Client(dir, "r1", time.Hour))
	f.await("nothing wrong", func(x seen) bool { return !x.unavailable && len(x.findings) == 0 })
	do[etcd.Progress](t)(s.issuer(t).Issue(within(t), between("renewal"), []uint64{1}, life, nil))
	f.epochs("1.0")
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.conns) != first {
		t.Errorf("there were %d ends of connections, now there are %d", first, len(p.conns))
	}
}

// A private key that others can read is refused, with its own fault.
func TestKeyFilePermissions(t *testing.T) {
	s := theSite(t)
	config := s.config(t, "r1")
	must(t, os.Chmod(config.Key, 0o644))
	f := follow(t, do[*etcd.Channel](t)(etcd.New(config)), "permissions")
	if x := f.finding(health.KeyFilePermissions); !x.unavailable {
		t.Error(x)
	}
	must(t, os.Chmod(config.Key, 0o600))
	f.await("nothing wrong", func(x seen) bool { return !x.unavailable && len(x.findings) == 0 })
}

// A cluster that was restored from a backup has gone back. What it has lost is not
// revoked, over a restart of the agent too.
func TestRolledBack(t *testing.T) {
	s := ownSite(t)
	ctx := within(t)
	// The connections are lost for as long as the members need to start, twice.
	issuer := s.issuer(t)
	config := s.config(t, "r1")
	config.StateFile = filepath.Join(t.TempDir(), "state", "etcd.json")
	do[etcd.Progress](t)(issuer.Issue(ctx, between("back", "other"), []uint64{1}, life, nil))
	must(t, s.c.Backup(ctx))
	do[etcd.Progress](t)(issuer.Issue(ctx, between("back"), []uint64{2}, life, nil))
	c := do[*etcd.Channel](t)(etcd.New(config))
	f := follow(t, c, "back")
	f.epochs("1.0 2.0")
	must(t, s.c.Restore(ctx))
	x := f.finding(health.EtcdRolledBack)
	if x.epochs() != "1.0 (2.0)" {
		t.Error(x)
	}
	f.stop()

	// Another agent, with the same state.
	f = follow(t, do[*etcd.Channel](t)(etcd.New(config)), "back")
	if x := f.finding(health.EtcdRolledBack); x.epochs() != "1.0 (2.0)" {
		t.Error(x)
	}
	// Revocations still are.
	do[etcd.Progress](t)(issuer.Revoke(ctx, between("back"), func(e keys.Epoch) bool { return e.Number == 1 }, nil))
	f.epochs("(2.0)")
	// A newer epoch, and a revision that has passed what was seen, end the fault.
	do[etcd.Progress](t)(issuer.Issue(ctx, between("back", "other"), []uint64{3, 4, 5, 6}, life, nil))
	f.await("no fault", func(x seen) bool { return len(x.findings) == 0 && x.epochs() == "3.0 4.0 5.0 6.0 (2.0)" })
}

// An issuer that has no way to the cluster says so, and of which server.
func TestIssuerWithoutCluster(t *testing.T) {
	s := theSite(t)
	pair := s.pair(t, "r1")
	a := s.admin(t, pair)
	p, err := a.Issue(within(t), between("denied"), []uint64{1}, life, nil)
	if !errors.Is(err, etcd.ErrDenied) || p.Issued != 0 {
		t.Errorf("a node issues: %+v, %v", p, err)
	}
}

package etcdtest_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/etcd"
	"github.com/lever-link/lever/internal/keys/etcd/etcdtest"
)

// patience is how long a test waits for what must come.
const patience = 90 * time.Second

var (
	links      = flag.Int("etcd.links", 100_000, "links that the benchmark issues for")
	sharedOnce sync.Once
	shared     *site
	sharedDir  string
)

func TestMain(m *testing.M) {
	etcdtest.MemberMain()
	issuerMain()
	flag.Parse()
	code := m.Run()
	if shared != nil {
		_ = shared.c.Close()
	}
	if sharedDir != "" {
		_ = os.RemoveAll(sharedDir)
	}
	os.Exit(code)
}

// site is a cluster with the nodes r1, r2 and r3 and an issuer.
type site struct {
	c *etcdtest.Cluster
}

// theSite is the one that tests share which leave it as it was. Each has links of
// its own.
func theSite(t testing.TB) *site {
	t.Helper()
	sharedOnce.Do(func() {
		dir, err := os.MkdirTemp("", "lever-etcd") //nolint:usetesting // it outlives the test that is first to want it
		if err != nil {
			t.Fatal(err)
		}
		sharedDir = dir
		shared = startSite(t, dir)
	})
	if shared == nil {
		t.Fatal("there is no cluster: an earlier test could not start it")
	}
	return shared
}

// ownSite is a site that ends with the test.
func ownSite(t testing.TB) *site {
	t.Helper()
	s := startSite(t, t.TempDir())
	t.Cleanup(func() { _ = s.c.Close() })
	return s
}

func startSite(t testing.TB, dir string) *site {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := etcdtest.Start(ctx, etcdtest.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{c}
	if _, err := s.admin(t, c.Root).Grant(ctx, []string{"r1", "r2", "r3"}, []string{"issuer"}); err != nil {
		t.Fatal(err)
	}
	return s
}

func do[T any](t testing.TB) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func (s *site) pair(t testing.TB, name string) etcdtest.Pair {
	t.Helper()
	return do[etcdtest.Pair](t)(s.c.Client(filepath.Join(t.TempDir(), name), name, time.Hour))
}

func (s *site) admin(t testing.TB, p etcdtest.Pair) *etcd.Admin {
	t.Helper()
	a := do[*etcd.Admin](t)(etcd.OpenAdmin(etcd.AdminConfig{
		Endpoints: s.c.Endpoints(), CA: s.c.CA.File, Certificate: p.Certificate, Key: p.Key,
	}))
	t.Cleanup(func() { must(t, a.Close()) })
	return a
}

func (s *site) issuer(t testing.TB) *etcd.Admin {
	t.Helper()
	return s.admin(t, s.pair(t, "issuer"))
}

// config is that of a node's channel.
func (s *site) config(t testing.TB, node string) etcd.Config {
	t.Helper()
	p := s.pair(t, node)
	return etcd.Config{
		Endpoints: s.c.Endpoints(), Node: node, CA: s.c.CA.File, Certificate: p.Certificate, Key: p.Key,
		Nodes: func(string) []string { return []string{"r2", "r1"} },
	}
}

// life is how long what tests issue may be used.
var life = etcd.Options{Lifetime: time.Hour, Workers: 16}

func between(ids ...string) (specs []etcd.LinkSpec) {
	for _, id := range ids {
		specs = append(specs, etcd.LinkSpec{ID: id, Nodes: []string{"r1", "r2"}})
	}
	return specs
}

// seen is a Snapshot without its material.
type seen struct {
	keys        map[keys.Epoch]keys.Fingerprint
	present     map[keys.Epoch]bool
	findings    []keys.Finding
	unavailable bool
}

func (s seen) codes() (codes []health.Code) {
	for _, f := range s.findings {
		codes = append(codes, f.Code)
	}
	return codes
}

func (s seen) has(code health.Code) bool { return slices.Contains(s.codes(), code) }

func (s seen) epochs() string {
	var out []string
	for _, e := range slices.SortedFunc(maps.Keys(s.keys), keys.Epoch.Compare) {
		out = append(out, e.String())
	}
	for _, e := range slices.SortedFunc(maps.Keys(s.present), keys.Epoch.Compare) {
		out = append(out, "("+e.String()+")")
	}
	return strings.Join(out, " ")
}

func (s seen) String() string {
	return fmt.Sprintf("keys [%s], unavailable %v, findings %v", s.epochs(), s.unavailable, s.findings)
}

// follower watches one link.
type follower struct {
	t    testing.TB
	heap chan seen
	last seen
	all  []seen
	stop func()
}

func follow(t testing.TB, c *etcd.Channel, link string) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{t: t, heap: make(chan seen, 1000)}
	ended := make(chan error, 1)
	go func() {
		ended <- c.Watch(ctx, link, func(s keys.Snapshot) {
			if s.Where != c.Where(link) {
				t.Errorf("a Snapshot is from %q, not %q", s.Where, c.Where(link))
			}
			x := seen{make(map[keys.Epoch]keys.Fingerprint), s.Present, s.Findings, s.Unavailable}
			for e, m := range s.Keys {
				if m.KeyID != e.String() || m.File != "etcd:lever/nodes/"+nodeOf(m.File)+"/links/"+link+"/"+e.String() {
					t.Errorf("material of epoch %s has key id %q and file %q", e, m.KeyID, m.File)
				}
				x.keys[e] = m.Fingerprint()
			}
			s.Erase()
			f.heap <- x
		})
	}()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

func nodeOf(file string) string {
	parts := strings.Split(file, "/")
	if len(parts) < 3 {
		return "?"
	}
	return parts[2]
}

// await waits until a Snapshot is as it must be.
func (f *follower) await(what string, ok func(seen) bool) seen {
	f.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		select {
		case f.last = <-f.heap:
			f.all = append(f.all, f.last)
			if ok(f.last) {
				return f.last
			}
		case <-limit.C:
			f.t.Fatalf("waited in vain for %s; last seen: %s", what, f.last)
		}
	}
}

// epochs waits until just these epochs are there; those in parentheses present only.
func (f *follower) epochs(want string) seen {
	f.t.Helper()
	return f.await("epochs "+want, func(s seen) bool { return !s.unavailable && s.epochs() == want })
}

func (f *follower) finding(code health.Code) seen {
	f.t.Helper()
	return f.await(string(code), func(s seen) bool { return s.has(code) })
}

// lines counts what is logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) log() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

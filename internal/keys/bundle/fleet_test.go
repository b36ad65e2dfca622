package bundle

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/signed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start is an epoch's start, and the time at which tests begin.
var start = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

// epochAt is the epoch that starts some hours after start.
func epochAt(hours int) uint64 {
	return keys.ScheduledEpoch(start.Add(time.Duration(hours)*time.Hour), time.Hour).Number
}

// fleet is an issuer with its tree, and nodes to issue for.
type fleet struct {
	t    testing.TB
	opts Options
	ids  map[string][]age.Identity
	to   map[string][]string
	now  time.Time
	// ever is all material that has was asked about.
	ever map[string]string
}

func newKey(t testing.TB) *signed.Key {
	t.Helper()
	path := filepath.Join(t.TempDir(), "signer.pem")
	if _, err := signed.GenerateKey(path); err != nil {
		t.Fatal(err)
	}
	k, err := signed.ReadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newFleet has nodes a, b and c, and a link between each two of them.
func newFleet(t testing.TB) *fleet {
	f := &fleet{t: t, ids: map[string][]age.Identity{}, to: map[string][]string{}, now: start, ever: map[string]string{}}
	dir := t.TempDir()
	f.opts = Options{
		Issuer: filepath.Join(dir, "issuer"), Side: keys.B, Out: filepath.Join(dir, "out"), Key: newKey(t),
		Links:      []LinkSpec{{"ab", []string{"b", "a"}}, {"bc", []string{"b", "c"}}, {"ac", []string{"a", "c"}}},
		Recipients: func(node string) []string { return f.to[node] },
		Epochs:     []uint64{epochAt(0), epochAt(1)},
		Now:        func() time.Time { return f.now },
		IndexLife:  24 * time.Hour, BundleLife: 100 * time.Hour,
	}
	for _, node := range []string{"a", "b", "c"} {
		f.enrol(node)
	}
	return f
}

func (f *fleet) enrol(node string) {
	f.t.Helper()
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		f.t.Fatal(err)
	}
	f.ids[node], f.to[node] = []age.Identity{id}, []string{id.Recipient().String()}
}

// issue issues with the fleet's options, changed.
func (f *fleet) issue(change func(*Options)) Result {
	f.t.Helper()
	o := f.opts
	if change != nil {
		change(&o)
	}
	r, err := Issue(f.t.Context(), o)
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

func (f *fleet) path(node, name string) string { return filepath.Join(f.opts.Out, node, name) }

func (f *fleet) read(node, name string) []byte {
	f.t.Helper()
	text, err := os.ReadFile(f.path(node, name))
	if err != nil {
		f.t.Fatal(err)
	}
	return text
}

func (f *fleet) write(node, name string, text []byte) {
	f.t.Helper()
	// By rename, as everything appears there.
	tmp := f.path(node, ".new.tmp")
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(tmp, f.path(node, name)); err != nil {
		f.t.Fatal(err)
	}
}

// material is all that a node can open in the tree, by link and epoch.
func (f *fleet) material(node string) map[string]string {
	f.t.Helper()
	all := map[string]string{}
	_, x, err := readIndex(f.t.Context(), f.opts.Out, node)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, l := range x.Bundles {
		s, h, err := parseBundle(f.read(node, fileName(l.Epoch)), []signed.PublicKey{f.opts.Key.Public()}, 1)
		if err == nil {
			err = l.matches(s, h)
		}
		if err != nil {
			f.t.Fatal(err)
		}
		in, err := open(s, h, f.ids[node])
		if err != nil {
			f.t.Fatal(err)
		}
		for _, e := range in.entries {
			all[fmt.Sprintf("%s %s", e.Link, keys.Epoch{Number: l.Epoch, Generation: e.Generation})] = fmt.Sprintf("%x", e.key.Bytes())
		}
	}
	return all
}

// agreed is the material of all nodes; each end of each link must have the same.
func (f *fleet) agreed() map[string]string {
	f.t.Helper()
	all, ends := map[string]string{}, map[string]int{}
	for node := range f.ids {
		if _, err := os.Stat(f.path(node, indexFile)); err != nil {
			continue
		}
		for name, m := range f.material(node) {
			if old, ok := all[name]; ok && old != m {
				f.t.Fatalf("the ends of %s have different material", name)
			}
			all[name] = m
			ends[name]++
		}
	}
	seen := map[string]string{}
	for name, m := range all {
		if ends[name] != 2 {
			f.t.Fatalf("%d ends have material for %s", ends[name], name)
		}
		if seen[m] != "" {
			f.t.Fatalf("%s and %s have the same material", name, seen[m])
		}
		seen[m] = name
	}
	return all
}

// has expects that all nodes together have exactly these, with epochs by their hours,
// and that no name has ever had other material.
func (f *fleet) has(want ...string) {
	f.t.Helper()
	var got []string
	for name, m := range f.agreed() {
		if old := f.ever[name]; old != "" && old != m {
			f.t.Errorf("%s has other material than before", name)
		}
		f.ever[name] = m
		link, epoch, _ := strings.Cut(name, " ")
		e, err := keys.ParseEpoch(epoch)
		if err != nil {
			f.t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %d.%d", link, (e.Number-epochAt(0))/60, e.Generation))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		f.t.Errorf("there is\n%q, want\n%q", got, want)
	}
}

// verify expects that Verify finds nothing.
func (f *fleet) verify() {
	f.t.Helper()
	err := Verify(f.t.Context(), Audit{
		Tree: f.opts.Out, Signers: []signed.PublicKey{f.opts.Key.Public()}, Recipients: f.opts.Recipients, Now: f.opts.Now,
		Links: f.opts.Links,
	}, func(p Problem) { f.t.Errorf("%s: %v", p.File, p.Err) })
	if err != nil {
		f.t.Error(err)
	}
}

// node watches links as an agent does.
type node struct {
	*Channel
	t     testing.TB
	ticks chan time.Time
	stops []func()
}

// config is that of a node of the fleet with a cache.
func (f *fleet) config(name string) Config {
	return Config{
		Source: f.opts.Out, Node: name, Signers: []signed.PublicKey{f.opts.Key.Public()}, Threshold: 1,
		CacheDir:   filepath.Join(f.t.TempDir(), "cache"),
		Identities: func() ([]age.Identity, error) { return f.ids[name], nil },
		Now:        func() time.Time { return f.now },
	}
}

func newNode(t testing.TB, c Config) *node {
	t.Helper()
	n := &node{t: t, ticks: make(chan time.Time)}
	c.Ticks = n.ticks
	ch, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	n.Channel = ch
	t.Cleanup(n.stop)
	return n
}

func (n *node) stop() {
	for _, s := range n.stops {
		s()
	}
	n.stops = nil
}

// link is a link that a node watches.
type watched struct {
	n         *node
	snapshots chan keys.Snapshot
	// keys are the fingerprints of what was delivered last.
	keys map[keys.Epoch]keys.Fingerprint
}

func (n *node) watch(link string) *watched {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watched{n: n, snapshots: make(chan keys.Snapshot)}
	ended := make(chan error, 1)
	go func() {
		ended <- n.Watch(ctx, link, func(s keys.Snapshot) {
			select {
			case w.snapshots <- s:
			case <-ctx.Done():
				s.Erase()
			}
		})
	}()
	n.stops = append(n.stops, func() {
		cancel()
		if err := <-ended; err != nil {
			n.t.Errorf("Watch: %v", err)
		}
	})
	return w
}

// until takes snapshots until one satisfies ok, and has the source looked at
// meanwhile. There is no time limit but the test binary's own.
func (w *watched) until(ok func(keys.Snapshot) bool) keys.Snapshot {
	w.n.t.Helper()
	for {
		select {
		case s := <-w.snapshots:
			w.keys = map[keys.Epoch]keys.Fingerprint{}
			for e, m := range s.Keys {
				if m.KeyID != e.String() || m.File == "" {
					w.n.t.Errorf("epoch %s has key id %q and file %q", e, m.KeyID, m.File)
				}
				w.keys[e] = m.Fingerprint()
			}
			s.Erase()
			if ok(s) {
				return s
			}
		case w.n.ticks <- time.Time{}:
		}
	}
}

// has waits until exactly these epochs have material and there are exactly these
// faults.
func (w *watched) has(epochs []string, codes ...health.Code) keys.Snapshot {
	w.n.t.Helper()
	slices.Sort(codes)
	return w.until(func(s keys.Snapshot) bool {
		return !s.Unavailable && slices.Equal(spell(maps.Keys(s.Keys)), epochs) && slices.Equal(codesOf(s), codes)
	})
}

func codesOf(s keys.Snapshot) (codes []health.Code) {
	for _, f := range s.Findings {
		codes = append(codes, f.Code)
	}
	slices.Sort(codes)
	return codes
}

func spell(epochs func(func(keys.Epoch) bool)) (names []string) {
	for _, e := range slices.SortedFunc(epochs, keys.Epoch.Compare) {
		names = append(names, e.String())
	}
	return names
}

// names spells epochs by their hours, generation 0 unless it is given.
func names(hours ...int) (out []string) {
	for _, h := range hours {
		out = append(out, keys.Epoch{Number: epochAt(h)}.String())
	}
	return out
}

func generation(hours int, g uint32) string {
	return keys.Epoch{Number: epochAt(hours), Generation: g}.String()
}

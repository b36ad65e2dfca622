package bundle

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/signed"
)

// Both ends of a link get the same, and follow what is issued and revoked.
func TestBothEndsAgree(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	a, b := newNode(t, f.config("a")), newNode(t, f.config("b"))
	atA, atB := a.watch("ab"), b.watch("ab")
	other := a.watch("ac")
	agree := func(want []string) {
		t.Helper()
		atA.has(want)
		atB.has(want)
		if !maps.Equal(atA.keys, atB.keys) {
			t.Fatalf("a has %v, b has %v", atA.keys, atB.keys)
		}
	}
	agree(names(0, 1))
	other.has(names(0, 1))
	if atA.keys[keys.Epoch{Number: epochAt(0)}] == other.keys[keys.Epoch{Number: epochAt(0)}] {
		t.Error("two links have the same material")
	}
	f.issue(func(o *Options) { o.Epochs = []uint64{epochAt(2)} })
	agree(names(0, 1, 2))
	old := maps.Clone(atA.keys)
	f.issue(func(o *Options) { o.Reissue = []Reissue{{Epoch: epochAt(1), Links: []string{"ab"}}} })
	agree([]string{generation(0, 0), generation(1, 0), generation(1, 1), generation(2, 0)})
	for e, m := range old {
		if atA.keys[e] != m {
			t.Errorf("the material of %s has changed", e)
		}
	}
	f.issue(func(o *Options) { o.Revoke.Links = []string{"ab"}; o.Revoke.Epochs = []uint64{epochAt(1)} })
	agree(names(0, 2))
	f.issue(func(o *Options) { o.Revoke.Epochs = []uint64{epochAt(2)} })
	agree(names(0))
	other.has(names(0, 1)) // and has not lost more since
	f.issue(func(o *Options) { o.Revoke.Nodes = []string{"b"} })
	agree(nil)
	// What the index does not list is not kept, either.
	if left := spellCache(t, a); !slices.Equal(left, []string{fileName(epochAt(0)), fileName(epochAt(1)), indexFile}) {
		t.Errorf("a keeps %q", left)
	}
	if left := spellCache(t, b); !slices.Equal(left, []string{indexFile}) {
		t.Errorf("b keeps %q", left)
	}
}

func spellCache(t *testing.T, n *node) (names []string) {
	t.Helper()
	files, err := os.ReadDir(n.conf.CacheDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

// Each way in which what arrives can be wrong has a fault of its own, and touches
// nothing of what is in force.
func TestRefused(t *testing.T) {
	stranger := newKey(t)
	next := fileName(epochAt(2))
	for _, test := range []struct {
		name string
		file string
		// damage is done to a tree with one more epoch, before the node sees it; saved
		// is the tree as the node has seen it.
		damage func(f *fleet, saved string)
		want   health.Code
		// index: the index is refused, so that the node does not know of the epoch.
		index bool
	}{
		{"a bundle tampered with", next, func(f *fleet, _ string) {
			text := f.read("a", next)
			text[len(text)-1] ^= 1
			f.write("a", next, text)
		}, health.BundleTampered, false},
		{"a bundle's header tampered with", next, func(f *fleet, _ string) {
			f.write("a", next, bytes.Replace(f.read("a", next), []byte(`"expires":"2026-`), []byte(`"expires":"2036-`), 1))
		}, health.BundleTampered, false},
		{"a bundle truncated", next, func(f *fleet, _ string) {
			text := f.read("a", next)
			f.write("a", next, text[:len(text)-100])
		}, health.BundleTruncated, false},
		{"no bundle", next, func(f *fleet, _ string) { f.write("a", next, []byte("<html>Not Found</html>")) }, health.BundleMalformed, false},
		{"an index for a bundle", next, func(f *fleet, _ string) { f.write("a", next, f.read("a", indexFile)) }, health.BundleMalformed, false},
		{"a directory for a bundle", next, func(f *fleet, _ string) {
			_ = errors.Join(os.Remove(f.path("a", next)), os.Mkdir(f.path("a", next), 0o755))
		}, health.BundleMalformed, false},
		{"an oversized bundle", next, func(f *fleet, _ string) {
			f.write("a", next, append(f.read("a", next), make([]byte, signed.MaxSize)...))
		}, health.BundleMalformed, false},
		{"a bundle that a stranger has signed", next, func(f *fleet, _ string) { f.resign(next, stranger, nil) }, health.BundleUntrusted, false},
		{"another node's bundle", next, func(f *fleet, _ string) { f.write("a", next, f.read("b", next)) }, health.BundleMisaddressed, false},
		{"another epoch's bundle", next, func(f *fleet, _ string) { f.write("a", next, f.read("a", fileName(epochAt(1)))) }, health.BundleMisaddressed, false},
		{"another node's content", next, func(f *fleet, _ string) { f.reseal(next, func(in *inner) { in.Node = "b" }) }, health.BundleMisaddressed, false},
		{"another epoch's content", next, func(f *fleet, _ string) { f.reseal(next, func(in *inner) { in.Epoch++ }) }, health.BundleMisaddressed, false},
		{"content out of order", next, func(f *fleet, _ string) { f.reseal(next, func(in *inner) { slices.Reverse(in.entries) }) }, health.BundleMalformed, false},
		{"a bundle for other recipients", next, func(f *fleet, _ string) {
			f.to["a"] = f.to["b"]
			f.reseal(next, func(*inner) {})
		}, health.BundleUnopened, false},
		{"an older bundle than listed", next, func(f *fleet, _ string) {
			old := f.read("a", next)
			f.issue(func(o *Options) { o.Reissue = []Reissue{{Epoch: epochAt(2)}} })
			f.write("a", next, old)
		}, health.BundleReplayed, false},
		{"a newer bundle than listed", next, func(f *fleet, _ string) {
			old := f.read("a", indexFile)
			f.issue(func(o *Options) { o.Reissue = []Reissue{{Epoch: epochAt(2)}} })
			f.write("a", indexFile, old)
		}, health.BundleReplayed, false},
		{"a bundle whose time is over", next, func(f *fleet, _ string) {
			f.resign(next, f.opts.Key, func(s *signed.Statement) { s.Issued, s.Expires = start.Add(-2*time.Hour), start.Add(-time.Hour) })
		}, health.BundleExpired, false},
		{"a missing bundle", next, func(f *fleet, _ string) { _ = os.Remove(f.path("a", next)) }, health.ChannelUnreadable, false},

		{"an index tampered with", indexFile, func(f *fleet, _ string) {
			f.write("a", indexFile, bytes.Replace(f.read("a", indexFile), []byte(`"generations":1`), []byte(`"generations":2`), 1))
		}, health.BundleTampered, true},
		{"an index truncated", indexFile, func(f *fleet, _ string) { f.write("a", indexFile, f.read("a", indexFile)[:300]) }, health.BundleTruncated, true},
		{"no index", indexFile, func(f *fleet, _ string) { f.write("a", indexFile, []byte("hello")) }, health.BundleMalformed, true},
		{"another node's index", indexFile, func(f *fleet, _ string) { f.write("a", indexFile, f.read("b", indexFile)) }, health.BundleMisaddressed, true},
		{"an index that a stranger has signed", indexFile, func(f *fleet, _ string) { f.resign(indexFile, stranger, nil) }, health.BundleUntrusted, true},
		{"a bundle for an index", indexFile, func(f *fleet, _ string) { f.write("a", indexFile, f.read("a", next)) }, health.BundleMalformed, true},
		{"an index without what must be in it", indexFile, func(f *fleet, _ string) {
			f.resign(indexFile, f.opts.Key, func(s *signed.Statement) {
				s.Fields = bytes.ReplaceAll(s.Fields, []byte(`"generations":1`), []byte(`"generations":0`))
			})
		}, health.BundleMalformed, true},
		{"the same number with other content", indexFile, func(f *fleet, saved string) {
			// Sequence numbers follow the clock: the second tree is the first one's twin.
			old, err := signed.Parse([]byte(saved))
			if err != nil {
				f.t.Fatal(err)
			}
			var x Index
			if err := old.Decode(kindIndex, &x); err != nil {
				f.t.Fatal(err)
			}
			x.Bundles = x.Bundles[:1]
			s, err := signed.New(kindIndex, old.Issued, old.Expires, &x, nil)
			if err == nil {
				err = s.Sign(f.opts.Key)
			}
			if err != nil {
				f.t.Fatal(err)
			}
			f.write("a", indexFile, s.Text())
		}, health.BundleReplayed, true},
		{"the source gone", "", func(f *fleet, _ string) { _ = os.RemoveAll(f.opts.Out) }, health.ChannelUnreadable, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFleet(t)
			f.issue(nil)
			conf := f.config("a")
			n := newNode(t, conf)
			w := n.watch("ab")
			w.has(names(0, 1))
			before := maps.Clone(w.keys)
			n.stop() // so that it sees the next tree at once
			saved := f.read("a", indexFile)
			f.now = f.now.Add(time.Second)
			f.issue(func(o *Options) { o.Epochs = []uint64{epochAt(2)} })
			test.damage(f, string(saved))

			n = newNode(t, conf)
			w = n.watch("ab")
			s := w.has(names(0, 1), test.want)
			if !maps.Equal(before, w.keys) {
				t.Error("what is in force has changed")
			}
			if test.file != "" && test.want != health.ChannelUnreadable && s.Findings[0].File != f.path("a", test.file) {
				t.Errorf("the fault is about %q: %+v", s.Findings[0].File, s.Findings[0])
			}
			// What is listed and cannot be used is not revoked.
			if present := s.Present[keys.Epoch{Number: epochAt(2)}]; present == test.index {
				t.Errorf("the epoch is present: %v", present)
			}
			if test.want == health.BundleReplayed && test.index {
				return // of which a node that has seen nothing cannot know
			}
			// A node that has nothing yet learns the same.
			conf.CacheDir = ""
			empty := newNode(t, conf).watch("ab")
			s = empty.until(func(s keys.Snapshot) bool { return len(s.Findings) > 0 })
			if !slices.Contains(codesOf(s), test.want) || s.Unavailable != test.index {
				t.Errorf("without a cache: %+v", s)
			}
		})
	}
}

// resign changes the header of a file of node a and has it signed by somebody.
func (f *fleet) resign(name string, k *signed.Key, change func(*signed.Statement)) {
	f.t.Helper()
	s, err := signed.Parse(f.read("a", name))
	if err != nil {
		f.t.Fatal(err)
	}
	if change != nil {
		change(s)
	}
	again, err := signed.New(s.Kind, s.Issued, s.Expires, s.Fields, s.Payload)
	if err == nil {
		err = again.Sign(k)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.write("a", name, again.Text())
}

// reseal changes what a bundle of node a seals, and has its index list it: what an
// issuer that is wrong would do.
func (f *fleet) reseal(name string, change func(*inner)) {
	f.t.Helper()
	number, _ := epochOf(name)
	trust := []signed.PublicKey{f.opts.Key.Public()}
	s, h, err := parseBundle(f.read("a", name), trust, 1)
	if err != nil {
		f.t.Fatal(err)
	}
	in, err := open(s, h, f.ids["a"])
	if err != nil {
		f.t.Fatal(err)
	}
	change(in)
	text, err := in.encode()
	if err != nil {
		f.t.Fatal(err)
	}
	to, prints, _, err := parseRecipients(f.to["a"], false)
	if err != nil {
		f.t.Fatal(err)
	}
	sealed, err := seal(text, to)
	if err != nil {
		f.t.Fatal(err)
	}
	h.Recipients = prints
	s, err = signed.New(kindBundle, s.Issued, s.Expires, h, sealed)
	if err == nil {
		err = s.Sign(f.opts.Key)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.write("a", name, s.Text())
	_, x, err := parseIndex(f.read("a", indexFile), trust, 1)
	if err != nil {
		f.t.Fatal(err)
	}
	for i, l := range x.Bundles {
		if l.Epoch == number {
			x.Bundles[i].SHA256, x.Bundles[i].Size = s.SHA256, s.Size
		}
	}
	f.resign(indexFile, f.opts.Key, func(s *signed.Statement) {
		fields, err := signed.Marshal(x)
		if err != nil {
			f.t.Fatal(err)
		}
		s.Fields = fields
	})
}

// An index and what it lists that was seen is not taken back.
func TestRolledBack(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	conf := f.config("a")
	n := newNode(t, conf)
	w := n.watch("ab")
	w.has(names(0, 1))
	old := tree(t, f.opts.Out)
	f.issue(func(o *Options) { o.Revoke.Links = []string{"ab"}; o.Revoke.Epochs = []uint64{epochAt(1)} })
	w.has(names(0))
	for path, text := range old {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.has(names(0), health.BundleReplayed)
	// Nor by a restart.
	n.stop()
	w = newNode(t, conf).watch("ab")
	w.has(names(0), health.BundleReplayed)
}

// m of n.
func TestThreshold(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	second := newKey(t)
	conf := f.config("a")
	conf.Signers, conf.Threshold = append(conf.Signers, second.Public()), 2
	w := newNode(t, conf).watch("ab")
	if s := w.until(func(keys.Snapshot) bool { return true }); !s.Unavailable || !slices.Equal(codesOf(s), []health.Code{health.BundleUntrusted}) {
		t.Errorf("with one signature of two: %+v", s)
	}
	if _, err := SignTree(t.Context(), f.opts.Out, second, conf.Signers[:1], nil); err != nil {
		t.Fatal(err)
	}
	w.has(names(0, 1))
	// What comes with one signature does not replace it.
	f.issue(func(o *Options) { o.Epochs = []uint64{epochAt(2)} })
	w.has(names(0, 1), health.BundleUntrusted)
	if _, err := SignTree(t.Context(), f.opts.Out, second, conf.Signers[:1], nil); err != nil {
		t.Fatal(err)
	}
	w.has(names(0, 1, 2))
}

// A node that starts anew works from what it has kept, which is sealed.
func TestRestartWithoutSource(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	conf := f.config("a")
	n := newNode(t, conf)
	w := n.watch("ab")
	w.has(names(0, 1))
	before := maps.Clone(w.keys)
	n.stop()
	if err := os.RemoveAll(f.opts.Out); err != nil {
		t.Fatal(err)
	}
	for path, text := range tree(t, conf.CacheDir) {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
		for _, m := range f.opts.Links {
			if strings.Contains(text, `"`+m.ID+`"`) {
				t.Errorf("%s names link %s", path, m.ID)
			}
		}
	}
	n = newNode(t, conf)
	w = n.watch("ab")
	w.has(names(0, 1), health.ChannelUnreadable)
	if !maps.Equal(before, w.keys) {
		t.Error("other material after the restart")
	}
	// Nothing was revoked while nobody could see it; and what is back is followed.
	f.issue(func(o *Options) { o.Epochs = []uint64{epochAt(2)} })
	w.has(names(0, 1, 2))
	n.stop()

	// What is damaged in the cache is fetched again, and said for as long as not.
	if err := os.WriteFile(filepath.Join(conf.CacheDir, fileName(epochAt(0))), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(f.opts.Out, f.opts.Out+".away"); err != nil {
		t.Fatal(err)
	}
	n = newNode(t, conf)
	w = n.watch("ab")
	s := w.has(names(1, 2), health.ChannelUnreadable, health.BundleMalformed)
	if !s.Present[keys.Epoch{Number: epochAt(0)}] {
		t.Error("what is damaged in the cache counts as revoked")
	}
	if err := os.Rename(f.opts.Out+".away", f.opts.Out); err != nil {
		t.Fatal(err)
	}
	w.until(func(s keys.Snapshot) bool { return len(s.Keys) == 3 })
}

// Time alone: a node takes two epochs ahead and the third when there is room, an
// index gets stale without revoking anything, and a bundle expires without that.
func TestTime(t *testing.T) {
	f := newFleet(t)
	f.issue(func(o *Options) { o.Epochs = []uint64{epochAt(0), epochAt(1), epochAt(2), epochAt(3), epochAt(4)} })
	conf := f.config("a")
	clock := make(chan time.Time, 1)
	clock <- start
	conf.Now = func() time.Time { now := <-clock; clock <- now; return now }
	set := func(d time.Duration) { <-clock; clock <- start.Add(d) }
	n := newNode(t, conf)
	w := n.watch("ab")
	s := w.has(names(0, 1, 2))
	if len(s.Present) != 0 {
		t.Errorf("present are %v", s.Present)
	}
	if next := n.next(); !next.Equal(start.Add(time.Hour)) {
		t.Errorf("it looks again at %v", next)
	}
	set(time.Hour)
	w.has(names(0, 1, 2, 3))
	set(25 * time.Hour)
	s = w.has(names(0, 1, 2, 3, 4), health.BundleStale)
	if !s.Findings[0].Until.Equal(start.Add(24 * time.Hour)) {
		t.Errorf("stale since %v", s.Findings[0].Until)
	}
	set(101 * time.Hour)
	s = w.has(names(2, 3, 4), health.BundleStale, health.BundleExpired, health.BundleExpired)
	if got := spell(maps.Keys(s.Present)); !slices.Equal(got, names(0, 1)) {
		t.Errorf("present are %v", got)
	}
}

func TestIdentityAndInventory(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	conf := f.config("a")
	ids := make(chan []age.Identity, 1)
	ids <- nil
	failed := error(nil)
	conf.Identities = func() ([]age.Identity, error) {
		x := <-ids
		ids <- x
		if len(x) == 0 {
			return nil, failed
		}
		return x, nil
	}
	set := func(x []age.Identity) { <-ids; ids <- x }
	digest := make(chan string, 1)
	digest <- ""
	conf.LinksDigest = func() string { d := <-digest; digest <- d; return d }

	n := newNode(t, conf)
	w := n.watch("ab")
	s := w.has(nil, health.NodeIdentity)
	if got := spell(maps.Keys(s.Present)); !slices.Equal(got, names(0, 1)) {
		t.Errorf("present are %v", got)
	}
	set(f.ids["b"])
	w.has(nil, health.BundleUnopened, health.BundleUnopened)
	set(f.ids["a"])
	w.has(names(0, 1))
	// One that is gone shows when there is something new to open, and revokes nothing.
	set(nil)
	f.issue(func(o *Options) { o.Epochs = []uint64{epochAt(2)} })
	s = w.has(nil, health.NodeIdentity)
	if got := spell(maps.Keys(s.Present)); !slices.Equal(got, names(0, 1, 2)) {
		t.Errorf("present are %v", got)
	}
	set(slices.Concat(f.ids["b"], f.ids["a"]))
	w.has(names(0, 1, 2))

	<-digest
	digest <- LinksDigest("a", f.opts.Links[1:])
	w.has(names(0, 1, 2), health.BundleInventory)
	<-digest
	digest <- LinksDigest("a", f.opts.Links)
	w.has(names(0, 1, 2))
}

// A cache that cannot be written costs nothing but that.
func TestUnwritableCache(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	conf := f.config("a")
	if err := os.WriteFile(conf.CacheDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w := newNode(t, conf).watch("ab")
	w.has(names(0, 1), health.StateUnwritable)
	if err := os.Remove(conf.CacheDir); err != nil {
		t.Fatal(err)
	}
	w.has(names(0, 1))
	if all := tree(t, conf.CacheDir); len(all) != 3 {
		t.Errorf("kept are %v", slices.Sorted(maps.Keys(all)))
	}
}

// Links come and go while others stay; the loop runs as long as there is one.
func TestSubscribers(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	n := newNode(t, f.config("a"))
	for range 3 {
		ab, ac := n.watch("ab"), n.watch("ac")
		ab.has(names(0, 1))
		ac.has(names(0, 1))
		n.stops[0]()
		n.stops = n.stops[1:]
		none := n.watch("no-such-link")
		none.has(nil)
		n.stop()
	}
	if err := n.Watch(t.Context(), "../x", nil); err == nil {
		t.Error("a link that cannot be is watched")
	}
}

// A panic in a library is a fault, and passes.
func TestPanic(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	conf := f.config("a")
	fail := make(chan bool, 1)
	fail <- true
	conf.Identities = func() ([]age.Identity, error) {
		x := <-fail
		fail <- x
		if x {
			panic("at the identity")
		}
		return f.ids["a"], nil
	}
	n := newNode(t, conf)
	w := n.watch("ab")
	for range 10 {
		n.ticks <- time.Time{}
	}
	<-fail
	fail <- false
	w.has(names(0, 1))
}

func TestNewRefuses(t *testing.T) {
	f := newFleet(t)
	for name, change := range map[string]func(*Config){
		"no node":       func(c *Config) { c.Node = "" },
		"a bad node":    func(c *Config) { c.Node = "../x" },
		"no signers":    func(c *Config) { c.Signers = nil },
		"too few":       func(c *Config) { c.Threshold = 2 },
		"no identities": func(c *Config) { c.Identities = nil },
		"plain http":    func(c *Config) { c.Source = "http://example.com/" },
		"no host":       func(c *Config) { c.Source = "https:///x" },
	} {
		c := f.config("a")
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

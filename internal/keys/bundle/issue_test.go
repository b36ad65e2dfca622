package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/signed"
)

// tree is what all files of a directory hold, but for a journal's content.
func tree(t testing.TB, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestIssue(t *testing.T) {
	f := newFleet(t)
	var progress []int
	r := f.issue(func(o *Options) { o.Progress = func(done, total int) { progress = append(progress, 10*total+done) } })
	if r.Nodes != 3 || r.Bundles != 6 || r.Indexes != 3 || r.Keys != 12 || r.Octets == 0 || len(r.Warnings) != 0 {
		t.Errorf("%+v", r)
	}
	if !slices.Equal(progress, []int{31, 32, 33}) {
		t.Errorf("progress %v", progress)
	}
	if m := f.agreed(); len(m) != 6 {
		t.Errorf("material %v", slices.Sorted(maps.Keys(m)))
	}
	f.verify()
	for path := range tree(t, f.opts.Out) {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%s cannot be served: %v, %v", path, info.Mode(), err)
		}
	}
	for path := range tree(t, f.opts.Issuer) {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s can be read: %v, %v", path, info.Mode(), err)
		}
	}
	// The same again writes nothing; with time it is renewed, with the same material.
	before, material := tree(t, f.opts.Out), f.agreed()
	if r := f.issue(nil); r.Bundles+r.Indexes != 0 || !maps.Equal(before, tree(t, f.opts.Out)) {
		t.Errorf("issuing the same again: %+v", r)
	}
	f.now = f.now.Add(13 * time.Hour)
	if r := f.issue(nil); r.Bundles != 0 || r.Indexes != 3 {
		t.Errorf("after more than half an index's life: %+v", r)
	}
	f.now = f.now.Add(39 * time.Hour)
	if r := f.issue(nil); r.Bundles != 6 || r.Indexes != 3 || !maps.Equal(material, f.agreed()) {
		t.Errorf("after more than half a bundle's life: %+v", r)
	}
	f.verify()
	// A next epoch leaves the others' files alone.
	if r := f.issue(func(o *Options) { o.Epochs = []uint64{epochAt(2)} }); r.Bundles != 3 || r.Indexes != 3 || len(f.agreed()) != 9 {
		t.Errorf("the next epoch: %+v", r)
	}
}

// What a node has with one that is revoked goes, also where the inventory does not have
// the link any more and nothing can be sealed to the node.
func TestRevokedOnALinkThatIsGone(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	delete(f.to, "a")
	f.opts.Links, f.opts.Epochs = f.opts.Links[1:], nil // without ab
	if r, err := Issue(t.Context(), f.opts); err == nil || !r.TakenBack || len(f.material("a")) != 4 {
		t.Errorf("%+v, %v: a has %v", r, err, slices.Sorted(maps.Keys(f.material("a"))))
	}
	f.opts.Revoke = Revocation{Nodes: []string{"b"}}
	for range 2 {
		if r, err := Issue(t.Context(), f.opts); err == nil || !r.TakenBack {
			t.Errorf("%+v, %v", r, err)
		}
		for name := range f.material("a") {
			if strings.HasPrefix(name, "ab ") {
				t.Errorf("b is revoked, and a has %s", name)
			}
		}
	}
}

// What another key has signed is not taken back from a node that nothing can be sealed
// to, and nobody is told that it was.
func TestRevokedUnderAnotherKey(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	delete(f.to, "a")
	o := f.opts
	o.Key, o.Revoke = newKey(t), Revocation{Links: []string{"ab"}}
	if r, err := Issue(t.Context(), o); err == nil || r.TakenBack || !strings.Contains(err.Error(), "another key") {
		t.Errorf("%+v, %v", r, err)
	}
	if len(f.material("a")) != 4 {
		t.Errorf("a has %v", f.material("a"))
	}
}

// What is lost or changed in the tree is written again, from the same seeds.
func TestIssueRepairs(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	material := f.agreed()
	name := fileName(epochAt(0))
	for what, damage := range map[string]func(){
		"a bundle removed":   func() { _ = os.Remove(f.path("a", name)) },
		"a bundle truncated": func() { f.write("a", name, f.read("a", name)[:700]) },
		"another's bundle":   func() { f.write("a", name, f.read("b", name)) },
		"an index removed":   func() { _ = os.Remove(f.path("a", indexFile)) },
		"all removed":        func() { _ = os.RemoveAll(f.opts.Out) },
	} {
		damage()
		f.issue(nil)
		f.verify()
		if !maps.Equal(material, f.agreed()) {
			t.Errorf("%s: other material", what)
		}
	}
}

func TestRevoke(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*fleet, *Options)
		want   []string
		gone   int // of what was there before
	}{
		{"a link", func(_ *fleet, o *Options) { o.Revoke = Revocation{Links: []string{"ab"}} },
			[]string{"ac 0.0", "ac 1.0", "bc 0.0", "bc 1.0"}, 2},
		{"a link in an epoch", func(_ *fleet, o *Options) {
			o.Revoke = Revocation{Links: []string{"ab"}, Epochs: []uint64{epochAt(1)}}
		}, []string{"ab 0.0", "ac 0.0", "ac 1.0", "bc 0.0", "bc 1.0"}, 1},
		{"an epoch", func(_ *fleet, o *Options) { o.Revoke = Revocation{Epochs: []uint64{epochAt(0)}} },
			[]string{"ab 1.0", "ac 1.0", "bc 1.0"}, 3},
		{"a node", func(_ *fleet, o *Options) { o.Revoke = Revocation{Nodes: []string{"c"}} },
			[]string{"ab 0.0", "ab 1.0"}, 4},
		{"a node that is not in the inventory any more", func(_ *fleet, o *Options) { o.Links = o.Links[:1] },
			[]string{"ab 0.0", "ab 1.0", "ac 0.0", "ac 1.0", "bc 0.0", "bc 1.0"}, 0},
		{"a generation", func(_ *fleet, o *Options) { o.Reissue = []Reissue{{Epoch: epochAt(1), Replace: true}} },
			[]string{"ab 0.0", "ab 1.1", "ac 0.0", "ac 1.1", "bc 0.0", "bc 1.1"}, 3},
		{"reissue all", func(_ *fleet, o *Options) { o.Reissue = []Reissue{{Epoch: epochAt(1)}} },
			[]string{"ab 0.0", "ab 1.0", "ab 1.1", "ac 0.0", "ac 1.0", "ac 1.1", "bc 0.0", "bc 1.0", "bc 1.1"}, 0},
		{"reissue one", func(_ *fleet, o *Options) { o.Reissue = []Reissue{{Epoch: epochAt(1), Links: []string{"ab"}}} },
			[]string{"ab 0.0", "ab 1.0", "ab 1.1", "ac 0.0", "ac 1.0", "bc 0.0", "bc 1.0"}, 0},
		{"a link moves", func(f *fleet, o *Options) {
			if f.ids["d"] == nil {
				f.enrol("d")
			}
			o.Links = []LinkSpec{{"ab", []string{"a", "d"}}, o.Links[1], o.Links[2]}
		}, []string{"ab 0.1", "ab 1.1", "ac 0.0", "ac 1.0", "bc 0.0", "bc 1.0"}, 2},
		{"retire", func(_ *fleet, o *Options) { o.Retire, o.Epochs = epochAt(1), nil },
			[]string{"ab 1.0", "ac 1.0", "bc 1.0"}, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFleet(t)
			f.issue(nil)
			before := f.agreed()
			sequences := map[string]uint64{}
			for node := range f.ids {
				_, x, err := readIndex(t.Context(), f.opts.Out, node)
				if err != nil {
					t.Fatal(err)
				}
				sequences[node] = x.Sequence
			}
			change := func(o *Options) {
				test.change(f, o)
				f.opts.Links = o.Links
			}
			r := f.issue(change)
			f.verify()
			after := f.agreed()
			var got []string
			gone := len(before)
			for name, m := range after {
				link, epoch, _ := strings.Cut(name, " ")
				e, err := keys.ParseEpoch(epoch)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprintf("%s %d.%d", link, (e.Number-epochAt(0))/60, e.Generation))
				if before[name] == m {
					gone--
				}
				if old := before[name]; old != "" && old != m {
					t.Errorf("%s has other material", name)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, test.want) || gone != test.gone {
				t.Errorf("there is %q, want %q; gone are %d, want %d", got, test.want, gone, test.gone)
			}
			for node, old := range sequences {
				_, x, err := readIndex(t.Context(), f.opts.Out, node)
				if err != nil {
					t.Fatal(err)
				}
				if x.Sequence < old || r.Indexes == 0 {
					t.Errorf("node %s: sequence %d after %d", node, x.Sequence, old)
				}
			}
			// No seed outlives its last use.
			seeds, err := filepath.Glob(filepath.Join(f.opts.Issuer, "ledger", "*"))
			if err != nil {
				t.Fatal(err)
			}
			used := map[string]bool{}
			for name := range after {
				_, epoch, _ := strings.Cut(name, " ")
				used[filepath.Join(f.opts.Issuer, "ledger", epoch+seedSuffix)] = true
			}
			for _, s := range seeds {
				// A generation that other links would still have is kept.
				if !used[s] && test.name != "a link moves" {
					t.Errorf("%s is there", s)
				}
			}
			// Doing it again, without saying what was decided already, changes nothing.
			files := tree(t, f.opts.Out)
			f.issue(func(o *Options) { change(o); o.Reissue = nil })
			if !maps.Equal(files, tree(t, f.opts.Out)) {
				t.Error("the same again wrote something")
			}
		})
	}
}

// A node that was revoked has nothing until it is admitted again, and then nothing
// that it had.
func TestReadmit(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	f.issue(func(o *Options) { o.Epochs, o.Revoke.Nodes = nil, []string{"c"} })
	r := f.issue(func(o *Options) { o.Epochs = []uint64{epochAt(2)} })
	if m := f.material("c"); len(m) != 0 {
		t.Errorf("a revoked node has %v", m)
	}
	if want := "link ac gets no keys: its node c was revoked"; len(r.Warnings) != 2 || !strings.HasPrefix(r.Warnings[0], want) {
		t.Errorf("warnings %q, want %q and one more", r.Warnings, want)
	}
	f.issue(func(o *Options) { o.Epochs, o.Readmit = nil, []string{"c"} })
	f.has("ab 0.0", "ab 1.0", "ab 2.0", "ac 0.1", "ac 1.1", "ac 2.1", "bc 0.1", "bc 1.1", "bc 2.1")
	o := f.opts
	o.Readmit = []string{"c"}
	if _, err := Issue(t.Context(), o); err == nil || !strings.Contains(err.Error(), "it was not revoked") {
		t.Errorf("readmitting again: %v", err)
	}
	// Nor has it if its links were not in the inventory meanwhile.
	links := f.opts.Links
	f.issue(func(o *Options) { o.Revoke.Nodes = []string{"c"} })
	f.opts.Links = links[:1]
	f.issue(nil)
	f.issue(func(o *Options) { o.Epochs, o.Readmit = nil, []string{"c"} })
	f.opts.Links = links
	f.issue(nil)
	f.has("ab 0.0", "ab 1.0", "ab 2.0", "ac 0.2", "ac 1.2", "bc 0.2", "bc 1.2")
}

// What was revoked is replaced when it is issued again, and is not left without.
func TestRevokedIsReplaced(t *testing.T) {
	f := newFleet(t)
	for _, step := range []struct {
		revoke Revocation
		want   []string
	}{
		{Revocation{Links: []string{"ab"}}, []string{"ab 0.1", "ab 1.1", "ac 0.0", "ac 1.0", "bc 0.0", "bc 1.0"}},
		{Revocation{Epochs: []uint64{epochAt(1)}}, []string{"ab 0.1", "ab 1.2", "ac 0.0", "ac 1.2", "bc 0.0", "bc 1.2"}},
		{Revocation{Epochs: []uint64{epochAt(0)}, Links: []string{"ac"}}, []string{"ab 0.1", "ab 1.2", "ac 0.2", "ac 1.2", "bc 0.0", "bc 1.2"}},
	} {
		f.issue(nil)
		f.issue(func(o *Options) { o.Epochs, o.Revoke = nil, step.revoke })
		f.issue(nil)
		f.has(step.want...)
	}
	// A link that is new has what the others have.
	f.opts.Links = append(f.opts.Links, LinkSpec{"new", []string{"a", "b"}})
	f.issue(nil)
	f.has("ab 0.1", "ab 1.2", "ac 0.2", "ac 1.2", "bc 0.0", "bc 1.2", "new 0.0", "new 1.3")
}

// A journal of version 1 has digests in place of nodes.
func TestOldJournal(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	path := filepath.Join(f.opts.Issuer, "journal.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, nodes := range [][]string{{"a", "b"}, {"a", "c"}, {"b", "c"}} {
		text = bytes.ReplaceAll(text, []byte(`"`+strings.Join(nodes, "/")+`"`), []byte(`"`+oldDigest(nodes)+`"`))
	}
	text = bytes.Replace(text, []byte(`"version":2`), []byte(`"version":1`), 1)
	if err := keyfile.Replace(path, text); err != nil {
		t.Fatal(err)
	}
	files := tree(t, f.opts.Out)
	if f.issue(nil); !maps.Equal(files, tree(t, f.opts.Out)) {
		t.Error("something was issued again")
	}
	f.opts.Links[0].Nodes = []string{"b", "c"}
	f.issue(nil)
	f.has("ab 0.1", "ab 1.1", "ac 0.0", "ac 1.0", "bc 0.0", "bc 1.0")
}

// What an inventory no longer has gets nothing new, and keeps what it has; a node
// that a link no longer has loses it.
func TestPartialInventory(t *testing.T) {
	f := newFleet(t)
	for _, n := range []string{"d", "e"} {
		f.enrol(n)
	}
	f.opts.Links = append(f.opts.Links, LinkSpec{"de", []string{"d", "e"}}, LinkSpec{"group", []string{"a", "b", "e"}})
	f.issue(nil)
	all := f.opts.Links
	delete(f.to, "d") // nobody can seal to what is in no inventory
	f.opts.Links = all[:1]
	r := f.issue(func(o *Options) { o.Epochs = append(o.Epochs, epochAt(2)) })
	if len(r.Warnings) != 4 || !strings.HasPrefix(r.Warnings[0], "link ac is not in the inventory any more") {
		t.Errorf("warnings %q", r.Warnings)
	}
	if m := f.material("d"); len(m) != 2 {
		t.Errorf("d has %v", slices.Sorted(maps.Keys(m)))
	}
	if m := f.material("c"); len(m) != 4 {
		t.Errorf("c has %v", slices.Sorted(maps.Keys(m)))
	}
	if m := f.material("a"); len(m) != 7 {
		t.Errorf("a has %v", slices.Sorted(maps.Keys(m)))
	}
	f.verify()
	// It goes with its epochs, and is forgotten with the last of them.
	f.issue(func(o *Options) { o.Retire, o.Epochs = epochAt(1), nil })
	if m := f.material("d"); len(m) != 1 {
		t.Errorf("d has %v", slices.Sorted(maps.Keys(m)))
	}
	if r := f.issue(func(o *Options) { o.Retire, o.Epochs = epochAt(2), nil }); len(r.Warnings) != 0 || len(f.material("d")) != 0 {
		t.Errorf("d has %v, warnings %q", f.material("d"), r.Warnings)
	}
	// A node that leaves a link loses it, be there a recipient or not.
	f.opts.Links, f.opts.Epochs = all[1:], []uint64{epochAt(2), epochAt(3)}
	f.enrol("d")
	f.issue(nil)
	delete(f.to, "e")
	f.opts.Links[len(f.opts.Links)-1].Nodes = []string{"a", "b"}
	r, err := Issue(t.Context(), f.opts)
	if err == nil || !slices.Contains(r.Warnings, "node e is not on link group any more, and loses its keys") {
		t.Errorf("%q, %v", r.Warnings, err)
	}
	if m := f.material("e"); len(m) != 0 {
		t.Errorf("e has %v", slices.Sorted(maps.Keys(m)))
	}
}

func TestIssueRefuses(t *testing.T) {
	classical, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, want string
		change     func(*fleet, *Options)
	}{
		{"no key", "no key to sign", func(_ *fleet, o *Options) { o.Key = nil }},
		{"no recipient", "enrol its identity", func(f *fleet, _ *Options) { delete(f.to, "b") }},
		{"classical recipient", "quantum computers", func(f *fleet, _ *Options) { f.to["b"] = []string{classical.Recipient().String()} }},
		{"no recipient at all", "none of age", func(f *fleet, _ *Options) { f.to["b"] = []string{"ssh-ed25519 AAAA"} }},
		{"a link twice", "there twice", func(_ *fleet, o *Options) { o.Links = append(o.Links, o.Links[0]) }},
		{"a link with one node", "at least two nodes", func(_ *fleet, o *Options) { o.Links = []LinkSpec{{"x", []string{"a"}}} }},
		{"a bad link", "cannot name a file", func(_ *fleet, o *Options) { o.Links = []LinkSpec{{"../x", []string{"a", "b"}}} }},
		{"a bad node", "cannot name a directory", func(_ *fleet, o *Options) { o.Links = []LinkSpec{{"x", []string{"..", "b"}}} }},
		{"epoch 0", "no epoch 0", func(_ *fleet, o *Options) { o.Epochs = []uint64{0} }},
		{"a retired epoch", "was retired", func(_ *fleet, o *Options) { o.Retire = epochAt(1) }},
		{"revoking what is not", "not among those", func(_ *fleet, o *Options) { o.Revoke.Epochs = []uint64{7} }},
		{"reissuing what is not", "not among those", func(_ *fleet, o *Options) { o.Reissue = []Reissue{{Epoch: 7}} }},
		{"the other channel", "issuer of channel", func(f *fleet, o *Options) { f.issue(nil); o.Side = keys.A }},
		{"another's tree", "another issuer", func(f *fleet, o *Options) { f.issue(nil); o.Issuer += "2" }},
		{"a lost seed", "restore it from a backup", func(f *fleet, o *Options) {
			f.issue(nil)
			_ = os.Remove(filepath.Join(o.Issuer, "ledger", names(0)[0]+seedSuffix))
		}},
		{"a lost journal", "its journal is missing, and 2 seeds are there", func(f *fleet, o *Options) {
			f.issue(nil)
			_ = os.Remove(filepath.Join(o.Issuer, "journal.json"))
		}},
		{"a published issuer", "keep them apart", func(_ *fleet, o *Options) { o.Issuer = o.Out }},
		{"an issuer in the tree", "keep them apart", func(_ *fleet, o *Options) { o.Issuer = filepath.Join(o.Out, "x", "issuer") }},
		{"a tree among the seeds", "keep them apart", func(_ *fleet, o *Options) { o.Out = filepath.Join(o.Issuer, "ledger", "out") }},
		{"an issuer in the tree by another name", "keep them apart", func(f *fleet, o *Options) {
			f.issue(nil)
			other := o.Out + ".link"
			_ = os.Symlink(o.Out, other)
			o.Issuer = filepath.Join(other, "issuer")
		}},
		{"a pipe for a tree", "is not a directory (prw", func(_ *fleet, o *Options) { _ = syscall.Mkfifo(o.Out, 0o644) }},
		{"an open directory", "must be 0700", func(f *fleet, o *Options) {
			f.issue(nil)
			_ = os.Chmod(o.Issuer, 0o755)
		}},
	} {
		f := newFleet(t)
		o := f.opts
		test.change(f, &o)
		if _, err := Issue(t.Context(), o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	// One node that cannot be issued for does not hold up the others.
	f := newFleet(t)
	delete(f.to, "b")
	if r, err := Issue(t.Context(), f.opts); err == nil || r.Indexes != 2 || !strings.Contains(err.Error(), `node "b"`) {
		t.Errorf("%+v, %v", r, err)
	}
	// If it must be, with a warning, and Verify says it, too.
	f.to["b"] = []string{classical.Recipient().String()}
	r := f.issue(func(o *Options) { o.Classical = true })
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], `["b"]`) {
		t.Errorf("%+v", r)
	}
	problems := 0
	err = Verify(t.Context(), Audit{Tree: f.opts.Out, Signers: []signed.PublicKey{f.opts.Key.Public()}, Now: f.opts.Now}, func(p Problem) {
		problems++
		if p.Node != "b" || !errors.Is(p.Err, errClassical) {
			t.Errorf("%+v", p)
		}
	})
	if err != nil || problems != 2 {
		t.Errorf("%d problems, %v", problems, err)
	}
}

// A journal that is older than what was issued from it, or gone, is refused before
// anything is changed: it has forgotten revocations, and which name has which key.
func TestOlderJournal(t *testing.T) {
	for name, later := range map[string]func(*Options){
		"revoked":  func(o *Options) { o.Epochs, o.Revoke.Nodes = nil, []string{"c"} },
		"reissued": func(o *Options) { o.Epochs, o.Reissue = nil, []Reissue{{Epoch: epochAt(0)}} },
		"issued":   func(o *Options) { o.Epochs = append(o.Epochs, epochAt(2)) },
	} {
		f := newFleet(t)
		f.issue(nil)
		journal := filepath.Join(f.opts.Issuer, "journal.json")
		old, err := os.ReadFile(journal)
		if err != nil {
			t.Fatal(err)
		}
		f.issue(later)
		newest, _ := os.ReadFile(journal)
		if err := keyfile.Replace(journal, old); err != nil {
			t.Fatal(err)
		}
		before := tree(t, filepath.Dir(f.opts.Out))
		if _, err := Issue(t.Context(), f.opts); err == nil || !strings.Contains(err.Error(), "put the newest journal.json back") {
			t.Errorf("%s: %v", name, err)
		}
		// Another issuer in its place is refused by the tree.
		if err := errors.Join(os.Rename(f.opts.Issuer, f.opts.Issuer+".old"), os.Mkdir(f.opts.Issuer, 0o700)); err != nil {
			t.Fatal(err)
		}
		if _, err := Issue(t.Context(), f.opts); err == nil || !strings.Contains(err.Error(), "another issuer has filled it") {
			t.Errorf("%s: %v", name, err)
		}
		// Also if the tree has lost the name of its issuer.
		mark, err := os.ReadFile(filepath.Join(f.opts.Out, IssuerMark))
		if err = errors.Join(err, os.Remove(filepath.Join(f.opts.Out, IssuerMark))); err != nil {
			t.Fatal(err)
		}
		if _, err := Issue(t.Context(), f.opts); err == nil || !strings.Contains(err.Error(), "put the newest journal.json back") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(f.opts.Out, IssuerMark)); err == nil {
			t.Errorf("%s: the tree was claimed", name)
		}
		if err := keyfile.Publish(filepath.Join(f.opts.Out, IssuerMark), mark); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.RemoveAll(f.opts.Issuer), os.Rename(f.opts.Issuer+".old", f.opts.Issuer)); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(before, tree(t, filepath.Dir(f.opts.Out))) {
			t.Errorf("%s: something was changed", name)
		}
		// The newest goes on.
		if err := keyfile.Replace(journal, newest); err != nil {
			t.Fatal(err)
		}
		f.issue(nil)
	}
}

// Whatever the umask, what is published can be read.
func TestUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	f := newFleet(t)
	f.opts.Out = filepath.Join(f.opts.Out, "deeper")
	f.issue(nil)
	for _, path := range []string{filepath.Dir(f.opts.Out), f.opts.Out, f.path("a", "")} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
}

// One process at a time.
func TestLedgerIsLocked(t *testing.T) {
	f := newFleet(t)
	f.opts.Progress = func(int, int) {
		o := f.opts
		o.Progress = nil
		if _, err := Issue(context.Background(), o); err == nil || !strings.Contains(err.Error(), "another process") {
			t.Errorf("a second issuer: %v", err)
		}
	}
	f.issue(nil)
}

// Nor are issuers and signers at one tree together.
func TestTreeIsLocked(t *testing.T) {
	f := newFleet(t)
	signers := []signed.PublicKey{f.opts.Key.Public()}
	f.opts.Progress = func(int, int) {
		if _, err := SignTree(context.Background(), f.opts.Out, f.opts.Key, signers, nil); err == nil || !strings.Contains(err.Error(), "another process") {
			t.Errorf("signing what is being issued: %v", err)
		}
	}
	f.issue(nil)
	f.opts.Progress = nil
	_, err := SignTree(t.Context(), f.opts.Out, f.opts.Key, signers, func(int, int) {
		if _, err := Issue(context.Background(), f.opts); err == nil || !strings.Contains(err.Error(), "another process") {
			t.Errorf("issuing what is being signed: %v", err)
		}
	})
	if err != nil {
		t.Error(err)
	}
	// A directory that has no bundles is the wrong one.
	for _, dir := range []string{t.TempDir(), f.path("a", "")} {
		if n, err := SignTree(t.Context(), dir, f.opts.Key, signers, nil); n != 0 || err == nil || !strings.Contains(err.Error(), "there are none") {
			t.Errorf("%s: %d, %v", dir, n, err)
		}
	}
}

func TestRecipientsOfABundle(t *testing.T) {
	f := newFleet(t)
	second, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	f.to["a"] = append(f.to["a"], second.Recipient().String())
	f.issue(nil)
	s, err := signed.Parse(f.read("a", fileName(epochAt(0))))
	if err != nil {
		t.Fatal(err)
	}
	types, err := stanzas(s.Payload)
	if err != nil || !slices.Equal(types, []string{"mlkem768x25519", "mlkem768x25519"}) {
		t.Errorf("recipients %q, %v", types, err)
	}
	// As they are seen in the file itself.
	if n := bytes.Count(s.Payload, []byte("\n-> mlkem768x25519 ")); n != 2 || bytes.Contains(s.Payload, []byte("-> X25519 ")) {
		t.Errorf("%d stanzas in %q", n, s.Payload[:200])
	}
	// Either identity opens it, so that one can take the place of the other.
	f.ids["a"] = []age.Identity{second}
	f.agreed()
	f.to["a"] = f.to["a"][1:]
	if r := f.issue(nil); r.Bundles != 2 {
		t.Errorf("after a recipient was removed: %+v", r)
	}
	f.agreed()
}

func TestSignTreeListVerify(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	second := newKey(t)
	first := []signed.PublicKey{f.opts.Key.Public()}
	both := []signed.PublicKey{f.opts.Key.Public(), second.Public()}
	check := func(want int) (problems []Problem) {
		t.Helper()
		err := Verify(t.Context(), Audit{Tree: f.opts.Out, Signers: both, Threshold: 2, Now: f.opts.Now, Recipients: f.opts.Recipients},
			func(p Problem) { problems = append(problems, p) })
		if err != nil || len(problems) != want {
			t.Fatalf("%d problems, want %d: %+v, %v", len(problems), want, problems, err)
		}
		return problems
	}
	for _, p := range check(3) {
		if !strings.Contains(p.Err.Error(), "1 of the 2 trusted keys") {
			t.Errorf("%+v", p)
		}
	}
	if _, err := SignTree(t.Context(), f.opts.Out, second, []signed.PublicKey{second.Public()}, nil); !errors.Is(err, signed.ErrUntrusted) {
		t.Errorf("signing what a stranger has put there: %v", err)
	}
	done := 0
	if n, err := SignTree(t.Context(), f.opts.Out, second, first, func(n, _ int) { done = n }); err != nil || n != 3 || done != 3 {
		t.Fatal(err, n, done)
	}
	check(0)
	// Neither signing again nor issuing again touches anything.
	before := tree(t, f.opts.Out)
	if _, err := SignTree(t.Context(), f.opts.Out, second, first, nil); err != nil {
		t.Fatal(err)
	}
	f.issue(nil)
	if !maps.Equal(before, tree(t, f.opts.Out)) {
		t.Error("the same again wrote something")
	}
	var listed []string
	err := List(t.Context(), f.opts.Out, func(l Listing) error {
		if l.Err != nil || len(l.Index.Bundles) != 2 || len(l.Signers) != 2 || !l.Expires.Equal(start.Add(24*time.Hour)) {
			t.Errorf("%+v", l)
		}
		listed = append(listed, l.Node)
		return nil
	})
	if err != nil || !slices.Equal(listed, []string{"a", "b", "c"}) {
		t.Errorf("%v, %v", listed, err)
	}

	// What Verify finds, once each.
	name := fileName(epochAt(0))
	f.write("a", name, f.read("a", fileName(epochAt(1))))
	f.write("b", name, f.read("b", name)[:100])
	f.write("c", "notes", nil)
	_ = os.Remove(f.path("c", name))
	check(4)
	f.write("a", indexFile, f.read("b", indexFile))
	check(4)
	f.now = f.now.Add(25 * time.Hour)
	check(6) // both indexes that can be read are over
	if _, err := SignTree(t.Context(), f.opts.Out, second, first, nil); err == nil {
		t.Error("a damaged tree was signed")
	}
	if err := keyfile.Publish(f.path("b", indexFile), []byte("x")); err != nil {
		t.Fatal(err)
	}
	bad := 0
	if err := List(t.Context(), f.opts.Out, func(l Listing) error {
		if l.Err != nil {
			bad++
		}
		return nil
	}); err != nil || bad != 2 {
		t.Errorf("%d that cannot be listed, %v", bad, err)
	}
}

// What Verify finds with an inventory in hand: all that its nodes would miss.
func TestVerifyByInventory(t *testing.T) {
	for _, test := range []struct {
		name, want string
		change     func(*fleet, *Audit)
	}{
		{"nothing", "", func(*fleet, *Audit) {}},
		{"a symbolic link to a directory", "", func(f *fleet, _ *Audit) {
			_ = os.Rename(f.path("a", ""), f.opts.Out+".a")
			_ = os.Symlink(f.opts.Out+".a", f.path("a", ""))
		}},
		{"a damaged one behind a symbolic link", "/a/index: ", func(f *fleet, _ *Audit) {
			_ = os.Rename(f.path("a", ""), f.opts.Out+".a")
			_ = os.Symlink(f.opts.Out+".a", f.path("a", ""))
			f.write("a", indexFile, []byte("x"))
		}},
		{"no directory", "nothing was issued for the node", func(f *fleet, _ *Audit) { _ = os.RemoveAll(f.path("a", "")) }},
		{"a file in its place", "not a directory", func(f *fleet, _ *Audit) {
			_ = os.RemoveAll(f.path("a", ""))
			_ = os.WriteFile(f.path("a", ""), nil, 0o600)
		}},
		{"a dangling link in its place", "/a/index: ", func(f *fleet, _ *Audit) {
			_ = os.RemoveAll(f.path("a", ""))
			_ = os.Symlink("nowhere", f.path("a", ""))
		}},
		{"a node that was never issued for", "/d/index: ", func(_ *fleet, a *Audit) {
			a.Links = append(slices.Clone(a.Links), LinkSpec{"de", []string{"d", "c"}})
		}},
		{"a link that was never issued for", "/a/index: it was issued from an inventory in which", func(_ *fleet, a *Audit) {
			a.Links = append(slices.Clone(a.Links), LinkSpec{"new", []string{"a", "b"}})
		}},
		{"a node without anything", "it lists no bundle of the current epoch", func(f *fleet, _ *Audit) {
			f.issue(func(o *Options) { o.Epochs, o.Revoke.Epochs = nil, []uint64{epochAt(0)} })
		}},
		{"no current epoch", "it lists no bundle of the current epoch", func(_ *fleet, a *Audit) { a.Current = epochAt(2) }},
		{"no more than what is over", "", func(f *fleet, a *Audit) {
			f.now = start.Add(101 * time.Hour)
			f.issue(func(o *Options) { o.Epochs = []uint64{epochAt(101)} })
			a.Current = epochAt(101)
		}},
		{"a current one that has expired", "/a/" + fileName(epochAt(1)), func(f *fleet, a *Audit) {
			f.issue(func(o *Options) { o.IndexLife = 1000 * time.Hour })
			f.now = start.Add(101 * time.Hour)
			a.Current = epochAt(1)
		}},
		{"no recipients", "the inventory has no recipients", func(f *fleet, _ *Audit) { delete(f.to, "a") }},
		{"from the future", "one of the clocks is wrong", func(_ *fleet, a *Audit) { a.Now = func() time.Time { return start.Add(-maxSkew - time.Second) } }},
		{"from a clock that is ahead a little", "", func(_ *fleet, a *Audit) { a.Now = func() time.Time { return start.Add(-maxSkew) } }},
	} {
		f := newFleet(t)
		f.issue(nil)
		a := Audit{
			Tree: f.opts.Out, Signers: []signed.PublicKey{f.opts.Key.Public()}, Recipients: f.opts.Recipients, Now: f.opts.Now,
			Links: f.opts.Links, Current: epochAt(0),
		}
		test.change(f, &a)
		var problems []string
		if err := Verify(t.Context(), a, func(p Problem) { problems = append(problems, fmt.Sprintf("%s: %v", p.File, p.Err)) }); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		all := strings.Join(problems, "\n")
		if (test.want == "") != (all == "") || !strings.Contains(all, test.want) {
			t.Errorf("%s: %q, want %q", test.name, problems, test.want)
		}
	}
}

// What an issuer says of its keys is what both ends have.
func TestFingerprints(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	f.issue(func(o *Options) { o.Epochs, o.Reissue = nil, []Reissue{{Epoch: epochAt(1), Links: []string{"ab"}}} })
	f.issue(func(o *Options) { o.Epochs, o.Revoke.Links = nil, []string{"bc"} })
	f.issue(func(o *Options) { o.Epochs, o.Links = nil, o.Links[:1] })
	n := newNode(t, f.config("a"))
	seen := 0
	for _, link := range []string{"ab", "ac"} {
		w := n.watch(link)
		w.until(func(keys.Snapshot) bool { return len(w.keys) > 0 })
		held, err := Fingerprints(f.opts.Issuer, keys.B, f.opts.Links[:1])
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range held {
			if h.Link == link && (h.Err != nil || h.Fingerprint != w.keys[h.Epoch]) {
				t.Errorf("%s %s: %s, %v; a has %s", h.Link, h.Epoch, h.Fingerprint, h.Err, w.keys[h.Epoch])
			}
			if h.Link == link {
				seen++
			}
		}
		if len(held) != 5 {
			t.Errorf("%+v", held)
		}
	}
	if seen != 5 {
		t.Errorf("%d keys, want 5", seen)
	}
	if err := os.Remove(filepath.Join(f.opts.Issuer, "ledger", names(0)[0]+seedSuffix)); err != nil {
		t.Fatal(err)
	}
	held, err := Fingerprints(f.opts.Issuer, keys.B, nil)
	if err != nil || held[0].Err == nil {
		t.Errorf("without a seed: %+v, %v", held, err)
	}
	if _, err := Fingerprints(t.TempDir(), keys.B, nil); err == nil {
		t.Error("there is no issuer, and no error")
	}
}

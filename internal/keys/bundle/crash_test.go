package bundle

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/signed"
)

// Wherever an issuer stops, going on makes what was decided whole: no key is there
// twice, none is missing, and none that a node may already have changes.
func TestInterruptedAnywhere(t *testing.T) {
	errStop := errors.New("stopped here")
	for name, change := range map[string]func(*Options){
		"first": nil,
		"changes": func(o *Options) {
			o.Epochs = append(o.Epochs, epochAt(2))
			o.Reissue = []Reissue{{Epoch: epochAt(1), Links: []string{"ab"}}}
			o.Revoke = Revocation{Links: []string{"bc"}, Epochs: []uint64{epochAt(1)}}
		},
		"retirement": func(o *Options) { o.Retire, o.Epochs = epochAt(1), nil },
		"renewal":    func(*Options) {},
		"partial":    func(o *Options) { o.Links, o.Epochs = o.Links[:2], append(o.Epochs, epochAt(2)) },
	} {
		t.Run(name, func(t *testing.T) {
			want := 0
			for at := 0; ; at++ {
				f := newFleet(t)
				old := map[string]string{}
				if change != nil {
					f.issue(nil)
					if name == "renewal" {
						f.issue(func(o *Options) { o.Epochs, o.Revoke.Links = nil, []string{"ab"} })
					}
					old = f.agreed()
				}
				o := f.opts
				if change != nil {
					change(&o)
					f.opts.Links = o.Links
				}
				steps := make(chan int, 1)
				steps <- 0
				o.step = func(string) error {
					n := <-steps
					steps <- n + 1
					if n == at {
						return errStop
					}
					return nil
				}
				_, err := Issue(t.Context(), o)
				n := <-steps
				if err != nil && !errors.Is(err, errStop) {
					t.Fatal(err)
				}
				if n <= at {
					return // it was not stopped any more
				}
				held := f.sealedKeys()
				o.step = nil
				if _, err := Issue(t.Context(), o); err != nil {
					t.Fatalf("going on after step %d: %v", at, err)
				}
				f.verify()
				all := f.agreed()
				if want == 0 {
					want = len(all)
				}
				if len(all) != want {
					t.Fatalf("stopped at step %d: %d keys, want %d", at, len(all), want)
				}
				for _, before := range []map[string]string{old, held} {
					for name, m := range before {
						if now, ok := all[name]; ok && now != m {
							t.Fatalf("stopped at step %d: %s has other material", at, name)
						}
					}
				}
				o.Reissue = nil // was carried out; the same again would be another one
				files := tree(t, f.opts.Out)
				if _, err := Issue(t.Context(), o); err != nil || !maps.Equal(files, tree(t, f.opts.Out)) {
					t.Fatalf("stopped at step %d: once more wrote something; %v", at, err)
				}
			}
		})
	}
}

// sealedKeys are the keys of all bundles that can be opened, listed or not.
func (f *fleet) sealedKeys() map[string]string {
	f.t.Helper()
	all := map[string]string{}
	for node, ids := range f.ids {
		files, err := filepath.Glob(f.path(node, "*"+suffix))
		if err != nil {
			f.t.Fatal(err)
		}
		for _, file := range files {
			s, h, err := parseBundle(f.read(node, filepath.Base(file)), []signed.PublicKey{f.opts.Key.Public()}, 1)
			if err != nil {
				f.t.Fatal(err)
			}
			in, err := open(s, h, ids)
			if err != nil {
				f.t.Fatal(err)
			}
			for _, e := range in.entries {
				name := fmt.Sprintf("%s %s", e.Link, keys.Epoch{Number: h.Epoch, Generation: e.Generation})
				m := fmt.Sprintf("%x", e.key.Bytes())
				if all[name] != "" && all[name] != m {
					f.t.Fatalf("%s is there twice", name)
				}
				all[name] = m
			}
		}
	}
	return all
}

const killedEnv = "LEVER_TEST_ISSUE_INTO"

// manyLinks is a fleet of nodes in a ring, each with links to the next few.
func manyLinks(nodes, links int) []LinkSpec {
	all := make([]LinkSpec, links)
	for i := range all {
		a := i % nodes
		z := (a + 1 + i/nodes%(nodes-1)) % nodes
		all[i] = LinkSpec{fmt.Sprintf("link-%06d", i), []string{fmt.Sprintf("node-%04d", a), fmt.Sprintf("node-%04d", z)}}
	}
	return all
}

// killedOptions are what the parent and the child of TestKilled issue with.
func killedOptions(dir string) (Options, error) {
	key, err := signed.ReadKey(filepath.Join(dir, "signer.pem"))
	if err != nil {
		return Options{}, err
	}
	recipient, err := os.ReadFile(filepath.Join(dir, "recipient"))
	return Options{
		Issuer: filepath.Join(dir, "issuer"), Side: keys.A, Out: filepath.Join(dir, "out"), Key: key,
		Links: manyLinks(20, 400), Epochs: []uint64{epochAt(0), epochAt(1)},
		Recipients: func(string) []string { return []string{string(recipient)} },
	}, err
}

// The real thing: SIGKILL, again and again, at no chosen place.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(killedEnv); dir != "" {
		o, err := killedOptions(dir)
		if err != nil {
			t.Fatal(err)
		}
		o.Progress = func(done, _ int) { fmt.Println("done", done) }
		if _, err := Issue(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		return
	}
	dir := t.TempDir()
	if _, err := signed.GenerateKey(filepath.Join(dir, "signer.pem")); err != nil {
		t.Fatal(err)
	}
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "recipient"), []byte(id.Recipient().String()), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := killedOptions(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, opts: o, ids: map[string][]age.Identity{}}
	for i := range 20 {
		f.ids[fmt.Sprintf("node-%04d", i)] = []age.Identity{id}
	}
	held := map[string]string{}
	for round := range 4 {
		// The next node that is done is the sign, which a resumed issuer gives at once
		// for those that were done before.
		child := exec.Command(os.Args[0], "-test.run=^TestKilled$", "-test.count=1")
		child.Env = append(os.Environ(), killedEnv+"="+dir)
		out, err := child.StdoutPipe()
		if err == nil {
			err = child.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if lines.Text() == fmt.Sprint("done ", 3+4*round) {
				if err := child.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
					t.Fatal(err)
				}
				break
			}
		}
		for lines.Scan() { // until it has ended
		}
		var exit *exec.ExitError
		if err := child.Wait(); err != nil && !(errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled()) {
			t.Fatal(err)
		}
		now := f.sealedKeys()
		for name, m := range held {
			if now[name] != m {
				t.Fatalf("round %d: %s was there, and is other material now", round, name)
			}
		}
		held = now
	}
	r, err := Issue(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	all := f.agreed()
	if len(all) != 800 {
		t.Errorf("%d keys of 800", len(all))
	}
	for name, m := range held {
		if all[name] != m {
			t.Errorf("%s has other material", name)
		}
	}
	if r.Nodes != 20 {
		t.Errorf("%+v", r)
	}
	f.verify()
	// Nothing half written is left.
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".tmp") {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

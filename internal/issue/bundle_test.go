package issue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/signed"
	"github.com/lever-link/lever/inventory"
)

// site is an inventory whose channel a is one of bundles, and its issuer.
type site struct {
	t         *testing.T
	dir       string
	signer    signed.PublicKey
	threshold int
	nodes     map[string]string // and their recipients
	links     map[string]string // and their ends
	now       time.Time
}

func newSite(t *testing.T) *site {
	s := &site{
		t: t, dir: t.TempDir(), threshold: 1, nodes: map[string]string{}, links: map[string]string{"ab": "a b", "ac": "a c"},
		now: time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC),
	}
	for _, n := range []string{"a", "b", "c"} {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			t.Fatal(err)
		}
		s.nodes[n] = id.Recipient().String()
	}
	if err := os.Mkdir(s.path("issuer"), 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.signer, err = signed.GenerateKey(s.path("issuer/" + SigningKey)); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// open opens channel a by the site's inventory as it is now.
func (s *site) open(o Options) Channel {
	s.t.Helper()
	var text strings.Builder
	other := "FyUcNGg+EPTS2N1Zgvt1ZR7GR6hXnOgFSxwyBNSS+lE="
	fmt.Fprintf(&text, `apiVersion: lever/v1
policy: {cak_epoch: 1h, max_age: 4h}
channels:
  a: {type: bundle, path: %s, signers: [%q, %q], threshold: %d}
  b: {type: etcd, endpoints: ["https://127.0.0.1:1"], ca: ca.pem, certificate: node.pem, key: node.key}
sites:
  fra1: {custody: controlled-building}
nodes:
`, s.path("out"), s.signer, other, s.threshold)
	for n, r := range s.nodes {
		if r != "" {
			r = ", recipients: [" + r + "]"
		}
		fmt.Fprintf(&text, "  %s: {site: fra1%s}\n", n, r)
	}
	text.WriteString("links:\n")
	for id, ends := range s.links {
		a, z, _ := strings.Cut(ends, " ")
		fmt.Fprintf(&text, "  - {id: %s, a: %s/%s, z: %s/%s, segments: [{custody: leased-wave, provider: ExampleTel}]}\n", id, a, id, z, id)
	}
	file := s.path("net.yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		s.t.Fatal(err)
	}
	inv, err := inventory.Load(file)
	if err != nil {
		s.t.Fatal(err)
	}
	o.Now = func() time.Time { return s.now }
	if !o.ReadOnly {
		o.Issuer = s.path("issuer")
	}
	c, err := Open(keys.A, inv, o)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// issue issues on the schedule.
func (s *site) issue() Result {
	s.t.Helper()
	r, err := s.open(Options{}).Issue(s.t.Context(), Request{Epochs: Numbers(s.now, time.Hour, 3)})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// What had been issued is said as such, and what is over is retired.
func TestBundleChannelCounts(t *testing.T) {
	s := newSite(t)
	for i, step := range []struct {
		change        func()
		written, kept int
		notes         []string
	}{
		{func() {}, 12, 0, []string{"bundles and 3 indexes"}},
		{func() {}, 0, 12, nil},
		{func() { s.links["bc"] = "b c" }, 6, 12, []string{"6 bundles and 2 indexes"}},
		{func() { s.now = s.now.Add(time.Hour) }, 6, 18, []string{"3 bundles and 3 indexes"}},
		{func() { s.now = s.now.Add(4 * time.Hour) }, 18, 24, []string{"bundles"}},
		{func() { s.now = s.now.Add(time.Hour) }, 6, 36, []string{"1 epochs are over", "bundles"}},
	} {
		step.change()
		r := s.issue()
		ok := r.Written == step.written && r.Kept == step.kept && len(r.Notes) == len(step.notes)
		for n := range min(len(r.Notes), len(step.notes)) {
			ok = ok && strings.Contains(r.Notes[n], step.notes[n])
		}
		if !ok {
			t.Errorf("step %d: %+v", i, r)
		}
	}
	if looked, problems, err := s.open(Options{ReadOnly: true}).Verify(t.Context()); err != nil || looked != 3 || problems != nil {
		t.Errorf("%d looked at, %q, %v", looked, problems, err)
	}
}

// Neither the tree nor the issuer's directory is one that keys of type dir are in: the
// one is published, and the other would have both channels.
func TestBundlesBesideKeys(t *testing.T) {
	for _, place := range []string{"out", "issuer"} {
		s := newSite(t)
		if err := errors.Join(os.MkdirAll(s.path(place), 0o700), os.WriteFile(s.path(place+"/.lever-channel"), []byte("b\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		_, err := s.open(Options{}).Issue(t.Context(), Request{Epochs: Numbers(s.now, time.Hour, 3)})
		if err == nil || !strings.Contains(err.Error(), s.path(place)+" is a directory of keys of type dir") {
			t.Errorf("%s: %v", place, err)
		}
		if _, err := os.Stat(s.path("issuer/journal.json")); err == nil {
			t.Errorf("%s: it has begun all the same", place)
		}
	}
}

// Whoever revokes or readmits is told what is to be done with it, also if others
// must sign; and a far end that cannot be sealed to holds up no revocation.
func TestBundleChannelRevokes(t *testing.T) {
	s := newSite(t)
	s.issue()
	for _, step := range []struct {
		threshold int
		target    Target
		readmit   string
		change    func()
		want      []string
		wrong     string
	}{
		{1, Target{Link: "ab"}, "", nil, []string{"revoked link ab: 3 bundles and 2 indexes", "deliver it"}, ""},
		{1, Target{Link: "ab"}, "", nil, []string{"link ab had nothing, or was revoked already"}, ""},
		{2, Target{Node: "c"}, "", nil, []string{"revoked node c", "2 must sign"}, ""},
		{2, Target{}, "c", nil, []string{"node c has keys again, of other generations: 2 must sign"}, ""},
		{2, Target{}, "c", nil, nil, "it was not revoked"},
		{1, Target{Node: "c"}, "", func() { s.nodes["a"] = "" }, []string{"revoked node c", "deliver it", "not everything can be sealed again: "}, ""},
	} {
		s.threshold = step.threshold
		if step.change != nil {
			step.change()
		}
		c := s.open(Options{})
		var lines []string
		var err error
		if step.readmit != "" {
			var line string
			if line, err = c.Readmit(t.Context(), step.readmit); line != "" {
				lines = append(lines, line)
			}
		} else {
			lines, err = c.Revoke(t.Context(), step.target)
		}
		ok := len(lines) == len(step.want) && (err == nil) == (step.wrong == "")
		for n := range min(len(lines), len(step.want)) {
			ok = ok && strings.Contains(lines[n], step.want[n])
		}
		if !ok || err != nil && !strings.Contains(err.Error(), step.wrong) {
			t.Errorf("%+v: %q, %v", step.target, lines, err)
		}
	}
}

// The issuer sees each key's fingerprint; anybody sees what each node has.
func TestBundleChannelLists(t *testing.T) {
	s := newSite(t)
	s.issue()
	_ = os.RemoveAll(s.path("out/c"))
	rows, err := s.open(Options{}).List(t.Context(), nil)
	if err != nil || len(rows) != 6 {
		t.Fatalf("%+v, %v", rows, err)
	}
	seen := map[string]bool{}
	for _, r := range rows {
		if len(r.Fingerprint) != 8 || seen[r.Fingerprint] {
			t.Errorf("%+v", r)
		}
		seen[r.Fingerprint] = true
		if want := map[string]string{"ab": "ok", "ac": "missing"}[r.Link]; r.State != want {
			t.Errorf("%+v, want %s", r, want)
		}
	}
	if rows, err := s.open(Options{}).List(t.Context(), []string{"ab"}); err != nil || len(rows) != 3 {
		t.Errorf("%+v, %v", rows, err)
	}
	rows, err = s.open(Options{ReadOnly: true}).List(t.Context(), nil)
	if err != nil || len(rows) != 6 {
		t.Errorf("%+v, %v", rows, err)
	}
	for _, r := range rows {
		if r.Fingerprint != "" || r.State != "ok" {
			t.Errorf("%+v", r)
		}
	}
	if _, err := s.open(Options{ReadOnly: true}).List(t.Context(), []string{"ab"}); err == nil || !strings.Contains(err.Error(), "give --issuer") {
		t.Errorf("%v", err)
	}
}

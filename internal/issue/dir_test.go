package issue_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lever-link/lever/internal/issue"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/dir"
	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/inventory"
)

const three = `apiVersion: lever/v1
channels:
  a: {type: dir, path: a}
  b: {type: bundle, path: b, signers: [FyUcNGg+EPTS2N1Zgvt1ZR7GR6hXnOgFSxwyBNSS+lE=]}
sites: {s: {custody: controlled-building}}
nodes: {n: {site: s}, m: {site: s}, o: {site: s}}
links:
  - {id: nm, a: n/eth0, z: m/eth0}
  - {id: no, a: n/eth1, z: o/eth0}
`

func open(t *testing.T, dir string, side keys.Side, o issue.Options) (issue.Channel, error) {
	t.Helper()
	file := filepath.Join(dir, "net.yaml")
	if err := os.WriteFile(file, []byte(three), 0o600); err != nil {
		t.Fatal(err)
	}
	inv, err := inventory.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return issue.Open(side, inv, o)
}

// Epochs of a schedule in a directory: issued once, given another generation when
// they were revoked, kept from nodes that were revoked, and erased when they are over.
func TestDirOnASchedule(t *testing.T) {
	root := filepath.Join(t.TempDir(), "out")
	c, err := open(t, t.TempDir(), keys.A, issue.Options{Out: root})
	if err != nil {
		t.Fatal(err)
	}
	const now = 29930400
	run := func(numbers ...uint64) issue.Result {
		t.Helper()
		res, err := c.Issue(t.Context(), issue.Request{Epochs: numbers})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	expect := func(what string, links map[string][]string) {
		t.Helper()
		rows, err := c.List(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		have := map[string][]string{}
		for _, r := range rows {
			if r.State == "ok" {
				have[r.Link] = append(have[r.Link], r.Epoch)
			}
		}
		if fmt.Sprint(have) != fmt.Sprint(links) {
			t.Errorf("%s: %v, want %v", what, have, links)
		}
	}
	e := func(n uint64, g int) string { return fmt.Sprintf("%d.%d", n, g) }

	if r := run(now, now+1); r.Written != 4 || r.Kept != 0 {
		t.Errorf("%+v", r)
	}
	if r := run(now, now+1, now+2); r.Written != 2 || r.Kept != 4 {
		t.Errorf("again: %+v", r)
	}
	if _, err := c.Revoke(t.Context(), issue.Target{Number: now}); err != nil {
		t.Fatal(err)
	}
	run(now)
	expect("revoked and issued again", map[string][]string{"nm": {e(now, 1), e(now+1, 0), e(now+2, 0)}, "no": {e(now, 1), e(now+1, 0), e(now+2, 0)}})

	done, err := c.Revoke(t.Context(), issue.Target{Node: "o"})
	if err != nil || len(done) != 4 {
		t.Errorf("%q, %v", done, err)
	}
	r := run(now, now+1, now+2)
	if r.Written != 0 || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "its node o was revoked") {
		t.Errorf("for a node that was revoked: %+v", r)
	}
	expect("a node revoked", map[string][]string{"nm": {e(now, 1), e(now+1, 0), e(now+2, 0)}})
	if _, err := c.Readmit(t.Context(), "o"); err != nil {
		t.Error(err)
	}
	if _, err := c.Readmit(t.Context(), "o"); err == nil || !strings.Contains(err.Error(), "was not revoked") {
		t.Errorf("readmitted twice: %v", err)
	}
	run(now + 2)
	expect("readmitted", map[string][]string{"nm": {e(now, 1), e(now+1, 0), e(now+2, 0)}, "no": {e(now+2, 1)}})
	if n, err := c.Retire(t.Context(), now+2); n != 2 || err != nil {
		t.Errorf("retired %d, %v", n, err)
	}
	expect("retired", map[string][]string{"nm": {e(now+2, 0)}, "no": {e(now+2, 1)}})
	if looked, problems, err := c.Verify(t.Context()); looked != 2 || len(problems) != 0 || err != nil {
		t.Errorf("%d, %q, %v", looked, problems, err)
	}
}

// What could not be issued does not count as issued before.
func TestDirCountsNoFailure(t *testing.T) {
	root := filepath.Join(t.TempDir(), "out")
	c := issue.OpenDir(keys.A, root)
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "nm"), 0o700), os.Chmod(filepath.Join(root, "nm"), 0o777)); err != nil {
		t.Fatal(err)
	}
	r, err := c.Issue(t.Context(), issue.Request{Links: []string{"nm"}, Epochs: []uint64{29930400, 29930401}})
	if err == nil || r.Written != 0 || r.Kept != 0 || !r.Since.IsZero() {
		t.Errorf("%+v, %v", r, err)
	}
}

// What is counted by hand is never retired by a schedule.
func TestCountedEpochsAreNotRetired(t *testing.T) {
	c := issue.OpenDir(keys.A, filepath.Join(t.TempDir(), "out"))
	if _, err := c.Issue(t.Context(), issue.Request{Links: []string{"nm"}, Count: 3}); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Retire(t.Context(), 29930400); n != 0 || err != nil {
		t.Errorf("retired %d, %v", n, err)
	}
}

// Options are for the type of the channel, and one channel's directory is not taken
// for the other's.
func TestOptions(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "b")
	for _, c := range []struct {
		side keys.Side
		o    issue.Options
		want string
	}{
		{keys.A, issue.Options{Issuer: "x"}, "--issuer: channel a is of type dir"},
		{keys.B, issue.Options{}, "give --issuer"},
		{keys.B, issue.Options{Issuer: "x", Key: "k"}, "--key: channel b is of type bundle"},
		{keys.A, issue.Options{Out: other}, "is the directory of channel b"},
	} {
		if _, err := open(t, dir, c.side, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
}

// Keys of type dir are not put where the bundles of the other channel are, or their
// issuer is, nor bundles where such keys are: who carries or backs up one of the two
// would have both channels.
func TestOneDirectoryIsOneType(t *testing.T) {
	for _, mark := range []string{".lever-issuer", "journal.json", "signing.pem"} {
		root := t.TempDir()
		if err := os.WriteFile(filepath.Join(root, mark), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := issue.OpenDir(keys.A, root).Issue(t.Context(), issue.Request{Links: []string{"nm"}, Count: 1})
		if err == nil || !strings.Contains(err.Error(), root+" belongs to a channel of type bundle") {
			t.Errorf("keys beside %s: %v", mark, err)
		}
		if there, err := os.ReadDir(root); err != nil || len(there) != 1 {
			t.Errorf("beside %s there is %v, %v", mark, there, err)
		}
	}
}

// While one issues, another is refused, and a revocation waits.
func TestDirIsFilledByOne(t *testing.T) {
	root := filepath.Join(t.TempDir(), "out")
	first, second := issue.OpenDir(keys.A, root), issue.OpenDir(keys.A, root)
	var refused error
	revoked := make(chan error, 1)
	r := issue.Request{Links: []string{"nm"}, Count: 1}
	r.Each = func(string, keys.Epoch, string) {
		_, refused = second.Issue(t.Context(), issue.Request{Links: []string{"no"}, Count: 1})
		go func() {
			_, err := second.Revoke(t.Context(), issue.Target{Number: 1})
			revoked <- err
		}()
	}
	if _, err := first.Issue(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(refused, keyfile.ErrLocked) {
		t.Errorf("a second issuer: %v", refused)
	}
	if err := <-revoked; err != nil {
		t.Errorf("the revocation: %v", err)
	}
	rows, err := first.List(t.Context(), []string{"nm", "no"})
	if err != nil || len(rows) != 2 || rows[0].State != "none" || rows[1].State != "none" {
		t.Errorf("%v, %v", rows, err)
	}
}

// A run that was interrupted is completed by the next: at no time has one link an
// epoch and another none, and then another one more.
func TestCountedEpochsAreCompleted(t *testing.T) {
	links := []string{"l1", "l2", "l3"}
	for _, test := range []struct {
		name string
		// before are runs, each interrupted after so many keys.
		before []int
		count  int
		want   string
		kept   int
	}{
		{"not interrupted", nil, 1, "l1:1 l2:1 l3:1", 0},
		{"interrupted after one", []int{1}, 1, "l1:1 l2:1 l3:1", 1},
		{"interrupted after two", []int{2}, 1, "l1:1 l2:1 l3:1", 2},
		{"interrupted at the end", []int{3}, 1, "l1:1 l1:2 l2:1 l2:2 l3:1 l3:2", 0},
		{"interrupted twice", []int{1, 1}, 1, "l1:1 l2:1 l3:1", 2},
		{"two, interrupted in the first", []int{1}, 2, "l1:1 l1:2 l2:1 l2:2 l3:1 l3:2", 1},
		{"two, interrupted in the second", []int{4}, 2, "l1:1 l1:2 l1:3 l2:1 l2:2 l2:3 l3:1 l3:2 l3:3", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "out")
			c := issue.OpenDir(keys.A, root)
			for _, after := range test.before {
				ctx, cancel := context.WithCancel(t.Context())
				written := 0
				r := issue.Request{Links: links, Count: test.count, Each: func(string, keys.Epoch, string) {
					if written++; written == after {
						cancel()
					}
				}}
				if _, err := c.Issue(ctx, r); err == nil && after < 3*test.count {
					t.Fatal("it was not interrupted")
				}
				cancel()
			}
			res, err := c.Issue(t.Context(), issue.Request{Links: links, Count: test.count})
			if err != nil || res.Kept != test.kept || (len(res.Notes) > 0) != (test.kept > 0) {
				t.Errorf("%+v, %v", res, err)
			}
			var have []string
			for _, link := range links {
				epochs, err := dir.Issued(root, link)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range epochs {
					have = append(have, fmt.Sprintf("%s:%d", link, e.Number))
				}
			}
			slices.Sort(have)
			if got := strings.Join(have, " "); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

// What a link has had and lost by a revocation is no gap to be filled, nor is there a
// number after the last.
func TestCountedEpochsGoOn(t *testing.T) {
	root := filepath.Join(t.TempDir(), "out")
	c := issue.OpenDir(keys.A, root)
	run := func(count int) (written []string, err error) {
		r := issue.Request{Links: []string{"l1", "l2"}, Count: count, Each: func(link string, e keys.Epoch, _ string) { written = append(written, link+":"+e.String()) }}
		_, err = c.Issue(t.Context(), r)
		return written, err
	}
	if _, err := run(1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Revoke(t.Context(), issue.Target{Link: "l1"}); err != nil {
		t.Fatal(err)
	}
	if written, err := run(1); err != nil || !slices.Equal(written, []string{"l1:2.0", "l2:2.0"}) {
		t.Errorf("after a revocation: %q, %v", written, err)
	}
	if _, _, err := dir.IssueNumbers(root, "l1", []uint64{math.MaxUint64}); err != nil {
		t.Fatal(err)
	}
	if written, err := run(1); err != nil || !slices.Equal(written, []string{fmt.Sprintf("l2:%d.0", uint64(math.MaxUint64))}) {
		t.Errorf("the last: %q, %v", written, err)
	}
	if written, err := run(1); err == nil || len(written) != 0 {
		t.Errorf("after the last: %q, %v", written, err)
	}
}

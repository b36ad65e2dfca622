package inventory_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"github.com/lever-link/lever/inventory"
)

func newRecipient(t *testing.T) string {
	t.Helper()
	i, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return i.Recipient().String()
}

const enrolYAML = `# the network
apiVersion: lever/v1
channels: {a: {type: dir, path: a}, b: {type: dir, path: b}}
sites: {s: {}}
nodes:
  n: {site: s} # in the corner
  m:
    site: s
links:
  - {id: x, a: n/eth0, z: m/eth0}
`

// TestEnrol replaces the identity of a node step by step: enrolled, its successor
// enrolled, the old one taken out.
func TestEnrol(t *testing.T) {
	one, two, three := newRecipient(t), newRecipient(t), newRecipient(t)
	dir := write(t, map[string]string{"net.yaml": enrolYAML})
	file := filepath.Join(dir, "net.yaml")
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what      string
		recipient string
		replace   bool
		list      string // in the file afterwards
		changes   bool
		want      string // error
	}{
		{"the first", one, false, one, true, ""},
		{"the same again", one, false, one, false, ""},
		{"the same again, alone", one, true, one, false, ""},
		{"its successor", two, false, one + ", " + two, true, ""},
		{"the first again", one, false, one + ", " + two, false, ""},
		{"a third", three, false, one + ", " + two, false,
			"enrolling node n: NET:6:3: it has 2 recipients already, one and its successor: leave only the new one with --replace, after material was issued to it"},
		{"the successor alone", two, true, two, true, ""},
		{"another instead", three, true, three, true, ""},
		{"what is not whole", one[:len(one)-1], false, three, false,
			"enrolling node n: the recipient is not whole: a character is wrong, missing or too many; copy it again from lever node show"},
		{"a classical one", "age1cv8zt3pjgsvhssyr8lssvevzxn9apwrcyg42arquf0cg9hau9pusmxaqdt", false, three, false,
			"enrolling node n: nothing was changed, since the inventory would not be in order with this recipient:\n" +
				"NET:6:28: the recipients of node n are one post-quantum and one classical, which no bundle can be sealed to together: enrol the post-quantum one with --replace"},
	} {
		changed, err := inventory.Enrol(file, "n", step.recipient, step.replace)
		got := ""
		if err != nil {
			got = strings.ReplaceAll(err.Error(), file, "NET")
		}
		if got != step.want || (changed != "") != step.changes || changed != "" && changed != file {
			t.Errorf("%s: changed %q, error %s; want %s", step.what, changed, got, step.want)
		}
		now, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Replace(enrolYAML, "n: {site: s}", "n: {site: s, recipients: ["+step.list+"]}", 1)
		if diff := cmp.Diff(want, string(now)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.what, diff)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o640 {
		t.Errorf("the file is %v afterwards, %v", info, err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

// TestEnrolInADirectory changes the one file of several in which the node stands,
// through a symbolic link, which stays one.
func TestEnrolInADirectory(t *testing.T) {
	recipient := newRecipient(t)
	elsewhere := write(t, map[string]string{"nodes": "apiVersion: lever/v1\nnodes:\n  o:\n    site: s # far away\n"})
	dir := write(t, map[string]string{"net.yaml": enrolYAML})
	link := filepath.Join(dir, "more.yml")
	if err := os.Symlink(filepath.Join(elsewhere, "nodes"), link); err != nil {
		t.Fatal(err)
	}
	changed, err := inventory.Enrol(dir, "o", recipient, false)
	if err != nil || changed != link {
		t.Fatalf("changed %q, %v", changed, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode().IsRegular() {
		t.Errorf("the symbolic link is a file now: %v %v", info, err)
	}
	inv, err := inventory.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{recipient}, inv.Nodes["o"].Recipients); diff != "" {
		t.Errorf("recipients (-want +got):\n%s", diff)
	}
	if same, err := os.ReadFile(filepath.Join(dir, "net.yaml")); err != nil || string(same) != enrolYAML {
		t.Errorf("the other file has changed: %v\n%s", err, same)
	}
}

// TestEnrolRefuses lets nothing be written.
func TestEnrolRefuses(t *testing.T) {
	recipient := newRecipient(t)
	const secret = "AGE-SECRET-KEY-PQ-1QQQQQQQQQQQQQQQ"
	for name, tc := range map[string]struct {
		text, node, recipient string
		want                  string
	}{
		"no such node": {enrolYAML, "nn", recipient, `enrolling node "nn": the inventory (NET) has no such node`},
		"in error already": {strings.Replace(enrolYAML, "s: {}", "s: {custody: 7}", 1), "n", recipient,
			"NET:4:22: custody must be text; found the number 7: put it in quotes"},
		"what is another node's": {strings.Replace(enrolYAML, "    site: s\n", "    site: s\n    recipients: ["+recipient+"]\n", 1), "n", recipient,
			"enrolling node n: NET:7:3: this recipient is that of node m; take it from lever node show on n itself"},
		"a secret": {enrolYAML, "n", secret,
			"enrolling node n: the recipient must be the public part, age1pq1…; found a secret key, which is now known to whoever has read this: make another identity (lever node init) and enrol that one"},
		"a layout that nobody expects": {strings.Replace(enrolYAML, "    site: s\n", "    ? site\n    : s\n", 1), "m", recipient,
			"enrolling node m: NET:7:3: the way in which it is written cannot be edited by a program: write the recipients by hand, as recipients: [age1pq1…], or write the node as name: {site: SITE}"},
	} {
		file := filepath.Join(write(t, map[string]string{"net.yaml": tc.text}), "net.yaml")
		changed, err := inventory.Enrol(file, tc.node, tc.recipient, false)
		if err == nil || changed != "" || strings.ReplaceAll(err.Error(), file, "NET") != tc.want {
			t.Errorf("%s: changed %q, %v", name, changed, err)
		}
		if now, err := os.ReadFile(file); err != nil || string(now) != tc.text {
			t.Errorf("%s: the file has changed: %v\n%s", name, err, now)
		}
	}
	if _, err := inventory.Enrol(filepath.Join(t.TempDir(), "x.yaml"), "n", recipient, false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestEnrolAllAtOnce loses none of the enrolments that are made at the same time.
func TestEnrolAllAtOnce(t *testing.T) {
	const nodes = 8
	text := "apiVersion: lever/v1\nsites: {s: {}}\nnodes:\n"
	for i := range nodes {
		text += fmt.Sprintf("  n%d: {site: s}\n", i)
	}
	dir := write(t, map[string]string{"net.yaml": text})
	var wg sync.WaitGroup
	for i := range nodes {
		recipient := newRecipient(t)
		wg.Go(func() {
			if _, err := inventory.Enrol(dir, fmt.Sprintf("n%d", i), recipient, false); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	inv, err := inventory.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range inv.Nodes {
		if len(n.Recipients) != 1 {
			t.Errorf("%s has %d recipients", name, len(n.Recipients))
		}
	}
}

//go:build !kernel

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/internal/keys/dir"
)

// opened counts what a process does to the files of directories: inotify sees each
// file that is opened, and who only asks whether there is one is not seen.
type opened struct{ fd int }

func watchOpens(t *testing.T, roots ...string) *opened {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				_, err = unix.InotifyAddWatch(fd, path, unix.IN_OPEN|unix.IN_ACCESS|unix.IN_MODIFY|unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVE|unix.IN_ATTRIB)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	o := &opened{fd}
	o.drain()
	return o
}

// drain returns how many octets of events there were.
func (o *opened) drain() (n int) {
	buf := make([]byte, 64<<10)
	for {
		m, err := unix.Read(o.fd, buf)
		if m <= 0 || err != nil {
			return n
		}
		n += m
	}
}

// Promise 3 for the issuers' side: whatever lever keys does on one channel, it opens
// no file of the other one, not its directory, and not its issuer's.
func TestOneChannelAProcess(t *testing.T) {
	tmp := t.TempDir()
	path := func(name string) string { return filepath.Join(tmp, name) }
	lever := func(args ...string) (string, error) {
		cmd := newRootCommand()
		var out strings.Builder
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SetArgs(args)
		err := cmd.Execute()
		return out.String(), err
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := lever(args...)
		if err != nil {
			t.Fatalf("lever %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	signers := map[string]string{}
	for _, side := range []string{"a", "b"} {
		signers[side], _, _ = strings.Cut(must("keys", "init", "--issuer", path("issuer-"+side)), "\n")
	}
	recipients := map[string]string{}
	for _, node := range []string{"n", "m"} {
		must("node", "init", "--state-dir", path(node))
		recipients[node] = strings.TrimSpace(must("node", "show", "--state-dir", path(node)))
	}
	for kind, text := range map[string]string{
		"dir": `channels: {a: {type: dir, path: dir/a}, b: {type: dir, path: dir/b}}`,
		"bundle": fmt.Sprintf(`channels: {a: {type: bundle, path: bundle/a, signers: ["%s"]}, b: {type: bundle, path: bundle/b, signers: ["%s"]}}`,
			signers["a"], signers["b"]),
	} {
		inv := path(kind + ".yaml")
		text = "apiVersion: lever/v1\n" + text + `
sites: {s: {custody: controlled-building}}
nodes: {n: {site: s, recipients: [` + recipients["n"] + `]}, m: {site: s, recipients: [` + recipients["m"] + `]}}
links: [{id: wave, a: n/eth0, z: m/eth0}]
`
		if err := os.WriteFile(inv, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args := func(side, verb string, more ...string) []string {
			all := []string{"keys", verb, "--channel", side, "--inventory", inv}
			if kind == "bundle" {
				all = append(all, "--issuer", path("issuer-"+side))
			}
			return append(all, more...)
		}
		roots := func(side string) []string { return []string{path(kind + "/" + side), path("issuer-" + side)} }
		for _, side := range []string{"a", "b"} {
			must(args(side, "issue")...)
		}
		for _, side := range []string{"a", "b"} {
			other := map[string]string{"a": "b", "b": "a"}[side]
			mine, others := watchOpens(t, roots(side)...), watchOpens(t, roots(other)...)
			for _, c := range [][]string{
				args(side, "issue", "--epochs", "2"), args(side, "list"), args(side, "verify"),
				args(side, "revoke", "wave"), args(side, "revoke", "n"),
			} {
				must(c...)
				if others.drain() > 0 {
					t.Errorf("%s: lever %s has opened something of channel %s", kind, strings.Join(c, " "), other)
				}
				if mine.drain() == 0 {
					t.Errorf("%s: lever %s is not seen to open anything of channel %s: this test would see nothing", kind, strings.Join(c, " "), side)
				}
			}
		}
	}
	// A directory of one channel is not taken for the other's.
	if err := dir.Claim(path("dir/a"), 1); err == nil {
		t.Error("channel a's directory could be claimed as channel b's")
	}
}

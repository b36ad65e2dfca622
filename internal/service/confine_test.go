package service

import (
	"bufio"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// A confineTask is what the child confined is asked to do.
type confineTask struct {
	Paths Paths
	Try   []access
	Admit []string
}

// An access is one that is tried, by its verb.
type access struct{ Verb, Path string }

type confined struct {
	ABI    int
	Denied []access
	Admit  string
}

func childConfined(in *bufio.Scanner, log *slog.Logger) any {
	manyThreads()
	var task confineTask
	if !in.Scan() {
		return "no task"
	}
	if err := json.Unmarshal(in.Bytes(), &task); err != nil {
		return err.Error()
	}
	c := Confine(task.Paths, log)
	var report confined
	if c != nil {
		report.ABI = c.abi
	}
	for _, a := range task.Try {
		// Each on another goroutine, and so on any of the threads.
		done := make(chan error)
		go func() { done <- a.do() }()
		if err := <-done; errors.Is(err, fs.ErrPermission) {
			report.Denied = append(report.Denied, a)
		} else if err != nil {
			return err.Error()
		}
	}
	if err := c.Admit(task.Admit...); err != nil {
		report.Admit = err.Error()
	}
	return report
}

func (a access) do() error {
	switch a.Verb {
	case "read":
		_, err := os.ReadFile(a.Path)
		return err
	case "list":
		_, err := os.ReadDir(a.Path)
		return err
	case "replace": // as records and states are written
		if err := os.WriteFile(a.Path+".tmp", []byte("x"), 0o600); err != nil {
			return err
		}
		return os.Rename(a.Path+".tmp", a.Path)
	case "mkdir":
		return os.MkdirAll(a.Path, 0o700)
	case "remove":
		return os.Remove(a.Path)
	}
	return errors.New("unknown verb " + a.Verb)
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestConfineWithoutADirectory has one of the agent's directories not to be made, as on a
// disk that is full or cannot be written: the rest is as ever.
func TestConfineWithoutADirectory(t *testing.T) {
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "file"), "in the way")
	run, state := filepath.Join(dir, "run"), filepath.Join(file, "state")
	line, err := json.Marshal(confineTask{
		Paths: Paths{Write: []string{run, state}},
		Try:   []access{{"mkdir", filepath.Join(run, "links")}, {"replace", filepath.Join(run, "links/l.json")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got confined
	c := startChild(t, "confined", 0, &got, string(line))
	c.end()
	if len(got.Denied) > 0 || !strings.Contains(c.log.String(), "cannot be made") || !strings.Contains(c.log.String(), state) {
		t.Errorf("%+v\n%s", got, c.log)
	}
}

func TestConfine(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	inventory := write(t, at("etc/lever.yaml"), "inventory")
	key := write(t, at("keys/a/link-1/1.0.key"), "key")
	static := write(t, at("static/dx.cak"), "cak")
	elsewhere := write(t, at("elsewhere/shadow"), "not ours")
	behind := write(t, at("behind/b/link-1/1.0.key"), "key")
	if err := os.MkdirAll(at("links"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(at("behind/b"), at("links/b")); err != nil {
		t.Fatal(err)
	}
	late := at("late/c") // nothing of it is there when the agent starts
	allowed := []access{
		{"read", inventory}, {"list", at("keys/a")}, {"read", key}, {"read", static}, {"read", behind}, {"list", at("links/b")},
		{"mkdir", at("run/links")}, {"replace", at("run/links/l.json")}, {"remove", at("run/links/l.json")}, {"replace", at("state/s.json")},
	}
	refused := []access{
		{"read", elsewhere}, {"list", at("elsewhere")}, {"read", "/etc/passwd"}, {"list", "/proc"},
		{"replace", at("elsewhere/new")}, {"mkdir", at("elsewhere/dir")}, {"remove", elsewhere},
		{"replace", key}, {"remove", inventory},
	}
	task := confineTask{
		Paths: Paths{
			Read:  []string{inventory, at("keys/a"), at("links/b"), static},
			Write: []string{at("run"), at("state")},
		},
		Admit: []string{at("keys/b"), at("etc/more.yaml"), late, at("elsewhere")},
	}
	if abi, err := ll.LandlockGetABIVersion(); err != nil || abi < 1 {
		// Nothing is refused, and that is said.
		task.Try = append(allowed, access{"read", elsewhere})
		refused = nil
	} else {
		task.Try = slices.Concat(allowed, refused)
	}
	line, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	var got confined
	c := startChild(t, "confined", 0, &got, string(line))
	c.end()
	if got.ABI == 0 {
		if got.Admit != "" || !strings.Contains(c.log.String(), "no Landlock") {
			t.Errorf("without Landlock: %+v\n%s", got, c.log)
		}
	} else {
		for _, p := range []string{late, at("elsewhere"), "restart"} {
			if !strings.Contains(got.Admit, p) {
				t.Errorf("what lies outside does not include %s: %s", p, got.Admit)
			}
		}
		for _, p := range []string{at("keys/b"), at("etc/more.yaml")} {
			if strings.Contains(got.Admit, p) {
				t.Errorf("%s can be read: %s", p, got.Admit)
			}
		}
	}
	if !slices.Equal(got.Denied, refused) {
		t.Errorf("denied:\n%v\nwant\n%v\n%s", got.Denied, refused, c.log)
	}
	if _, err := os.Stat(elsewhere); got.ABI > 0 && err != nil {
		t.Error(err)
	}
}

// The directory of a path is allowed in its place, but none that holds other
// things as well.
func TestReaches(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, filepath.Join(dir, "x/y"), "")
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		want []string
	}{
		{file, []string{filepath.Dir(file)}},
		{filepath.Join(dir, "x/none"), []string{filepath.Join(dir, "x")}},
		{filepath.Join(dir, "none/none/none"), []string{dir}},
		{link, []string{dir, filepath.Dir(file)}},
		{"/etc/passwd", []string{"/etc/passwd"}},
		{"/etc/there-is-none", nil},
		{"/there-is-none/keys/a", nil},
		{"/", []string{"/"}},
	} {
		if got := reaches(c.path); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.path, got, c.want)
		}
	}
}

func TestWithoutLandlockEverythingIsAdmitted(t *testing.T) {
	var none *Confinement
	if err := none.Admit("/anything"); err != nil {
		t.Error(err)
	}
}

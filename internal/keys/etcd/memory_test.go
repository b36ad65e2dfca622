package etcd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/keys"
)

// script is what the cluster answers, and what the memory says then.
func TestMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "etcd.json")
	now := time.Unix(1000, 0)
	m, err := openMemory(path)
	if err != nil {
		t.Fatal(err)
	}
	have := func(numbers ...uint64) map[string]map[keys.Epoch]bool {
		out := make(map[string]map[keys.Epoch]bool)
		for _, n := range numbers {
			add(out, "l", keys.Epoch{Number: n})
		}
		return out
	}
	expect := func(what string, lost int, problem string) {
		t.Helper()
		if len(m.lost["l"]) != lost || !strings.Contains(m.problem("l"), problem) || problem == "" && m.problem("l") != "" {
			t.Errorf("%s: lost %v, problem %q; want %d and %q", what, m.lost, m.problem("l"), lost, problem)
		}
	}
	reopen := func() {
		t.Helper()
		if err := m.record(now, true); err != nil {
			t.Fatal(err)
		}
		if m, err = openMemory(path); err != nil {
			t.Fatal(err)
		}
	}
	if m.listed(1, 10, have(1, 2)) {
		t.Error("the first list is from before")
	}
	m.put("l", keys.Epoch{Number: 3})
	m.advanced(11)
	if m.listed(1, 12, have(2, 3)) {
		t.Error("a later list is from before")
	}
	expect("an epoch that is gone in the same history is revoked", 0, "")
	reopen()
	if !m.older(1, 11) || m.older(1, 12) || !m.older(2, 100) {
		t.Error("what is older?")
	}
	if !m.listed(1, 5, have(1, 2)) {
		t.Error("a cluster that has gone back is not noticed")
	}
	expect("what a cluster has lost is not revoked", 1, "its revision is 5 and was 12")
	reopen()
	expect("over a restart", 1, "its revision is 5 and was 12")
	if m.listed(1, 6, have(1, 2)) {
		t.Error("it goes on, and counts as having gone back again")
	}
	expect("it goes on", 1, "its revision")
	m.deleted("l", keys.Epoch{Number: 2})
	m.advanced(13)
	expect("past the highest, while nothing newer was issued", 1, "epoch 3.0 of link l is lost")
	m.put("l", keys.Epoch{Number: 4})
	expect("something newer was issued", 1, "")
	m.put("l", keys.Epoch{Number: 3})
	expect("it is there again", 0, "")
	if !m.listed(2, 500, have(4)) {
		t.Error("another cluster is not noticed")
	}
	expect("another cluster", 2, "")
	m.deleted("l", keys.Epoch{Number: 3})
	expect("a deletion that was seen is one", 1, "")
	if !m.listed(2, 400, nil) {
		t.Error("a cluster that has gone back is not noticed")
	}
	expect("all is lost", 2, "its revision is 400 and was 500")
}

// Of what a link has lost no more is remembered than may be of use.
func TestMemoryIsBounded(t *testing.T) {
	m, err := openMemory("")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]map[keys.Epoch]bool)
	for n := range uint64(100) {
		add(all, "l", keys.Epoch{Number: n + 1})
	}
	m.listed(1, 100, all)
	m.listed(1, 1, nil)
	if len(m.lost["l"]) != maxLost || !m.lost["l"][keys.Epoch{Number: 100}] {
		t.Error(m.lost)
	}
}

func TestUnusableStateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etcd.json")
	for _, text := range []string{"", "{", `{"version":2}`, `{"version":1,"x":1}`, `{"version":1,"seen":{"l":["x"]}}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := openMemory(path)
		if err == nil || m == nil || len(m.seen) > 0 {
			t.Errorf("%q was read: %v, %v", text, m, err)
		}
	}
}

func FuzzMemory(f *testing.F) {
	f.Add([]byte(`{"version":1,"cluster":1,"revision":5,"highest":12,"behind":true,"seen":{"l":["1.0"]},"lost":{"l":["3.0"]}}`))
	path := filepath.Join(f.TempDir(), "etcd.json")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if m, err := openMemory(path); err == nil {
			m.listed(m.cluster+1, 1, nil)
			_ = m.problem("l")
		}
	})
}

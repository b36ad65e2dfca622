package lab

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMirrorDeliversWhatIsNew(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "a")
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(from, ".lever-channel"), "a\n")
	write(filepath.Join(from, "l", "1.0.key"), "one")
	if err := Mirror(from, to); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(from, "l", "1.0.key"), "changed") // what is delivered stays
	write(filepath.Join(from, "l", "2.0.key"), "two")
	if err := Mirror(from, to); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"1.0.key": "one", "2.0.key": "two"} {
		path := filepath.Join(to, "l", name)
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(to, "l"))
	if err != nil || len(entries) != 2 {
		t.Errorf("%d entries, %v; want 2", len(entries), err)
	}
	if _, err := os.Stat(filepath.Join(to, ".lever-channel")); err == nil {
		t.Error("the staging directory's own mark was delivered")
	}
}

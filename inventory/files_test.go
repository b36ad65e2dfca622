package inventory_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lever-link/lever/inventory"
)

// TestFilesMakeTheSameInventory reads files first and parses them later.
func TestFilesMakeTheSameInventory(t *testing.T) {
	for _, path := range []string{"../examples/demo/lever.yaml", "../examples/fleet"} {
		files, err := inventory.ReadFiles(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := inventory.ParseFiles(files, inventory.WithNow(day))
		if err != nil {
			t.Fatal(err)
		}
		want, err := inventory.Load(path, inventory.WithNow(day))
		if err != nil {
			t.Fatal(err)
		}
		if changes := inventory.Diff(want, got); len(changes) != 0 {
			t.Errorf("%s: %v", path, describe(changes))
		}
		if diff := cmp.Diff(want.Files, got.Files); diff != "" {
			t.Errorf("%s: files (-want +got):\n%s", path, diff)
		}
	}
	if files, err := inventory.ReadFiles("nowhere"); err == nil || err.Error() != "nowhere: opening the inventory: no such file or directory" {
		t.Errorf("%v, %v", files, err)
	}
	if inv, err := inventory.ParseFiles(nil); err == nil {
		t.Errorf("an inventory of nothing: %v", inv)
	}
}

// A pipe among the files of a directory would be waited for, for ever; whoever names
// one, as a shell does with <(…), wants it read.
func TestPipes(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := inventory.ReadFiles(dir); err == nil || !strings.HasPrefix(err.Error(), pipe+": it is not a regular file (prw-------)") {
		t.Errorf("%v", err)
	}
	go func() { _ = os.WriteFile(pipe, []byte("apiVersion: lever/v1\n"), 0o600) }()
	if _, err := inventory.Load(pipe); err != nil {
		t.Errorf("%v", err)
	}
}

package inventory_test

import (
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

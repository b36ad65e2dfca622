package inventory_test

import (
	"testing"

	"github.com/lever-link/lever/inventory"
)

func TestForNode(t *testing.T) {
	inv, err := inventory.Load("../examples/demo/lever.yaml")
	if err != nil {
		t.Fatal(err)
	}
	links, err := inv.ForNode("ams1-r2")
	if err != nil {
		t.Fatal(err)
	}
	if len(links) != 1 || links[0].Local.String() != "ams1-r2/eth9" || len(links[0].Remote) != 1 ||
		links[0].Remote[0].String() != "fra1-r1/eth4" || links[0].Local.Secure != "eth9-sec" {
		t.Fatalf("ForNode(ams1-r2) = %+v", links)
	}
	if _, err := inv.ForNode("fra1-r9"); err == nil || err.Error() != `looking up node "fra1-r9": the inventory (../examples/demo/lever.yaml) has no such node (did you mean fra1-r1?)` {
		t.Fatalf("ForNode of an unknown node: %v", err)
	}
}

package demo

import (
	"context"
	"github.com/lever-link/lever/internal/lab"
	"strings"

	"github.com/lever-link/lever/inventory"
)

// verdicts is act 1: what the inventory says about each link, and why.
func (d *demo) verdicts(ctx context.Context) error {
	d.tell.say("What leaves physical control is encrypted; the inventory says where that is.")
	out, err := lab.RunLever(ctx, d.binary, "check", d.routers[0].Path(lab.InventoryFile))
	if err != nil {
		return err
	}
	for _, l := range d.inv.Links {
		want := inventory.Encrypt
		if l.ID == d.left.ID {
			want = inventory.Inside
		}
		held := l.Verdict.Kind == want && checkSays(string(out), l.ID, want.String())
		d.tell.claim(held, l.ID, "%s: %s", l.Verdict.Kind, l.Verdict.Reason)
	}
	return nil
}

// checkSays reports whether a line of `lever check` is about the link and gives
// it that verdict.
func checkSays(table, link, verdict string) bool {
	for line := range strings.Lines(table) {
		words := strings.Fields(line)
		about := false
		for _, w := range words {
			about = about || w == link
			if about && strings.EqualFold(w, verdict) {
				return true
			}
		}
	}
	return false
}

package demo

import (
	"context"
	"fmt"
	"github.com/lever-link/lever/internal/lab"
	"os"
	"path/filepath"
)

// channels are the two ways by which key material comes.
var channels = [2]string{"a", "b"}

// issue makes the next epoch of one channel, in a process that sees nothing of
// the other. What it makes waits in the staging directory.
func (d *demo) issue(ctx context.Context, channel string) error {
	out := d.staging(channel)
	if err := os.MkdirAll(out, 0o700); err != nil {
		return fmt.Errorf("issue key material: %w", err)
	}
	_, err := lab.RunLever(ctx, d.binary, "keys", "issue", "--channel", channel,
		"--inventory", d.routers[0].Path(lab.InventoryFile), "--out", out, d.secured.ID)
	return err
}

func (d *demo) staging(channel string) string { return filepath.Join(d.dir, "issued", channel) }

// deliver takes what was issued on one channel to both routers, each file by a
// rename, as whatever distributes keys in production must.
func (d *demo) deliver(channel string) error {
	for _, r := range d.routers {
		if err := lab.Mirror(d.staging(channel), r.Path(filepath.Join("keys", channel))); err != nil {
			return fmt.Errorf("deliver channel %s to %s: %w", channel, r.Name, err)
		}
	}
	return nil
}

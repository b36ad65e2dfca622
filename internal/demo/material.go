package demo

import (
	"context"
	"fmt"
	"io/fs"
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
	_, err := runLever(ctx, d.binary, "keys", "issue", "--channel", channel,
		"--inventory", d.routers[0].path(inventoryFile), "--out", out, d.secured.ID)
	return err
}

func (d *demo) staging(channel string) string { return filepath.Join(d.dir, "issued", channel) }

// deliver takes what was issued on one channel to both routers, each file by a
// rename, as whatever distributes keys in production must.
func (d *demo) deliver(channel string) error {
	for _, r := range d.routers {
		if err := mirror(d.staging(channel), r.path(filepath.Join("keys", channel))); err != nil {
			return fmt.Errorf("deliver channel %s to %s: %w", channel, r.name, err)
		}
	}
	return nil
}

// mirror brings the key files of from, which to lacks, there.
func mirror(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		if filepath.Ext(path) != ".key" {
			return nil
		}
		if _, err := os.Lstat(target); err == nil {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		defer clear(content)
		// A name with a leading dot is not looked at.
		partial := filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+".tmp")
		if err := os.WriteFile(partial, content, 0o600); err != nil {
			return err
		}
		return os.Rename(partial, target)
	})
}

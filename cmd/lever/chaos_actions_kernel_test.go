//go:build kernel

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/lever-link/lever/internal/agent"
	"github.com/lever-link/lever/internal/lab"
)

// chaosDisk is the size of the disks that run and state directories are on, in
// octets.
const chaosDisk = 256 << 10

// away ends agents, and starts them again after a while.
func (c *chaos) away(d time.Duration, end func(), which ...int) error {
	end()
	<-time.After(d)
	c.start(which...)
	return nil
}

// supervise starts agents again that have ended by themselves, as systemd does.
// None may: whatever happens to an agent, it has a link to look after.
func (c *chaos) supervise() {
	c.Helper()
	for i, r := range c.routers {
		if err := r.Alive(); err != nil {
			c.Errorf("%v: %s", err, strings.Join(r.LastLines(5), " | "))
			c.start(i)
		}
	}
}

// rekey asks for one and waits for nothing: what comes next may end it.
func (c *chaos) rekey(end int) {
	client := agent.NewClient(c.routers[end].Path(lab.RunDir))
	go func() { _, _ = client.Rekey(c.ctx(), theLink) }()
}

// revoke takes all epochs but the newest back, once that is in use.
func (c *chaos) revoke(_ int, _ *rand.Rand) error {
	_, err := lab.AwaitStatus(c.ctx(), c.routers, theLink, 3*time.Second, "the newest epoch", func(all []lab.LinkStatus) bool {
		return isSecured(all[0]) && isSecured(all[1]) && all[0].Epoch == all[1].Epoch && all[0].Epoch == fmt.Sprintf("%d.0", c.epoch)
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	for ; c.revoked < c.epoch-1; c.revoked++ {
		for i := range c.routers {
			for _, channel := range []string{"a", "b"} {
				if err := os.Remove(c.keyPath(i, channel, c.revoked+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
		}
	}
	return nil
}

// filler is the file that makes a disk full.
const filler = "filler"

// fill leaves no room on the disk of a router's run or state directory.
func (c *chaos) fill(end int, r *rand.Rand) error {
	dir := []string{lab.RunDir, lab.StateDir}[r.IntN(2)]
	err := os.WriteFile(filepath.Join(c.routers[end].Path(dir), filler), make([]byte, 2*chaosDisk), 0o600)
	if err == nil {
		return fmt.Errorf("the disk of %s at r%d is not full after twice its size", dir, end+1)
	}
	return nil
}

// setClock sets the machine's clock hours ahead or back. What a test measures is
// by the monotonic clock.
func (c *chaos) setClock(_ int, r *rand.Rand) error {
	return lab.SetClock(time.Now().Add(time.Duration(r.IntN(49)-24) * time.Hour))
}

// changeInventory gives a router another policy and, or not any more, a link of
// which nothing is there: neither is the link's that traffic passes on.
func (c *chaos) changeInventory(end int, r *rand.Rand) error {
	text := pairInventory(fmt.Sprintf("sak_rekey: %ds", 30+r.IntN(60)))
	if r.IntN(2) == 0 {
		text += "  - {id: link-2, a: r1/up9, z: r2/up9, segments: [{custody: leased-wave}]}\n"
	}
	if err := c.routers[end].SetInventory([]byte(text)); err != nil {
		return err
	}
	if r.IntN(2) == 0 {
		return nil // it is watched
	}
	return c.routers[end].Signal(syscall.SIGHUP)
}

// breakInventory has a router's inventory be none for a while.
func (c *chaos) breakInventory(end int, r *rand.Rand) error {
	good, err := os.ReadFile(c.routers[end].Path(lab.InventoryFile))
	if err == nil {
		// Not cut off: that may leave one that is valid and has no link.
		at := r.IntN(len(good))
		err = c.routers[end].SetInventory(slices.Concat(good[:at], []byte("\n\t{]\n"), good[at:]))
	}
	if err == nil {
		err = c.routers[end].Signal(syscall.SIGHUP)
	}
	if err != nil {
		return err
	}
	<-time.After(upTo(r, time.Second))
	return errors.Join(c.routers[end].SetInventory(good), c.routers[end].Signal(syscall.SIGHUP))
}

// netem has what a router sends lost, late, twice and out of order.
func (c *chaos) netem(end int, r *rand.Rand) error {
	loss, delay := r.IntN(30), r.IntN(40)
	command := fmt.Sprintf("tc qdisc replace dev %s root netem loss %d%% duplicate %d%% delay %dms", theParent, loss, r.IntN(10), delay+1)
	if delay > 0 {
		command += fmt.Sprintf(" %dms reorder %d%%", delay/2+1, 75+r.IntN(25))
	}
	c.say("  %s", command)
	return c.driftEndOnly(end).sh(command)
}

// driftEndOnly is driftEnd where nothing has to be known of the device.
func (c *chaos) driftEndOnly(end int) *driftEnd { return &driftEnd{site: c.site, i: end} }

// undo puts back what actions have left to be put back.
func (c *chaos) undo() error {
	var errs []error
	for i, r := range c.routers {
		for _, dir := range []string{lab.RunDir, lab.StateDir} {
			if err := os.Remove(filepath.Join(r.Path(dir), filler)); !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		// Where there is none, there is nothing to delete.
		_ = c.driftEndOnly(i).sh("tc qdisc del dev " + theParent + " root")
		// Not before the agent is ready: an interface that was made anew while none ran has
		// no fence, and this would be the reboot that README.md warns of.
		errs = append(errs, r.AwaitReady(), r.Space.Up(theParent))
	}
	return errors.Join(errs...)
}

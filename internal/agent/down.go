package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/macsec"
)

func removeLinkFile(on files, runDir, link string) error {
	if err := on.remove(linkPath(runDir, link)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// takeDown removes what the link has in the kernel: its device and keys, and
// the fence last.
func (t *task) takeDown() error {
	t.log.Warn("link is taken down: plain traffic may pass from now on")
	err := removeLink(&t.server.platform, t.server.kernel, &linkFile{
		Link: t.link.ID, Interface: t.link.Local.Interface, Secure: t.link.Local.Secure,
	})
	if err != nil {
		return err
	}
	t.everUp, t.takenDown = false, true
	t.faults.Raise(health.Raise(health.TakenDown, time.Now(), "interface", t.link.Local.Interface))
	return removeLinkFile(t.server.platform.files, t.server.opts.RunDir, t.link.ID)
}

// removeLink undoes a link in the kernel. A device that is not there is no
// error; an interface that is not may be one in another network namespace.
func removeLink(on *platform, k macsec.Kernel, f *linkFile) error {
	p, err := on.findParent(f.Interface)
	if err != nil {
		return fmt.Errorf("take link %s down: nothing removed: %w", f.Link, err)
	}
	dev, err := k.Device(f.Secure)
	switch {
	case errors.Is(err, macsec.ErrNotExist):
	case err != nil:
		return fmt.Errorf("take link %s down: %w", f.Link, err)
	case dev.Parent != p.index:
		return fmt.Errorf("take link %s down: device %s sits on another interface: left alone, and the fence with it", f.Link, f.Secure)
	default:
		if err := k.DeleteDevice(dev.Index); err != nil {
			return fmt.Errorf("take link %s down: the fence stays: %w", f.Link, err)
		}
	}
	if err := on.openFence(p.index); err != nil {
		return fmt.Errorf("take link %s down: open the fence on %s: %w", f.Link, f.Interface, err)
	}
	return nil
}

// downWithoutAgent takes links down that an agent has left standing. open makes
// the kernel's client, once there is something to do.
func downWithoutAgent(on *platform, open func() (macsec.Kernel, error), runDir string, links []string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(runDir, linksDir))
	if err != nil {
		return nil, fmt.Errorf("take down: no agent answers, and none has left links in %s: %w", runDir, err)
	}
	all := map[string]bool{}
	var order []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			all[id] = true
			order = append(order, id)
		}
	}
	if len(links) == 0 {
		links = order
	}
	unlock, err := lockRunDir(runDir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	k, err := open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = k.Close() }()
	var done []string
	var errs []error
	for _, id := range links {
		if !all[id] {
			errs = append(errs, fmt.Errorf("take link %q down: no agent has left it in %s", id, runDir))
			continue
		}
		f, err := readLinkFile(runDir, id)
		if err == nil {
			err = removeLink(on, k, f)
		}
		if err == nil {
			err = removeLinkFile(on.files, runDir, id)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, id)
	}
	return done, errors.Join(errs...)
}

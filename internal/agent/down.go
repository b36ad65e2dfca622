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

// takeDown removes what the link has in the kernel and in the run directory: its
// device and keys, its record, and the fence last. What fails leaves the fence closed,
// and the next session makes the rest anew.
func (t *task) takeDown() error {
	t.log.Warn("link is taken down: plain traffic may pass from now on")
	f := &linkFile{Link: t.link.ID, Interface: t.link.Local.Interface, Secure: t.link.Local.Secure}
	p, err := removeSecured(&t.server.platform, t.server.kernel, f)
	if err != nil {
		return err
	}
	if err := removeLinkFile(t.server.platform.files, t.server.opts.RunDir, f.Link); err != nil {
		return fmt.Errorf("take link %s down: the fence stays: %w", f.Link, err)
	}
	t.shut, t.seen = shut{}, shut{} // even if it does not open: what is amiss is our doing
	if err := openFence(&t.server.platform, p, f); err != nil {
		return err
	}
	t.fenced() // nor does anybody close it
	t.everUp, t.takenDown = false, true
	t.faults.Raise(health.Raise(health.TakenDown, time.Now(), "interface", f.Interface))
	return nil
}

// removeLink undoes a link in the kernel.
func removeLink(on *platform, k macsec.Kernel, f *linkFile) error {
	p, err := removeSecured(on, k, f)
	if err != nil {
		return err
	}
	return openFence(on, p, f)
}

// removeSecured deletes a link's device and returns the interface beneath it. A device
// that is not there is no error; an interface that is not may be one in another network
// namespace.
func removeSecured(on *platform, k macsec.Kernel, f *linkFile) (parent, error) {
	p, err := on.findParent(f.Interface)
	if err != nil {
		return p, fmt.Errorf("take link %s down: nothing removed: %w", f.Link, err)
	}
	dev, err := k.Device(f.Secure)
	switch {
	case errors.Is(err, macsec.ErrNotExist):
	case err != nil:
		return p, fmt.Errorf("take link %s down: %w", f.Link, err)
	case dev.Parent != p.index:
		return p, fmt.Errorf("take link %s down: device %s sits on another interface: left alone, and the fence with it", f.Link, f.Secure)
	default:
		if err := k.DeleteDevice(dev.Index); err != nil {
			return p, fmt.Errorf("take link %s down: the fence stays: %w", f.Link, err)
		}
	}
	return p, nil
}

func openFence(on *platform, p parent, f *linkFile) error {
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
	named := map[string]bool{}
	for _, id := range links {
		if named[id] {
			continue
		}
		named[id] = true
		if !all[id] {
			errs = append(errs, fmt.Errorf("take link %q down: no agent has left it in %s", id, runDir))
			continue
		}
		f, err := readLinkFile(runDir, id)
		if err == nil && f == nil { // before the directory was locked it was there
			err = fmt.Errorf("take link %q down: its record in %s is gone: somebody else has taken it down", id, runDir)
		}
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

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/inventory"
)

// lastGood is the copy, in the state directory, of the inventory that was accepted
// last. An inventory with mistakes changes nothing, and a restart of the agent or
// of the machine must not be what makes it matter. There is nothing secret in it.
type lastGood struct {
	Version int              `json:"version"`
	Path    string           `json:"path"` // what --inventory named, absolute
	Node    string           `json:"node"`
	Files   []inventory.File `json:"files"`
}

const (
	lastGoodVersion = 1
	lastGoodName    = "inventory.json"
)

// read is an inventory with the files that it was made of.
type read struct {
	inv   *inventory.Inventory
	files []inventory.File
}

// readInventory reads the inventory of a node.
func readInventory(path, node string, now time.Time) (*read, error) {
	files, err := inventory.ReadFiles(path)
	if err != nil {
		return nil, err
	}
	inv, err := inventory.ParseFiles(files, inventory.WithNow(now))
	if err != nil {
		return nil, err
	}
	if _, err := inv.ForNode(node); err != nil {
		return nil, err
	}
	return &read{inv, files}, nil
}

// FirstInventory is the inventory that an agent starts with: the one at the path,
// or, when that has mistakes, which refused says, the one that an earlier agent
// accepted last. The error is that there is neither.
func FirstInventory(path, node, stateDir string) (inv *inventory.Inventory, refused, err error) {
	r, refused, err := firstInventory(path, node, stateDir)
	if err != nil {
		return nil, nil, err
	}
	return r.inv, refused, nil
}

func firstInventory(path, node, stateDir string) (r *read, refused, err error) {
	r, refused = readInventory(path, node, time.Now())
	if refused == nil {
		return r, nil, nil
	}
	r, err = readLastGood(path, node, stateDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, refused
	case err != nil:
		return nil, nil, fmt.Errorf("%w\nand of the inventory that was accepted last there is no use: %w", refused, err)
	}
	return r, refused, nil
}

func readLastGood(path, node, stateDir string) (*read, error) {
	text, err := os.ReadFile(filepath.Join(stateDir, lastGoodName))
	if err != nil {
		return nil, err
	}
	var l lastGood
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(stateDir, lastGoodName), err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if l.Version != lastGoodVersion || l.Path != abs || l.Node != node {
		return nil, fmt.Errorf("read %s: it is version %d of %s for node %q: %w", filepath.Join(stateDir, lastGoodName), l.Version, l.Path, l.Node, fs.ErrNotExist)
	}
	inv, err := inventory.ParseFiles(l.Files)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(stateDir, lastGoodName), err)
	}
	if _, err := inv.ForNode(node); err != nil {
		return nil, err
	}
	return &read{inv, l.Files}, nil
}

// keepLastGood writes the copy, beside the caller: nobody waits for the disk. The
// newest is what is written in the end.
func (s *server) keepLastGood(r *read) {
	s.mu.Lock()
	busy := s.accepted != nil
	s.accepted = r
	s.mu.Unlock()
	if busy {
		return
	}
	go func() {
		for last := r; ; {
			if err := writeLastGood(s.opts.Inventory, s.opts.Node, s.opts.StateDir, last.files); err != nil {
				s.log.Warn("the inventory could not be kept: a restart needs one without mistakes", "error", err)
			}
			s.mu.Lock()
			next := s.accepted
			if next == last {
				s.accepted = nil
				s.mu.Unlock()
				return
			}
			last = next
			s.mu.Unlock()
		}
	}()
}

func writeLastGood(path, node, stateDir string, files []inventory.File) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	text, err := json.Marshal(lastGood{lastGoodVersion, abs, node, files})
	if err == nil {
		err = os.MkdirAll(stateDir, 0o700)
	}
	if err == nil {
		err = keyfile.Replace(filepath.Join(stateDir, lastGoodName), append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep the accepted inventory in %s: %w", stateDir, err)
	}
	return nil
}

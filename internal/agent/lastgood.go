package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
	// Judged is the latest date at which its verdicts were judged.
	Judged time.Time `json:"judged,omitzero"`
}

const (
	lastGoodVersion = 1
	lastGoodName    = "inventory.json"
)

// read is an inventory with the files that it was made of.
type read struct {
	inv    *inventory.Inventory
	files  []inventory.File
	judged time.Time // when it is kept for the next start
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
	return &read{inv: inv, files: files}, nil
}

// first is what an agent starts with.
type first struct {
	*read         // in force
	refused error // why that is the one that was accepted last, and not the one at the path
	// later is the one at the path, when that interrupts links of the one that was
	// accepted last: it must stay as it is for a while.
	later *read
	// floor is the date at which an earlier agent judged last: they never go back.
	floor time.Time
}

// FirstPaths are the Paths of the inventory that an agent starts with, and of the one
// that it goes over to when that has stayed as it is.
func FirstPaths(o Options) ([]string, error) {
	f, err := firstInventory(o)
	if err != nil {
		return nil, err
	}
	paths, err := Paths(f.inv, o.Node)
	if err != nil || f.later == nil {
		return paths, err
	}
	later, err := Paths(f.later.inv, o.Node)
	return append(paths, later...), err
}

// firstInventory is the inventory that an agent starts with: the one at the path, or the
// one that an earlier agent accepted last. That the agent was started is no reason to
// believe what one that runs would not: an inventory with mistakes, or that interrupts
// links or uncovers what is left of one and is cut off, is refused, and one that does so
// must wait. The error is that there is none.
func firstInventory(o Options) (*first, error) {
	now, floor := time.Now(), lastJudged(o.StateDir)
	f, err := firstAt(o, later(now, floor))
	if err == nil {
		f.floor = floor
	}
	return f, err
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func firstAt(o Options, now time.Time) (*first, error) {
	r, refused := readInventory(o.Inventory, o.Node, now)
	last, err := readLastGood(o.Inventory, o.Node, o.StateDir, now)
	switch {
	case refused == nil && err != nil:
		return &first{read: r}, nil // there is nothing to compare it with
	case errors.Is(err, fs.ErrNotExist):
		return nil, refused
	case err != nil:
		return nil, fmt.Errorf("%w\nand of the inventory that was accepted last there is no use: %w", refused, err)
	case refused != nil:
		return &first{read: last, refused: refused}, nil
	}
	links := slices.Concat(interrupted(last.inv, r.inv, o.Node), uncovered(r.inv, o.Node, barredAt(o.RunDir)))
	switch cut := notWhole(last.inv, r, links); {
	case len(links) == 0:
		return &first{read: r}, nil
	case cut != nil:
		return &first{read: last, refused: cut}, nil
	}
	return &first{read: last, later: r}, nil
}

// accept says what became of the inventory at the path when the agent started.
func (s *server) accept(f *first) {
	s.files = f.files
	if now := s.wall(); f.floor.After(now) {
		s.log.Warn("the clock is behind: verdicts are judged by the date that an earlier agent had", "clock", now.UTC().Format(time.RFC3339), "date", f.floor.UTC().Format(time.RFC3339),
			"next", "set the clock; if it was ahead then, remove "+filepath.Join(s.opts.StateDir, lastGoodName)+" and restart the agent")
	}
	switch {
	case f.refused != nil:
		s.refuse(f.refused, "the agent starts")
	case f.later != nil:
		s.log.Info("the inventory interrupts links of the one that was accepted last: it must stay as it is for a while",
			"links", interrupted(f.inv, f.later.inv, s.opts.Node), "for", graveSettles.String())
		s.grave, s.graveSince = f.later, time.Now()
		s.begun = s.unfenced.add() // for it may have links that the last one had not
	default:
		s.keepLastGood(f.read)
	}
}

// lastJudged is the date at which an earlier agent judged verdicts last, of whichever
// inventory; zero if that is not known.
func lastJudged(stateDir string) time.Time {
	var l lastGood
	if text, err := os.ReadFile(filepath.Join(stateDir, lastGoodName)); err != nil || json.Unmarshal(text, &l) != nil {
		return time.Time{}
	}
	return l.Judged
}

func readLastGood(path, node, stateDir string, now time.Time) (*read, error) {
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
	inv, err := inventory.ParseFiles(l.Files, inventory.WithNow(now))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(stateDir, lastGoodName), err)
	}
	if _, err := inv.ForNode(node); err != nil {
		return nil, err
	}
	return &read{inv: inv, files: l.Files}, nil
}

// keepLastGood writes the copy, beside the caller: nobody waits for the disk. The
// newest is what is written in the end.
func (s *server) keepLastGood(r *read) {
	r = &read{r.inv, r.files, s.judged}
	s.mu.Lock()
	busy := s.accepted != nil
	s.accepted = r
	s.mu.Unlock()
	if busy {
		return
	}
	go func() {
		for last := r; ; {
			if err := writeLastGood(s.opts.Inventory, s.opts.Node, s.opts.StateDir, last); err != nil {
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

func writeLastGood(path, node, stateDir string, r *read) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	text, err := json.Marshal(lastGood{lastGoodVersion, abs, node, r.files, r.judged})
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

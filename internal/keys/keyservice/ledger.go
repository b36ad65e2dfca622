package keyservice

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyfile"
)

// maxLedger is how many epochs a ledger remembers: those of many weeks. Each that it
// forgets counts as revoked.
const maxLedger = 1024

// ledger is the epochs of a link that were used on this channel, on disk, so that
// none is used for another key after a restart, and so that none counts as revoked
// because its key is gone: a key service revokes nothing. It has no keys.
type ledger struct {
	path    string // empty: in memory only
	link    string
	side    keys.Side
	epochs  []keys.Epoch // sorted
	problem error        // of the last reading or writing
}

type ledgerFile struct {
	Version int          `json:"version"`
	Link    string       `json:"link"`
	Channel string       `json:"channel"`
	Epochs  []keys.Epoch `json:"epochs"`
}

const ledgerVersion = 1

// openLedger reads a link's ledger beneath the agent's state directory. What cannot
// be read is a problem, and the ledger goes on without it.
func openLedger(stateDir, link string, side keys.Side) *ledger {
	l := &ledger{link: link, side: side}
	if stateDir == "" {
		return l
	}
	l.path = filepath.Join(stateDir, "key-service", side.String(), link+".json")
	if err := l.read(); err != nil {
		l.problem = fmt.Errorf("reading the epochs that were used, from %s: %w", l.path, err)
	}
	return l
}

func (l *ledger) read() error {
	text, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var f ledgerFile
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return fmt.Errorf("it is not such a file: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("it goes on after its end")
	}
	switch {
	case f.Version != ledgerVersion:
		return fmt.Errorf("it has version %d, this Lever knows %d: run the Lever that wrote it", f.Version, ledgerVersion)
	case f.Link != l.link || f.Channel != l.side.String():
		return fmt.Errorf("it belongs to link %q on channel %q", f.Link, f.Channel)
	}
	f.Epochs = slices.DeleteFunc(f.Epochs, keys.Epoch.IsZero)
	slices.SortFunc(f.Epochs, keys.Epoch.Compare)
	l.epochs = slices.Compact(f.Epochs)
	return nil
}

// add remembers an epoch, before anybody else learns of it.
func (l *ledger) add(e keys.Epoch) {
	at, known := slices.BinarySearchFunc(l.epochs, e, keys.Epoch.Compare)
	if known {
		return
	}
	l.epochs = slices.Insert(l.epochs, at, e)
	if n := len(l.epochs) - maxLedger; n > 0 {
		l.epochs = slices.Delete(l.epochs, 0, n)
	}
	if l.path == "" {
		return
	}
	l.problem = nil
	text, err := json.MarshalIndent(ledgerFile{ledgerVersion, l.link, l.side.String(), l.epochs}, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(l.path), 0o700)
	}
	if err == nil {
		err = keyfile.Replace(l.path, append(text, '\n'))
	}
	if err != nil {
		l.problem = fmt.Errorf("recording that epoch %s is used, in %s: %w", e, l.path, err)
	}
}

// newest is the newest epoch of a number, and whether there is one.
func (l *ledger) newest(number uint64) (keys.Epoch, bool) {
	at, _ := slices.BinarySearchFunc(l.epochs, keys.Epoch{Number: number, Generation: ^uint32(0)}, keys.Epoch.Compare)
	if at == 0 || l.epochs[at-1].Number != number {
		return keys.Epoch{}, false
	}
	return l.epochs[at-1], true
}

// next is the first epoch of a number that was not used, and is not older than one
// that was.
func (l *ledger) next(number uint64) keys.Epoch {
	if e, ok := l.newest(number); ok {
		return keys.Epoch{Number: number, Generation: e.Generation + 1}
	}
	return keys.Epoch{Number: number}
}

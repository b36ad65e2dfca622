package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/signed"
	"github.com/lever-link/lever/inventory"
)

// overrides reads the files of overrides. One that does not answer, or is none, holds up
// no link: it says nothing that is secret, so that anybody may have put it there.
type overrides struct {
	file func(path string) ([]byte, error) // keyfile.ReadPublic

	mu    sync.Mutex
	reads map[string]*reading // by path
}

// reading is one read of a file, for which all wait who ask meanwhile: a disk that hangs
// for days costs one.
type reading struct {
	done chan struct{}
	text []byte
	err  error
}

func newOverrides() *overrides {
	return &overrides{reads: map[string]*reading{}, file: func(path string) ([]byte, error) {
		return keyfile.ReadPublic(path, int64(signed.Overhead))
	}}
}

// read is Options.Override for a statement in a file, which two of the inventory's
// signers must have signed.
func (r *overrides) read(where inventory.AgeOverride, link string, now time.Time) (keys.Override, error) {
	if where.File == "" {
		return keys.Override{}, nil
	}
	text, err := r.text(where.File)
	if errors.Is(err, fs.ErrNotExist) {
		return keys.Override{}, nil
	}
	if err != nil {
		return keys.Override{}, fmt.Errorf("read the override of the age of keys: %w", err)
	}
	trusted, err := signed.ParsePublicKeys(where.Signers)
	if err != nil {
		return keys.Override{}, err
	}
	o, err := signed.VerifyOverride(text, trusted, now)
	if errors.Is(err, signed.ErrExpired) || err == nil && !o.Covers(link) {
		return keys.Override{}, nil
	}
	if err != nil {
		return keys.Override{}, fmt.Errorf("%s: %w", where.File, err)
	}
	out := keys.Override{Until: o.Expires, Reason: o.Reason}
	s, err := signed.Parse(text)
	if err != nil {
		return keys.Override{}, err // not after it was verified
	}
	for _, k := range s.Signers() {
		if slices.Contains(trusted, k) {
			out.Signers = append(out.Signers, k.String())
		}
	}
	return out, nil
}

// text reads a file in no more time than a link waits for a disk.
func (r *overrides) text(path string) ([]byte, error) {
	r.mu.Lock()
	now := r.reads[path]
	if now == nil {
		now = &reading{done: make(chan struct{})}
		r.reads[path] = now
		go func() {
			now.text, now.err = r.file(path)
			r.mu.Lock()
			delete(r.reads, path)
			r.mu.Unlock()
			close(now.done)
		}()
	}
	r.mu.Unlock()
	patience := time.NewTimer(recordPatience)
	defer patience.Stop()
	select {
	case <-now.done:
		return now.text, now.err
	case <-patience.C:
		return nil, fmt.Errorf("read %s: the disk has not answered within %v", path, recordPatience)
	}
}

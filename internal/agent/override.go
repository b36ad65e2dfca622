package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/signed"
	"github.com/lever-link/lever/inventory"
)

// overrides reads the files of overrides. One that does not answer, or is none, holds up
// no link: it says nothing that is secret, so that anybody may have put it there.
type overrides struct{ reads singleflight.Group }

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
	answer := r.reads.DoChan(path, func() (any, error) { return keyfile.ReadPublic(path, int64(signed.Overhead)) })
	patience := time.NewTimer(recordPatience)
	defer patience.Stop()
	select {
	case a := <-answer:
		text, _ := a.Val.([]byte)
		return text, a.Err
	case <-patience.C:
		return nil, fmt.Errorf("read %s: the disk has not answered within %v", path, recordPatience)
	}
}

package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"

	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/secret"
)

// Options say how an identity is made.
type Options struct {
	// TPM is the device that seals it, such as /dev/tpmrm0, or the socket of an
	// emulator. Empty: the identity is a file with mode 0600.
	TPM string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Init makes an identity beside those that are there, and the directory if it is
// not there. It never replaces one.
func Init(dir string, opts Options) (Entry, error) {
	now := time.Now
	if opts.Now != nil {
		now = opts.Now
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Entry{}, fmt.Errorf("making an identity: %w", err)
	}
	unlock, err := keyfile.Lock(dir)
	if err != nil {
		return Entry{}, err
	}
	defer unlock()
	there, err := files(dir)
	if err != nil {
		return Entry{}, err
	}
	made := nextTime(now(), there)
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		return Entry{}, fmt.Errorf("making an identity: %w", err)
	}
	key := secret.New([]byte(id.String()))
	defer key.Erase()
	e := Entry{Recipient: id.Recipient().String(), Device: opts.TPM}
	var text secret.Key
	if opts.TPM == "" {
		e.File = filepath.Join(dir, made.Format(stamp)+plain)
		text = encodePlain(made, e.Recipient, key)
	} else {
		if opts.TPM, err = filepath.Abs(opts.TPM); err != nil {
			return Entry{}, fmt.Errorf("making an identity: %w", err)
		}
		e.Device = opts.TPM
		e.File = filepath.Join(dir, made.Format(stamp)+sealed)
		s, err := seal(e.Device, key)
		if err != nil {
			return Entry{}, err
		}
		s.recipient = e.Recipient
		text = secret.New(s.encode(made))
	}
	defer text.Erase()
	if err := keyfile.Create(e.File, text.Bytes()); err != nil {
		return Entry{}, fmt.Errorf("writing an identity: %w", err)
	}
	// What was written is what is used later: it is read back before anybody is told
	// its recipient.
	again := Entry{File: e.File}
	if _, err := again.read(unseal); err != nil {
		return Entry{}, errors.Join(fmt.Errorf("reading the new identity back: %w", about(e.File, err)), os.Remove(e.File))
	}
	return again, nil
}

// nextTime is now, in seconds, or a second after the newest identity where the
// clock was set back or several are made at a time: the newest is the last by name.
func nextTime(now time.Time, there []string) time.Time {
	made := now.UTC().Truncate(time.Second)
	for _, name := range there {
		at, err := time.Parse(stamp, strings.TrimSuffix(name, filepath.Ext(name)))
		if err == nil && !made.After(at) {
			made = at.Add(time.Second)
		}
	}
	return made
}

// Retire removes all identities but the newest, and returns what it has removed.
// It opens the newest before, and removes nothing if it cannot.
func Retire(dir string) (removed []Entry, err error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNone)
	}
	unlock, err := keyfile.Lock(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	entries, err := List(dir)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("%s: %w", dir, ErrNone)
	}
	newest := entries[len(entries)-1]
	if _, err := newest.read(unseal); err != nil {
		return nil, fmt.Errorf("the newest identity cannot be used, so that the others are kept: %w", about(newest.File, err))
	}
	for _, e := range entries[:len(entries)-1] {
		if err := erase(e.File); err != nil {
			return removed, fmt.Errorf("removing an identity: %w", err)
		}
		removed = append(removed, e)
	}
	if err := keyfile.SyncDir(dir); err != nil {
		return removed, fmt.Errorf("removing an identity: %w", err)
	}
	return removed, nil
}

// erase overwrites a file and removes it. Where the file system or the disk writes
// elsewhere than it was told, the old content stays until something else needs the
// room; an identity that is sealed to a TPM is of no use there.
func erase(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err == nil {
		if info, e := f.Stat(); e == nil && info.Mode().IsRegular() && info.Size() <= maxText {
			_, err = f.WriteAt(make([]byte, info.Size()), 0)
		}
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil && !errors.Is(err, syscall.ELOOP) {
		return err
	}
	return os.Remove(path)
}

package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/signed"
	"github.com/lever-link/lever/inventory"
)

// readOverride is Options.Override for a statement in a file, which two of the
// inventory's signers must have signed. It says nothing that is secret, so that
// anybody may have written it.
func readOverride(where inventory.AgeOverride, link string, now time.Time) (keys.Override, error) {
	if where.File == "" {
		return keys.Override{}, nil
	}
	text, err := os.ReadFile(where.File)
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

package issue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/signed"
)

// MakeIssuer makes an issuer's private directory, mode 0700 whatever the umask, with
// its signing key, and returns the public key and the key's file. A directory that is
// there already must be as private, for nothing is issued from another.
func MakeIssuer(dir string) (public signed.PublicKey, file string, err error) {
	if err := privateDir(dir); err != nil {
		return signed.PublicKey{}, "", fmt.Errorf("making the issuer's directory: %w", err)
	}
	file = filepath.Join(dir, SigningKey)
	public, err = signed.GenerateKey(file)
	return public, file, err
}

func privateDir(dir string) error {
	dir = filepath.Clean(dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o700)
	switch {
	case err == nil:
		err = os.Chmod(dir, 0o700)
	case errors.Is(err, fs.ErrExist):
		err = nil
	}
	if err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	return keyfile.CheckPrivateDir(dir, info)
}

package issue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"github.com/lever-link/lever/internal/keys/bundle"
	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/signed"
)

// SigningKey is the name of an issuer's key in its directory.
const SigningKey = "signing.pem"

// maxStatement bounds what is read to be signed.
const maxStatement = 64 << 20

// Sign adds a signature to a file, or to every statement in a directory of bundles,
// and returns for how many nodes. Signers are those of the channel, if it is about
// one: the key must be among them, and what is in a directory must be signed by one of
// them already, so that nobody is made to sign what somebody else has put there.
func Sign(ctx context.Context, path string, k *signed.Key, signers []signed.PublicKey, progress func(done, total int)) (int, error) {
	fail := func(err error) (int, error) { return 0, fmt.Errorf("signing %s: %w", path, err) }
	info, err := os.Stat(path)
	if err != nil {
		return 0, fmt.Errorf("signing: %w", err)
	}
	if len(signers) > 0 && !slices.Contains(signers, k.Public()) {
		return fail(fmt.Errorf("the key %s is not among the channel's signers, so that its signature would count for nothing; put it there, or sign with another", k.Public()))
	}
	if info.IsDir() {
		if len(signers) == 0 {
			return 0, fmt.Errorf("signing what is in %s: give --channel and --inventory, which say whose signatures to ask for", path)
		}
		return bundle.SignTree(ctx, path, k, signers, progress)
	}
	if !info.Mode().IsRegular() { // to open a pipe may take for ever
		return fail(fmt.Errorf("it is not a regular file (%v)", info.Mode()))
	}
	if info.Size() > maxStatement {
		return fail(fmt.Errorf("it has %d octets, no statement has that many", info.Size()))
	}
	f, err := openLocked(path)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxStatement))
	if err == nil {
		text, err = signed.AddSignature(text, k)
	}
	if err == nil {
		err = keyfile.Rewrite(path, text)
	}
	if err != nil {
		return fail(err)
	}
	return 1, nil
}

// openLocked opens a file that is replaced by whoever signs it, for one of them at a
// time: what was opened may not be what lies there any more.
func openLocked(path string) (*os.File, error) {
	for {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		_ = syscall.Flock(int(f.Fd()), syscall.LOCK_EX) // some file systems have no locks
		mine, err := f.Stat()
		var there os.FileInfo
		if err == nil {
			there, err = os.Stat(path)
		}
		if err == nil && os.SameFile(mine, there) {
			return f, nil
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
}

// WriteStatement writes a signed statement to a file that must not exist yet.
func WriteStatement(path string, s *signed.Statement) error {
	err := keyfile.CreatePublic(path, s.Text())
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("writing %s: it is there already; remove it first, or add a signature by lever keys sign", path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

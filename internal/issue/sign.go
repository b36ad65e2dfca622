package issue

import (
	"context"
	"fmt"
	"os"

	"github.com/lever-link/lever/internal/keys/bundle"
	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/signed"
)

// SigningKey is the name of an issuer's key in its directory.
const SigningKey = "signing.pem"

// maxStatement bounds what is read to be signed.
const maxStatement = 64 << 20

// Sign adds a signature to a file, or to every statement in a directory of bundles,
// and returns for how many nodes. What is in a directory must be signed by one of
// first already, so that nobody is made to sign what somebody else has put there.
func Sign(ctx context.Context, path string, k *signed.Key, first []signed.PublicKey, progress func(done, total int)) (int, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, fmt.Errorf("signing: %w", err)
	}
	if info.IsDir() {
		if len(first) == 0 {
			return 0, fmt.Errorf("signing what is in %s: give --channel and --inventory, which say whose signatures to ask for", path)
		}
		nodes := 0
		err := bundle.SignTree(ctx, path, k, first, func(done, total int) {
			nodes = done
			progress(done, total)
		})
		return nodes, err
	}
	if info.Size() > maxStatement {
		return 0, fmt.Errorf("signing %s: it has %d octets, no statement has that many", path, info.Size())
	}
	text, err := os.ReadFile(path)
	if err == nil {
		text, err = signed.AddSignature(text, k)
	}
	if err == nil {
		err = keyfile.Publish(path, text)
	}
	if err != nil {
		return 0, fmt.Errorf("signing %s: %w", path, err)
	}
	return 1, nil
}

// WriteStatement writes a signed statement to a file that must not exist yet.
func WriteStatement(path string, s *signed.Statement) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("writing %s: it is there already; remove it first, or add a signature by lever keys sign", path)
	}
	return keyfile.Publish(path, s.Text())
}

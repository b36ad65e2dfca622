package signed

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/secret"
)

const (
	pemType = "PRIVATE KEY"
	// maxKeyFile is more than any PKCS#8 file of an ed25519 key needs.
	maxKeyFile = 4 << 10
)

// PublicKey is whose signature to believe.
type PublicKey [ed25519.PublicKeySize]byte

// String is 32 octets in base64, as the inventory has them.
func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// ParsePublicKey reads what String writes.
func ParsePublicKey(text string) (PublicKey, error) {
	var k PublicKey
	if len(text) != 44 || !decode64(k[:], []byte(text)) {
		return PublicKey{}, fmt.Errorf("the signer's key %q is not 32 octets in base64; take it as lever keys prints it", text)
	}
	return k, nil
}

// ParsePublicKeys reads the keys of all signers of a channel.
func ParsePublicKeys(texts []string) ([]PublicKey, error) {
	all := make([]PublicKey, len(texts))
	for i, text := range texts {
		var err error
		if all[i], err = ParsePublicKey(text); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Key is what a signer signs with.
type Key struct {
	private secret.Key // in the form of package ed25519
	public  PublicKey
}

// Public is the part for the inventory.
func (k *Key) Public() PublicKey { return k.public }

// Erase overwrites the private part; the key cannot sign any more.
func (k *Key) Erase() { k.private.Erase() }

func (k *Key) sign(message []byte) (sig []byte) {
	secret.Do(func() { sig = ed25519.Sign(k.private.Bytes(), message) })
	return sig
}

func newKey(private ed25519.PrivateKey) *Key {
	k := &Key{private: secret.New(private)}
	copy(k.public[:], private[ed25519.PrivateKeySize-ed25519.PublicKeySize:])
	return k
}

// GenerateKey makes a new key and writes it to a file that must not exist yet, in
// PEM and PKCS#8, mode 0600.
func GenerateKey(path string) (PublicKey, error) {
	fail := func(err error) (PublicKey, error) {
		return PublicKey{}, fmt.Errorf("making a signer's key in %s: %w", path, err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fail(err)
	}
	k := newKey(private)
	defer k.Erase()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fail(err)
	}
	defer clear(der)
	text := pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
	defer clear(text)
	err = keyfile.Create(path, text)
	switch {
	case errors.Is(err, fs.ErrExist):
		return fail(fmt.Errorf("%w; keys are never overwritten", fs.ErrExist))
	case err != nil:
		return fail(err)
	}
	return k.Public(), nil
}

// ReadKey reads a signer's key: an ed25519 key in PEM and PKCS#8, as GenerateKey
// and openssl genpkey write it, in a file that nobody else can read. Errors quote
// nothing of it.
func ReadKey(path string) (*Key, error) {
	fail := func(err error) (*Key, error) {
		return nil, fmt.Errorf("reading the signer's key: %w", err)
	}
	// O_NONBLOCK: opening a FIFO must not wait for its writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return fail(&keyfile.PermissionError{Path: path, Reason: "it is a symbolic link; name the file itself"})
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fail(fmt.Errorf("%w; make one with lever keys init", err))
	}
	if err != nil {
		return fail(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err == nil {
		err = keyfile.CheckFile(path, info)
	}
	if err != nil {
		return fail(err)
	}
	text := make([]byte, maxKeyFile+1)
	defer clear(text)
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return fail(err)
	}
	k := decodeKey(text[:n])
	if k == nil {
		return fail(fmt.Errorf("%s holds something else than one ed25519 key in PEM and PKCS#8 (-----BEGIN %s-----); make one with lever keys init", path, pemType))
	}
	return k, nil
}

// decodeKey is nil for what is no key.
func decodeKey(text []byte) *Key {
	if len(text) > maxKeyFile {
		return nil
	}
	block, rest := pem.Decode(text)
	if block == nil {
		return nil
	}
	defer clear(block.Bytes)
	if block.Type != pemType || len(rest) != 0 {
		return nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil
	}
	return newKey(private)
}

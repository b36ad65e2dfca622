// Package identity keeps the identities of a node: what opens the bundles that are
// sealed to it.
//
// Where they lie, in which form, who else may read them, how one takes the place of
// another and their sealing to a TPM 2.0 belong here. What is sealed to a node does
// not: channels take an [age.Identity] and know nothing of this package, nor it of
// them. Nor does the inventory, in which the public parts stand.
//
// # Files
//
// Each identity is a file of its own, named by the time at which it was made, in
// UTC. DIR/20260102T150405Z.age is what age-keygen -pq writes, so that the tools of
// age can use it. DIR/20260102T150405Z.tpm holds the same sealed: it is of use only
// on the machine with the TPM that sealed it. An identity is replaced without a gap
// by making a second one, having its recipient enrolled and material issued to
// both, and retiring the first.
//
// # What stays in memory
//
// Buffers of this package that held a secret are erased. The library's are not: an
// identity that is in use is an expanded key in its memory, its parser takes a
// string and makes others of it, and neither can be erased. An agent's memory
// therefore holds its identities as long as it runs, as it holds its CAKs; that
// others cannot read it, nor a core file be written, is what its process sees to.
package identity

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/lever-link/lever/internal/keys/keyfile"
	"github.com/lever-link/lever/internal/secret"
)

// Dir is where a node's identities lie in its state directory.
const Dir = "identity"

// ErrNone is that a node has no identity.
var ErrNone = errors.New("this node has no identity: make one with lever node init")

// ErrDamaged is a file that holds no identity, or only a part of one.
var ErrDamaged = errors.New("there is no whole identity in it; take it away, or make another identity (lever node init) and enrol that one")

// Entry is one identity as its file tells of it, without the secret.
type Entry struct {
	File      string
	Recipient string // age1pq1…
	Device    string // the TPM that opens it; empty when it is not sealed
	Err       error  // why it cannot be read; then only File is certain
}

// stamp is the form of the time in the names of files. It sorts as text.
const stamp = "20060102T150405Z"

// extensions are those of identities, plain and sealed.
const (
	plain  = ".age"
	sealed = ".tpm"
)

var fileName = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z\.(age|tpm)$`)

// List returns the identities in a directory, the oldest first, without opening
// what is sealed to a TPM. One that cannot be read is there with its error. A
// directory that is not there holds none.
func List(dir string) ([]Entry, error) {
	entries, _, err := open(dir, func(sealedText) (secret.Key, error) { return secret.Key{}, nil })
	return entries, err
}

// Load returns the identities in a directory, the newest first, since material is
// more likely to be sealed to that one. The error tells of each that cannot be used
// and does not keep the others from being returned; it is ErrNone when there are
// none at all.
//
// What it returns prints as nothing: age's own types print the secret.
func Load(dir string) ([]age.Identity, error) {
	entries, ids, err := open(dir, unseal)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("%s: %w", dir, ErrNone)
	}
	var errs []error
	var usable []age.Identity
	for i, e := range slices.Backward(entries) {
		errs = append(errs, e.Err)
		if e.Err == nil {
			usable = append(usable, opaque{ids[i].Unwrap})
		}
	}
	return usable, errors.Join(errs...)
}

// opaque is an identity of which nothing can be printed.
type opaque struct {
	unwrap func([]*age.Stanza) ([]byte, error)
}

// Unwrap implements age.Identity.
func (o opaque) Unwrap(stanzas []*age.Stanza) ([]byte, error) { return o.unwrap(stanzas) }

// Devices returns the TPMs that are needed to open the identities in a directory,
// for who confines the process beforehand.
func Devices(dir string) []string {
	entries, _ := List(dir)
	var devices []string
	for _, e := range entries {
		if e.Device != "" && !slices.Contains(devices, e.Device) {
			devices = append(devices, e.Device)
		}
	}
	return devices
}

// open reads the identities of a directory, the oldest first; unseal opens those
// that are sealed, or gives nothing to leave them closed.
func open(dir string, unseal func(sealedText) (secret.Key, error)) (entries []Entry, ids []age.Identity, err error) {
	names, err := files(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		e := Entry{File: filepath.Join(dir, name)}
		id, err := e.read(unseal)
		if err != nil {
			e.Err = about(e.File, err)
		}
		entries, ids = append(entries, e), append(ids, id)
	}
	return entries, ids, nil
}

// files are the names of the identities in a directory, sorted, which is by age.
func files(dir string) ([]string, error) {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading identities: %w", err)
	}
	if err := keyfile.CheckDir(dir, info); err != nil {
		return nil, err
	}
	found, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading identities: %w", err)
	}
	var names []string
	for _, f := range found {
		ext := filepath.Ext(f.Name())
		if (ext == plain || ext == sealed) && !strings.HasPrefix(f.Name(), ".") {
			names = append(names, f.Name())
		}
	}
	return names, nil // os.ReadDir has sorted them
}

// read fills in what the file says and returns the identity, which is nil when it
// is sealed and was not opened.
func (e *Entry) read(unseal func(sealedText) (secret.Key, error)) (age.Identity, error) {
	if !fileName.MatchString(filepath.Base(e.File)) {
		return nil, fmt.Errorf("its name is not the time at which it was made, such as %s%s: rename it", stamp, filepath.Ext(e.File))
	}
	text, err := readText(e.File)
	if err != nil {
		return nil, err
	}
	defer text.Erase()
	if filepath.Ext(e.File) == plain {
		key, err := decodePlain(text.Bytes())
		if err != nil {
			return nil, err
		}
		id, recipient, err := parse(key)
		e.Recipient = recipient
		return id, err
	}
	s, err := decodeSealed(text.Bytes())
	if err != nil {
		return nil, err
	}
	e.Recipient, e.Device = s.recipient, s.device
	key, err := unseal(s)
	if err != nil || key.IsZero() {
		return nil, err
	}
	defer key.Erase()
	id, recipient, err := parse(key)
	if err == nil && recipient != s.recipient {
		return nil, fmt.Errorf("what the TPM has opened is not the identity of the public key in the file: %w", ErrDamaged)
	}
	return id, err
}

// maxText is more than any identity has: two recipients' worth, and some.
const maxText = 16 << 10

// readText reads a file of secrets that nobody else can read or replace.
func readText(path string) (secret.Key, error) {
	f, err := keyfile.Open(path)
	if err != nil {
		return secret.Key{}, err
	}
	defer func() { _ = f.Close() }()
	text := make([]byte, maxText)
	n, err := io.ReadFull(f, text)
	switch {
	case err == nil:
		clear(text)
		return secret.Key{}, fmt.Errorf("it is longer than %d octets: %w", maxText-1, ErrDamaged)
	case !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF):
		clear(text)
		return secret.Key{}, err
	}
	return secret.New(text[:n]), nil
}

// about names the file that an error is about, if the error does not do so itself.
func about(file string, err error) error {
	if _, ok := errors.AsType[*keyfile.PermissionError](err); ok {
		return err
	}
	return fmt.Errorf("%s: %w", file, err)
}

// Package keyfile reads and writes files of hexadecimal key material: what makes
// one acceptable is decided here, once, for pre-key material and static PSKs.
//
// Which files there are and what they are for does not belong here.
package keyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/lever-link/lever/internal/secret"
)

// PermissionError is a file or directory that others could read or replace.
type PermissionError struct {
	Path   string
	Reason string
}

// Error implements error.
func (e *PermissionError) Error() string { return e.Path + ": refused: " + e.Reason }

// FormatError is a file whose content is not a key. It never quotes content.
type FormatError struct {
	Path   string
	Reason string
}

// Error implements error.
func (e *FormatError) Error() string { return e.Path + ": not a key: " + e.Reason }

// Format says what a key file holds: hexadecimal digits for one of the sizes in
// octets, and a newline.
type Format struct {
	Sizes []int
	// NewlineOptional accepts a file that ends with its last digit, as files
	// written by hand for other equipment do. Where a program writes the file, the
	// newline tells a whole file from a truncated one.
	NewlineOptional bool
}

// Read reads a key of the given format, from a file that Open accepts. Buffers that
// held the digits are erased.
func Read(path string, format Format) (secret.Key, error) {
	f, err := Open(path)
	if err != nil {
		return secret.Key{}, err
	}
	defer func() { _ = f.Close() }()
	// One octet more than the longest key and its newline, to see what is too long.
	digits := make([]byte, 2*slices.Max(format.Sizes)+2)
	defer clear(digits)
	n, err := io.ReadFull(f, digits)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return secret.Key{}, fmt.Errorf("reading key file: %w", err)
	}
	return decode(path, digits[:n], format)
}

// Open opens a file of secrets. It refuses anything but a regular file without any
// permission for group or others, owned by the effective user or root; symbolic
// links are not followed. The checks are made on the open file.
func Open(path string) (*os.File, error) {
	// O_NONBLOCK: opening a FIFO must not wait for its writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, syscall.ELOOP) {
			return nil, &PermissionError{path, "it is a symbolic link; put the file itself there"}
		}
		return nil, fmt.Errorf("reading key file: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		if err = CheckFile(path, info); err == nil {
			return f, nil
		}
	} else {
		err = fmt.Errorf("reading key file: %w", err)
	}
	_ = f.Close()
	return nil, err
}

// decode turns digits into a key. It works digit by digit: encoding/hex would
// quote an offending byte in its error.
func decode(path string, digits []byte, format Format) (secret.Key, error) {
	fail := func(message string, args ...any) (secret.Key, error) {
		return secret.Key{}, &FormatError{path, fmt.Sprintf(message, args...)}
	}
	var want strings.Builder
	for i, s := range format.Sizes {
		if i > 0 {
			want.WriteString(" or ")
		}
		want.WriteString(strconv.Itoa(2 * s))
	}
	body, newline := bytes.CutSuffix(digits, []byte("\n"))
	switch {
	case len(digits) > 2*slices.Max(format.Sizes)+1:
		return fail("it is longer than %s hexadecimal digits and a newline", want.String())
	case len(body)%2 != 0 || !slices.Contains(format.Sizes, len(body)/2):
		return fail("it has %d characters before its final newline, not %s", len(body), want.String())
	case !newline && !format.NewlineOptional:
		return fail("there is no newline after its %d characters, so it may not be complete", len(body))
	}
	digits = body
	key := make([]byte, len(digits)/2)
	for i, c := range digits {
		v, ok := nibble(c)
		if !ok {
			clear(key)
			return fail("character %d is not a hexadecimal digit", i+1)
		}
		key[i/2] |= v << (4 * (1 - i%2))
	}
	return secret.New(key), nil
}

func nibble(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// CheckFile reports why others could read or replace a key file, if they could.
func CheckFile(path string, info fs.FileInfo) error {
	mode := info.Mode()
	switch {
	case mode&fs.ModeSymlink != 0:
		return &PermissionError{path, "it is a symbolic link; put the file itself there"}
	case !mode.IsRegular():
		return &PermissionError{path, fmt.Sprintf("it is not a regular file (%s)", mode)}
	case mode.Perm()&0o077 != 0:
		return &PermissionError{path, fmt.Sprintf("its mode is %04o, so users other than its owner have access; it must be 0600", mode.Perm())}
	}
	return checkOwner(path, info)
}

// CheckDir reports why others could replace files in a directory, if they could.
// Reading its names is not a secret.
func CheckDir(path string, info fs.FileInfo) error {
	mode := info.Mode()
	switch {
	case mode&fs.ModeSymlink != 0:
		return &PermissionError{path, "it is a symbolic link; put the directory itself there"}
	case !mode.IsDir():
		return &PermissionError{path, fmt.Sprintf("it is not a directory (%s)", mode)}
	case mode.Perm()&0o022 != 0:
		return &PermissionError{path, fmt.Sprintf("its mode is %04o, so users other than its owner can replace keys; it must be 0700 or 0755 at most", mode.Perm())}
	}
	return checkOwner(path, info)
}

// CheckPrivateDir is CheckDir for a directory of which others may not even read the
// names.
func CheckPrivateDir(path string, info fs.FileInfo) error {
	if err := CheckDir(path, info); err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return &PermissionError{path, fmt.Sprintf("its mode is %04o, so users other than its owner have access; it must be 0700", mode)}
	}
	return nil
}

func checkOwner(path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if uid := int(st.Uid); uid != 0 && uid != os.Geteuid() {
		return &PermissionError{path, fmt.Sprintf("it belongs to user %d; it must belong to user %d, which runs this program, or to root", uid, os.Geteuid())}
	}
	return nil
}

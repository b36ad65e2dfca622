package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// maxPEM is the most octets that are read of a PEM file.
const maxPEM = 1 << 20

// ReadPublic reads a regular file of no more than most octets in which there is nothing
// secret, so that anybody may have put it there. A symbolic link is followed.
func ReadPublic(path string, most int64) ([]byte, error) {
	return read(path, most, func(info fs.FileInfo) error {
		if !info.Mode().IsRegular() {
			return &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("it is not a regular file (%s)", info.Mode())}
		}
		return nil
	})
}

// ReadPEM reads a file of certificates.
func ReadPEM(path string) ([]byte, error) { return ReadPublic(path, maxPEM) }

// ReadPrivatePEM reads the file of a certificate's private key, which must be as
// private as a key of ours (CheckFile); the check is made on the file that is read. A
// symbolic link is followed: programs that renew certificates leave one. The caller
// clears what it has read.
func ReadPrivatePEM(path string) ([]byte, error) {
	return read(path, maxPEM, func(info fs.FileInfo) error { return CheckFile(path, info) })
}

func read(path string, most int64, check func(fs.FileInfo) error) ([]byte, error) {
	// O_NONBLOCK: opening a FIFO must not wait for its writer.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err == nil {
		err = check(info)
	}
	if err != nil {
		return nil, err
	}
	// One allocation: a buffer that grew would leave copies of the key.
	text := make([]byte, min(info.Size(), most)+1)
	n, err := io.ReadFull(file, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		clear(text)
		return nil, err
	}
	if n == len(text) {
		clear(text)
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("it grew while it was read, or has more than %d octets", most)}
	}
	return text[:n], nil
}

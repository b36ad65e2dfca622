//go:build !linux

package keyfile

import "errors"

func renameNew(string, string) error { return errors.ErrUnsupported }

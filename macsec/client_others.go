//go:build !linux

package macsec

import (
	"errors"
	"fmt"
	"runtime"
)

// Client needs Linux.
type Client struct{ Kernel }

// New fails with ErrUnsupported.
func New() (*Client, error) {
	return nil, &Error{Op: OpNew, Err: errors.Join(ErrUnsupported, fmt.Errorf("MACsec over netlink needs Linux, this is %s", runtime.GOOS))}
}

// NewLater fails with ErrUnsupported.
func NewLater() (*Client, error) { return New() }

// NewNetNS fails with ErrUnsupported.
func NewNetNS(int) (*Client, error) { return New() }

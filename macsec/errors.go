package macsec

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// Kinds of failure, for errors.Is.
var (
	// ErrNotExist: the device, channel or association is not there. It is
	// fs.ErrNotExist, so that errors.Is finds either.
	ErrNotExist = fs.ErrNotExist
	// ErrExist: the name or channel is taken. It is fs.ErrExist.
	ErrExist = fs.ErrExist
	// ErrPermission: CAP_NET_ADMIN is missing. It is fs.ErrPermission.
	ErrPermission = fs.ErrPermission
	// ErrBusy: the association number is taken, the association to delete is
	// active, the SCI is in use on the parent, or the parent serves somebody else.
	ErrBusy = errors.New("busy")
	// ErrInvalid: the request contradicts the rules or the device.
	ErrInvalid = errors.New("invalid request")
	// ErrUnsupported: this kernel has no MACsec, or not this part of it.
	ErrUnsupported = errors.New("not supported by this kernel")
	// ErrOffloadUnsupported: the parent cannot offload MACsec that way.
	ErrOffloadUnsupported = errors.New("offload not supported by the parent interface")
	// ErrPNReuse: the request would transmit a packet number a second time.
	ErrPNReuse = errors.New("transmit packet number would be reused")
)

// PNError is the Err of an Error that stands for ErrPNReuse: a transmit packet
// number must not be lowered under the same key, because a second frame under one
// nonce discloses the plain text of both and the authentication key.
type PNError struct {
	// AN is the association that Current belongs to.
	AN AN
	// Active: the association transmits, so that Current is already outdated.
	Active bool
	// Current is the next packet number of the association; zero: it wrapped.
	Current uint64
	// Requested is what was asked for.
	Requested uint64
}

// Error implements error.
func (e *PNError) Error() string {
	if e.Current == 0 {
		return fmt.Sprintf("packet number %d requested under a key whose packet numbers are all used", e.Requested)
	}
	if e.Active {
		return fmt.Sprintf("next PN %d requested for an active association that is at %d and moving", e.Requested, e.Current)
	}
	return fmt.Sprintf("next PN %d requested under a key that is at %d already", e.Requested, e.Current)
}

// Is makes errors.Is(err, ErrPNReuse) true.
func (e *PNError) Is(target error) bool { return target == ErrPNReuse }

// Names of the operations in Error.Op: the methods of Kernel.
const (
	OpNew          = "New"
	OpCreateDevice = "CreateDevice"
	OpDevice       = "Device"
	OpDevices      = "Devices"
	OpUpdateDevice = "UpdateDevice"
	OpDeleteDevice = "DeleteDevice"
	OpSecY         = "SecY"
	OpSecYs        = "SecYs"
	OpAddRxSC      = "AddRxSC"
	OpUpdateRxSC   = "UpdateRxSC"
	OpDeleteRxSC   = "DeleteRxSC"
	OpAddRxSA      = "AddRxSA"
	OpUpdateRxSA   = "UpdateRxSA"
	OpDeleteRxSA   = "DeleteRxSA"
	OpAddTxSA      = "AddTxSA"
	OpUpdateTxSA   = "UpdateTxSA"
	OpDeleteTxSA   = "DeleteTxSA"
	OpSetOffload   = "SetOffload"
)

// Error is a failed operation.
type Error struct {
	// Op is the method of Kernel, one of the Op constants.
	Op string
	// Interface is the device's name, empty if unknown.
	Interface string
	// Index is the device's interface index, 0 if there is none.
	Index int
	// SCI is the receive channel, nil if none is concerned.
	SCI *SCI
	// AN is the association, nil if none is concerned.
	AN *AN
	// Err is the cause: a syscall.Errno if the kernel said no, a *PNError if the
	// client did, else what went wrong on the way.
	Err error
	// Message is the kernel's extended acknowledgement, empty if it gave none.
	Message string
}

// Error implements error. It ends in the hint, if there is one.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("macsec: " + e.Op)
	if e.SCI != nil {
		fmt.Fprintf(&b, " SCI %s", e.SCI)
	}
	if e.AN != nil {
		fmt.Fprintf(&b, " AN %d", *e.AN)
	}
	switch {
	case e.Interface != "" && e.Index != 0:
		fmt.Fprintf(&b, " on %s (ifindex %d)", e.Interface, e.Index)
	case e.Interface != "":
		fmt.Fprintf(&b, " on %s", e.Interface)
	case e.Index != 0:
		fmt.Fprintf(&b, " on ifindex %d", e.Index)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, " (kernel: %s)", e.Message)
	}
	if hint := e.Hint(); hint != "" {
		b.WriteString("; " + hint)
	}
	return b.String()
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is the kind of this failure.
func (e *Error) Is(target error) bool {
	var errno syscall.Errno
	if !errors.As(e.Err, &errno) {
		return false
	}
	switch target {
	case ErrNotExist:
		return errno == syscall.ENODEV || errno == syscall.ENOENT
	case ErrExist:
		return errno == syscall.EEXIST
	case ErrPermission:
		return errno == syscall.EPERM || errno == syscall.EACCES
	case ErrBusy:
		return errno == syscall.EBUSY
	case ErrInvalid:
		return errno == syscall.EINVAL || errno == syscall.ERANGE
	case ErrOffloadUnsupported:
		return errno == syscall.EOPNOTSUPP && e.Op == OpSetOffload
	case ErrUnsupported:
		return errno == syscall.EOPNOTSUPP && e.Op != OpSetOffload || errno == syscall.ENOENT && e.Op == OpNew
	}
	return false
}

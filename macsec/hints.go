package macsec

import (
	"errors"
	"syscall"
)

// Hint says what to do about the failure, empty if nobody knows. The kernel
// answers most mistakes with a bare errno; this table holds what each one means
// where it comes from (drivers/net/macsec.c, read at 6.1).
func (e *Error) Hint() string {
	switch {
	case errors.Is(e.Err, ErrPNReuse):
		return "delete the association and add one with a fresh key"
	case errors.Is(e, ErrOffloadUnsupported):
		return "use offload off"
	case errors.Is(e, ErrPermission):
		return "it needs CAP_NET_ADMIN in the initial user namespace"
	}
	var errno syscall.Errno
	if !errors.As(e.Err, &errno) {
		return ""
	}
	if h, ok := hints[hintKey{e.Op, errno}]; ok {
		return h
	}
	return hints[hintKey{"", errno}]
}

type hintKey struct {
	op    string
	errno syscall.Errno
}

const (
	hintActive    = "an active association cannot be deleted: deactivate it first"
	hintTaken     = "the association number is taken: deactivate and delete what is there first"
	hintUpdate    = "a packet number is not zero, and has 32 bits without XPN"
	hintAddSA     = "check AN 0 to 3, the key's length against the cipher suite, and the packet number: not zero, and 32 bits without XPN"
	hintNoSA      = "there is no such device, channel or association"
	hintNoDev     = "there is no MACsec device with that index in this network namespace"
	hintNoRxSC    = "there is no such device or receive channel"
	hintNotMACsec = "check that the interface is a MACsec device"
)

var hints = map[hintKey]string{
	{OpNew, syscall.ENOENT}:              "load the kernel module: modprobe macsec, or use a kernel with CONFIG_MACSEC",
	{OpCreateDevice, syscall.EEXIST}:     "an interface of that name exists: delete it or choose another name",
	{OpCreateDevice, syscall.EBUSY}:      "another MACsec device on the parent has this SCI, or the parent is a bridge port or bond slave: bridge and bond go on top of the MACsec device",
	{OpCreateDevice, syscall.ENODEV}:     "there is no parent interface with that index in this network namespace",
	{OpCreateDevice, syscall.EINVAL}:     "the parent must be Ethernet, the ICV 8 to 16 octets, the XPN replay window at most 2^30-1; IncludeSCI excludes EndStation and SCB, and without it the SCI's MAC must be zero",
	{OpCreateDevice, syscall.ERANGE}:     "an interface name has at most 15 octets",
	{OpCreateDevice, syscall.EOPNOTSUPP}: "load the kernel module: modprobe macsec",
	{OpDevice, syscall.ENODEV}:           "there is no MACsec device of that name in this network namespace",
	{OpUpdateDevice, syscall.EINVAL}:     "turning replay protection on needs the window in the same update (XPN: at most 2^30-1); IncludeSCI, EndStation and SCB exclude each other; AN is 0 to 3",
	{OpUpdateDevice, syscall.ENODEV}:     hintNoDev,
	{OpUpdateDevice, syscall.EOPNOTSUPP}: hintNotMACsec,
	{OpDeleteDevice, syscall.ENODEV}:     hintNoDev,
	{OpSecY, syscall.ENODEV}:             hintNoDev,
	{OpSecY, syscall.EMSGSIZE}:           "the kernel left the device out of its dump because its channels do not fit into one message",
	{OpSecYs, syscall.EMSGSIZE}:          "the kernel left the device out of its dump because its channels do not fit into one message",
	{OpAddRxSC, syscall.EEXIST}:          "a MACsec device on the same parent has this receive channel already",
	{OpAddRxSC, syscall.ENODEV}:          hintNoDev,
	{OpUpdateRxSC, syscall.ENODEV}:       hintNoRxSC,
	{OpDeleteRxSC, syscall.ENODEV}:       hintNoRxSC,
	{OpAddRxSA, syscall.EBUSY}:           hintTaken,
	{OpAddTxSA, syscall.EBUSY}:           hintTaken,
	{OpAddRxSA, syscall.EINVAL}:          hintAddSA,
	{OpAddTxSA, syscall.EINVAL}:          hintAddSA,
	{OpAddRxSA, syscall.ENODEV}:          hintNoRxSC,
	{OpAddTxSA, syscall.ENODEV}:          hintNoDev,
	{OpUpdateRxSA, syscall.EINVAL}:       hintUpdate,
	{OpUpdateTxSA, syscall.EINVAL}:       hintUpdate,
	{OpUpdateRxSA, syscall.ENODEV}:       hintNoSA,
	{OpUpdateTxSA, syscall.ENODEV}:       hintNoSA,
	{OpDeleteRxSA, syscall.EBUSY}:        hintActive,
	{OpDeleteTxSA, syscall.EBUSY}:        hintActive,
	{OpDeleteRxSA, syscall.ENODEV}:       hintNoSA,
	{OpDeleteTxSA, syscall.ENODEV}:       hintNoSA,
	{OpSetOffload, syscall.EBUSY}:        "offload changes only before any channel or association exists, and on older kernels while the device is down",
	{OpSetOffload, syscall.ENODEV}:       hintNoDev,
}

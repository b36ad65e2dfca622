package macsec

// Kernel is what a kernel with MACsec does. *Client is the real one, and
// macsectest.Kernel one in memory.
//
// Devices are named by interface index. Every method is safe for concurrent use.
// A failure is an *Error; tell its kind by errors.Is with the Err values.
type Kernel interface {
	// CreateDevice makes a device on top of the interface parent. It is
	// administratively down, and returned as the kernel made it.
	CreateDevice(parent int, name string, cfg DeviceConfig) (*Device, error)
	// Device returns the device of that name, ErrNotExist if there is none or
	// the interface is of another kind.
	Device(name string) (*Device, error)
	// Devices returns all of them in the order of their index.
	Devices() ([]Device, error)
	// UpdateDevice changes what u names, and nothing if that is not allowed.
	UpdateDevice(index int, u DeviceUpdate) error
	// DeleteDevice removes a device with its channels, associations and keys.
	DeleteDevice(index int) error

	// SecY returns the state and statistics of one device.
	SecY(index int) (*SecY, error)
	// SecYs returns those of all devices in the order of their index.
	SecYs() ([]SecY, error)

	// AddRxSC adds the receive channel of a peer. ErrExist if any device on the
	// same parent has it.
	AddRxSC(index int, sci SCI, active bool) error
	// UpdateRxSC switches a receive channel on or off. Linux keeps the switch but
	// receives regardless of it while an association is active; to shut a peer
	// out, deactivate its associations or delete the channel.
	UpdateRxSC(index int, sci SCI, active bool) error
	// DeleteRxSC removes a receive channel and its associations, active or not.
	DeleteRxSC(index int, sci SCI) error
	// AddRxSA adds an association to a receive channel. ErrBusy if the number is
	// taken.
	AddRxSA(index int, sci SCI, sa SA) error
	// UpdateRxSA switches an association on or off, or moves its packet number.
	UpdateRxSA(index int, sci SCI, an AN, u SAUpdate) error
	// DeleteRxSA removes an inactive association. ErrBusy if it is active.
	DeleteRxSA(index int, sci SCI, an AN) error
	// AddTxSA adds an association to the transmit channel. ErrBusy if the number
	// is taken; ErrPNReuse if the key, by its identifier, is installed under
	// another number, or was deleted through this Kernel at a higher packet number.
	AddTxSA(index int, sa SA) error
	// UpdateTxSA switches an association on or off, or raises its packet number
	// while it is inactive (it may become active in the same call); ErrPNReuse
	// otherwise.
	UpdateTxSA(index int, an AN, u SAUpdate) error
	// DeleteTxSA removes an inactive association. ErrBusy if it is active.
	DeleteTxSA(index int, an AN) error

	// SetOffload chooses what does the cryptography, before any channel or
	// association exists. ErrOffloadUnsupported if the parent cannot.
	SetOffload(index int, o Offload) error
	// Close releases the client; the kernel's state stays.
	Close() error
}

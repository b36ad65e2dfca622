package macsec

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/macsec/internal/pnguard"
)

// messageBuffer is the size of a receive. The kernel makes the messages of a
// dump as large as the receives it has seen, up to 32 KiB, and puts a device
// whole into one message: with the default of a page, a device with ten peers
// would silently end the dump (macsec_dump_txsc).
const messageBuffer = 32 << 10

// dumpAttempts bounds the repetition of dumps that the kernel marks as torn by a
// concurrent change (NLM_F_DUMP_INTR).
const dumpAttempts = 10

// Client is the Kernel of this machine. It works in the network namespace that
// it was made in, wherever it is called from later.
type Client struct {
	rt     *netlink.Conn
	ge     *netlink.Conn
	keyed  executor      // for requests that hold a key
	family atomic.Uint32 // of generic netlink; 0 while the kernel is not known to have it

	// tx serializes what reads a transmit packet number and then acts on it.
	tx    sync.Mutex
	spent pnguard.Memory
}

var _ Kernel = (*Client)(nil)

// An executor sends a request and returns the answers: a netlink.Conn or a
// keySocket.
type executor interface {
	Execute(netlink.Message) ([]netlink.Message, error)
	Close() error
}

// New opens the kernel's interfaces in the network namespace of the calling
// thread; lock the goroutine to its thread if that is not the process's.
// ErrUnsupported if the kernel has no MACsec.
func New() (*Client, error) { return NewNetNS(0) }

// NewNetNS is New in the network namespace that the file descriptor netns
// refers to; zero means that of the calling thread. The descriptor can be closed
// afterwards.
func NewNetNS(netns int) (*Client, error) {
	c, err := dial(netns)
	if err != nil {
		return nil, err
	}
	return c.ready()
}

// NewLater is New for a kernel that may get its MACsec later: until then, what needs
// it fails with ErrUnsupported.
func NewLater() (*Client, error) { return dial(0) }

func dial(netns int) (*Client, error) {
	config := func() *netlink.Config {
		return &netlink.Config{NetNS: netns, MessageBufferSize: messageBuffer}
	}
	var open []*netlink.Conn
	fail := func(err error) (*Client, error) {
		for _, c := range open {
			err = errors.Join(err, c.Close())
		}
		return nil, failure(OpNew, err)
	}
	for _, s := range []struct {
		protocol int
		name     string
	}{{unix.NETLINK_ROUTE, "rtnetlink"}, {unix.NETLINK_GENERIC, "generic netlink"}, {unix.NETLINK_GENERIC, "generic netlink"}} {
		c, err := netlink.Dial(s.protocol, config())
		if err != nil {
			return fail(fmt.Errorf("open %s socket: %w", s.name, err))
		}
		open = append(open, c)
		// Extended acknowledgements turn a bare EINVAL into a sentence.
		// Kernels before 4.12 do not know the option, nor XPN.
		if err := c.SetOption(netlink.ExtendedAcknowledge, true); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
			return fail(fmt.Errorf("ask for extended acknowledgements: %w", err))
		}
	}
	keyed, err := newKeySocket(open[2])
	if err != nil {
		open = open[:2]
		return fail(err)
	}
	return &Client{rt: open[0], ge: open[1], keyed: keyed}, nil
}

// ready looks for MACsec, and closes the client of a kernel that has none.
func (c *Client) ready() (*Client, error) {
	if err := c.find(); err != nil {
		return nil, failure(OpNew, errors.Join(err, c.Close()))
	}
	return c, nil
}

// find looks up the kernel's MACsec, which may be a module.
func (c *Client) find() error {
	family, err := genetlink.NewConn(c.ge).GetFamily(genlName)
	if err != nil {
		return fmt.Errorf("look up generic netlink family %q: %w", genlName, err)
	}
	c.family.Store(uint32(family.ID))
	return nil
}

// Close implements Kernel.
func (c *Client) Close() error { return errors.Join(c.rt.Close(), c.ge.Close(), c.keyed.Close()) }

// set sends a generic netlink command that changes something, and waits for the
// kernel's answer.
func (c *Client) set(cmd uint8, attrs *netlink.AttributeEncoder) error {
	_, err := c.generic(c.ge, cmd, netlink.Request|netlink.Acknowledge, attrs)
	return err
}

// setKeyed is set for a command whose attributes hold a key.
func (c *Client) setKeyed(cmd uint8, attrs *netlink.AttributeEncoder) error {
	_, err := c.generic(c.keyed, cmd, netlink.Request|netlink.Acknowledge, attrs)
	return err
}

func (c *Client) generic(by executor, cmd uint8, flags netlink.HeaderFlags, attrs *netlink.AttributeEncoder) ([]netlink.Message, error) {
	if c.family.Load() == 0 {
		switch err := c.find(); {
		case errors.Is(err, unix.ENOENT): // which is what is said of a device that is not there
			return nil, fmt.Errorf("the kernel has no generic netlink family %q: %w", genlName, unix.EOPNOTSUPP)
		case err != nil:
			return nil, err
		}
	}
	data := []byte{cmd, genlVersion, 0, 0}
	if attrs != nil {
		b, err := attrs.Encode()
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		data = append(data, b...)
		// They may hold a key.
		defer clear(b)
		defer clear(data)
	}
	return by.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(c.family.Load()), Flags: flags},
		Data:   data,
	})
}

// dump repeats request until the kernel answers it consistently.
func dump(request func() ([]netlink.Message, error)) ([]netlink.Message, error) {
	for range dumpAttempts {
		msgs, err := request()
		if err != nil {
			return nil, err
		}
		torn := false
		for _, m := range msgs {
			torn = torn || m.Header.Flags&netlink.DumpInterrupted != 0
		}
		if !torn {
			return msgs, nil
		}
	}
	return nil, fmt.Errorf("the configuration changed during each of %d dumps: %w", dumpAttempts, unix.EAGAIN)
}

// failure makes an Error of what the netlink library returned.
func failure(op string, err error) *Error {
	e := &Error{Op: op, Err: err}
	if nl, ok := errors.AsType[*netlink.OpError](err); ok {
		e.Message = nl.Message
		var errno unix.Errno
		// The library says only "receive" on top of an errno of the kernel.
		if nl.Op == "receive" && errors.As(nl.Err, &errno) && op != OpNew {
			e.Err = errno
		}
	}
	return e
}

// fail is failure for an operation on a device, whose name it looks up: kernels
// answer by errno, people think in names.
func (c *Client) fail(op string, index int, err error) *Error {
	e := failure(op, err)
	e.Index = index
	if l, linkErr := c.link(index); linkErr == nil {
		e.Interface = l.Name
	}
	return e
}

func (c *Client) failSC(op string, index int, sci SCI, err error) error {
	e := c.fail(op, index, err)
	e.SCI = &sci
	return e
}

func (c *Client) failSA(op string, index int, sci *SCI, an AN, err error) error {
	e := c.fail(op, index, err)
	e.SCI, e.AN = sci, &an
	return e
}

package macsec

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/macsec/internal/pnguard"
)

// CreateDevice implements Kernel.
func (c *Client) CreateDevice(parent int, name string, cfg DeviceConfig) (*Device, error) {
	fail := func(err error) (*Device, error) {
		e := failure(OpCreateDevice, err)
		e.Interface = name
		return nil, e
	}
	if name == "" || len(name) >= unix.IFNAMSIZ {
		return fail(fmt.Errorf("interface name %q of %d octets: %w", name, len(name), unix.ERANGE))
	}
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.IFLA_IFNAME, name)
	ae.Uint32(unix.IFLA_LINK, uint32(parent))
	encodeLinkInfo(ae, func(nae *netlink.AttributeEncoder) { encodeConfig(nae, cfg) })
	flags := netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl
	if _, err := c.route(unix.RTM_NEWLINK, flags, unix.IfInfomsg{}, ae); err != nil {
		_, err := fail(err)
		var e *Error
		if errors.As(err, &e) && cfg.Offload != Off && errors.Is(e.Err, unix.EOPNOTSUPP) {
			e.Err = fmt.Errorf("%w: %w", ErrOffloadUnsupported, e.Err)
		}
		return nil, err
	}
	dev, err := c.Device(name)
	if err != nil {
		return fail(fmt.Errorf("read back the device created: %w", err))
	}
	return dev, nil
}

// Device implements Kernel.
func (c *Client) Device(name string) (*Device, error) {
	fail := func(err error) (*Device, error) {
		e := failure(OpDevice, err)
		e.Interface = name
		return nil, e
	}
	if name == "" || len(name) >= unix.IFNAMSIZ {
		return fail(fmt.Errorf("interface name %q of %d octets: %w", name, len(name), unix.ENODEV))
	}
	ae := getLinkAttributes()
	ae.String(unix.IFLA_IFNAME, name)
	l, err := c.getLink(unix.IfInfomsg{}, ae)
	if err != nil {
		return fail(err)
	}
	if err := c.completeOffload(l); err != nil {
		return fail(err)
	}
	return &l.Device, nil
}

// completeOffload reads from the dump what kernels before 6.3 leave out of the
// link.
func (c *Client) completeOffload(l *link) error {
	if l.haveOffload {
		return nil
	}
	secys, err := c.dumpSecYs(l.Index)
	if err != nil {
		return err
	}
	for _, s := range secys {
		l.Offload = s.Offload
	}
	return nil
}

// Devices implements Kernel.
func (c *Client) Devices() ([]Device, error) {
	links, err := c.links()
	if err != nil {
		return nil, failure(OpDevices, err)
	}
	devs := make([]Device, len(links))
	incomplete := false
	for i := range links {
		devs[i] = links[i].Device
		incomplete = incomplete || !links[i].haveOffload
	}
	if incomplete {
		secys, err := c.dumpSecYs(0)
		if err != nil {
			return nil, failure(OpDevices, err)
		}
		for i := range devs {
			if s, ok := secys[devs[i].Index]; ok {
				devs[i].Offload = s.Offload
			}
		}
	}
	return devs, nil
}

// UpdateDevice implements Kernel.
func (c *Client) UpdateDevice(index int, u DeviceUpdate) error {
	// The kernel would set the flags of any kind of interface.
	if _, err := c.link(index); err != nil {
		return c.fail(OpUpdateDevice, index, err)
	}
	msg := unix.IfInfomsg{Index: int32(index)}
	if u.Up != nil {
		msg.Change = unix.IFF_UP
		if *u.Up {
			msg.Flags = unix.IFF_UP
		}
	}
	ae := netlink.NewAttributeEncoder()
	up := u.Up
	u.Up = nil
	if u != (DeviceUpdate{}) {
		encodeLinkInfo(ae, func(nae *netlink.AttributeEncoder) { encodeUpdate(nae, u) })
	} else if up == nil {
		return nil
	}
	if _, err := c.route(unix.RTM_NEWLINK, netlink.Request|netlink.Acknowledge, msg, ae); err != nil {
		return c.fail(OpUpdateDevice, index, err)
	}
	return nil
}

// DeleteDevice implements Kernel.
func (c *Client) DeleteDevice(index int) error {
	c.tx.Lock()
	defer c.tx.Unlock()
	// RTM_DELLINK deletes any kind of interface: look before.
	l, err := c.link(index)
	if err != nil {
		return c.fail(OpDeleteDevice, index, err)
	}
	secys, err := c.dumpSecYs(index)
	if err != nil {
		return c.fail(OpDeleteDevice, index, err)
	}
	if _, err := c.route(unix.RTM_DELLINK, netlink.Request|netlink.Acknowledge, unix.IfInfomsg{Index: int32(index)}, nil); err != nil {
		return c.fail(OpDeleteDevice, index, err)
	}
	for _, sa := range secys[index].txSAs() {
		// It may have transmitted since the dump.
		c.spent.Retire(l.SCI, sa.KeyID, pnguard.Exhausted)
	}
	return nil
}

// link is a device as rtnetlink tells it.
type link struct {
	Device
	haveOffload bool
}

// link reads the device of that index, ENODEV if it is none.
func (c *Client) link(index int) (*link, error) {
	if index <= 0 {
		return nil, fmt.Errorf("interface index %d: %w", index, unix.ENODEV)
	}
	return c.getLink(unix.IfInfomsg{Index: int32(index)}, getLinkAttributes())
}

func (c *Client) getLink(msg unix.IfInfomsg, ae *netlink.AttributeEncoder) (*link, error) {
	msgs, err := c.route(unix.RTM_GETLINK, netlink.Request, msg, ae)
	if err != nil {
		return nil, err
	}
	for _, m := range msgs {
		if m.Header.Type != unix.RTM_NEWLINK {
			continue
		}
		l, kind, err := parseLink(m.Data)
		if err != nil {
			return nil, err
		}
		if l == nil {
			return nil, fmt.Errorf("the interface is of kind %q, not macsec: %w", kind, unix.ENODEV)
		}
		return l, nil
	}
	return nil, fmt.Errorf("no link in an answer of %d messages: %w", len(msgs), unix.EPROTO)
}

// links reads all devices in the order of their index.
func (c *Client) links() ([]link, error) {
	ae := getLinkAttributes()
	// The kernel filters by kind, but does not promise to.
	encodeLinkInfo(ae, nil)
	msgs, err := dump(func() ([]netlink.Message, error) {
		return c.route(unix.RTM_GETLINK, netlink.Request|netlink.Dump, unix.IfInfomsg{}, ae)
	})
	if err != nil {
		return nil, err
	}
	var links []link
	for _, m := range msgs {
		if m.Header.Type != unix.RTM_NEWLINK {
			continue
		}
		l, _, err := parseLink(m.Data)
		if err != nil {
			return nil, err
		}
		if l != nil {
			links = append(links, *l)
		}
	}
	slices.SortFunc(links, func(a, b link) int { return cmp.Compare(a.Index, b.Index) })
	return links, nil
}

func (c *Client) route(typ netlink.HeaderType, flags netlink.HeaderFlags, msg unix.IfInfomsg, ae *netlink.AttributeEncoder) ([]netlink.Message, error) {
	data := encodeIfInfo(msg)
	if ae != nil {
		attrs, err := ae.Encode()
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		data = append(data, attrs...)
	}
	return c.rt.Execute(netlink.Message{Header: netlink.Header{Type: typ, Flags: flags}, Data: data})
}

func encodeIfInfo(m unix.IfInfomsg) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	b[0] = m.Family
	binary.NativeEndian.PutUint16(b[2:], m.Type)
	binary.NativeEndian.PutUint32(b[4:], uint32(m.Index))
	binary.NativeEndian.PutUint32(b[8:], m.Flags)
	binary.NativeEndian.PutUint32(b[12:], m.Change)
	return b
}

// rtextFilterSkipStats is RTEXT_FILTER_SKIP_STATS, missing in x/sys.
const rtextFilterSkipStats = 1 << 3

// getLinkAttributes asks for links without the statistics of the interface.
func getLinkAttributes() *netlink.AttributeEncoder {
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(unix.IFLA_EXT_MASK, rtextFilterSkipStats)
	return ae
}

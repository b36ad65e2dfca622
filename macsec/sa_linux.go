package macsec

import (
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/macsec/internal/pnguard"
)

// SecY implements Kernel.
func (c *Client) SecY(index int) (*SecY, error) {
	l, err := c.link(index)
	if err != nil {
		return nil, c.fail(OpSecY, index, err)
	}
	secys, err := c.dumpSecYs(index)
	if err != nil {
		return nil, c.fail(OpSecY, index, err)
	}
	s, ok := secys[index]
	if !ok {
		return nil, c.fail(OpSecY, index, fmt.Errorf("missing from a dump of %d devices: %w", len(secys), unix.EMSGSIZE))
	}
	s.merge(l)
	return s, nil
}

// SecYs implements Kernel.
func (c *Client) SecYs() ([]SecY, error) {
	// The dump first: a device that goes away in between is in neither the
	// result nor, as one missing from the dump, an error.
	secys, err := c.dumpSecYs(0)
	if err != nil {
		return nil, failure(OpSecYs, err)
	}
	links, err := c.links()
	if err != nil {
		return nil, failure(OpSecYs, err)
	}
	all := make([]SecY, 0, len(links))
	for i := range links {
		s, ok := secys[links[i].Index]
		if !ok {
			// Created since the dump, or cut from it: SecY tells.
			if s, err = c.SecY(links[i].Index); err != nil {
				e := failure(OpSecYs, err)
				e.Index, e.Interface = links[i].Index, links[i].Name
				return nil, e
			}
		}
		s.merge(&links[i])
		all = append(all, *s)
	}
	return all, nil
}

// merge adds to a SecY from the dump what rtnetlink alone knows.
func (s *SecY) merge(l *link) {
	offload := s.Offload
	s.Device = l.Device
	s.Offload = offload
}

// txSAs works on a nil SecY too.
func (s *SecY) txSAs() []SA {
	if s == nil {
		return nil
	}
	return s.TxSC.SAs
}

// dumpSecYs reads what generic netlink knows of the device index, or of all
// devices for zero. The kernel cannot filter, so that the client does.
func (c *Client) dumpSecYs(index int) (map[int]*SecY, error) {
	msgs, err := dump(func() ([]netlink.Message, error) {
		return c.generic(c.ge, cmdGetTxSC, netlink.Request|netlink.Dump, nil)
	})
	if err != nil {
		return nil, err
	}
	secys := map[int]*SecY{}
	for _, m := range msgs {
		s, err := parseSecY(m.Data, index)
		if err != nil {
			return nil, err
		}
		if s != nil {
			secys[s.Index] = s
		}
	}
	return secys, nil
}

// AddRxSC implements Kernel.
func (c *Client) AddRxSC(index int, sci SCI, active bool) error {
	return c.setRxSC(OpAddRxSC, cmdAddRxSC, index, sci, &active)
}

// UpdateRxSC implements Kernel.
func (c *Client) UpdateRxSC(index int, sci SCI, active bool) error {
	return c.setRxSC(OpUpdateRxSC, cmdUpdRxSC, index, sci, &active)
}

// DeleteRxSC implements Kernel.
func (c *Client) DeleteRxSC(index int, sci SCI) error {
	return c.setRxSC(OpDeleteRxSC, cmdDelRxSC, index, sci, nil)
}

func (c *Client) setRxSC(op string, cmd uint8, index int, sci SCI, active *bool) error {
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(attrIfindex, uint32(index))
	encodeRxSC(ae, sci, active)
	if err := c.set(cmd, ae); err != nil {
		return c.failSC(op, index, sci, err)
	}
	return nil
}

// AddRxSA implements Kernel.
func (c *Client) AddRxSA(index int, sci SCI, sa SA) error {
	l, err := c.link(index)
	if err == nil {
		ae := netlink.NewAttributeEncoder()
		ae.Uint32(attrIfindex, uint32(index))
		encodeRxSC(ae, sci, nil)
		var keyed []byte
		if keyed, err = encodeSA(ae, l.CipherSuite, sa); err == nil {
			err = c.setKeyed(cmdAddRxSA, ae)
			clear(keyed)
		}
	}
	if err != nil {
		return c.failSA(OpAddRxSA, index, &sci, sa.AN, err)
	}
	return nil
}

// UpdateRxSA implements Kernel.
func (c *Client) UpdateRxSA(index int, sci SCI, an AN, u SAUpdate) error {
	l, err := c.link(index)
	if err == nil {
		ae := netlink.NewAttributeEncoder()
		ae.Uint32(attrIfindex, uint32(index))
		encodeRxSC(ae, sci, nil)
		if err = encodeSAUpdate(ae, l.CipherSuite, an, u); err == nil {
			err = c.set(cmdUpdRxSA, ae)
		}
	}
	if err != nil {
		return c.failSA(OpUpdateRxSA, index, &sci, an, err)
	}
	return nil
}

// DeleteRxSA implements Kernel.
func (c *Client) DeleteRxSA(index int, sci SCI, an AN) error {
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(attrIfindex, uint32(index))
	encodeRxSC(ae, sci, nil)
	encodeAN(ae, an)
	if err := c.set(cmdDelRxSA, ae); err != nil {
		return c.failSA(OpDeleteRxSA, index, &sci, an, err)
	}
	return nil
}

// AddTxSA implements Kernel. It refuses a key, by its identifier, that the
// channel has under another number, or had and used beyond NextPN: packet
// numbers of one key must not repeat, whatever the association number, which is
// not part of the nonce.
func (c *Client) AddTxSA(index int, sa SA) error {
	c.tx.Lock()
	defer c.tx.Unlock()
	if err := c.addTxSA(index, sa); err != nil {
		return c.failSA(OpAddTxSA, index, nil, sa.AN, err)
	}
	return nil
}

func (c *Client) addTxSA(index int, sa SA) error {
	l, err := c.link(index)
	if err != nil {
		return err
	}
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(attrIfindex, uint32(index))
	keyed, err := encodeSA(ae, l.CipherSuite, sa)
	if err != nil {
		return err
	}
	defer clear(keyed)
	if next := c.spent.Next(l.SCI, sa.KeyID); sa.NextPN < next {
		return &PNError{AN: sa.AN, Current: next, Requested: sa.NextPN}
	}
	secys, err := c.dumpSecYs(index)
	if err != nil {
		return err
	}
	for _, old := range secys[index].txSAs() {
		if sa.KeyID != (KeyID{}) && old.KeyID == sa.KeyID && old.AN != sa.AN {
			return &PNError{AN: old.AN, Active: old.Active, Current: old.NextPN, Requested: sa.NextPN}
		}
	}
	return c.setKeyed(cmdAddTxSA, ae)
}

// UpdateTxSA implements Kernel.
func (c *Client) UpdateTxSA(index int, an AN, u SAUpdate) error {
	c.tx.Lock()
	defer c.tx.Unlock()
	if err := c.updateTxSA(index, an, u); err != nil {
		return c.failSA(OpUpdateTxSA, index, nil, an, err)
	}
	return nil
}

func (c *Client) updateTxSA(index int, an AN, u SAUpdate) error {
	l, err := c.link(index)
	if err != nil {
		return err
	}
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(attrIfindex, uint32(index))
	if err := encodeSAUpdate(ae, l.CipherSuite, an, u); err != nil {
		return err
	}
	setPN, enable := u.NextPN != nil && *u.NextPN != 0, u.Active != nil && *u.Active
	if setPN || enable {
		secys, err := c.dumpSecYs(index)
		if err != nil {
			return err
		}
		if old := findSA(secys[index].txSAs(), an); old != nil {
			if setPN {
				err = CheckNextPN(*old, *u.NextPN)
			}
			if err == nil && enable {
				err = CheckEnable(*old)
			}
			if err != nil {
				return err
			}
		}
	}
	return c.set(cmdUpdTxSA, ae)
}

// DeleteTxSA implements Kernel.
func (c *Client) DeleteTxSA(index int, an AN) error {
	c.tx.Lock()
	defer c.tx.Unlock()
	if err := c.deleteTxSA(index, an); err != nil {
		return c.failSA(OpDeleteTxSA, index, nil, an, err)
	}
	return nil
}

func (c *Client) deleteTxSA(index int, an AN) error {
	secys, err := c.dumpSecYs(index)
	if err != nil {
		return err
	}
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(attrIfindex, uint32(index))
	encodeAN(ae, an)
	if err := c.set(cmdDelTxSA, ae); err != nil {
		return err
	}
	// An association that the kernel deletes was inactive, so that the packet
	// number has not moved since the dump.
	if old := findSA(secys[index].txSAs(), an); old != nil {
		next := old.NextPN
		if next == 0 {
			next = pnguard.Exhausted
		}
		c.spent.Retire(secys[index].SCI, old.KeyID, next)
	}
	return nil
}

// SetOffload implements Kernel.
func (c *Client) SetOffload(index int, o Offload) error {
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(attrIfindex, uint32(index))
	ae.Nested(attrOffload, func(nae *netlink.AttributeEncoder) error {
		nae.Uint8(offloadAttrType, uint8(o))
		return nil
	})
	if err := c.set(cmdUpdOffload, ae); err != nil {
		return c.fail(OpSetOffload, index, err)
	}
	return nil
}

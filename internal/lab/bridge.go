package lab

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// Bridge joins the interface of that name in each of spaces by a bridge in sw,
// as a carrier's multipoint service does. It passes EAPOL on: IEEE 802.1Q keeps
// 01-80-C2-00-00-03 local unless told otherwise (group_fwd_mask 8).
func Bridge(sw *Netspace, spaces []*Netspace, iface string) error {
	const name = "br0"
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	mask, snooping := uint16(1<<3), false // a snooping bridge speaks IGMP by itself
	br := &netlink.Bridge{LinkAttrs: attrs, GroupFwdMask: &mask, MulticastSnooping: &snooping}
	if err := sw.Links.LinkAdd(br); err != nil {
		return fmt.Errorf("make a bridge in %s: %w", sw.Name, err)
	}
	if err := sw.Silence(name); err != nil {
		return fmt.Errorf("turn IPv6 off on the bridge in %s: %w", sw.Name, err)
	}
	for i, ns := range spaces {
		port := fmt.Sprintf("p%d", i+1)
		if err := Wire(ns, iface, sw, port); err != nil {
			return err
		}
		l, err := sw.Links.LinkByName(port)
		if err == nil {
			err = sw.Links.LinkSetMaster(l, br)
		}
		if err != nil {
			return fmt.Errorf("put %s in %s into the bridge: %w", port, sw.Name, err)
		}
	}
	return sw.Up(name)
}

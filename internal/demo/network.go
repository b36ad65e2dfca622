package demo

import (
	"context"
	"errors"
	"fmt"
	"github.com/lever-link/lever/internal/lab"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/lever-link/lever/examples"
	"github.com/lever-link/lever/inventory"
)

// The bare interfaces' addresses, from the documentation's ranges (RFC 5737).
var (
	bareAddrs = [2]netip.Addr{netip.MustParseAddr("192.0.2.0"), netip.MustParseAddr("192.0.2.1")}
	leftAddrs = [2]netip.Addr{netip.MustParseAddr("198.51.100.0"), netip.MustParseAddr("198.51.100.1")}
)

// namespacePrefix keeps the routers' names apart from others on the machine.
const namespacePrefix = "lever-"

const (
	pings        = 3
	pingPatience = 2 * time.Second
	// refusedPatience is how long to wait for answers that should not come; on
	// the bare link they take less than a millisecond.
	refusedPatience = 300 * time.Millisecond
)

// readInventory finds the two links of the story in the example: one that is
// encrypted and one that is left alone.
func (d *demo) readInventory() error {
	path := filepath.Join(d.dir, lab.InventoryFile)
	if err := os.WriteFile(path, examples.Demo, 0o600); err != nil {
		return err
	}
	inv, err := inventory.Load(path)
	if err != nil {
		return fmt.Errorf("the example inventory: %w", err)
	}
	d.inv = inv
	for _, l := range inv.Links {
		switch {
		case len(l.Ends) != 2 || l.External:
		case l.Verdict.Kind == inventory.Encrypt && d.secured == nil:
			d.secured = l
		case l.Verdict.Kind == inventory.Inside && d.left == nil:
			d.left = l
		}
	}
	if d.secured == nil || d.left == nil {
		return errors.New("the example inventory must have one link to encrypt and one to leave alone, each of two nodes")
	}
	for i, e := range d.secured.Ends {
		if len(e.Addresses) == 0 {
			return fmt.Errorf("the example inventory gives %s no address on link %s", e.Node, d.secured.ID)
		}
		d.ends[i] = e
	}
	return nil
}

// makeNetwork makes a namespace a node, joins their interfaces as the inventory
// says, and makes the routers of the encrypted link.
func (d *demo) makeNetwork() error {
	spaces := map[string]*lab.Netspace{}
	space := func(node string) (*lab.Netspace, error) {
		if ns := spaces[node]; ns != nil {
			return ns, nil
		}
		ns, err := lab.NewNetspace(namespacePrefix + node)
		if err == nil {
			spaces[node] = ns
			d.spaces = append(d.spaces, ns)
		}
		return ns, err
	}
	for _, w := range []struct {
		link  *inventory.Link
		addrs [2]netip.Addr
	}{{d.secured, bareAddrs}, {d.left, leftAddrs}} {
		var ns [2]*lab.Netspace
		for i, e := range w.link.Ends {
			var err error
			if ns[i], err = space(e.Node); err != nil {
				return err
			}
		}
		names := [2]string{w.link.Ends[0].Interface, w.link.Ends[1].Interface}
		if err := lab.Wire(ns[0], names[0], ns[1], names[1]); err != nil {
			return err
		}
		for i := range ns {
			far, err := ns[1-i].MAC(names[1-i])
			if err != nil {
				return err
			}
			addr := &net.IPNet{IP: w.addrs[i].AsSlice(), Mask: net.CIDRMask(31, 32)}
			if err := ns[i].Address(names[i], addr, w.addrs[1-i].AsSlice(), far); err != nil {
				return err
			}
		}
	}
	for i, e := range d.ends {
		var err error
		if d.routers[i], err = lab.NewRouter(e.Node, filepath.Join(d.dir, e.Node), d.binary, examples.Demo, spaces[e.Node]); err != nil {
			return err
		}
	}
	return nil
}

// plainPing pings on the bare interfaces of the link that is to be encrypted.
func (d *demo) plainPing(ctx context.Context) (int, error) {
	return lab.Ping(ctx, d.routers[0].Space, bareAddrs[0], bareAddrs[1], pings, refusedPatience)
}

// securedEndpoints are the ends of a stream over the secured devices.
func (d *demo) securedEndpoints() (a, z lab.Endpoint) {
	at := func(i int) lab.Endpoint {
		return lab.Endpoint{Name: d.routers[i].Name, Space: d.routers[i].Space, Addr: d.ends[i].Addresses[0].Addr()}
	}
	return at(0), at(1)
}

// spaceOf is the namespace of a node.
func (d *demo) spaceOf(node string) *lab.Netspace {
	for _, ns := range d.spaces {
		if ns.Name == namespacePrefix+node {
			return ns
		}
	}
	return nil
}

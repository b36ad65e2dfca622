package agent

import (
	"slices"

	"github.com/lever-link/lever/inventory"
)

// Paths are what an agent reads of the file system on behalf of an inventory: its
// channels, a statement about the age of keys, and the key files of this node's
// external links.
func Paths(inv *inventory.Inventory, node string) ([]string, error) {
	links, err := inv.ForNode(node)
	if err != nil {
		return nil, err
	}
	paths := []string{inv.Policy.AgeOverride.File}
	for _, c := range []inventory.Channel{inv.Channels.A, inv.Channels.B} {
		paths = append(paths, c.Path, c.CA, c.Certificate, c.Key)
		if c.URL != "" || len(c.Endpoints) > 0 {
			paths = append(paths, resolver...)
		}
		if c.URL != "" && c.CA == "" {
			paths = append(paths, authorities...)
		}
	}
	for _, l := range links {
		for _, k := range l.PSK {
			paths = append(paths, k.CAKFile)
		}
	}
	return slices.DeleteFunc(paths, func(p string) bool { return p == "" }), nil
}

var (
	// resolver is what package net reads to find a host by its name.
	resolver = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services"}
	// authorities are where distributions keep whom TLS trusts, see crypto/x509's
	// root_linux.go.
	authorities = []string{
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/certs", "/etc/pki/tls/certs",
	}
)

package agent

import (
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/lever-link/lever/inventory"
)

// Paths are what an agent reads of the file system on behalf of an inventory: its
// channels, a statement about the age of keys, and the key files of this node's
// external links. Of the files that a URL needs and no inventory names, those are
// among them that this machine has: each distribution has its own.
func Paths(inv *inventory.Inventory, node string) ([]string, error) {
	links, err := inv.ForNode(node)
	if err != nil {
		return nil, err
	}
	paths := []string{inv.Policy.AgeOverride.File}
	for _, c := range []inventory.Channel{inv.Channels.A, inv.Channels.B} {
		paths = append(paths, c.Path, c.CA, c.Certificate, c.Key)
		if c.URL != "" || len(c.Endpoints) > 0 {
			paths = append(paths, there(resolver)...)
		}
		if c.URL != "" && c.CA == "" {
			paths = append(paths, there(authorities)...)
		}
	}
	for _, l := range links {
		for _, k := range l.PSK {
			paths = append(paths, k.CAKFile)
		}
	}
	return slices.DeleteFunc(paths, func(p string) bool { return p == "" }), nil
}

// there are those of paths at which there is something, if only a symbolic link.
func there(paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(p string) bool {
		_, err := os.Lstat(p)
		return errors.Is(err, fs.ErrNotExist)
	})
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

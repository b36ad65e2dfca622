package agent

import "github.com/lever-link/lever/inventory"

// Paths are what an agent reads of the file system on behalf of an inventory: its
// channels, and the key files of this node's external links.
func Paths(inv *inventory.Inventory, node string) ([]string, error) {
	links, err := inv.ForNode(node)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, c := range []inventory.Channel{inv.Channels.A, inv.Channels.B} {
		if c.Path != "" {
			paths = append(paths, c.Path)
		}
	}
	for _, l := range links {
		for _, k := range l.PSK {
			paths = append(paths, k.CAKFile)
		}
	}
	return paths, nil
}

//go:build !kernel

package agent

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lever-link/lever/inventory"
)

// What a URL needs and no inventory names is asked for where the machine has it: a
// distribution that keeps it elsewhere lacks nothing. What is named is asked for
// always.
func TestPathsOfAURL(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("bundle.crt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(at("later"), at("resolv.conf")); err != nil {
		t.Fatal(err)
	}
	defer func(a, r []string) { authorities, resolver = a, r }(authorities, resolver)
	authorities, resolver = []string{at("bundle.crt"), at("pki/bundle.crt")}, []string{at("resolv.conf"), at("nsswitch.conf")}
	for _, test := range []struct {
		name    string
		channel inventory.Channel
		want    []string
	}{
		{"a directory", inventory.Channel{Path: at("absent")}, []string{at("absent")}},
		{"a URL", inventory.Channel{URL: "https://keys.example.net"}, []string{at("bundle.crt"), at("resolv.conf")}},
		{"a URL with its CA", inventory.Channel{URL: "https://keys.example.net", CA: at("ca.pem")}, []string{at("ca.pem"), at("resolv.conf")}},
	} {
		inv := &inventory.Inventory{Nodes: map[string]*inventory.Node{"n": {Name: "n"}}, Channels: inventory.Channels{A: test.channel}}
		got, err := Paths(inv, "n")
		if slices.Sort(got); err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, %v; want %q", test.name, got, err, test.want)
		}
	}
}

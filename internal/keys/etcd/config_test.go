package etcd

import (
	"context"
	"strings"
	"testing"

	"github.com/lever-link/lever/internal/keys"
)

// What is wrong with a configuration is said before anything is connected to.
func TestConfig(t *testing.T) {
	good := Config{Endpoints: []string{"https://10.0.0.1:2379", "https://[fd00::1]:2379"}, Node: "r1", CA: "ca", Certificate: "crt", Key: "key"}
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"good", func(*Config) {}, ""},
		{"no endpoints", func(c *Config) { c.Endpoints = nil }, "no endpoints"},
		{"not encrypted", func(c *Config) { c.Endpoints = []string{"http://10.0.0.1:2379"} }, "https"},
		{"a path", func(c *Config) { c.Endpoints = []string{"https://10.0.0.1:2379/x"} }, "https"},
		{"a password", func(c *Config) { c.Endpoints = []string{"https://a:b@10.0.0.1:2379"} }, "https"},
		{"no scheme", func(c *Config) { c.Endpoints = []string{"10.0.0.1:2379"} }, "https"},
		{"no node", func(c *Config) { c.Node = "" }, "node"},
		{"a node with a slash", func(c *Config) { c.Node = "r1/r2" }, "node"},
		{"a prefix with a slash", func(c *Config) { c.Prefix = "a/" }, "prefix"},
		{"no CA", func(c *Config) { c.CA = "" }, "CA"},
		{"no certificate", func(c *Config) { c.Certificate = "" }, "certificate"},
		{"no key", func(c *Config) { c.Key = "" }, "key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := good
			c.change(&config)
			channel, err := New(config)
			if c.want == "" {
				if err != nil || channel.Kind() != "etcd" || !strings.Contains(channel.Where("l"), "lever/nodes/r1/links/l/") {
					t.Error(channel.Where("l"), err)
				}
				if err := channel.Watch(context.Background(), "l/1", func(keys.Snapshot) {}); err == nil {
					t.Error("a link with a slash is watched")
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if _, err := OpenAdmin(AdminConfig{Endpoints: config.Endpoints, Prefix: config.Prefix, CA: config.CA, Certificate: config.Certificate, Key: config.Key}); err == nil {
				t.Error("an issuer is content with it")
			}
		})
	}
}

func TestSpec(t *testing.T) {
	for _, bad := range []LinkSpec{
		{}, {ID: "l"}, {ID: "l", Nodes: []string{"r1"}}, {ID: "l", Nodes: []string{"r1", "r1"}}, {ID: "l", Nodes: []string{"r1", ""}},
		{ID: "", Nodes: []string{"r1", "r2"}}, {ID: "a b", Nodes: []string{"r1", "r2"}}, {ID: ".l", Nodes: []string{"r1", "r2"}},
	} {
		if l, err := spec(bad); err == nil {
			t.Errorf("%+v was taken", l)
		}
	}
	in := LinkSpec{ID: "l", Nodes: []string{"r2", "r1"}}
	if l, err := spec(in); err != nil || l.Nodes[0] != "r1" || in.Nodes[0] != "r2" {
		t.Error(l, in, err)
	}
}

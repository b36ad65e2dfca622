package inventory_test

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lever-link/lever/inventory"
)

// TestKeyedLinks asks which links of the cases of TestDiff take keys from the
// channels: neither those left alone nor the one to external equipment.
func TestKeyedLinks(t *testing.T) {
	inv := parse(t, running, day)
	ids := func(inv *inventory.Inventory) (ids []string) {
		for _, l := range inv.KeyedLinks() {
			ids = append(ids, l.ID)
		}
		return ids
	}
	if diff := cmp.Diff([]string{"wave", "lan"}, ids(inv)); diff != "" {
		t.Errorf("keyed links (-want +got):\n%s", diff)
	}
	later := inv.At(day.AddDate(0, 6, 0))
	if diff := cmp.Diff([]string{"wave", "duct", "old", "lan"}, ids(later)); diff != "" {
		t.Errorf("keyed links half a year later (-want +got):\n%s", diff)
	}
}

// TestScheduled asks how epochs are numbered.
func TestScheduled(t *testing.T) {
	const dirs = "channels: {a: {type: dir, path: /k/a}, b: {type: dir, path: /k/b}}"
	for channels, want := range map[string]bool{
		dirs: false,
		"":   false,
		"channels: {a: {type: bundle, path: /k/a, signers: [" + signerOne + "]}, b: {type: dir, path: /k/b}}":      true,
		"channels: {a: {type: dir, path: /k/a}, b: {type: skip, url: 'https://h', ca: a, certificate: b, key: c}}": true,
	} {
		inv := parse(t, "apiVersion: lever/v1\n"+channels+"\n", day)
		if got := inv.Scheduled(); got != want {
			t.Errorf("%s: scheduled %v, want %v", channels, got, want)
		}
	}
}

// TestChannelFields checks that what a channel says arrives, and its defaults.
func TestChannelFields(t *testing.T) {
	inv, err := inventory.Parse("/net/lever.yaml", []byte(`apiVersion: lever/v1
policy: {cak_epoch: 1h, max_age_override: {file: go-on, signers: [`+signerOne+`, `+signerTwo+`]}}
channels:
  a: {type: bundle, url: 'https://Keys.example.net/lever/', signers: [`+signerOne+`, `+signerTwo+`]}
  b: {type: etcd, endpoints: ['https://E1.example.net:2379/', 'https://[2001:DB8::1]:2379'], ca: tls/ca.pem, certificate: /tls/r1.pem, key: ../r1.key}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := inventory.Channels{
		A: inventory.Channel{
			Type: "bundle", URL: "https://keys.example.net/lever", Signers: []string{signerOne, signerTwo}, Threshold: 1,
		},
		B: inventory.Channel{
			Type: "etcd", Endpoints: []string{"https://e1.example.net:2379", "https://[2001:db8::1]:2379"}, Prefix: "lever",
			CA: "/net/tls/ca.pem", Certificate: "/tls/r1.pem", Key: "/r1.key",
		},
	}
	if !inv.Channels.Equal(want) {
		t.Errorf("channels (-want +got):\n%s", cmp.Diff(want, inv.Channels))
	}
	p := inv.Policy
	if p.CAKEpoch.Hours() != 1 || p.MaxAge.Hours() != 7 || p.AgeOverride.File != filepath.Join("/net", "go-on") || len(p.AgeOverride.Signers) != 2 {
		t.Errorf("policy %+v", p)
	}
}

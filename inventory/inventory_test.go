package inventory_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/lever-link/lever/inventory"
)

// TestExamples holds the examples to their verdicts.
func TestExamples(t *testing.T) {
	for _, tc := range []struct {
		path     string
		verdicts []string
		warnings []string
	}{
		{
			path: "../examples/demo/lever.yaml",
			verdicts: []string{
				"fra1-ams1-017 | fra1-r1/eth4 ams1-r2/eth9 | encrypt | segment 2 (leased-wave, ExampleTel circuit/991) is outside physical control",
				"fra1-r1-r2-001 | fra1-r1/eth1 fra1-r2/eth1 | inside | every segment is inside physical control: controlled-building at fra1",
			},
		},
		{
			path: "../examples/channels/lever.yaml",
			verdicts: []string{
				"fra1-ams1-017 | fra1-r1/eth4 ams1-r2/eth9 | encrypt | segment 2 (leased-wave, ExampleTel circuit/991) is outside physical control",
			},
			warnings: []string{
				"../examples/channels/lever.yaml:35:3: node fra1-r1 has no recipients, so that no bundle can be issued to it: run lever node init there, and then lever node enrol with what it prints",
				"../examples/channels/lever.yaml:36:3: node ams1-r2 has no recipients, so that no bundle can be issued to it: run lever node init there, and then lever node enrol with what it prints",
			},
		},
		{
			path: "../examples/fleet",
			verdicts: []string{
				"fra1-r1-r2-001 | fra1-r1/eth1 fra1-r2/eth1 | inside | every segment is inside physical control: controlled-building at fra1",
				"fra1-fra2-001 | fra1-r1/eth2 fra2-r1/eth2 | inside | every segment is inside physical control: controlled-building at fra1; campus-duct, duct/7, evidence until 2027-03-31; controlled-building at fra2",
				"fra1-fra2-002 | fra1-r2/eth2 fra2-r1/eth3 | encrypt | segment 2 (campus-duct, duct/8): no evidence for duct-intrusion-detection",
				"fra1-r1-r2-002 | fra1-r1/eth3 fra1-r2/eth3 | encrypt | override: encrypt",
				"fra1-ams1-017 | fra1-r1/eth4 ams1-r1/eth9 | encrypt | segment 2 (leased-wave, ExampleTel circuit/991) is outside physical control",
				"fra2-ams1-004 | fra2-r1/eth8 ams1-r1/eth8 | encrypt | no segments listed: unknown means outside physical control",
				"ring-1 | fra1-r2/enp129s0f0np0 ams1-r1/eth6 lon-r1/eth6 | encrypt | segment 2 (carrier-ethernet, ExampleTel evpl/20) is outside physical control",
				"dx-1 | lon-r1/eth1 external | encrypt | segment 1 (third-party-colo at lon-colo) is outside physical control; and 1 more of 2",
				"lon-ams1-002 | lon-r1/eth2 ams1-r1/eth2 | exempt | exempt until 2027-01-01, approved by a.novak and m.okafor: the old transponder drops frames of more than 1500 octets",
			},
			warnings: []string{
				"../examples/fleet/wide-area.yaml:51:7: link lon-ams1-002 is left in the clear until 2027-01-01 by an exemption",
			},
		},
	} {
		t.Run(tc.path, func(t *testing.T) {
			inv, err := inventory.Load(tc.path, inventory.WithNow(day))
			if err != nil {
				t.Fatal(err)
			}
			var verdicts, warnings []string
			for _, l := range inv.Links {
				var ends []string
				for _, e := range l.Ends {
					ends = append(ends, e.String())
				}
				verdicts = append(verdicts, strings.Join([]string{
					l.ID, strings.Join(ends, " "), l.Verdict.Kind.String(), l.Verdict.Reason,
				}, " | "))
			}
			for _, w := range inv.Warnings {
				warnings = append(warnings, w.String())
			}
			if diff := cmp.Diff(tc.verdicts, verdicts); diff != "" {
				t.Errorf("verdicts (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.warnings, warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

// TestForNode looks at the fleet from its nodes.
func TestForNode(t *testing.T) {
	inv, err := inventory.Load("../examples/fleet", inventory.WithNow(day))
	if err != nil {
		t.Fatal(err)
	}
	for node, want := range map[string][]string{
		"fra1-r2": {
			"fra1-r1-r2-001: fra1-r2/eth1 (eth1-sec) to fra1-r1/eth1",
			"fra1-fra2-002: fra1-r2/eth2 (eth2-sec) to fra2-r1/eth3",
			"fra1-r1-r2-002: fra1-r2/eth3 (eth3-sec) to fra1-r1/eth3",
			"ring-1: fra1-r2/enp129s0f0np0 (ring-sec) to ams1-r1/eth6 lon-r1/eth6",
		},
		"lon-r1": {
			"ring-1: lon-r1/eth6 (eth6-sec) to fra1-r2/enp129s0f0np0 ams1-r1/eth6",
			"dx-1: lon-r1/eth1 (eth1-sec) to external",
			"lon-ams1-002: lon-r1/eth2 (eth2-sec) to ams1-r1/eth2",
		},
	} {
		links, err := inv.ForNode(node)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range links {
			line := l.ID + ": " + l.Local.String() + " (" + l.Local.Secure + ") to"
			for _, e := range l.Remote {
				line += " " + e.String()
			}
			got = append(got, line)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", node, diff)
		}
	}
	_, err = inv.ForNode("fra1-r9")
	want := `looking up node "fra1-r9": the inventory (4 files, ../examples/fleet/campus.yaml the first) has no such node (did you mean fra1-r1?)`
	if err == nil || err.Error() != want {
		t.Errorf("ForNode of an unknown node: %v, want %s", err, want)
	}
}

// TestDefaults checks what an inventory that says nothing means.
func TestDefaults(t *testing.T) {
	inv, err := inventory.Parse("lever.yaml", []byte("apiVersion: lever/v1\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := inventory.Policy{
		Mode:     inventory.Enforce,
		Inside:   []inventory.Custody{inventory.ControlledRoom, inventory.ControlledBuilding},
		InsideIf: map[inventory.Custody][]inventory.Control{inventory.CampusDuct: {"locked-duct", "duct-intrusion-detection"}},
		Cipher:   inventory.GCMAESXPN256,
		SAKRekey: time.Hour,
		CAKEpoch: 24 * time.Hour,
		MaxAge:   7 * 24 * time.Hour,
	}
	if diff := cmp.Diff(want, inv.Policy); diff != "" {
		t.Errorf("policy (-want +got):\n%s", diff)
	}
}

// TestLinkFields checks that what an external link says arrives, and the
// defaults of an internal one.
func TestLinkFields(t *testing.T) {
	inv, err := inventory.Parse("lever.yaml", []byte(`apiVersion: lever/v1
policy: {mode: monitor, sak_rekey: 1h30m, cipher: gcm-aes-256}
channels: {a: {type: dir, path: a}, b: {type: dir, path: b}}
sites: {s: {}}
nodes: {n: {site: s}, m: {site: s}}
links:
  - id: dx
    a: {node: n, interface: eth0, addresses: [10.0.0.2/30, "2001:db8::2/64"]}
    z: external
    psk: [{ckn: "61626364", cak_file: /k/old}, {ckn: "00FF", cak_file: /k/new, not_before: 2026-02-03, not_after: 2027-02-03T04:05:06+01:00}]
    cipher: gcm-aes-xpn-128
    mka: {priority: 0, life: 30s, hello: 10.5s, destination: "01:80:C2:00:00:0E", ethertype: 0x876f, icv_indicator: true, replay_window: 7}
  - {id: own, a: n/eth1, z: m/eth1, mka: {delay_protect: true}, allow: [pause, lldp]}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []*inventory.Link{
		{
			ID: "dx", External: true, Cipher: inventory.GCMAESXPN128,
			Ends: []inventory.End{
				{Node: "n", Interface: "eth0", Secure: "eth0-sec", Addresses: []netip.Prefix{
					netip.MustParsePrefix("10.0.0.2/30"), netip.MustParsePrefix("2001:db8::2/64"),
				}},
				{External: true},
			},
			PSK: []inventory.PSK{
				{CKN: []byte("abcd"), CAKFile: "/k/old"},
				{
					CKN: []byte{0, 255}, CAKFile: "/k/new",
					NotBefore: time.Date(2026, 2, 3, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2027, 2, 3, 3, 5, 6, 0, time.UTC),
				},
			},
			MKA: inventory.MKA{
				Priority: 0, Life: 30 * time.Second, Hello: 10500 * time.Millisecond,
				Destination: [6]byte{1, 0x80, 0xc2, 0, 0, 0x0e}, EtherType: 0x876f,
				ICVIndicator: true, ReplayWindow: 7,
			},
		},
		{
			ID: "own", Cipher: inventory.GCMAES256,
			Ends: []inventory.End{
				{Node: "n", Interface: "eth1", Secure: "eth1-sec"}, {Node: "m", Interface: "eth1", Secure: "eth1-sec"},
			},
			MKA: inventory.MKA{
				Priority: 16, Life: 6 * time.Second, Hello: 500 * time.Millisecond,
				Destination: [6]byte{1, 0x80, 0xc2, 0, 0, 3}, EtherType: 0x888e,
				DelayProtect: true, ReplayWindow: 64,
			},
			Allow: []inventory.Protocol{inventory.LLDP, inventory.Pause},
		},
	}
	ignore := []cmp.Option{
		cmpopts.IgnoreTypes(inventory.Position{}, inventory.Verdict{}),
		cmpopts.IgnoreUnexported(inventory.Link{}, inventory.End{}),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
	if diff := cmp.Diff(want, inv.Links, ignore...); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	if inv.Policy.Mode != inventory.Monitor || inv.Policy.SAKRekey != 90*time.Minute {
		t.Errorf("policy %+v", inv.Policy)
	}
}

// TestVerdictOverTime walks through the days on which verdicts change.
func TestVerdictOverTime(t *testing.T) {
	inv, err := inventory.Load("../examples/fleet", inventory.WithNow(day))
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]*inventory.Link{}
	for _, l := range inv.Links {
		byID[l.ID] = l
	}
	for _, tc := range []struct {
		link   string
		at     string
		want   inventory.Kind
		reason string
		next   string // empty for never
	}{
		{"fra1-fra2-001", "2026-06-15T00:00:00Z", inventory.Inside, "", "2027-03-31T00:00:00Z"},
		{"fra1-fra2-001", "2027-03-30T23:59:59Z", inventory.Inside, "", "2027-03-31T00:00:00Z"},
		{"fra1-fra2-001", "2027-03-31T00:00:00Z", inventory.Encrypt,
			"segment 2 (campus-duct, duct/7): evidence for duct-intrusion-detection expired on 2027-03-31", ""},
		{"fra1-fra2-001", "2027-07-01T00:00:00Z", inventory.Encrypt,
			"segment 2 (campus-duct, duct/7): evidence for locked-duct expired on 2027-06-30, evidence for duct-intrusion-detection expired on 2027-03-31", ""},
		{"lon-ams1-002", "2026-12-31T23:59:59Z", inventory.Exempt, "", "2027-01-01T00:00:00Z"},
		{"lon-ams1-002", "2026-12-31T23:00:00-02:00", inventory.Encrypt, "the exemption expired on 2027-01-01", ""},
		{"fra1-r1-r2-001", "2026-06-15T00:00:00Z", inventory.Inside, "", ""},
		{"fra1-fra2-002", "2026-06-15T00:00:00Z", inventory.Encrypt, "", ""},
	} {
		now, err := time.Parse(time.RFC3339, tc.at)
		if err != nil {
			t.Fatal(err)
		}
		l := byID[tc.link]
		v := l.VerdictAt(inv.Policy, now)
		if v.Kind != tc.want || (tc.reason != "" && v.Reason != tc.reason) {
			t.Errorf("%s at %s: %s, %s; want %s, %s", tc.link, tc.at, v.Kind, v.Reason, tc.want, tc.reason)
		}
		next := ""
		if n, ok := l.NextChange(inv.Policy, now); ok {
			next = n.Format(time.RFC3339)
		}
		if next != tc.next {
			t.Errorf("%s at %s: the next change is %q, want %q", tc.link, tc.at, next, tc.next)
		}
	}
	if next, ok := inv.NextChange(day); !ok || !next.Equal(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("the inventory's next change is %v, %v", next, ok)
	}
	if next, ok := inv.NextChange(time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC)); ok {
		t.Errorf("a change after the last date: %v", next)
	}
}

// TestZeroVerdictEncrypts keeps the safe answer the default one.
func TestZeroVerdictEncrypts(t *testing.T) {
	var v inventory.Verdict
	data, err := json.Marshal(v)
	if err != nil || string(data) != `{"verdict":"encrypt","reason":""}` {
		t.Errorf("the zero verdict is %s, %v", data, err)
	}
}

func TestCipher(t *testing.T) {
	for c, want := range map[inventory.Cipher]struct {
		name string
		bits int
		xpn  bool
	}{
		inventory.GCMAES128:    {"gcm-aes-128", 128, false},
		inventory.GCMAES256:    {"gcm-aes-256", 256, false},
		inventory.GCMAESXPN128: {"gcm-aes-xpn-128", 128, true},
		inventory.GCMAESXPN256: {"gcm-aes-xpn-256", 256, true},
	} {
		if c.String() != want.name || c.Bits() != want.bits || c.XPN() != want.xpn {
			t.Errorf("%d: %s, %d bits, XPN %v; want %+v", c, c, c.Bits(), c.XPN(), want)
		}
	}
	if got := inventory.Cipher(200).String(); got != "invalid" {
		t.Errorf("a cipher that does not exist is called %q", got)
	}
}

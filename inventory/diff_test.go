package inventory_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lever-link/lever/inventory"
)

// Public keys of signers.
const (
	signerOne = "H+eIGVSabylGOBdvbreaDGLlpQpHm68DfSPhYWP/9t4="
	signerTwo = "dY3R6R28eP3lPjPdqvcTOkQcUt8MUYkvM3XJvsLUYbc="
)

// running is what the cases of TestDiff change.
const running = `apiVersion: lever/v1
policy: {mode: enforce, sak_rekey: 1h}
channels: {a: {type: dir, path: /k/a}, b: {type: dir, path: /k/b}}
sites: {s: {custody: controlled-building}, u: {custody: controlled-building}}
nodes: {n: {site: s}, m: {site: s}, o: {site: s}}
links:
  - id: wave
    a: {node: n, interface: eth0, addresses: [10.0.0.0/31]}
    z: {node: m, interface: eth0, addresses: [10.0.0.1/31]}
    segments: [{custody: leased-wave, provider: Tel, ref: c1}]
  - id: rack
    a: n/eth1
    z: m/eth1
    segments: [{site: s}]
  - id: duct
    a: n/eth2
    z: m/eth2
    segments: [{custody: campus-duct, ref: d, controls: [
      {control: locked-duct, evidence: T1, expires: 2026-07-01},
      {control: duct-intrusion-detection, evidence: T2, expires: 2026-08-01}]}]
  - id: dx
    a: n/eth3
    z: external
    psk: [{ckn: "6162", cak_file: /k/one}]
    cipher: gcm-aes-256
  - id: old
    a: n/eth4
    z: m/eth4
    override: {action: exempt, approvers: [p, q], reason: r, expires: 2026-09-01}
  - id: lan
    members: [n/eth5, m/eth5, o/eth5]
`

func parse(t *testing.T, text string, now time.Time) *inventory.Inventory {
	t.Helper()
	inv, err := inventory.Parse("lever.yaml", []byte(text), inventory.WithNow(now))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return inv
}

func describe(changes []inventory.Change) (out []string) {
	for _, c := range changes {
		word := func(v *inventory.Verdict) string {
			if v == nil {
				return "-"
			}
			return v.Kind.String()
		}
		out = append(out, strings.TrimSpace(c.Link+" "+word(c.Before)+">"+word(c.After)+" "+strings.Join(c.Fields, ",")))
		for _, e := range c.Ends {
			out = append(out, "  "+e.Node+": "+e.Words())
		}
	}
	return out
}

// channelChanged is what comes of another channel: keys from it, and no loss.
func channelChanged(field string) []string {
	const resumes = ": session resumes, no loss"
	return []string{
		"wave encrypt>encrypt " + field, "  n" + resumes, "  m" + resumes,
		"lan encrypt>encrypt " + field, "  n" + resumes, "  m" + resumes, "  o" + resumes,
	}
}

// TestDiffOfChannels changes one thing at a time of those that a channel has.
func TestDiffOfChannels(t *testing.T) {
	with := func(a, b string) string {
		return strings.Replace(running, "channels: {a: {type: dir, path: /k/a}, b: {type: dir, path: /k/b}}", "channels: {a: "+a+", b: "+b+"}", 1)
	}
	const a = "{type: bundle, path: /k/a, signers: [" + signerOne + "]}"
	const b = "{type: etcd, endpoints: ['https://e:2379'], ca: /t/ca, certificate: /t/c, key: /t/k}"
	before := parse(t, with(a, b), day)
	for name, tc := range map[string]struct {
		a, b string
		want []string
	}{
		"nothing":   {a, "{type: etcd, prefix: lever, key: /t/k, certificate: /t/c, ca: /t/ca, endpoints: ['https://E:2379/']}", nil},
		"signers":   {"{type: bundle, path: /k/a, signers: [" + signerTwo + "]}", b, channelChanged("channels.a")},
		"threshold": {"{type: bundle, path: /k/a, signers: [" + signerOne + "], threshold: 1}", b, nil},
		"place":     {"{type: bundle, url: 'https://h/k', signers: [" + signerOne + "]}", b, channelChanged("channels.a")},
		"endpoints": {a, "{type: etcd, endpoints: ['https://e:2379', 'https://f:2379'], ca: /t/ca, certificate: /t/c, key: /t/k}", channelChanged("channels.b")},
		"prefix":    {a, "{type: etcd, prefix: other, endpoints: ['https://e:2379'], ca: /t/ca, certificate: /t/c, key: /t/k}", channelChanged("channels.b")},
		"ca":        {a, "{type: etcd, endpoints: ['https://e:2379'], ca: /t/ca2, certificate: /t/c, key: /t/k}", channelChanged("channels.b")},
		"key":       {a, "{type: etcd, endpoints: ['https://e:2379'], ca: /t/ca, certificate: /t/c, key: /t/k2}", channelChanged("channels.b")},
	} {
		after := parse(t, with(tc.a, tc.b), day)
		if diff := cmp.Diff(tc.want, describe(inventory.Diff(before, after))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if got, want := before.Channels.Equal(after.Channels), tc.want == nil; got != want {
			t.Errorf("%s: the channels are equal: %v, want %v", name, got, want)
		}
	}
}

// TestDiff changes one thing at a time.
func TestDiff(t *testing.T) {
	for name, tc := range map[string]struct {
		change []string // old, new, old, new
		want   []string
	}{
		"nothing": {nil, nil},
		"a channel's type": {
			[]string{"b: {type: dir, path: /k/b}", "b: {type: etcd, endpoints: ['https://e:2379'], ca: /t/ca, certificate: /t/c, key: /t/k}"},
			channelChanged("channels.b"),
		},
		"how long keys are used": {
			[]string{"sak_rekey: 1h}", "sak_rekey: 1h, cak_epoch: 1h, max_age: 5h, max_age_override: {file: f, signers: [" + signerOne + ", " + signerTwo + "]}}"},
			[]string{
				"wave encrypt>encrypt policy.cak_epoch,policy.max_age,policy.max_age_override", "  n: the session goes on", "  m: the session goes on",
				"lan encrypt>encrypt policy.cak_epoch,policy.max_age,policy.max_age_override", "  n: the session goes on", "  m: the session goes on", "  o: the session goes on",
			},
		},
		"where it stands in the file": {[]string{"links:\n", "links:\n\n  # a comment\n", "policy: {mode: enforce, sak_rekey: 1h}", "policy: {sak_rekey: 60m}"}, nil},
		"what a segment is called": {
			[]string{"ref: c1", "ref: c2"},
			[]string{"wave encrypt>encrypt segments", "  n: the session goes on", "  m: the session goes on"},
		},
		"an address of one end": {
			[]string{"10.0.0.0/31", "10.0.0.0/31, 10.0.1.0/31"},
			[]string{"wave encrypt>encrypt n.addresses", "  n: the session goes on", "  m: the session goes on"},
		},
		"the ends the other way round": {
			[]string{"a: n/eth1", "a: m/eth1", "z: m/eth1", "z: n/eth1"}, nil,
		},
		"another cipher": {
			[]string{"ref: c1}]", "ref: c1}]\n    cipher: gcm-aes-256"},
			[]string{"wave encrypt>encrypt cipher", "  n: device made anew: a moment without traffic", "  m: device made anew: a moment without traffic"},
		},
		"another cipher for all": {
			[]string{"sak_rekey: 1h", "cipher: gcm-aes-256"},
			[]string{
				"wave encrypt>encrypt cipher,policy.cipher", "  n: device made anew: a moment without traffic", "  m: device made anew: a moment without traffic",
				"rack inside>inside cipher", "  n: left alone", "  m: left alone",
				"duct inside>inside cipher", "  n: left alone", "  m: left alone",
				"dx encrypt>encrypt policy.cipher", "  n: the session goes on",
				"old exempt>exempt cipher", "  n: left alone", "  m: left alone",
				"lan encrypt>encrypt cipher,policy.cipher",
				"  n: device made anew: a moment without traffic", "  m: device made anew: a moment without traffic", "  o: device made anew: a moment without traffic",
			},
		},
		"sak_rekey": {
			[]string{"sak_rekey: 1h", "sak_rekey: 2h"},
			[]string{
				"wave encrypt>encrypt policy.sak_rekey", "  n: session resumes, no loss", "  m: session resumes, no loss",
				"dx encrypt>encrypt policy.sak_rekey", "  n: session resumes, no loss",
				"lan encrypt>encrypt policy.sak_rekey", "  n: session resumes, no loss", "  m: session resumes, no loss", "  o: session resumes, no loss",
			},
		},
		"monitor": {
			[]string{"mode: enforce", "mode: monitor"},
			[]string{
				"wave encrypt>encrypt policy.mode", "  n: the session goes on; fence opened: plain frames may pass", "  m: the session goes on; fence opened: plain frames may pass",
				"dx encrypt>encrypt policy.mode", "  n: the session goes on; fence opened: plain frames may pass",
				"lan encrypt>encrypt policy.mode", "  n: the session goes on; fence opened: plain frames may pass",
				"  m: the session goes on; fence opened: plain frames may pass", "  o: the session goes on; fence opened: plain frames may pass",
			},
		},
		"a channel": {
			[]string{"path: /k/b", "path: /k/c"},
			[]string{
				"wave encrypt>encrypt channels.b", "  n: session resumes, no loss", "  m: session resumes, no loss",
				"lan encrypt>encrypt channels.b", "  n: session resumes, no loss", "  m: session resumes, no loss", "  o: session resumes, no loss",
			},
		},
		"MKA and a static key": {
			[]string{"cak_file: /k/one}]", "cak_file: /k/one}, {ckn: \"6163\", cak_file: /k/two}]\n    mka: {priority: 3, replay_window: 9}"},
			[]string{"dx encrypt>encrypt mka.priority,mka.replay_window,psk", "  n: session resumes, no loss"},
		},
		"another EtherType": {
			[]string{"cak_file: /k/one}]", "cak_file: /k/one}]\n    mka: {ethertype: 0x876f}"},
			[]string{"dx encrypt>encrypt mka.ethertype", "  n: session resumes, no loss; fence changed"},
		},
		"another name of the device": {
			[]string{"interface: eth0, addresses: [10.0.0.0/31]", "interface: eth0, secure: sec0, addresses: [10.0.0.0/31]"},
			[]string{"wave encrypt>encrypt n.secure", "  n: device made anew: a moment without traffic", "  m: the session goes on"},
		},
		"another interface": {
			[]string{"interface: eth0, addresses: [10.0.0.0/31]", "interface: eth9, addresses: [10.0.0.0/31]"},
			[]string{
				"wave encrypt>encrypt n.interface,n.secure",
				"  n: keys and device removed at eth0; encrypted at eth9: traffic waits for the first key; fence on eth0 stays until lever down",
				"  m: the session goes on",
			},
		},
		"two links change places": {
			[]string{"interface: eth0, addresses: [10.0.0.0/31]", "interface: eth5, addresses: [10.0.0.0/31]", "[n/eth5", "[n/eth0"},
			[]string{
				"wave encrypt>encrypt n.interface,n.secure",
				"  n: keys and device removed at eth0; encrypted at eth5: traffic waits for the first key; eth0 is now of link lan",
				"  m: the session goes on",
				"lan encrypt>encrypt n.interface,n.secure",
				"  n: keys and device removed at eth5; encrypted at eth0: traffic waits for the first key; eth5 is now of link wave",
				"  m: the session goes on", "  o: the session goes on",
			},
		},
		"removed, and another added": {
			[]string{"  - id: lan\n    members: [n/eth5, m/eth5, o/eth5]\n", "  - {id: more, a: n/eth6, z: m/eth6}\n"},
			[]string{
				"more ->encrypt", "  n: encrypted: traffic waits for the first key; fence closed", "  m: encrypted: traffic waits for the first key; fence closed",
				"lan encrypt>-",
				"  n: keys and device removed; fence on eth5 stays until lever down", "  m: keys and device removed; fence on eth5 stays until lever down",
				"  o: keys and device removed; fence on eth5 stays until lever down",
			},
		},
		"removed in favour of another": {
			[]string{"id: lan", "id: lan2"},
			[]string{
				"lan2 ->encrypt", "  n: encrypted: traffic waits for the first key; fence closed", "  m: encrypted: traffic waits for the first key; fence closed", "  o: encrypted: traffic waits for the first key; fence closed",
				"lan encrypt>-", "  n: keys and device removed; eth5 is now of link lan2", "  m: keys and device removed; eth5 is now of link lan2", "  o: keys and device removed; eth5 is now of link lan2",
			},
		},
		"removed in favour of one that is left alone": {
			[]string{"- id: lan\n    members: [n/eth5, m/eth5, o/eth5]", "- id: lan2\n    members: [n/eth5, m/eth5, o/eth5]\n    segments: [{site: s}]"},
			[]string{
				"lan2 ->inside", "  n: left alone", "  m: left alone", "  o: left alone",
				"lan encrypt>-",
				"  n: keys and device removed; fence on eth5 opened: plain frames may pass; eth5 is now of link lan2",
				"  m: keys and device removed; fence on eth5 opened: plain frames may pass; eth5 is now of link lan2",
				"  o: keys and device removed; fence on eth5 opened: plain frames may pass; eth5 is now of link lan2",
			},
		},
		"a member leaves": {
			[]string{", o/eth5]", "]"},
			[]string{
				"lan encrypt>encrypt o", "  n: device made anew: a moment without traffic", "  m: device made anew: a moment without traffic",
				"  o: keys and device removed; fence on eth5 stays until lever down",
			},
		},
		"encrypt becomes inside": {
			[]string{"{custody: leased-wave, provider: Tel, ref: c1}", "{site: s}"},
			[]string{
				"wave encrypt>inside segments,verdict", "  n: keys and device removed; fence opened: plain frames may pass", "  m: keys and device removed; fence opened: plain frames may pass",
			},
		},
		"inside becomes encrypt": {
			[]string{"[{site: s}]", "[{site: s}, {custody: leased-wave, provider: Tel}]"},
			[]string{"rack inside>encrypt segments,verdict", "  n: encrypted: traffic waits for the first key; fence closed", "  m: encrypted: traffic waits for the first key; fence closed"},
		},
		"the policy of custody": {
			[]string{"mode: enforce", "inside: [controlled-room]"},
			[]string{"rack inside>encrypt verdict", "  n: encrypted: traffic waits for the first key; fence closed", "  m: encrypted: traffic waits for the first key; fence closed"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			was := parse(t, running, day)
			if !strings.Contains(running, strings.Join(tc.change[:min(1, len(tc.change))], "")) {
				t.Fatal("the change is none")
			}
			is := parse(t, strings.NewReplacer(tc.change...).Replace(running), day)
			if diff := cmp.Diff(tc.want, describe(inventory.Diff(was, is))); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			if again := inventory.Diff(is, is); len(again) != 0 {
				t.Errorf("against itself: %v", describe(again))
			}
		})
	}
}

// TestDiffOverTime lets evidence and an exemption expire.
func TestDiffOverTime(t *testing.T) {
	inv := parse(t, running, day)
	for _, tc := range []struct {
		at   string
		want []string
	}{
		{"2026-06-30", nil},
		{"2026-07-01", []string{"duct inside>encrypt verdict", "  n: encrypted: traffic waits for the first key; fence closed", "  m: encrypted: traffic waits for the first key; fence closed"}},
		{"2026-09-01", []string{
			"duct inside>encrypt verdict", "  n: encrypted: traffic waits for the first key; fence closed", "  m: encrypted: traffic waits for the first key; fence closed",
			"old exempt>encrypt verdict", "  n: encrypted: traffic waits for the first key; fence closed", "  m: encrypted: traffic waits for the first key; fence closed",
		}},
	} {
		at, err := time.Parse(time.DateOnly, tc.at)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.want, describe(inventory.Diff(inv, inv.At(at)))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.at, diff)
		}
	}
	if links, err := inv.At(day.AddDate(1, 0, 0)).ForNode("n"); err != nil || links[2].Verdict.Kind != inventory.Encrypt || inv.Links[2].Verdict.Kind != inventory.Inside {
		t.Errorf("a year later: %+v, %v", links[2].Verdict, err)
	}
}

func TestExpiring(t *testing.T) {
	inv := parse(t, running, day)
	for _, tc := range []struct {
		after time.Duration
		want  string
	}{
		{0, "duct T1"},
		{-15 * 24 * time.Hour, ""},
		{15 * 24 * time.Hour, "duct T1"},
		{16 * 24 * time.Hour, ""}, // not inside any more
	} {
		var got []string
		for _, l := range inv.Links {
			for _, e := range l.Expiring(inv.Policy, day.Add(tc.after), 30*24*time.Hour) {
				got = append(got, l.ID+" "+e.Evidence)
			}
		}
		if s := strings.Join(got, ", "); s != tc.want {
			t.Errorf("after %v: %q, want %q", tc.after, s, tc.want)
		}
	}
	var both []string
	for _, e := range inv.Links[2].Expiring(inv.Policy, day, 60*24*time.Hour) {
		both = append(both, e.Evidence)
	}
	if want := []string{"T1", "T2"}; !reflect.DeepEqual(both, want) {
		t.Errorf("within 60 days %v, want %v", both, want)
	}
}

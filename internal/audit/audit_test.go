//go:build !kernel

package audit_test

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/audit"
	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
)

const text = `apiVersion: lever/v1
policy: {mode: MODE}
channels:
  a: {type: dir, path: keys/a}
  b: {type: dir, path: keys/b}
sites:
  s1: {custody: controlled-building}
nodes:
  r1: {site: s1}
  r2: {site: s1}
links:
  - id: l1
    a: r1/eth4
    z: r2/eth9
    segments: [{custody: leased-wave}]
  - id: l2
    a: r1/eth5
    z: r2/eth8
    segments: [{site: s1}]
  - id: l3
    a: r1/eth6
    z: r2/eth7
    segments: [{site: s1}]
    override: {action: exempt, approvers: [ann, bob], reason: the optical layer encrypts, expires: 2030-05-01}
`

var now = time.Date(2029, 1, 2, 3, 4, 5, 0, time.UTC)

func load(t *testing.T, mode string) *inventory.Inventory {
	t.Helper()
	file := filepath.Join(t.TempDir(), "net.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(text, "MODE", mode, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	inv, err := inventory.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// host is a node in memory: eth4 and its device, as an agent leaves them.
type host struct {
	t          *testing.T
	kernel     *macsectest.Kernel
	interfaces []audit.Interface // but for the MACsec devices
	fence      fence.State
	allow      fence.Protocols
	tcx        int
	addresses  []netip.Prefix
	fails      map[string]error
	mode       string
	keys       byte // made so far
}

var (
	sci  = macsec.NewSCI(net.HardwareAddr{2, 0, 0, 0, 0, 1}, 1)
	peer = macsec.NewSCI(net.HardwareAddr{2, 0, 0, 0, 0, 2}, 1)
)

func newHost(t *testing.T) *host {
	h := &host{t: t, kernel: macsectest.New(), fails: map[string]error{}, mode: "enforce"}
	parent := h.kernel.AddInterface("eth4", net.HardwareAddr{2, 0, 0, 0, 0, 1}, 1500)
	h.kernel.AddInterface("eth0", net.HardwareAddr{2, 0, 0, 0, 0, 9}, 1500)
	h.interfaces = []audit.Interface{
		{Index: parent, Name: "eth4", Kind: "device", Up: true, Running: true},
		{Index: parent + 1, Name: "eth0", Kind: "device", Up: true, Running: true},
	}
	h.fence = fence.State{Closed: true, DroppedEgress: fence.Counter{Frames: 3, Octets: 180}}
	h.secure("eth4-sec", parent, func(*macsec.DeviceConfig) {})
	return h
}

// secure makes a device that carries traffic.
func (h *host) secure(name string, parent int, change func(*macsec.DeviceConfig)) {
	h.t.Helper()
	cfg := macsec.Closed(sci, macsec.GCMAESXPN256)
	cfg.ReplayProtect, cfg.ReplayWindow = true, 64
	change(&cfg)
	d, err := h.kernel.CreateDevice(parent, name, cfg)
	h.must(err)
	h.keys++
	salt, key := macsec.Salt{1}, macsec.KeyID{0: 0xc0, 15: h.keys}
	octets := func() macsec.Key { return macsec.NewKey(make([]byte, cfg.CipherSuite.KeyLen())) }
	sa := func(ssci macsec.SSCI) macsec.SA {
		return macsec.SA{AN: 1, Active: true, NextPN: 1, KeyID: key, Key: octets(), SSCI: ssci, Salt: salt}
	}
	h.must(h.kernel.AddRxSC(d.Index, peer, true))
	h.must(h.kernel.AddRxSA(d.Index, peer, sa(2)))
	h.must(h.kernel.AddTxSA(d.Index, sa(1)))
	h.must(h.kernel.UpdateDevice(d.Index, macsec.DeviceUpdate{EncodingAN: new(macsec.AN(1)), Up: new(true)}))
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) device() int {
	h.t.Helper()
	d, err := h.kernel.Device("eth4-sec")
	h.must(err)
	return d.Index
}

func (h *host) update(u macsec.DeviceUpdate) {
	h.t.Helper()
	h.must(h.kernel.UpdateDevice(h.device(), u))
}

// remake replaces the device by one that is made another way.
func (h *host) remake(change func(*macsec.DeviceConfig)) {
	h.t.Helper()
	h.must(h.kernel.DeleteDevice(h.device()))
	h.secure("eth4-sec", h.interfaces[0].Index, change)
}

func (h *host) add(x audit.Interface) {
	x.Index = 100 + len(h.interfaces)
	h.interfaces = append(h.interfaces, x)
}

// Interfaces implements audit.Host.
func (h *host) Interfaces() ([]audit.Interface, error) {
	all := slices.Clone(h.interfaces)
	devices, err := h.kernel.Devices()
	h.must(err)
	for _, d := range devices {
		all = append(all, audit.Interface{Index: d.Index, Name: d.Name, Kind: "macsec", Up: d.Up, Lower: d.Parent})
	}
	return all, h.fails["interfaces"]
}

// SecYs implements audit.Host.
func (h *host) SecYs() ([]macsec.SecY, error) {
	if err := h.fails["secys"]; err != nil {
		return nil, err
	}
	return h.kernel.SecYs()
}

// Fence implements audit.Host.
func (h *host) Fence(index int, o fence.Options) (fence.State, error) {
	if want := (fence.Options{EtherType: 0x888e, Allow: h.allow}); index != h.interfaces[0].Index || o != want {
		h.t.Errorf("asked for the fence %+v of interface %d, want %+v", o, index, want)
	}
	return h.fence, h.fails["fence"]
}

// TCX implements audit.Host.
func (h *host) TCX(int) (int, error) { return h.tcx, h.fails["tcx"] }

// Addresses implements audit.Host.
func (h *host) Addresses(int) ([]netip.Prefix, error) { return h.addresses, h.fails["addresses"] }

var _ audit.Host = (*host)(nil)

type wrongThing struct {
	name   string
	wrong  func(*host)
	check  string
	result audit.Result
	says   []string
}

// each is everything that can be wrong, one by one: the check that must say so,
// and with which result. All others must not.
var each = []wrongThing{
	{"mode monitor", func(h *host) { h.mode = "monitor" }, audit.CheckMode, audit.Fail, []string{"mode monitor"}},
	{"parent is a bridge port", func(h *host) {
		h.add(audit.Interface{Name: "br0", Kind: "bridge"})
		h.interfaces[0].Master = h.interfaces[2].Index
	}, audit.CheckParent, audit.Fail, []string{"a port of br0", "eth4-sec"}},
	{"parent is a bridge", func(h *host) {
		h.add(audit.Interface{Name: "eth7", Kind: "device", Master: h.interfaces[0].Index})
	}, audit.CheckParent, audit.Fail, []string{"ports of its own", "eth7"}},
	{"parent is down", func(h *host) { h.interfaces[0].Up, h.interfaces[0].Running = false, false }, audit.CheckParent, audit.Warn, []string{"down"}},
	{"no carrier", func(h *host) { h.interfaces[0].Running = false }, audit.CheckParent, audit.Warn, []string{"no carrier"}},
	{"XDP program", func(h *host) { h.interfaces[0].XDP = true }, audit.CheckXDP, audit.Fail, []string{"before the fence", "xdp off"}},
	{"program of tcx", func(h *host) { h.tcx = 1 }, audit.CheckTCX, audit.Fail, []string{"attached by tcx", "before the fence: 1"}},
	{"programs of tcx cannot be seen", func(h *host) { h.fails["tcx"] = errors.New("not permitted") }, audit.CheckTCX, audit.Unknown, []string{"not permitted", "CAP_NET_ADMIN"}},
	{"fence gone", func(h *host) {
		h.fence = fence.State{Findings: []fence.Finding{{Direction: fence.Egress, Problem: fence.Missing, Priority: 5, Text: "drop all else"}}}
	}, audit.CheckFence, audit.Fail, []string{"egress priority 5: missing: drop all else", "lever agent"}},
	{"fence open without a finding", func(h *host) { h.fence.Closed = false }, audit.CheckFence, audit.Fail, []string{"open"}},
	{"fence altered", func(h *host) {
		h.fence.Closed = false
		h.fence.Findings = []fence.Finding{{Direction: fence.Ingress, Problem: fence.Altered, Priority: 4, Text: "pass all"}}
	}, audit.CheckFence, audit.Fail, []string{"altered"}},
	{"fence weak", func(h *host) {
		h.fence.Findings = []fence.Finding{{Direction: fence.Egress, Problem: fence.Weak, Priority: 3, Text: "no cls_bpf"}}
	}, audit.CheckFence, audit.Warn, []string{"no cls_bpf", "EtherTypes alone"}},
	{"fence with a filter too many", func(h *host) {
		h.fence.Findings = []fence.Finding{{Direction: fence.Egress, Problem: fence.Altered, Priority: 4, Text: "is one too many"}}
	}, audit.CheckFence, audit.Warn, []string{"not as the agent leaves it", "one too many", "run lever agent"}},
	{"fence unreadable", func(h *host) { h.fails["fence"] = errors.New("no answer") }, audit.CheckFence, audit.Unknown, []string{"no answer"}},
	{"foreign filter", func(h *host) {
		h.fence.Findings = []fence.Finding{{Direction: fence.Ingress, Problem: fence.Foreign, Priority: 1, Text: "flower, gact pass"}}
	}, audit.CheckForeignFilter, audit.Fail, []string{"flower", "tc filter show dev eth4"}},
	{"device gone", func(h *host) { h.must(h.kernel.DeleteDevice(h.device())) }, audit.CheckDevice, audit.Fail, []string{"there is no eth4-sec"}},
	{"device of another kind", func(h *host) {
		h.must(h.kernel.DeleteDevice(h.device()))
		h.add(audit.Interface{Name: "eth4-sec", Kind: "dummy"})
	}, audit.CheckDevice, audit.Fail, []string{"no MACsec device"}},
	{"device on another interface", func(h *host) {
		h.must(h.kernel.DeleteDevice(h.device()))
		h.secure("eth4-sec", h.interfaces[1].Index, func(*macsec.DeviceConfig) {})
	}, audit.CheckDevice, audit.Fail, []string{"sits on eth0, not on eth4"}},
	{"device down", func(h *host) { h.update(macsec.DeviceUpdate{Up: new(false)}) }, audit.CheckDevice, audit.Warn, []string{"down"}},
	{"kernel without MACsec", func(h *host) { h.fails["secys"] = macsec.ErrUnsupported }, audit.CheckDevice, audit.Fail, []string{"no MACsec", "modprobe"}},
	{"kernel that does not answer", func(h *host) { h.fails["secys"] = errors.New("no buffer space") }, audit.CheckDevice, audit.Unknown, []string{"no buffer space"}},
	{"weaker cipher", func(h *host) {
		h.remake(func(c *macsec.DeviceConfig) { c.CipherSuite = macsec.GCMAES128 })
	}, audit.CheckCipher, audit.Fail, []string{"GCM-AES-128", "GCM-AES-XPN-256"}},
	{"encrypt off", func(h *host) { h.update(macsec.DeviceUpdate{Encrypt: new(false)}) }, audit.CheckEncrypt, audit.Fail, []string{"encrypt off", "can read"}},
	{"protect off", func(h *host) { h.update(macsec.DeviceUpdate{Protect: new(false)}) }, audit.CheckProtect, audit.Fail, []string{"protect off"}},
	{"validate disabled", func(h *host) { h.update(macsec.DeviceUpdate{Validate: new(macsec.Disabled)}) }, audit.CheckValidate, audit.Fail, []string{"validate disabled"}},
	{"validate check", func(h *host) { h.update(macsec.DeviceUpdate{Validate: new(macsec.Check)}) }, audit.CheckValidate, audit.Fail, []string{"validate check"}},
	{"replay protection off", func(h *host) { h.update(macsec.DeviceUpdate{ReplayProtect: new(false)}) }, audit.CheckReplay, audit.Warn, []string{"off"}},
	{"replay window too wide", func(h *host) {
		h.update(macsec.DeviceUpdate{ReplayProtect: new(true), ReplayWindow: new(uint32(65))})
	}, audit.CheckReplay, audit.Warn, []string{"65"}},
	{"end station", func(h *host) {
		h.update(macsec.DeviceUpdate{IncludeSCI: new(false), EndStation: new(true)})
	}, audit.CheckSCI, audit.Warn, []string{"end station on"}},
	{"no transmit SA", func(h *host) {
		h.must(h.kernel.UpdateTxSA(h.device(), 1, macsec.SAUpdate{Active: new(false)}))
	}, audit.CheckTransmitSA, audit.Warn, []string{"no transmit SA"}},
	{"encoding another SA", func(h *host) { h.update(macsec.DeviceUpdate{EncodingAN: new(macsec.AN(3))}) }, audit.CheckTransmitSA, audit.Warn, []string{"AN 3", "AN 1"}},
	{"no receive SA", func(h *host) { h.must(h.kernel.DeleteRxSC(h.device(), peer)) }, audit.CheckReceiveSA, audit.Warn, []string{"no receive SC"}},
	{"receive SA inactive", func(h *host) {
		h.must(h.kernel.UpdateRxSA(h.device(), peer, 1, macsec.SAUpdate{Active: new(false)}))
	}, audit.CheckReceiveSA, audit.Warn, []string{"no active SA"}},
	{"second MACsec device", func(h *host) {
		_, err := h.kernel.CreateDevice(h.interfaces[0].Index, "evil0", macsec.DeviceConfig{SCI: macsec.NewSCI(net.HardwareAddr{2, 0, 0, 0, 0, 1}, 2), IncludeSCI: true})
		h.must(err)
	}, audit.CheckForeignMACsec, audit.Fail, []string{"evil0", "encrypt off"}},
	{"VLAN on the parent", func(h *host) {
		h.add(audit.Interface{Name: "eth4.7", Kind: "vlan", Lower: h.interfaces[0].Index})
	}, audit.CheckStacked, audit.Warn, []string{"eth4.7 (vlan)"}},
	{"address on the parent", func(h *host) {
		h.addresses = append(h.addresses, netip.MustParsePrefix("10.0.17.1/24"))
	}, audit.CheckAddresses, audit.Warn, []string{"10.0.17.1/24", "eth4-sec"}},
	{"addresses unreadable", func(h *host) { h.fails["addresses"] = errors.New("no answer") }, audit.CheckAddresses, audit.Unknown, []string{"no answer"}},
	{"parent gone", func(h *host) {
		h.kernel.RemoveInterface(h.interfaces[0].Index)
		h.interfaces = h.interfaces[1:]
	}, audit.CheckParent, audit.Fail, []string{"no interface eth4"}},
}

func TestEachThingThatIsWrong(t *testing.T) {
	for _, tt := range each {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			tt.wrong(h)
			report, err := audit.Node(load(t, h.mode), "r1", h, now)
			if err != nil {
				t.Fatal(err)
			}
			l := report.Links[0]
			if report.Result != tt.result || l.Result != tt.result {
				t.Errorf("the node is %s, the link %s, want %s", report.Result, l.Result, tt.result)
			}
			for _, c := range l.Checks {
				switch {
				case c.Name != tt.check && c.Result != audit.Pass:
					t.Errorf("%s says %s too: %s", c.Name, c.Result, c.Found)
				case c.Name != tt.check:
				case c.Result != tt.result || c.Next == "":
					t.Errorf("%s: %s: %s; next: %q", c.Name, c.Result, c.Found, c.Next)
				default:
					for _, s := range tt.says {
						if !strings.Contains(c.Found+" | "+c.Next, s) {
							t.Errorf("%s does not say %q: %s; next: %s", c.Name, s, c.Found, c.Next)
						}
					}
				}
			}
			if !slices.ContainsFunc(l.Checks, func(c audit.Check) bool { return c.Name == tt.check }) {
				t.Errorf("no check %s in %v", tt.check, l.Checks)
			}
		})
	}
}

// A link that is as it should be passes each check there is, and those that are
// left alone have none.
func TestASecuredLinkPasses(t *testing.T) {
	h := newHost(t)
	// None of these can let a frame out.
	h.add(audit.Interface{Name: "veth0", Kind: "veth", Lower: h.interfaces[0].Index})
	h.addresses = []netip.Prefix{netip.MustParsePrefix("fe80::1/64")}
	report, err := audit.Node(load(t, "enforce"), "r1", h, now)
	if err != nil {
		t.Fatal(err)
	}
	if report.Result != audit.Pass || report.Node != "r1" || !report.At.Equal(now) || len(report.Links) != 3 {
		t.Errorf("%+v", report)
	}
	var names []string
	for _, c := range report.Links[0].Checks {
		names = append(names, c.Name)
		if c.Result != audit.Pass || c.Found == "" || c.Next != "" {
			t.Errorf("%+v", c)
		}
	}
	want := []string{
		"mode", "parent", "xdp", "tcx", "fence", "foreign-filter", "device", "cipher", "encrypt", "protect", "validate", "replay", "sci",
		"transmit-sa", "receive-sa", "foreign-macsec", "stacked", "addresses",
	}
	if !slices.Equal(names, want) {
		t.Errorf("the checks are %q, want %q", names, want)
	}
	for _, c := range each {
		if !slices.Contains(want, c.check) {
			t.Errorf("%s is no check of a link that passes", c.check)
		}
	}
	for _, w := range want {
		if !slices.ContainsFunc(each, func(x wrongThing) bool { return x.check == w }) {
			t.Errorf("nothing shows that the check %s can fail", w)
		}
	}
	for i, kind := range []inventory.Kind{inventory.Inside, inventory.Exempt} {
		if l := report.Links[i+1]; l.Kind != kind || l.Result != audit.LeftAlone || len(l.Checks) != 0 || l.SecureInterface != "" || l.Reason == "" {
			t.Errorf("%+v", l)
		}
	}
	found := map[string]string{}
	for _, c := range report.Links[0].Checks {
		found[c.Name] = c.Found
	}
	for name, says := range map[string]string{
		audit.CheckFence:      "3 frames (180 octets) out, 0 (0) in",
		audit.CheckTransmitSA: "AN 1 encodes; active: AN 1, key c0000000000000000000000000000001, next packet number 1",
		audit.CheckReceiveSA:  "from 0200000000020001 with AN 1 key c0000000000000000000000000000001",
		audit.CheckDevice:     "eth4-sec, SCI 0200000000010001, sits on eth4 and is up",
	} {
		if !strings.Contains(found[name], says) {
			t.Errorf("%s: %s does not say %s", name, found[name], says)
		}
	}
}

// What the agent secures is not called wrong: an interface that is in a VRF, and one that
// the inventory calls by another of its names.
func TestParentsThatTheAgentTakes(t *testing.T) {
	for name, change := range map[string]func(*host){
		"in a VRF": func(h *host) {
			h.add(audit.Interface{Name: "blue", Kind: "vrf", Up: true})
			h.interfaces[0].Master = h.interfaces[2].Index
		},
		"by another name": func(h *host) { h.interfaces[0].Name, h.interfaces[0].Others = "enp4s0", []string{"eth4"} },
	} {
		h := newHost(t)
		change(h)
		report, err := audit.Node(load(t, "enforce"), "r1", h, now)
		if err != nil {
			t.Fatal(err)
		}
		if report.Result != audit.Pass {
			t.Errorf("%s: %+v", name, report.Links[0].With(report.Result))
		}
	}
}

// What the inventory allows in plain is no leak, and is said.
func TestAllowedProtocols(t *testing.T) {
	h := newHost(t)
	inv := load(t, "enforce")
	inv.Links[0].Allow = []inventory.Protocol{inventory.LLDP, inventory.LACP, inventory.Pause}
	h.allow = fence.LLDP | fence.LACP | fence.Pause
	report, err := audit.Node(inv, "r1", h, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Links[0].Checks {
		if c.Name == audit.CheckFence && (c.Result != audit.Pass || !strings.Contains(c.Found, "by the inventory's word lldp, lacp, pause in plain")) {
			t.Errorf("%+v", c)
		}
	}
}

// The verdict is that of the day of the audit, whatever it was on loading.
func TestAnExemptionThatHasExpired(t *testing.T) {
	report, err := audit.Node(load(t, "enforce"), "r1", newHost(t), time.Date(2030, 5, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	if l := report.Links[2]; l.Kind != inventory.Encrypt || l.Result != audit.Fail || report.Result != audit.Fail || len(l.With(audit.Fail)) != 1 {
		t.Errorf("%+v", l)
	}
}

func TestWhatCannotBeAudited(t *testing.T) {
	if _, err := audit.Node(load(t, "enforce"), "r9", newHost(t), now); err == nil || !strings.Contains(err.Error(), "r9") {
		t.Errorf("a node that is not there: %v", err)
	}
	h := newHost(t)
	h.fails["interfaces"] = errors.New("no answer")
	if _, err := audit.Node(load(t, "enforce"), "r1", h, now); err == nil || !strings.Contains(err.Error(), "list the interfaces: no answer") {
		t.Errorf("no interfaces: %v", err)
	}
}

// The names in JSON are an interface.
func TestReportFieldNames(t *testing.T) {
	report, err := audit.Node(load(t, "monitor"), "r1", newHost(t), now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`{"node":"r1","at":"2029-01-02T03:04:05Z","result":"fail","links":[{"id":"l1","interface":"eth4","secure_interface":"eth4-sec","verdict":"encrypt","reason":"`,
		`"result":"fail","checks":[{"check":"mode","result":"fail","found":"the inventory's policy says mode monitor","next":"set policy mode enforce`,
		`{"id":"l2","interface":"eth5","verdict":"inside","reason":"`,
		`"result":"left-alone","checks":[]}`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in\n%s", want, b)
		}
	}
}

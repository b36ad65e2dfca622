//go:build kernel

package main

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/internal/audit"
	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/macsec"
)

// An auditor runs lever audit on a router as a user who may nothing.
type auditor struct {
	*site
	binary string
	dir    string
}

const nobody = 65534

func newAuditor(s *site) *auditor {
	s.Helper()
	dir, err := os.MkdirTemp("", "audit-")
	s.must(err)
	s.Cleanup(func() { s.mustNot(os.RemoveAll(dir)) })
	s.must(os.Chmod(dir, 0o755))
	a := &auditor{site: s, binary: filepath.Join(dir, "lever"), dir: dir}
	program, err := leverFile()
	s.must(err)
	s.must(lab.CopyExecutable(a.binary, program))
	s.must(os.Chmod(a.binary, 0o755))
	return a
}

// audit expects an exit status and returns the link's evidence.
func (a *auditor) audit(i int, policy string, status int) []audit.Check {
	a.Helper()
	file := filepath.Join(a.dir, "net.yaml")
	a.must(os.WriteFile(file, []byte(pairInventory(policy)), 0o644))
	out, said, got := a.exits(i, &syscall.Credential{Uid: nobody, Gid: nobody}, a.binary,
		"audit", "--inventory", file, "--node", a.routers[i].Name, "-o", "json")
	var r struct {
		Links []struct {
			Checks []audit.Check `json:"checks"`
		} `json:"links"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Links) != 1 {
		a.Fatalf("the audit says %q and %q: %v", out, said, err)
	}
	if got != status {
		a.Errorf("lever audit exits with %d, want %d: %s\n%s", got, status, said, out)
	}
	return r.Links[0].Checks
}

// The evidence comes from the kernel alone: the agents have gone, and whatever
// somebody changes is found by the check that is named for it.
func TestAudit(t *testing.T) {
	s := newPair(t)
	s.deliver(1, "ab")
	s.start()
	s.secured()
	s.stop()
	for i := range s.routers {
		s.must(os.RemoveAll(s.routers[i].Path(lab.RunDir)))
		s.must(os.MkdirAll(s.routers[i].Path(lab.RunDir), 0o700))
	}
	a := newAuditor(s)
	passes := func() {
		t.Helper()
		for i := range s.routers {
			for _, c := range a.audit(i, "", 0) {
				// The acceptance tests ping in plain from the parent.
				if c.Result != audit.Pass && c.Name != audit.CheckAddresses {
					t.Errorf("r%d: %s: %s: %s", i+1, c.Name, c.Result, c.Found)
				}
			}
		}
	}
	passes()

	r := s.routers[0]
	k, err := macsec.NewNetNS(int(r.Space.Handle))
	s.must(err)
	defer func() { s.mustNot(k.Close()) }()
	dev, err := k.Device(theDevice)
	s.must(err)
	parent := dev.Parent
	update := func(u macsec.DeviceUpdate) func() error {
		return func() error { return k.UpdateDevice(dev.Index, u) }
	}
	in := func(f func() error) func() error { return func() error { return r.Space.Do(f) } }
	filter := &netlink.MatchAll{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: parent, Parent: netlink.HANDLE_MIN_EGRESS, Priority: 1, Handle: 7, Protocol: unix.ETH_P_ALL},
		Actions:     []netlink.Action{&netlink.GenericAction{ActionAttrs: netlink.ActionAttrs{Action: netlink.TC_ACT_OK}}},
	}
	hooks := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: parent, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	closeFence := func() error {
		_, err := fence.Close(parent, fence.Options{})
		return err
	}
	vlan := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "up0.7", ParentIndex: parent}, VlanId: 7}
	// So that nothing gets out by what is opened here.
	s.must(r.Space.Links.LinkSetDown(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: parent}}))
	found := func(all []audit.Check) []audit.Check {
		return slices.DeleteFunc(all, func(c audit.Check) bool {
			return c.Result == audit.Pass || c.Result == audit.Warn && c.Name != audit.CheckStacked
		})
	}
	for _, tt := range []struct {
		name     string
		do, undo func() error
		policy   string
		status   int
		want     []string
	}{
		{"fence removed", in(func() error { return fence.Open(parent) }), in(closeFence), "", 1, []string{audit.CheckFence}},
		{"encrypt off", update(macsec.DeviceUpdate{Encrypt: new(false)}), update(macsec.DeviceUpdate{Encrypt: new(true)}), "", 1, []string{audit.CheckEncrypt}},
		{"protect off", update(macsec.DeviceUpdate{Protect: new(false)}), update(macsec.DeviceUpdate{Protect: new(true)}), "", 1, []string{audit.CheckProtect}},
		{"validate disabled", update(macsec.DeviceUpdate{Validate: new(macsec.Disabled)}), update(macsec.DeviceUpdate{Validate: new(macsec.Strict)}), "", 1, []string{audit.CheckValidate}},
		{"foreign filter in the fence's place", in(func() error {
			// Its qdisc goes with the fence.
			return errors.Join(fence.Open(parent), netlink.QdiscAdd(hooks), netlink.FilterAdd(filter))
		}), in(closeFence), "", 1, []string{audit.CheckFence, audit.CheckForeignFilter}},
		{"mode monitor", nil, nil, "mode: monitor", 1, []string{audit.CheckMode}},
		{"another cipher", nil, nil, "cipher: gcm-aes-256", 1, []string{audit.CheckCipher}},
		{"a VLAN", func() error { return r.Space.Links.LinkAdd(vlan) }, func() error { return r.Space.Links.LinkDel(vlan) }, "", 0, []string{audit.CheckStacked}},
		{"a second device", func() error {
			cfg := macsec.DeviceConfig{SCI: macsec.NewSCI(net.HardwareAddr{2, 9, 9, 9, 9, 9}, 1), IncludeSCI: true}
			_, err := k.CreateDevice(parent, "evil0", cfg)
			return err
		}, func() error {
			evil, err := k.Device("evil0")
			if err != nil {
				return err
			}
			return k.DeleteDevice(evil.Index)
		}, "", 1, []string{audit.CheckForeignMACsec}},
		{"device deleted", func() error { return k.DeleteDevice(dev.Index) }, nil, "", 1, []string{audit.CheckDevice}},
	} {
		t.Logf("%s", tt.name)
		if tt.do != nil {
			s.must(tt.do())
		}
		var got []string
		for _, c := range found(a.audit(0, tt.policy, tt.status)) {
			got = append(got, c.Name)
			t.Logf("  %s: %s: %s", c.Result, c.Name, c.Found)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: found by %q, want %q", tt.name, got, tt.want)
		}
		if tt.undo != nil {
			s.must(tt.undo())
			if left := found(a.audit(0, "", 0)); len(left) != 0 {
				t.Errorf("%s: undone, and %+v", tt.name, left)
			}
		}
	}
}

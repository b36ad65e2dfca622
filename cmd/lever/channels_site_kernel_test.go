//go:build kernel

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/lever-link/lever/internal/lab"
)

// etcdProgram names the file of etcdcluster, which make builds.
const etcdProgram = "LEVER_ETCD"

// A fleet is some routers whose keys come over two real channels: bundles in a
// directory, and a cluster of etcd on a network of its own. Each channel has its own
// issuer, and neither of them knows of the other.
type fleet struct {
	*site
	etcd    *lab.Etcd
	office  *lab.Netspace // where etcd and its issuer are
	bundles string        // what the issuer of channel a writes
	source  string        // and where the nodes find it
	issuerA *lab.Issuer
	issuerB *lab.Issuer
	// rootArgs are what root's commands on channel b need.
	rootArgs []string
}

// oneFleet is held by the fleet that there is: two clusters of etcd at a time are more
// than a guest has memory for.
var oneFleet sync.Mutex

// theOffice is where the members of etcd are, and each router's way there.
const (
	theOffice  = "198.51.100."
	officePort = "mg0"
)

// newFleet makes routers r1, r2, … with links between r1 and each of the others, on
// r1's up0, up1, …, issuers and cluster, everything but the agents started. This
// process has a way into the office, too.
func newFleet(t *testing.T, routers int, policy string) *fleet {
	t.Helper()
	program := os.Getenv(etcdProgram)
	if program == "" {
		t.Fatalf("%s does not name the file of etcdcluster: run this test by make", etcdProgram)
	}
	oneFleet.Lock()
	t.Cleanup(oneFleet.Unlock)
	siteNames.Lock()
	siteNames.n++
	prefix := fmt.Sprintf("acc%d-", siteNames.n)
	siteNames.Unlock()
	s := &site{T: t, dir: t.TempDir()}
	f := &fleet{site: s, bundles: filepath.Join(s.dir, "bundles"), source: filepath.Join(s.dir, "source")}
	s.must(os.Symlink(f.bundles, f.source))
	binary, err := leverFile()
	s.must(err)
	space := func(name string) *lab.Netspace {
		ns, err := lab.NewNetspace(prefix + name)
		s.must(err)
		t.Cleanup(func() { s.mustNot(ns.Close(true)) })
		return ns
	}
	f.office = space("office")
	var spaces []*lab.Netspace
	for i := range routers {
		spaces = append(spaces, space(fmt.Sprintf("r%d", i+1)))
	}
	for i := 1; i < routers; i++ {
		s.must(lab.Wire(spaces[0], fmt.Sprintf("up%d", i-1), spaces[i], theParent))
	}
	here, err := lab.Here()
	s.must(err)
	t.Cleanup(func() { s.mustNot(here.Close(false)) })
	desks := append(slices.Clone(spaces), here)
	s.must(lab.Bridge(f.office, desks, officePort))
	t.Cleanup(func() { s.mustNot(here.Unplug(officePort)) })
	for i, ns := range desks {
		f.officeAddress(ns, officePort, 101+i)
	}
	for n := 10; n <= 12; n++ {
		f.officeAddress(f.office, "br0", n)
	}

	etcdDir := filepath.Join(s.dir, "etcd")
	s.must(os.MkdirAll(etcdDir, 0o700))
	f.etcd, err = lab.StartEtcd(f.office, program, etcdDir, theOffice+"10,"+theOffice+"11,"+theOffice+"12")
	s.must(err)
	t.Cleanup(func() { s.mustNot(f.etcd.Close()) })
	issuer := f.certificate("issuer-b", filepath.Join(s.dir, "issuer-b"))
	f.rootArgs = []string{"--channel", "b", "--inventory", f.inventoryFile(), "--certificate", f.etcd.RootCert, "--key", f.etcd.RootKey}

	signer := strings.TrimSpace(f.run("keys", "init", "--issuer", filepath.Join(s.dir, "issuer-a")))
	s.must(os.WriteFile(f.inventoryFile(), []byte(f.inventory(routers, policy, signer)), 0o600))
	for i := range routers {
		name := fmt.Sprintf("r%d", i+1)
		state := filepath.Join(s.dir, name, lab.StateDir)
		f.run("node", "init", "--state-dir", state)
		recipient := strings.TrimSpace(f.run("node", "show", "--state-dir", state))
		f.run("node", "enrol", "--inventory", f.inventoryFile(), "--node", name, recipient)
		f.certificate(name, filepath.Join(s.dir, name, "tls"))
	}
	text, err := os.ReadFile(f.inventoryFile())
	s.must(err)
	for i := range routers {
		name := fmt.Sprintf("r%d", i+1)
		// Each has its own certificate in the place that the inventory names.
		mine := strings.ReplaceAll(string(text), f.path("tls"), filepath.Join(s.dir, name, "tls"))
		r, err := lab.NewRouter(name, filepath.Join(s.dir, name), binary, []byte(mine), spaces[i])
		s.must(err)
		s.routers = append(s.routers, r)
		t.Cleanup(func() {
			s.mustNot(r.Close(false))
			if t.Failed() {
				t.Logf("the last lines of %s:\n%s", name, strings.Join(r.LastLines(25), "\n"))
			}
		})
	}
	s.ends = []lab.SecuredEnd{{Router: s.routers[0], Device: theDevice}, {Router: s.routers[1], Device: theDevice}}
	s.address(0, 1)
	s.address(1, 0)

	f.root("grant", "--issuer-name", "issuer-b")
	f.issuerA = f.startIssuer("a", binary, "--issuer", filepath.Join(s.dir, "issuer-a"), "--out", f.bundles)
	f.issuerB = f.startIssuer("b", binary, "--certificate", issuer.Certificate, "--key", issuer.Key)
	s.capture(nil)
	t.Cleanup(func() {
		s.mustNot(s.wire.Stop())
		s.nothingPlain()
	})
	return f
}

func (f *fleet) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fleet) inventoryFile() string { return f.path("net.yaml") }

// inventory is what issuers and routers have.
func (f *fleet) inventory(routers int, policy, signer string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: lever/v1
policy: {%s}
channels:
  a: {type: bundle, path: %s, signers: ["%s"]}
  b:
    type: etcd
    endpoints: ["%s"]
    ca: %s
    certificate: %s
    key: %s
sites:
  s1: {custody: controlled-building}
nodes:
`, policy, f.source, signer, strings.Join(f.etcd.Endpoints, `", "`), f.etcd.CA, f.path("tls/node.crt"), f.path("tls/node.key"))
	for i := range routers {
		fmt.Fprintf(&b, "  r%d: {site: s1}\n", i+1)
	}
	b.WriteString("links:\n")
	for i := 1; i < routers; i++ {
		fmt.Fprintf(&b, `  - id: link-%d
    a: {node: r1, interface: up%d, addresses: [10.0.%d.1/24]}
    z: {node: r%d, interface: up0, addresses: [10.0.%d.2/24]}
    segments: [{custody: leased-wave}]
`, i, i-1, 16+i, i+1, 16+i)
	}
	return b.String()
}

// officeAddress gives an interface an address in the office.
func (f *fleet) officeAddress(ns *lab.Netspace, iface string, n int) {
	f.Helper()
	l, err := ns.Links.LinkByName(iface)
	f.must(err)
	addr := &net.IPNet{IP: net.IPv4(198, 51, 100, byte(n)), Mask: net.CIDRMask(24, 32)}
	f.must(ns.Links.AddrAdd(l, &netlink.Addr{IPNet: addr}))
}

// certificate makes one for etcd, as node.crt and node.key in a directory.
func (f *fleet) certificate(name, dir string) lab.EtcdAnswer {
	f.Helper()
	s := f.site
	s.must(os.MkdirAll(dir, 0o700))
	a, err := f.etcd.Do(map[string]any{"do": "cert", "name": name, "seconds": 7200})
	s.must(err)
	for _, x := range []struct {
		from string
		to   *string
		name string
	}{{a.Certificate, &a.Certificate, "node.crt"}, {a.Key, &a.Key, "node.key"}} {
		text, err := os.ReadFile(x.from)
		s.must(err)
		*x.to = filepath.Join(dir, x.name)
		s.must(os.WriteFile(*x.to+".new", text, 0o600))
		s.must(os.Rename(*x.to+".new", *x.to))
	}
	return a
}

// run runs a verb where the issuers are.
func (f *fleet) run(args ...string) string {
	f.Helper()
	binary, err := leverFile()
	f.must(err)
	out, err := lab.RunLeverIn(f.ctx(), f.office, binary, args...)
	f.must(err)
	return string(out)
}

// root runs lever keys on channel b with root's certificate.
func (f *fleet) root(verb string, args ...string) string {
	f.Helper()
	return f.run(append(append([]string{"keys", verb}, f.rootArgs...), args...)...)
}

func (f *fleet) startIssuer(channel, binary string, args ...string) *lab.Issuer {
	f.Helper()
	i := lab.NewIssuer("the issuer of channel "+channel, f.office, binary, f.path("issuer-"+channel+".log"),
		append([]string{"--channel", channel, "--inventory", f.inventoryFile()}, args...)...)
	f.must(i.Start())
	f.Cleanup(func() {
		f.mustNot(i.Kill())
		if f.Failed() {
			f.Logf("the last lines of issuer %s:\n%s", channel, strings.Join(i.LastLines(10), "\n"))
		}
	})
	return i
}

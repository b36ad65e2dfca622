// Package audit proves from the kernel and the inventory alone that the links of
// a node which must be encrypted are closed to plain frames, or shows where they
// are not.
//
// What belongs here: what is looked at, the checks that are made of it, and the
// evidence for each. What does not: anything of the agent's (its run directory,
// its memory, its word), for it is what is being audited; repairing what is
// found; printing. Nothing here changes the kernel, and nothing needs a privilege
// but to see programs of tcx, from Linux 6.6 on.
package audit

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec"
)

// Result is what came of a check, or of all checks of a link.
type Result string

// The results. Of several the worst counts, in the order fail, unknown, warn,
// pass.
const (
	// Pass: it is as it must be.
	Pass Result = "pass"
	// Warn: nothing can leak by it, but it is not as Lever leaves it.
	Warn Result = "warn"
	// Fail: frames could pass in plain, or less protected than the inventory
	// demands, if nothing else stopped them.
	Fail Result = "fail"
	// Unknown: it could not be read.
	Unknown Result = "unknown"
	// LeftAlone: the verdict of the link is not to encrypt it.
	LeftAlone Result = "left-alone"
)

// rank of a result among several.
func (r Result) rank() int {
	switch r {
	case Fail:
		return 4
	case Unknown:
		return 3
	case Warn:
		return 2
	case Pass:
		return 1
	case LeftAlone:
	}
	return 0
}

// The names of the checks. They are an interface: programs match on them.
const (
	CheckMode          = "mode"           // the policy is to enforce
	CheckParent        = "parent"         // the interface is there, and no port of another
	CheckXDP           = "xdp"            // no program comes before the fence
	CheckTCX           = "tcx"            // nor one of those that take frames out of its way
	CheckFence         = "fence"          // the filters are in place
	CheckForeignFilter = "foreign-filter" // and nobody else's come before them
	CheckDevice        = "device"         // the MACsec device is there, on this interface
	CheckCipher        = "cipher"         // with the cipher suite of the inventory
	CheckEncrypt       = "encrypt"        // confidentiality, not integrity alone
	CheckProtect       = "protect"        // what it sends carries MACsec
	CheckValidate      = "validate"       // what does not verify is dropped
	CheckReplay        = "replay"         // and so is what was seen before
	CheckSCI           = "sci"            // each frame names its sender
	CheckTransmitSA    = "transmit-sa"    // one key to send with
	CheckReceiveSA     = "receive-sa"     // somebody to receive from with it
	CheckForeignMACsec = "foreign-macsec" // no other MACsec device, whose frames would pass the fence
	CheckStacked       = "stacked"        // nothing else on the interface that expects to send
	CheckAddresses     = "addresses"      // no address that plain traffic would use
)

// A Check is one thing that was looked at.
type Check struct {
	Name   string `json:"check"`
	Result Result `json:"result"`
	Found  string `json:"found"`
	// Next is what to do about it; empty when it passed.
	Next string `json:"next,omitempty"`
}

// A Link is the evidence for one link.
type Link struct {
	ID              string `json:"id"`
	Interface       string `json:"interface"`
	SecureInterface string `json:"secure_interface,omitempty"`
	inventory.Verdict
	Result Result  `json:"result"`
	Checks []Check `json:"checks"`
}

// Report is the evidence for a node.
type Report struct {
	Node   string    `json:"node"`
	At     time.Time `json:"at"`
	Result Result    `json:"result"`
	Links  []Link    `json:"links"`
}

// An Interface is one of the network interfaces in the namespace.
type Interface struct {
	Index   int
	Name    string
	Others  []string // names that it has besides (ip link property add … altname)
	Kind    string   // such as vlan; empty for hardware
	Up      bool     // administratively
	Running bool     // and it has a carrier
	Master  int      // what it is a port of, by index
	Lower   int      // what it sits on, by index, if that is in this namespace
	XDP     bool     // a program is attached
}

// Host is the node as it is read. On the real one SecYs answers with
// macsec.ErrUnsupported where the kernel has no MACsec, which is a finding.
type Host interface {
	Interfaces() ([]Interface, error)
	SecYs() ([]macsec.SecY, error)
	Fence(index int, opts fence.Options) (fence.State, error)
	// TCX is how many programs of tcx an interface has; none on a kernel without tcx.
	TCX(index int) (int, error)
	Addresses(index int) ([]netip.Prefix, error)
}

// Node audits the links of a node. It fails only when the inventory has no such
// node, or nothing of the host can be read; what can not be read of one link is
// a check with the result Unknown.
func Node(inv *inventory.Inventory, name string, host Host, now time.Time) (*Report, error) {
	links, err := inv.ForNode(name)
	if err != nil {
		return nil, err
	}
	interfaces, err := host.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("audit %s: list the interfaces: %w", name, err)
	}
	a := auditor{host: host, policy: inv.Policy, interfaces: interfaces}
	a.secys, a.secysErr = host.SecYs()
	report := &Report{Node: name, At: now, Result: Pass, Links: []Link{}}
	for _, l := range links {
		found := Link{
			ID: l.ID, Interface: l.Local.Interface, Verdict: l.VerdictAt(inv.Policy, now),
			Result: LeftAlone, Checks: []Check{},
		}
		if found.Kind == inventory.Encrypt {
			found.SecureInterface = l.Local.Secure
			found.Checks = a.link(l)
			found.Result = worst(found.Checks)
		}
		if found.Result.rank() > report.Result.rank() {
			report.Result = found.Result
		}
		report.Links = append(report.Links, found)
	}
	return report, nil
}

func worst(checks []Check) Result {
	return slices.MaxFunc(checks, func(a, b Check) int { return a.Result.rank() - b.Result.rank() }).Result
}

// With are the checks of a link that came to r.
func (l *Link) With(r Result) []Check {
	return slices.DeleteFunc(slices.Clone(l.Checks), func(c Check) bool { return c.Result != r })
}

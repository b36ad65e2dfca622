package audit

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec"
)

// auditor has what was read of the host once for all links.
type auditor struct {
	host       Host
	policy     inventory.Policy
	interfaces []Interface
	secys      []macsec.SecY
	secysErr   error
}

// inspection collects the checks of one link.
type inspection struct {
	*auditor
	link   inventory.NodeLink
	parent Interface
	checks []Check
}

func (i *inspection) note(name string, r Result, next, format string, args ...any) {
	c := Check{Name: name, Result: r, Found: fmt.Sprintf(format, args...)}
	if r != Pass {
		c.Next = next
	}
	i.checks = append(i.checks, c)
}

// expect is a check that passes or has the result r.
func (i *inspection) expect(name string, ok bool, r Result, next, format string, args ...any) {
	if ok {
		r = Pass
	}
	i.note(name, r, next, format, args...)
}

// link makes all checks that what is there allows.
func (a *auditor) link(l inventory.NodeLink) []Check {
	i := &inspection{auditor: a, link: l}
	i.expect(CheckMode, a.policy.Mode == inventory.Enforce, Fail,
		"set policy mode enforce in the inventory, when every link of this node is secured",
		"the inventory's policy says mode %v", a.policy.Mode)
	if !i.checkParent() {
		return i.checks
	}
	i.expect(CheckXDP, !i.parent.XDP, Fail,
		fmt.Sprintf("find out what attached it (bpftool net), and take it off (ip link set %s xdp off): it may send and receive past the fence", i.parent.Name),
		"%s", map[bool]string{false: "no XDP program is attached", true: "an XDP program is attached, which the kernel runs before the fence"}[i.parent.XDP])
	i.checkTCX()
	i.checkFence()
	i.checkMACsec()
	i.checkStacked()
	i.checkAddresses()
	return i.checks
}

// checkParent finds the parent, or says that there is none: whatever carries
// the link then is not what the inventory names, and nothing is known of it.
func (i *inspection) checkParent() bool {
	name := i.link.Local.Interface
	at := slices.IndexFunc(i.interfaces, func(x Interface) bool { return x.Name == name })
	if at < 0 { // the kernel, and so the agent, finds it by any of its names
		at = slices.IndexFunc(i.interfaces, func(x Interface) bool { return slices.Contains(x.Others, name) })
	}
	if at < 0 {
		i.note(CheckParent, Fail, "correct the interface's name in the inventory, or audit in the network namespace that has it: what carries this link is not looked after",
			"there is no interface %s here", name)
		return false
	}
	i.parent = i.interfaces[at]
	switch p := i.parent; {
	case len(i.ports()) > 0:
		i.note(CheckParent, Fail, "have the link at its port instead, and put the MACsec device where the port was: what a port forwards or sends by itself is plain, and comes past the fence",
			"%s has ports of its own, which send past its fence: %s", name, strings.Join(i.ports(), ", "))
	case i.enslaved():
		i.note(CheckParent, Fail, fmt.Sprintf("take %s out of %s, and put its MACsec device %s in instead", name, i.name(p.Master), i.link.Local.Secure),
			"%s is a port of %s", name, i.name(p.Master))
	case !p.Up:
		i.note(CheckParent, Warn, fmt.Sprintf("look why it is down: an agent that cannot close the fence holds it down (ip link show %s)", name),
			"%s is down: nothing passes at the moment", name)
	case !p.Running:
		i.note(CheckParent, Warn, "look at the cable and the far end", "%s is up and has no carrier", name)
	default:
		i.note(CheckParent, Pass, "", "%s is up, and a port of no other interface", name)
	}
	return true
}

// ports are those of the parent, such as of a bridge or bond: frames come and go by them
// that the parent never sees.
func (i *inspection) ports() (names []string) {
	for _, x := range i.interfaces {
		if x.Master == i.parent.Index {
			names = append(names, x.Name)
		}
	}
	return names
}

// enslaved tells whether another interface takes the parent's frames. A VRF is about
// routes and takes none.
func (i *inspection) enslaved() bool {
	master := i.parent.Master
	return master != 0 && !slices.ContainsFunc(i.interfaces, func(x Interface) bool { return x.Index == master && x.Kind == "vrf" })
}

// checkTCX looks for programs that the kernel asks before the fence, and whose pass is
// the last word (tcx_run).
func (i *inspection) checkTCX() {
	n, err := i.host.TCX(i.parent.Index)
	if err != nil {
		i.note(CheckTCX, Unknown, "run the audit with CAP_NET_ADMIN: from Linux 6.6 on a program of tcx may send and receive past the fence, and only an administrator sees them",
			"the programs of tcx on %s cannot be read: %v", i.parent.Name, err)
		return
	}
	i.expect(CheckTCX, n == 0, Fail,
		fmt.Sprintf("find out what attached them (bpftool net), and take them off or attach them by tc behind the fence: they may send and receive past the fence on %s", i.parent.Name),
		"programs attached by tcx, which the kernel runs before the fence: %d", n)
}

func (i *inspection) name(index int) string {
	if at := slices.IndexFunc(i.interfaces, func(x Interface) bool { return x.Index == index }); at >= 0 {
		return i.interfaces[at].Name
	}
	if index == 0 {
		return "an interface of another network namespace"
	}
	return fmt.Sprintf("interface %d", index)
}

func (i *inspection) checkFence() {
	opts := fenceOptions(i.link)
	st, err := i.host.Fence(i.parent.Index, opts)
	if err != nil {
		i.note(CheckFence, Unknown, "see what the message says; the filters are read by rtnetlink, which needs no privilege", "the filters of %s cannot be read: %v", i.parent.Name, err)
		return
	}
	dropped := fmt.Sprintf("dropped since it was closed: %d frames (%d octets) out, %d (%d) in",
		st.DroppedEgress.Frames, st.DroppedEgress.Octets, st.DroppedIngress.Frames, st.DroppedIngress.Octets)
	var wrong, weak, foreign []string
	for _, f := range st.Findings {
		switch {
		case f.Problem == fence.Foreign:
			foreign = append(foreign, f.String())
		case f.Problem == fence.Weak:
			weak = append(weak, f.String())
		default:
			wrong = append(wrong, f.String())
		}
	}
	const repair = "run lever agent, which closes it; if it runs, lever status says what stands in its way"
	switch {
	case !st.Closed:
		i.note(CheckFence, Fail, repair, "%s", either(strings.Join(wrong, "; "), "it is open"))
	case len(wrong) > 0 && len(weak) == 0:
		i.note(CheckFence, Warn, repair, "it is closed, and not as the agent leaves it: %s; %s", strings.Join(wrong, "; "), dropped)
	case len(wrong)+len(weak) > 0:
		i.note(CheckFence, Warn, "run a kernel with cls_bpf, and restart the agent", "it is closed by EtherTypes alone: %s; %s",
			strings.Join(append(wrong, weak...), "; "), dropped)
	default:
		i.note(CheckFence, Pass, "", "%s pass, all else is dropped, out and in; %s", passes(opts), dropped)
	}
	if len(foreign) == 0 {
		i.note(CheckForeignFilter, Pass, "", "no other filter can let a frame past the fence")
		return
	}
	i.note(CheckForeignFilter, Fail, fmt.Sprintf("remove it, or move it behind the fence (tc filter show dev %s egress, and ingress)", i.parent.Name),
		"%s", strings.Join(foreign, "; "))
}

// passes names what a fence lets through.
func passes(o fence.Options) string {
	if o.Allow == 0 {
		return "MACsec and MKA"
	}
	return fmt.Sprintf("MACsec and MKA, and by the inventory's word %s in plain,", o.Allow)
}

// fenceOptions are those that the agent closes the fence of this link with.
func fenceOptions(l inventory.NodeLink) fence.Options {
	o := fence.Options{EtherType: l.MKA.EtherType}
	for _, p := range l.Allow {
		switch p {
		case inventory.LLDP:
			o.Allow |= fence.LLDP
		case inventory.LACP:
			o.Allow |= fence.LACP
		case inventory.Pause:
			o.Allow |= fence.Pause
		}
	}
	return o
}

// checkStacked looks for others that send through the parent. The fence stops
// them, and that is a sign of traffic that somebody expects to pass in plain.
func (i *inspection) checkStacked() {
	var found []string
	for _, x := range i.interfaces {
		if x.Lower == i.parent.Index && x.Kind != "macsec" && x.Kind != "veth" {
			found = append(found, fmt.Sprintf("%s (%s)", x.Name, x.Kind))
		}
	}
	i.expect(CheckStacked, len(found) == 0, Warn,
		fmt.Sprintf("put them on %s instead: what they send on %s is plain, and the fence drops it", i.link.Local.Secure, i.parent.Name),
		"%s", either(strings.Join(found, ", "), "nothing but MACsec sits on "+i.parent.Name))
}

func (i *inspection) checkAddresses() {
	all, err := i.host.Addresses(i.parent.Index)
	if err != nil {
		i.note(CheckAddresses, Unknown, "see what the message says", "the addresses of %s cannot be read: %v", i.parent.Name, err)
		return
	}
	var found []string
	for _, p := range all {
		if !p.Addr().IsLinkLocalUnicast() || p.Addr().Is4() { // the kernel gives each interface one of IPv6
			found = append(found, p.String())
		}
	}
	i.expect(CheckAddresses, len(found) == 0, Warn,
		fmt.Sprintf("move them to %s: what is routed by them leaves %s in plain, and the fence drops it", i.link.Local.Secure, i.parent.Name),
		"%s", either(strings.Join(found, ", "), i.parent.Name+" has no address of its own"))
}

func either(found, none string) string {
	if found == "" {
		return none
	}
	return found
}

// unsupported tells a kernel without MACsec, which has no devices, from one
// that does not answer.
func unsupported(err error) bool { return errors.Is(err, macsec.ErrUnsupported) }

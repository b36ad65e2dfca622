//go:build kernel

package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/macsec"
)

// A drift is something that somebody else changes under a link of a running
// agent.
type drift struct {
	name string
	// inject does it, as an operator or another daemon at a shell would.
	inject func(d *driftEnd) error
	// The status must show one of codes, with these words in it.
	codes []health.Code
	words string
	// spends: the change itself makes the kernel send numbers again, which the
	// ledger would hold against Lever.
	spends bool
	// opens: the change itself opens the fence, until that is closed again.
	opens bool
}

// A driftEnd is the router at which it happens, with what it had before.
type driftEnd struct {
	*site
	i   int
	sec *macsec.SecY
}

func (s *site) driftEnd(i int) *driftEnd {
	s.Helper()
	v, err := s.routers[i].SecY(theDevice)
	s.must(err)
	return &driftEnd{s, i, v}
}

// passAll is a program of classic BPF that matches every frame. It has spaces, and
// so stands as PASSALL in the commands.
const passAll = "1,6 0 0 4294967295,"

// sh runs commands, one a line, at the router.
func (d *driftEnd) sh(lines string) error {
	for line := range strings.Lines(lines) {
		words := strings.Fields(line)
		if i := slices.Index(words, "PASSALL"); i >= 0 {
			words[i] = passAll
		}
		if _, err := d.routers[d.i].Space.Run(d.ctx(), words...); err != nil {
			return err
		}
	}
	return nil
}

// shf is sh with words filled in.
func shf(format string, words func(d *driftEnd) []any) func(d *driftEnd) error {
	return func(d *driftEnd) error { return d.sh(fmt.Sprintf(format, words(d)...)) }
}

// sh is a drift that is the same commands at all times.
func sh(lines string) func(d *driftEnd) error {
	return func(d *driftEnd) error { return d.sh(lines) }
}

// an is the encoding AN, as a word.
func an(d *driftEnd) []any { return []any{d.sec.EncodingAN} }

// freeAN is one that no transmit SA has.
func (d *driftEnd) freeAN() macsec.AN {
	return macsec.AN(slices.IndexFunc([]macsec.AN{0, 1, 2, 3}, func(an macsec.AN) bool { return d.sec.TxSC.SA(an) == nil }))
}

// peer is the SCI of the far end and the AN that it encodes with.
func peer(d *driftEnd) []any {
	rx := d.sec.RxSCs[0]
	return []any{fmt.Sprintf("%x", rx.SCI[:]), d.sec.EncodingAN}
}

// foreignKey names a key that is nobody's.
const foreignKey = "f00dfeedf00dfeedf00dfeedf00dfeed"

// foreignSCI is nobody's.
var foreignSCI = macsec.SCI{2, 0, 0, 0, 0, 0x66, 0, 1}

// foreignSA is how ip names an XPN association with a key of somebody else.
const foreignSA = "xpn 1 salt 0102030405060708090a0b0c ssci 77 on key " + foreignKey +
	" 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

var (
	secYDrift   = []health.Code{health.SecYDrift}
	fenceDrift  = []health.Code{health.FenceDrift, health.FenceForeign, health.FenceMissing}
	parentDrift = []health.Code{health.ParentDrift, health.ParentDown, health.ParentMissing}
)

// drifts are all of them. Each trial takes them in this order, some at a time.
var drifts = []drift{
	// Associations.
	{name: "transmit SA deleted", codes: secYDrift, words: "transmit SA gone",
		inject: direct(func(d *driftEnd, k *macsec.Client) error {
			return errors.Join(k.UpdateTxSA(d.sec.Index, d.sec.EncodingAN, macsec.SAUpdate{Active: new(false)}), k.DeleteTxSA(d.sec.Index, d.sec.EncodingAN))
		})},
	{name: "transmit SA deactivated", codes: secYDrift, words: "transmit SA",
		inject: shf("ip macsec set "+theDevice+" tx sa %d off", an)},
	{name: "encoding SA switched", codes: secYDrift, words: "encoding SA",
		inject: shf("ip link set "+theDevice+" type macsec encodingsa %d", func(d *driftEnd) []any { return []any{(d.sec.EncodingAN + 2) % 4} })},
	{name: "foreign transmit SA added", codes: secYDrift, words: "foreign transmit SA",
		inject: shf("ip macsec add "+theDevice+" tx sa %d "+foreignSA, func(d *driftEnd) []any { return []any{d.freeAN()} })},
	{name: "receive SA deleted", codes: secYDrift, words: "receive SA gone",
		inject: direct(func(d *driftEnd, k *macsec.Client) error {
			sci := d.sec.RxSCs[0].SCI
			return errors.Join(k.UpdateRxSA(d.sec.Index, sci, d.sec.EncodingAN, macsec.SAUpdate{Active: new(false)}), k.DeleteRxSA(d.sec.Index, sci, d.sec.EncodingAN))
		})},
	{name: "receive SA deactivated", codes: secYDrift, words: "receive SA disabled",
		inject: shf("ip macsec set "+theDevice+" rx sci %s sa %d off", peer)},
	{name: "receive SC deleted", codes: secYDrift, words: "receive SA gone",
		inject: shf("ip macsec del "+theDevice+" rx sci %s", func(d *driftEnd) []any { return peer(d)[:1] })},
	{name: "foreign receive SC and SA added", codes: secYDrift, words: "foreign receive SC",
		inject: direct(func(d *driftEnd, k *macsec.Client) error {
			if err := k.AddRxSC(d.sec.Index, foreignSCI, true); err != nil {
				return err
			}
			err := k.AddRxSA(d.sec.Index, foreignSCI, macsec.SA{AN: 1, Active: true, NextPN: 1, KeyID: macsec.KeyID(bytes.Repeat([]byte{0xf0, 0x0d, 0xfe, 0xed}, 4)), Key: macsec.NewKey(make([]byte, 32)), SSCI: 77})
			if errors.Is(err, macsec.ErrNotExist) {
				return nil // the agent was quicker, and has removed the channel
			}
			return err
		})},
	{name: "foreign receive SA of the peer added", codes: secYDrift, words: "foreign receive SA",
		inject: shf("ip macsec add "+theDevice+" rx sci %s sa %d "+foreignSA, func(d *driftEnd) []any { return []any{peer(d)[0], d.freeAN()} })},
	{name: "transmit packet number set back", codes: secYDrift, words: "packet number set back", spends: true,
		inject: shf("ip macsec set "+theDevice+" tx sa %d xpn 1", an)},
	{name: "transmit packet number set forward", codes: nil,
		inject: shf("ip macsec set "+theDevice+" tx sa %d xpn %d", func(d *driftEnd) []any {
			return []any{d.sec.EncodingAN, d.sec.TxSC.SA(d.sec.EncodingAN).NextPN + 100_000}
		})},
	{name: "receive packet number set back", codes: secYDrift, words: "packet number",
		inject: shf("ip macsec set "+theDevice+" rx sci %s sa %d xpn 1", peer)},
	{name: "receive packet number set forward", codes: secYDrift, words: "packet number",
		inject: shf("ip macsec set "+theDevice+" rx sci %s sa %d xpn 1000000000", peer)},

	// The device.
	{name: "encrypt off", codes: secYDrift, words: "encrypt off", inject: sh("ip link set " + theDevice + " type macsec encrypt off")},
	{name: "protect off", codes: secYDrift, words: "protect off", inject: sh("ip link set " + theDevice + " type macsec protect off")},
	{name: "validate disabled", codes: secYDrift, words: "validate disabled", inject: sh("ip link set " + theDevice + " type macsec validate disabled")},
	{name: "validate check", codes: secYDrift, words: "validate check", inject: sh("ip link set " + theDevice + " type macsec validate check")},
	{name: "replay protection off", codes: secYDrift, words: "replay protection",
		inject: direct(func(d *driftEnd, k *macsec.Client) error {
			return k.UpdateDevice(d.sec.Index, macsec.DeviceUpdate{ReplayProtect: new(false), ReplayWindow: new(uint32(0))})
		})},
	{name: "replay window changed", codes: secYDrift, words: "replay protection", inject: sh("ip link set " + theDevice + " type macsec replay on window 1000")},
	{name: "SCI not sent", codes: secYDrift, words: "SCI not sent", inject: sh("ip link set " + theDevice + " type macsec send_sci off")},
	{name: "device set down", codes: secYDrift, words: "device set down", inject: sh("ip link set " + theDevice + " down")},
	{name: "device MTU changed", codes: secYDrift, words: "MTU", inject: sh("ip link set " + theDevice + " mtu 1200")},
	{name: "device renamed", codes: secYDrift, words: "device renamed",
		inject: renamed},
	{name: "device alias changed", codes: secYDrift, words: "alias changed", inject: sh("ip link set " + theDevice + " alias uplink")},
	{name: "device deleted", codes: secYDrift, words: "device deleted", inject: sh("ip link del " + theDevice)},
	{name: "addresses removed", codes: secYDrift, words: "address", inject: sh("ip addr flush dev " + theDevice)},

	// The fence.
	{name: "fence filter at egress deleted", codes: fenceDrift, opens: true, words: "egress", inject: gateDeleted("egress")},
	{name: "fence filter at ingress deleted", codes: fenceDrift, words: "ingress", inject: gateDeleted("ingress")},
	{name: "all filters deleted", codes: fenceDrift, opens: true, inject: sh("tc filter del dev " + theParent + " egress\ntc filter del dev " + theParent + " ingress")},
	{name: "clsact deleted", codes: fenceDrift, opens: true, inject: sh("tc qdisc del dev " + theParent + " clsact")},
	{name: "foreign filter that passes, in front", codes: fenceDrift, opens: true, inject: sh("tc filter add dev " + theParent + " egress pref 1 protocol all bpf bytecode PASSALL action pass")},
	{name: "foreign filter that passes, of a priority that the kernel chose", codes: nil, inject: sh("tc filter add dev " + theParent + " egress protocol all matchall action pass")},
	{name: "fence filter replaced", codes: fenceDrift, opens: true, inject: gateReplaced("egress")},

	// The parent.
	{name: "parent MTU lowered and put back", codes: parentDrift, words: "MTU",
		inject: pausing("ip link set "+theParent+" mtu 1300", "ip link set "+theParent+" mtu 1500")},
	{name: "parent MAC changed", codes: parentDrift, words: "address", inject: macChanged},
	{name: "parent down and up", codes: parentDrift, inject: pausing("ip link set "+theParent+" down", "ip link set "+theParent+" up")},
	{name: "parent renamed and back", codes: parentDrift,
		inject: pausing("ip link set "+theParent+" down\nip link set "+theParent+" name else0\nip link set else0 up",
			"ip link set else0 down\nip link set else0 name "+theParent+"\nip link set "+theParent+" up")},
	{name: "parent enslaved to a bridge and freed", codes: append([]health.Code{health.ParentEnslaved}, secYDrift...),
		inject: enslaved},
	{name: "parent deleted and made again", codes: parentDrift, inject: parentReplaced},
}

// pausing is two halves with time between for the first to be seen. The second
// one is done in any case, for it puts back what others go on with.
func pausing(first, second string) func(d *driftEnd) error {
	return func(d *driftEnd) error {
		err := d.sh(first)
		<-time.After(driftPause)
		for line := range strings.Lines(second) {
			if e := d.sh(line); err == nil {
				err = e
			}
		}
		return err
	}
}

// driftPause is for how long a parent is not what it was.
const driftPause = 600 * time.Millisecond

// gate is the first filter of a direction.
func (d *driftEnd) gate(direction string) (*netlink.FilterAttrs, error) {
	hook := map[string]uint32{"egress": netlink.HANDLE_MIN_EGRESS, "ingress": netlink.HANDLE_MIN_INGRESS}[direction]
	filters, err := d.routers[d.i].Space.Links.FilterList(d.parent(d.i), hook)
	if err != nil {
		return nil, err
	}
	for _, f := range filters {
		if f.Attrs().Handle != 0 && f.Type() == "bpf" {
			return f.Attrs(), nil
		}
	}
	return nil, fmt.Errorf("there is no gate among %d filters at %s", len(filters), direction)
}

func gateDeleted(direction string) func(d *driftEnd) error {
	return func(d *driftEnd) error {
		g, err := d.gate(direction)
		if err != nil {
			return err
		}
		return d.sh(fmt.Sprintf("tc filter del dev %s %s pref %d", theParent, direction, g.Priority))
	}
}

// gateReplaced turns the gate into a filter that passes all, at one stroke.
func gateReplaced(direction string) func(d *driftEnd) error {
	return func(d *driftEnd) error {
		g, err := d.gate(direction)
		if err != nil {
			return err
		}
		return d.sh(fmt.Sprintf("tc filter replace dev %s %s pref %d protocol all handle %#x bpf bytecode PASSALL skip_hw action pass", theParent, direction, g.Priority, g.Handle))
	}
}

// renamed gives the device another name, for which it has to be down: the agent
// may be quick to set it up again.
func renamed(d *driftEnd) error {
	links := d.routers[d.i].Space.Links
	dev := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: d.sec.Index}}
	var err error
	for range 100 {
		if err = errors.Join(links.LinkSetDown(dev), links.LinkSetName(dev, "else0")); err == nil {
			break
		}
	}
	// It may have its name back by now, and be up.
	return errors.Join(err, links.LinkSetUp(dev))
}

// macChanged gives the parent another address each time.
func macChanged(d *driftEnd) error {
	mac, err := d.routers[d.i].Space.MAC(theParent)
	if err != nil {
		return err
	}
	return d.sh(fmt.Sprintf("ip link set %s address 02:%02x:00:00:11:%02x", theParent, mac[1]+1, d.i+1))
}

// enslaved takes the device away and makes the parent a port of a bridge, which
// the kernel would refuse as long as the device is there.
func enslaved(d *driftEnd) error {
	links := d.routers[d.i].Space.Links
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	snooping := false
	br := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	if err := links.LinkAdd(br); err != nil {
		return err
	}
	up := d.parent(d.i)
	// The agent makes the device anew as soon as it is gone.
	var err error
	for range 100 {
		if dev, e := links.LinkByName(theDevice); e == nil {
			_ = links.LinkDel(dev)
		}
		if err = links.LinkSetMaster(up, br); err == nil {
			break
		}
	}
	<-time.After(driftPause)
	return errors.Join(err, links.LinkSetNoMaster(up), links.LinkDel(br))
}

// direct is a drift made by the kernel's interface itself, for what has to be done
// at once: between two commands the agent would put the first one right.
func direct(do func(d *driftEnd, k *macsec.Client) error) func(d *driftEnd) error {
	return func(d *driftEnd) error {
		k, err := macsec.NewNetNS(int(d.routers[d.i].Space.Handle))
		if err != nil {
			return err
		}
		return errors.Join(do(d, k), k.Close())
	}
}

// parentReplaced unplugs the wire and plugs another one in, down, as a driver
// leaves a new interface.
func parentReplaced(d *driftEnd) error {
	a, z := d.routers[d.i].Space, d.routers[1-d.i].Space
	if err := d.sh("ip link del " + theParent); err != nil {
		return err
	}
	<-time.After(driftPause)
	if err := lab.WireDown(a, theParent, z, theParent); err != nil {
		return err
	}
	d.capture(nil)
	return nil
}
